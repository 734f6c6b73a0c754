"""The router by predicted TTFT: its terms by hand, its correction of old views, and what passing over saves."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.policies.predictive import PredictedTTFT, Unseen
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, KVEvicted, KVStored, WorkerLost
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.request import Request
from helpers.workload.slo import SLO

# A step takes 100 ms, 10 ms more a prompt token, 20 ms a decode, 1 ms a KV token; blocks of 100 tokens.
PREDICTOR = CostPredictor(AffineCost(0.1, 0.01, 0.0, 0.02, 0.001), 10_000, Link(0.05, 1e9), 1e6)
ASKED = Request(99, 1.0, 400, 10, (1, 2, 3, 4))


def predicted(stored=(), **parameters):
    """A router that knows what the caches have `stored`: blocks a worker."""
    one = PredictedTTFT(PREDICTOR, parameters.pop("slos", SLO(tpot_s=1.0)), 100, **parameters)
    for worker, blocks in enumerate(stored):
        one.observe(KVStored(worker, ASKED.prefix_blocks[:blocks]), 0.0)
    return one


def chosen(one, views, asked=ASKED, now=1.0):
    return one.route(asked, views, now, Random(0))


# Worker 0 has 300 tokens cached and 200 waiting, worker 1 nothing of either, worker 2 100 cached and ten decodes.
THREE = (
    view(0, waiting=1, waiting_tokens=200),
    view(1, running=1, kv_tokens=100),
    view(2, running=10, kv_tokens=800),
)
STORED = (3, 0, 1)


def test_the_terms_by_hand():
    """TTFT = queue + prefill, in seconds:

    worker 0: 0.1 + 2.0 for those that wait, then 0.1 + 1.0 for the 100 tokens that are not cached
    worker 1: 0.1 + 0.02 + 0.1 beside one decode of 100 tokens, + 4.0
    worker 2: 0.1 + 0.2 + 0.8 beside ten decodes of 800 tokens, + 3.0
    TPOT with the request: 0.1 + 0.02 + 0.4, 0.1 + 0.04 + 0.5, 0.1 + 0.22 + 1.2
    """
    one = predicted(STORED, slos=SLO(tpot_s=0.6), tpot_weight=10.0, explain=True)
    found = {(w, term): value for w, term, value in chosen(one, Snapshot(THREE)).scores}
    assert [found[w, "ttft_s"] for w in range(3)] == pytest.approx([3.2, 4.22, 4.1])
    assert [found[w, "tpot_excess_s"] for w in range(3)] == pytest.approx([0.0, 0.04, 0.92])
    assert [found[w, "score_s"] for w in range(3)] == pytest.approx([3.2, 4.62, 13.3])
    assert [w for w, term, _ in chosen(one, Snapshot(THREE)).scores if term == "score_s"] == [0, 1, 2]


def test_the_least_ttft_wins_and_by_weight_the_tpot_too():
    views = Snapshot(THREE[1:])
    assert chosen(predicted(STORED), views)[:2] == (2, 2)  # 4.1 against 4.22
    slow = SLO(tpot_s=0.6)
    assert chosen(predicted(STORED, slos=slow, tpot_weight=0.1), views)[:2] == (2, 2)  # 4.192, 4.224
    assert chosen(predicted(STORED, slos=slow, tpot_weight=0.2), views)[:2] == (1, 1)  # 4.284, 4.228
    assert chosen(predicted(STORED, slos=SLO(), tpot_weight=9.0), views)[:2] == (2, 2)  # no bound, no excess
    classes = {"standard": SLO(tpot_s=0.6), "batch": SLO(tpot_s=9.0)}
    one = predicted(STORED, slos=classes, tpot_weight=0.2)
    batch = Request(98, 1.0, 400, 10, (1, 2, 3, 4), slo_class="batch")
    assert (chosen(one, views)[0], chosen(one, views, batch)[0]) == (1, 2)


def test_equals_go_to_the_lowest_id():
    views = Snapshot([view(3), view(5), view(6, running=1)])
    assert chosen(predicted(), views)[:2] == (3, 3)


def test_the_last_token_of_a_cached_prompt_is_computed():
    one = predicted((4,), explain=True)
    assert {term: value for _, term, value in chosen(one, Snapshot([view(0)])).scores}["ttft_s"] == pytest.approx(0.11)


def test_eviction_and_loss_are_forgotten():
    views = Snapshot([view(0, running=1), view(1)])
    one = predicted((3, 0))
    assert chosen(one, views)[0] == 0
    one.observe(KVEvicted(0, (1,)), 1.0)
    assert chosen(one, views)[0] == 1
    one = predicted((3, 0))
    sent(one, 0, 0.9, decode=1)
    tell(one, WorkerLost(0), 1.0)
    assert one.prefills.since(0, 0.0) == (0, 0) and coming(one, 1) == (1, 450)
    assert not one.index.masks
    sent(one, 0, 1.0, decode=1)
    tell(one, WorkerLost(1), 1.0)
    assert coming(one, 1) == (0, 0) and chosen(one, views)[0] == 1


SPLIT = (
    view(0, "prefill"),
    view(1, "decode", running=2, kv_tokens=100),
    view(2, "decode", running=1, kv_tokens=190),
    view(3, "decode", running=2, kv_tokens=100),
)


def test_after_a_prefill_worker_the_decode_goes_where_the_second_token_comes_first():
    """0.1 + 0.06 + 0.5, 0.1 + 0.04 + 0.59 and as the first, all after 0.05 + 0.4 s on the link: the lower of equals.

    The fewest KV tokens are on workers 1 and 3 too; with 110 instead of 190, worker 2 has more of them and is better.
    """
    assert chosen(predicted(), Snapshot(SPLIT))[:2] == (0, 1)
    fewer = SPLIT[2]._replace(kv_tokens=110)
    assert chosen(predicted(), Snapshot((*SPLIT[:2], fewer, SPLIT[3])))[:2] == (0, 2)


def test_beside_mixed_workers_the_excess_is_that_of_who_would_decode():
    """TTFT 4.1 on the prefill worker 0, 4.12 on the mixed worker 4, with a decode; TPOT 1.2 on worker 5, 0.54 there."""
    views = Snapshot([view(0, "prefill"), view(4, running=1), view(5, "decode", running=10, kv_tokens=480)])
    one = predicted(slos=SLO(tpot_s=0.5), explain=True, tpot_weight=1.0)
    decision = chosen(one, views)
    # Behind worker 0 the request would go to worker 4, which decodes too: its TPOT counts for both.
    assert [value for _, term, value in decision.scores if term == "tpot_excess_s"] == pytest.approx([0.04, 0.04])
    assert decision[:2] == (0, 4)


def sent(one, worker, at_s, number=1, decode=None, tokens=450):
    """Tell the router that it has sent a request of so many tokens, without blocks."""
    decision = Decision(worker, worker if decode is None else decode)
    tell(one, Dispatched(Request(number, at_s, tokens, 10), decision), at_s)


def tell(one, event, now):
    """As a front end of a split fleet does: the router, and what it knows of the decode side."""
    for ear in (one, one.pairing):
        if type(event) in ear.observes:
            ear.observe(event, now)


def coming(one, worker):
    """(requests, tokens) on their way to a worker."""
    return one.pairing.on_the_way.to(view(worker, "decode"), 1.0)


def test_an_old_view_is_corrected_for_what_was_sent_since():
    """Two idle workers as of 0.8 s. Worker 0 was sent 450 tokens at 0.9 s: 0.1 + 4.5 s of queue that the view lacks."""
    old = Snapshot([view(0, age_s=0.2), view(1, age_s=0.2, running=3)])
    one = predicted()
    sent(one, 0, 0.7)
    assert chosen(one, old)[0] == 0  # before the view was taken: it would show it
    sent(one, 0, 0.9)
    assert chosen(one, old)[0] == 1
    assert one.seen(old[0], 1.0) == old[0]._replace(waiting=1, waiting_tokens=450)
    blind = predicted(own_dispatches=False)
    sent(blind, 0, 0.9)
    assert chosen(blind, old)[0] == 0
    # A newer view: the 450 tokens are in it or done.
    assert chosen(one, Snapshot([view(0, age_s=0.05), view(1, age_s=0.05, running=3)]))[0] == 0


def test_cached_tokens_are_no_work_and_repeated_sends_add_up():
    one = predicted((3,))
    for number in range(2):
        one.observe(Dispatched(Request(number, 0.9, 400, 10, ASKED.prefix_blocks), Decision(0, 0)), 0.9)
    seen = one.seen(view(0, age_s=0.2, waiting=1, waiting_tokens=50), 1.0)
    assert (seen.waiting, seen.waiting_tokens, seen.running, seen.kv_tokens) == (3, 250, 0, 0)
    one = predicted((4,))
    one.observe(Dispatched(ASKED, Decision(0, 0)), 0.9)
    assert one.seen(view(0, age_s=0.2), 1.0).waiting_tokens == 1  # all are cached, the last is computed


def test_on_a_split_fleet_the_decode_worker_is_corrected_too():
    one = predicted()
    sent(one, 0, 0.9, decode=1)
    seen = one.seen(view(1, "decode", age_s=0.2, running=2, kv_tokens=100), 1.0)
    assert (seen.waiting, seen.waiting_tokens, seen.running, seen.kv_tokens) == (0, 0, 3, 550)
    for age_s in (0.2, 0.0):  # no view of a decode worker shows a prompt that another one still computes
        views = Snapshot(one_view._replace(age_s=age_s) for one_view in SPLIT)
        assert chosen(one, views)[:2] == (0, 3)  # without the correction worker 1, as above
    blind = predicted(own_dispatches=False)
    sent(blind, 0, 0.9, decode=1)
    assert chosen(blind, Snapshot(SPLIT))[:2] == (0, 1)


def test_a_view_of_this_moment_is_taken_as_it_is_and_clears_the_memory():
    one = predicted()
    for number in range(5):
        sent(one, 0, 1.0, number)
        chosen(one, Snapshot([view(0), view(1)]))
    assert one.seen(view(0), 1.0) == view(0)
    assert one.prefills.since(0, -1.0) == (0, 0)


def test_unseen_counts_what_is_later_and_forgets_the_rest():
    one = Unseen()
    for time, tokens in ((1.0, 10), (2.0, 20), (3.0, 30)):
        one.add(4, tokens, time)
    assert one.since(4, 0.5) == (3, 60)
    assert one.since(4, 1.0) == (2, 50)  # what was sent at the very moment of the view is in it
    assert one.since(4, 0.5) == (2, 50)
    one.lost(4)
    assert one.since(4, 0.5) == one.since(0, 0.5) == (0, 0)


@st.composite
def fleets(draw):
    """Views with small loads, so that queues differ and equals are common; some split."""
    roles = draw(st.sampled_from(["mixed", "split"]))
    workers = []
    for w in range(draw(st.integers(2, 6))):
        role = "mixed" if roles == "mixed" else ("prefill", "decode")[w % 2]
        waiting = draw(st.integers(0, 2))
        workers.append(
            view(
                *(w, role),
                waiting=waiting,
                waiting_tokens=waiting * draw(st.sampled_from([40, 100, 300])),
                running=draw(st.integers(0, 3)),
                kv_tokens=draw(st.sampled_from([0, 100, 500])),
            )
        )
    return workers


def scan(one, views, asked=ASKED, now=1.0):
    """The choice by a plain scan of all the terms."""
    found = one.predictions(asked, views, now)
    return min((term.score_s, term.worker) for term in found)[1]


@settings(max_examples=150, deadline=None)
@given(fleet=fleets(), stored=st.lists(st.integers(0, 4), max_size=6), weight=st.sampled_from([0.0, 1.0, 50.0]))
def test_the_choice_is_that_of_the_scan(fleet, stored, weight):
    views, one = Snapshot(fleet), predicted(stored, slos=SLO(tpot_s=0.55), tpot_weight=weight)
    assert one.predictions(ASKED, views, 1.0) and chosen(one, views)[0] == scan(one, views)


class Hasty(PredictedTTFT):
    """A control: passes over every worker that has a longer queue than the first."""

    def predictions(self, request, views, now, whole=True):
        found = PredictedTTFT.predictions(self, request, views, now, True)
        return found if whole else found[:1]


def test_the_scan_finds_a_choice_that_passes_over_too_much():
    """Worker 0 has a queue of 40 tokens and 300 cached: 0.5 + 1.1 against 4.1 for the idle one."""
    views = Snapshot([view(0, waiting=1, waiting_tokens=40), view(1)])
    honest = predicted((3,))
    hasty = Hasty(PREDICTOR, SLO(tpot_s=1.0), 100)
    hasty.observe(KVStored(0, (1, 2, 3)), 0.0)
    assert chosen(honest, views)[0] == scan(honest, views) == 0
    assert chosen(hasty, views)[0] == 1 != scan(hasty, views)


def test_what_is_passed_over_is_not_computed():
    views = Snapshot([view(0), *(view(w, waiting=1, waiting_tokens=5000) for w in range(1, 40))])
    one = predicted()
    assert len(one.predictions(ASKED, views, 1.0, whole=False)) == 1
    assert len(one.predictions(ASKED, views, 1.0)) == 40


def mean_ttft_s(period_s, **parameters):
    """Mean TTFT in the simulator, with reports each `period_s`."""
    workload = generate("conversation", requests=400, rate_per_s=4.0, seed=3)
    fleet = Fleet(telemetry=Telemetry(period_s))
    run = Experiment(workload, fleet, "predicted_ttft", router_parameters=parameters).run()
    return sum(t.first_token_s - t.arrival_s for t in run.timelines) / len(run.timelines)


def test_under_staleness_the_correction_is_worth_most_of_what_fresh_views_are():
    fresh, corrected, blind = mean_ttft_s(0.0), mean_ttft_s(1.0), mean_ttft_s(1.0, own_dispatches=False)
    assert fresh <= corrected < blind
    assert blind - corrected > corrected - fresh


def test_it_needs_a_predictor_and_sound_parameters():
    with pytest.raises(InputError, match="router predicted_ttft predicts times; give it a predictor"):
        PredictedTTFT(None)
    with pytest.raises(InputError, match="router predicted_ttft: tpot_weight is -1"):
        predicted(tpot_weight=-1.0)
    with pytest.raises(InputError, match="block_tokens is 0"):
        PredictedTTFT(PREDICTOR, block_tokens=0)
