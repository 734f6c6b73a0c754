"""A run past its knee is told from one below it, and TTFT ratios are refused accordingly."""

import math
from dataclasses import replace
from heapq import heapify, heappop, heappush
from random import Random

import pytest

from helpers.errors import InputError
from helpers.metrics.series import Window
from helpers.metrics.stability import Refusal, TTFTRatio, stability, trend, ttft_ratio
from helpers.metrics.timeline import EventLog, Timeline


def servers_log(seed: int, load: float, customers: int = 1000, servers: int = 8) -> EventLog:
    """M/M/c from empty, mean service 1 s: the first token is out 0.01 s after the service starts."""
    rng, now, found = Random(seed), 0.0, []
    free = [0.0] * servers
    heapify(free)
    for i in range(customers):
        now += rng.expovariate(load * servers)
        start = max(now, heappop(free))
        end = start + rng.expovariate(1) + 0.01
        heappush(free, end)
        found.append(Timeline(i, now, 100, 2, "finished", first_token_s=start + 0.01, finished_s=end))
    return EventLog(tuple(found), end_s=max(t.finished_s for t in found))


def test_trend_by_hand():
    """y = 1, 3, 2, 5, 4 over 0 … 4: slope 0.8, t = 4 / sqrt(3) with 3 degrees of freedom."""
    found = trend([0, 1, 2, 3, 4], [1, 3, 2, 5, 4])
    x = (4 / math.sqrt(3)) / math.sqrt(3)
    p_value = 0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi
    assert found.slope_per_s == pytest.approx(0.8)
    assert found.p_value == pytest.approx(p_value)
    assert found.rise == pytest.approx(0.8 * 5 / 3)
    falling = trend([0, 1, 2, 3, 4], [4, 5, 2, 3, 1])
    assert falling.p_value == pytest.approx(1 - p_value)
    assert trend([0, 1, 2], [1, 2, 3]).p_value == 0
    assert trend([0, 1, 2], [2, 2, 2]).p_value == 0.5


@pytest.mark.parametrize(("load", "stable"), [(0.5, True), (0.7, True), (1.2, False), (2.0, False)])
def test_queues_on_either_side_of_the_knee(load, stable):
    found = [stability(servers_log(seed, load, 1000)).stable for seed in range(40)]
    assert sum(f is stable for f in found) >= 38


def test_order_matters(queue_log):
    """Control: the same TTFTs in another order are no growing queue."""
    log = servers_log(0, 1.5)
    assert stability(log).stable is False
    ttfts = [t.first_token_s - t.arrival_s for t in log.timelines]
    stays = [t.finished_s - t.arrival_s for t in log.timelines]
    order = list(range(len(ttfts)))
    Random(0).shuffle(order)
    mixed = tuple(
        replace(t, first_token_s=t.arrival_s + ttfts[i], finished_s=t.arrival_s + stays[i])
        for t, i in zip(log.timelines, order, strict=True)
    )
    assert stability(replace(log, timelines=mixed)).stable is True


def test_a_slow_drift_of_ttft_is_no_queue():
    """TTFT doubles from 20 to 40 ms over an hour, and so does the number in the system: significant, and harmless."""
    found = []
    for i in range(3600):
        ttft_s = 0.02 * (1 + i / 3600)
        found.append(Timeline(i, float(i), 1, 2, "finished", first_token_s=i + ttft_s, finished_s=i + 10 * ttft_s))
    verdict = stability(EventLog(tuple(found), end_s=3700.0))
    assert verdict.in_system.significant
    assert verdict.ttft.significant
    assert verdict.stable is True


@pytest.mark.parametrize("grows", ["ttft", "in_system"])
def test_both_must_grow(grows):
    """TTFT rises while arrivals thin out, or streams get longer while TTFT stays: neither is a growing queue."""
    found, now = [], 0.0
    while now < 1000:
        slow_s = 1 + 9 * now / 1000
        ttft_s = slow_s if grows == "ttft" else 1.0
        found.append(Timeline(len(found), now, 1, 2, "finished", first_token_s=now + ttft_s, finished_s=now + slow_s))
        now += 0.1 * (slow_s if grows == "ttft" else 1.0)
    verdict = stability(EventLog(tuple(found), end_s=now + 10))
    assert (verdict.ttft.significant, verdict.in_system.significant) == (grows == "ttft", grows == "in_system")
    assert verdict.stable is True


