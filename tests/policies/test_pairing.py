"""The decode worker of a split request: what is on its way counts, once, and in the end nothing does."""

import pytest

from helpers.errors import InputError
from helpers.policies.pairing import ByReports, OnTheWay, Pairing
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import (
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    HandedOver,
    Rejected,
    WorkerLost,
)
from helpers.workload.request import Request


def prompt(number, tokens=1000):
    return Request(number, 0.0, tokens, 10)


def fleet(*kv_tokens, age_s=0.0):
    """A prefill worker 0, then decode workers that report so many KV tokens."""
    decodes = [view(w, "decode", age_s=age_s, kv_tokens=kv) for w, kv in enumerate(kv_tokens, 1)]
    return Snapshot([view(0, "prefill"), *decodes])


def hear(pairing, event, now=0.0):
    """As the front end tells it."""
    if type(event) in pairing.observes:
        pairing.observe(event, now)


def send(pairing, views, request, now=0.0):
    """Pair a request and dispatch it; returns its decode worker."""
    decision = pairing(views, 0, now)
    hear(pairing, Dispatched(request, decision), now)
    return decision.decode


def coming(pairing, worker, age_s=0.0, now=0.0):
    return pairing.on_the_way.to(view(worker, "decode", age_s=age_s), now)


def test_prompts_of_one_prefill_time_spread_by_hand_and_herd_by_reports_alone():
    """Reports of 1000, 0 and 600 tokens do not change while six prompts are sent, with those on their way in brackets:

    0(0): 2 gets 900 -> 900; 600: 3 gets 900 -> 1500; 900: 2 gets 300 -> 1200; 1000: 1 gets 300 -> 1300;
    1200: 2 gets 300 -> 1500; 1300: 1 gets 300 -> 1600, and then 1500 twice: 2, the lower id
    """
    sizes = (900, 900, 300, 300, 300, 300, 300)
    views = fleet(1000, 0, 600)
    one = Pairing()
    assert [send(one, views, prompt(n, size)) for n, size in enumerate(sizes)] == [2, 3, 2, 1, 2, 1, 2]
    assert [coming(one, w) for w in (1, 2, 3)] == [(2, 600), (4, 1800), (1, 900)]
    herd = ByReports()
    assert [send(herd, views, prompt(n, size)) for n, size in enumerate(sizes)] == [2] * 7
    assert len(herd.on_the_way) == 0


def test_a_request_is_in_the_count_or_in_the_report_and_never_in_both():
    """Dispatched at 0 s, prefilled at 1 s, its KV there at 1.5 s; reports made at 1.4 s and at 1.5 s."""
    one = Pairing()
    send(one, fleet(0, 5000), prompt(1))
    hear(one, FirstToken(prompt(1), 0), 1.0)  # not yet: the KV is still to come
    assert coming(one, 1, now=1.2) == (1, 1000)
    hear(one, HandedOver(prompt(1), 1, 1.5), 1.6)  # heard of a little later
    assert coming(one, 1, age_s=0.3, now=1.7) == (1, 1000)  # a report of 1.4 s cannot show it
    assert coming(one, 1, age_s=0.2, now=1.7) == (0, 0)  # 1.7 - 0.2 is 1.5, but for rounding: this one does
    assert len(one.on_the_way) == 0
    hear(one, Finished(prompt(1), 1), 9.0)
    assert coming(one, 1, now=9.0) == (0, 0)


class StopsAtTheFirstToken(OnTheWay):
    """A control: there is a gap until the KV has arrived and a report shows it."""

    observes = OnTheWay.observes | {FirstToken}

    def observe(self, event, now):
        if type(event) is FirstToken:
            self._forget(event.request.id)
        else:
            OnTheWay.observe(self, event, now)


def test_to_stop_at_the_first_token_leaves_a_gap():
    one = StopsAtTheFirstToken()
    one.observe(Dispatched(prompt(1), Decision(0, 1)), 0.0)
    one.observe(FirstToken(prompt(1), 0), 1.0)
    assert one.to(view(1, "decode"), 1.2) == (0, 0)


ENDS = {
    "its only token was that of the prefill": Finished(prompt(1), 0),
    "turned away when its prefill had ended": Rejected(prompt(1), "no room to decode"),
    "its decode worker is lost": WorkerLost(1),
}


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_whatever_ends_a_request_takes_it_off(end, arrived):
    one = Pairing()
    send(one, fleet(0, 9000), prompt(1))
    send(one, fleet(9000, 0), prompt(2, 700))
    if arrived:
        hear(one, HandedOver(prompt(1), 1, 1.0), 1.0)
    assert coming(one, 1, age_s=5.0, now=2.0) == (1, 1000)
    hear(one, end, 2.0)
    assert coming(one, 1, age_s=5.0, now=2.0) == (0, 0)
    assert coming(one, 2, age_s=5.0, now=2.0) == (1, 700)  # and nobody else


def test_the_loss_of_the_prefill_worker_changes_nothing_until_it_is_sent_again():
    one = Pairing()
    send(one, fleet(0, 9000), prompt(1))
    hear(one, WorkerLost(0), 1.0)
    assert coming(one, 1) == (1, 1000)
    hear(one, Dispatched(prompt(1), Decision(3, 2)), 1.0)
    assert (coming(one, 1), coming(one, 2)) == ((0, 0), (1, 1000))


def test_a_second_try_on_the_same_worker_starts_anew():
    """Its KV had arrived at 1 s, then it failed there and came back at 2 s: that arrival says nothing of this try."""
    one = Pairing()
    send(one, fleet(0, 9000), prompt(1))
    hear(one, HandedOver(prompt(1), 1, 1.0), 1.0)
    hear(one, Dispatched(prompt(1), Decision(0, 1)), 2.0)
    assert coming(one, 1, now=2.5) == (1, 1000)


def test_news_of_strangers_is_passed_over():
    one = Pairing()
    send(one, fleet(0, 9000), prompt(1))
    for event in (
        HandedOver(prompt(7), 1, 1.0),  # another front end's
        HandedOver(prompt(1), 2, 1.0),  # of an earlier try
        Finished(prompt(7), 1),
        Rejected(prompt(7), "late"),
        WorkerLost(9),
    ):
        hear(one, event, 1.0)
    assert coming(one, 1, now=5.0) == (1, 1000) and coming(one, 2, now=5.0) == (0, 0)


def test_mixed_workers_keep_what_they_prefill_and_are_not_counted():
    one, views = Pairing(), Snapshot(view(w) for w in range(3))
    assert one(views, 1, 0.0) == Decision(1, 1)
    hear(one, Dispatched(prompt(1), Decision(1, 1)), 0.0)
    assert len(one.on_the_way) == 0
    both = Snapshot([view(0, "prefill"), view(1, kv_tokens=5), view(2, "decode", kv_tokens=9)])
    assert [send(one, both, prompt(n)) for n in (2, 3)] == [1, 2]


def test_nobody_to_decode_is_one_sentence():
    with pytest.raises(InputError, match="no live worker takes decodes"):
        Pairing()(Snapshot([view(0, "prefill")]), 0, 0.0)


def test_numbers_of_workers_need_no_room_made_for_them():
    one = Pairing()
    hear(one, Dispatched(prompt(1), Decision(0, 70)), 0.0)
    assert coming(one, 70) == (1, 1000) and coming(one, 200) == (0, 0)
