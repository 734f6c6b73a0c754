"""Goodput, attainment and outcomes of a log measured by hand."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.goodput import (
    SLO,
    fetch_rate,
    goodput,
    goodput_by_class,
    hit_rate,
    meets,
    outcomes,
    rejections,
    throughput,
)
from helpers.metrics.series import Window
from helpers.metrics.steps import tokens_out
from helpers.metrics.timeline import EventLog, Timeline, token_times


def test_attainment_counts_everyone_who_arrived(small_log):
    """Requests 0 and 1 meet 1 s and 1.2 s; 2 is late, 3 was turned away, 4 never finished: 2 of 5."""
    good = goodput(small_log, SLO(ttft_s=1.0, tpot_s=1.2))
    assert (good.met, good.arrived, good.attainment, good.per_s) == (2, 5, 0.4, 2 / 5.0)
    finished = [t for t in small_log.timelines if t.status == "finished"]
    assert goodput(EventLog(tuple(finished), end_s=5.0), SLO(ttft_s=1.0)).attainment != good.attainment  # control


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (SLO(), [0, 1, 2]),
        (SLO(ttft_s=1.0), [0, 1]),  # equal to the bound is within it
        (SLO(ttft_s=0.999), []),
        (SLO(tpot_s=0.8), [0, 2]),  # one token has no TPOT, so nothing was slow
        (SLO(tpot_s=0.79), [2]),
        (SLO(e2e_s=4.6), [1, 2]),
        (SLO(ttft_s=1.0, e2e_s=4.6), [1]),
    ],
)
def test_who_meets_which_bound(small_log, slo, met):
    assert [t.id for t in small_log.timelines if meets(t, slo)] == met


def test_classes_have_their_own_slo(small_log):
    slos = {"standard": SLO(ttft_s=1.0), "strict": SLO(ttft_s=2.0)}
    by_class = goodput_by_class(small_log, slos)
    assert {n: (g.met, g.arrived) for n, g in by_class.items()} == {"standard": (2, 4), "strict": (0, 1)}
    assert sum(g.met for g in by_class.values()) == goodput(small_log, slos).met
    assert goodput(small_log, {**slos, "strict": SLO(ttft_s=3.0)}).met == 3
    with pytest.raises(InputError, match=r"request 2 .*'strict'.*no SLO"):
        goodput(small_log, {"standard": SLO()})


def test_a_window_counts_arrivals_over_its_own_length(small_log):
    good = goodput(small_log, SLO(ttft_s=1.0), Window(0.5, 2.5))
    assert (good.met, good.arrived, good.per_s) == (1, 3, 0.5)


def test_goodput_of_nothing_is_none_and_not_zero():
    empty = goodput(EventLog(()), SLO(ttft_s=1.0))
    assert (empty.attainment, empty.per_s) == (None, None)


def test_dropping_requests_midway_raises_goodput_and_shows_in_the_outcomes(small_log):
    """Request 2 misses its SLO; dropping it frees a second for another: goodput up, wasted tokens up too."""
    dropped = replace(small_log.timelines[2], status="unfinished", first_token_s=None, finished_s=None)
    other = replace(small_log.timelines[2], id=9, first_token_s=1.5, finished_s=1.5)
    after = EventLog((*small_log.timelines[:2], dropped, *small_log.timelines[3:], other), end_s=5.0)
    assert goodput(after, SLO(ttft_s=1.0)).per_s > goodput(small_log, SLO(ttft_s=1.0)).per_s
    wasted = [outcomes(log.timelines).wasted_prefill_tokens for log in (small_log, after)]
    assert wasted == [40, 60]


def test_outcomes_by_hand(small_log):
    """Request 1 computed 40 tokens of which 30 were needed; request 4 computed 30 in vain, and had started."""
    ended = outcomes(small_log.timelines)
    assert (ended.arrived, ended.finished, ended.rejected, ended.unfinished) == (5, 3, 1, 1)
    assert (ended.aborted, ended.preemptions, ended.requeues) == (1, 1, 1)
    assert ended.wasted_prefill_tokens == 10 + 30
    with pytest.raises(InputError, match="status 'lost'"):
        outcomes([Timeline(0, 0.0, 1, 1, "lost")])


def test_rejections_are_counted_by_reason_without_their_figures():
    reasons = ["worker 1 has 64 waiting", "too late", "worker 0 has 65 waiting", "worker 12 has 64 waiting"]
    turned_away = [Timeline(i, 0.0, 1, 1, "rejected", reason) for i, reason in enumerate(reasons)]
    finished = Timeline(9, 0.0, 1, 1, "finished", "too late")
    assert rejections([*turned_away, finished]) == {"worker N has N waiting": 3, "too late": 1}
    assert list(rejections(turned_away)) == ["worker N has N waiting", "too late"]
    assert rejections([finished]) == {}


def test_hit_rate_is_over_requests_whose_prefill_started(small_log):
    """30 of 120 + 50 + 30 + 60 tokens were cached and 20 fetched; the rejected prompt is not in the sum."""
    assert hit_rate(small_log.timelines) == 30 / 260
    assert fetch_rate(small_log.timelines) == 20 / 260
    assert hit_rate([small_log.timelines[3]]) is None


def test_throughput_counts_tokens_as_they_come_out(small_log):
    """First tokens at 1, 1.5 and 4 s; request 0 decodes at 1.5, 2, 3, 4, 5 and request 1 at 3, 4, 5."""
    whole = throughput(small_log)
    assert (whole.tokens, whole.finished, whole.tokens_per_s) == (11, 3, 11 / 5)
    part = throughput(small_log, Window(1.5, 4.0))
    assert (part.tokens, part.finished) == (1 + 2 + 2, 0)
    assert throughput(small_log, Window(4.0, 6.0)).finished == 3


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (1.0, 1.5), (2.0, 3.0), (2.9, 3.1), (0.0, 9.0), (5.5, 9.0)])
def test_tokens_in_a_window_equal_expansion(small_log, start_s, end_s):
    times = [x for t in small_log.timelines for x in token_times(t, small_log.step_logs)]
    assert tokens_out(small_log, Window(start_s, end_s)) == sum(start_s <= x < end_s for x in times)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="SLO tpot_s is -1"):
        SLO(tpot_s=-1)
    with pytest.raises(InputError, match="SLO ttft_s is nan"):
        SLO(ttft_s=float("nan"))
    with pytest.raises(InputError, match="empty or endless"):
        Window(3.0, 3.0)