@pytest.mark.parametrize(("load", "stable"), [(0.7, True), (1.2, False), (1.5, False), (3.0, False)])
def test_a_run_cut_off_at_its_last_arrival_is_judged_alike(load, stable):
    """The last requests have waited for a moment only; counting that as their TTFT would hide the queue."""
    log = servers_log(0, load, 2000)
    cut_s = log.timelines[-1].arrival_s
    timelines = tuple(
        t if t.finished_s <= cut_s else replace(t, status="unfinished", first_token_s=None, finished_s=None)
        for t in log.timelines
    )
    assert stability(EventLog(timelines, end_s=cut_s)).stable is stable


def test_rejection_keeps_the_queue_bounded():
    """What admission turns away does not wait: the run is stable although the offered load is twice the capacity."""
    log = servers_log(1, 2.0)
    bounded, free = [], [0.0] * 8
    for t in log.timelines:
        first = heappop(free)
        if first > t.arrival_s:
            heappush(free, first)
            bounded.append(Timeline(t.id, t.arrival_s, 100, 2, "rejected", "no server is free"))
        else:
            heappush(free, t.arrival_s + 1.0)
            bounded.append(replace(t, first_token_s=t.arrival_s + 0.01, finished_s=t.arrival_s + 1.0))
    assert stability(EventLog(tuple(bounded), end_s=log.end_s)).stable is True


def test_a_window_may_hold_the_overload_alone():
    quiet, busy = servers_log(0, 0.3, 1000), servers_log(1, 1.5, 1000)
    later = quiet.end_s
    shifted = tuple(
        replace(t, id=t.id + 1000, arrival_s=t.arrival_s + later, first_token_s=t.first_token_s + later,
                finished_s=t.finished_s + later)
        for t in busy.timelines
    )  # fmt: skip
    both = EventLog(quiet.timelines + shifted, end_s=busy.end_s + later)
    assert stability(both, Window(0.0, later)).stable is True
    assert stability(both, Window(later, later + busy.timelines[-1].arrival_s)).stable is False
    assert stability(both, Window(later, 100 * later)).stable is False  # a window cannot bring the drain in


@pytest.mark.parametrize(("customers", "words"), [(99, "99 requests are too few"), (150, "too short")])
def test_short_runs_are_undecided(customers, words):
    found = stability(servers_log(0, 1.5, customers))
    assert found.stable is None
    assert words in found.evidence


def test_ttft_ratios_below_the_knee_are_given():
    slow = {seed: servers_log(seed, 0.7) for seed in (1, 2, 3)}
    fast = {seed: servers_log(seed, 0.5) for seed in (1, 2, 3)}
    found = ttft_ratio(slow, fast, q=90)
    assert isinstance(found, TTFTRatio)
    assert (found.value > 1, found.n, found.q) == (True, 3, 90)
    assert found.value in found.interval
    assert ttft_ratio(fast, slow, q=90).value == pytest.approx(1 / found.value)
    assert ttft_ratio(slow[1], slow[1]).value == 1
    assert str(ttft_ratio(slow[1], slow[1])) == "1 (N = 1)"


def test_ttft_ratios_past_the_knee_are_refused_on_either_side():
    past, below = servers_log(0, 1.3), servers_log(0, 0.5)
    for a, b, arm in ((past, below, "the first arm"), (below, past, "the second arm")):
        found = ttft_ratio(a, b)
        assert isinstance(found, Refusal)
        assert arm in str(found)
        assert "compare goodput" in str(found)
    short = ttft_ratio(below, servers_log(0, 0.5, 50))
    assert "not shown to be below its knee" in str(short)
    one_bad_seed = ttft_ratio({1: below, 2: past}, {1: below, 2: below})
    assert "seed 2" in str(one_bad_seed)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="three points"):
        trend([0, 1], [1, 2])
    below = servers_log(0, 0.5)
    with pytest.raises(InputError, match="same seeds"):
        ttft_ratio({1: below}, {2: below})
