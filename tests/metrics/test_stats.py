"""Intervals, time blocks and paired comparisons."""

from dataclasses import replace
from random import Random
from statistics import fmean

import pytest

from helpers.errors import InputError
from helpers.metrics.latency import defined, ttft_s
from helpers.metrics.stats import block_values, compare, longest_e2e_s, mean_interval, time_blocks
from helpers.metrics.timeline import EventLog, Timeline


def test_interval_by_hand():
    """Mean 3, standard error sqrt(2.5 / 5), t of 4 degrees of freedom 2.776."""
    found = mean_interval([1, 2, 3, 4, 5])
    half = 2.7764451 * (2.5 / 5) ** 0.5
    assert (found.mean, found.n, found.level, found.unit) == (3, 5, 0.95, "seed")
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert 3 in found
    assert 4.99 not in found
    assert mean_interval([1, 2, 3, 4, 5], 0.99).high > found.high


def test_compare_finds_a_small_effect_under_large_noise():
    """The seed moves both arms by ±10, arm a costs 0.5 more: only pairing can show it."""
    rng = Random(0)
    draws = {seed: rng.gauss(20, 10) for seed in range(20)}
    a = {s: d + 0.5 + rng.gauss(0, 0.2) for s, d in draws.items()}
    b = {s: d + rng.gauss(0, 0.2) for s, d in draws.items()}
    found = compare(a, b)
    assert (found.verdict, found.n, found.seeds) == ("a higher", 20, tuple(range(20)))
    assert 0.5 in found.difference
    assert compare(b, a).verdict == "b higher"
    shuffled = {s: b[(s + 7) % 20] for s in b}  # control: without the pairing the noise hides it
    assert compare(a, shuffled).verdict == "no effect shown"


def test_compare_gives_the_geometric_mean_of_the_paired_ratios():
    found = compare({1: 2.0, 2: 8.0, 3: 4.0}, {1: 1.0, 2: 2.0, 3: 2.0})
    assert found.ratio.mean == pytest.approx((2 * 4 * 2) ** (1 / 3))
    assert found.ratio.low < found.ratio.mean < found.ratio.high
    assert (found.a.mean, found.difference.mean) == (pytest.approx(14 / 3), pytest.approx(3))
    assert compare({1: 2.0, 2: 0.0}, {1: 1.0, 2: 1.0}).ratio is None


def test_verdicts_on_equal_arms_are_wrong_one_time_in_twenty():
    rng = Random(3)
    arms = [{s: rng.expovariate(1) for s in range(10)} for _ in range(400)]
    verdicts = [compare(a, b).verdict for a, b in zip(arms[::2], arms[1::2], strict=True)]
    assert 0 < sum(v != "no effect shown" for v in verdicts) <= 20


def test_equal_arms_show_no_effect():
    assert compare({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}).verdict == "no effect shown"


def steady_log(seconds: int) -> EventLog:
    """A request a second, each 2 s in the system."""
    return EventLog(
        tuple(
            Timeline(i, float(i), 1, 2, "finished", first_token_s=i + 1.0, finished_s=i + 2.0) for i in range(seconds)
        ),
        end_s=seconds + 1.0,
    )


def test_time_blocks_leave_out_warm_up_and_drain():
    blocks = time_blocks(steady_log(101), warmup_s=15, drain_s=20, block_s=30)
    assert [(b.window.start_s, b.window.end_s, len(b.timelines)) for b in blocks] == [(15, 45, 30), (45, 75, 30)]
    assert block_values(blocks, lambda ts: fmean(defined(ttft_s, ts))) == {15: 1.0, 45: 1.0}


def test_blocks_shorter_than_ten_times_the_longest_e2e_are_refused():
    log = steady_log(200)
    assert longest_e2e_s(log) == 2
    assert len(time_blocks(log, warmup_s=0, drain_s=0, block_s=20)) == 9
    with pytest.raises(InputError, match="shorter than 10 times the longest E2E"):
        time_blocks(log, warmup_s=0, drain_s=0, block_s=19.9)
    stuck = replace(log, timelines=(*log.timelines[:-1], Timeline(999, 100.0, 1, 2, "unfinished")))
    with pytest.raises(InputError, match=r"longest E2E \(101 s\)"):
        time_blocks(stuck, warmup_s=0, drain_s=0, block_s=20)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_interval([1.0]), "at least two replicates and has 1"),
        (lambda: mean_interval([1.0, float("inf")]), "no finite value"),
        (lambda: mean_interval([1.0, 2.0], 95), "confidence level is 95"),
        (lambda: compare({1: 1.0, 2: 1.0}, {1: 1.0, 3: 1.0}), "same seeds"),
        (lambda: time_blocks(steady_log(50), warmup_s=-1, drain_s=0, block_s=20), "0 or more"),
        (lambda: time_blocks(steady_log(50), warmup_s=0, drain_s=20, block_s=20), "only one time block"),
        (lambda: time_blocks(steady_log(50), warmup_s=0, drain_s=40, block_s=20), "no window of 20 s fits"),
        (
            lambda: block_values(time_blocks(steady_log(50), warmup_s=0, drain_s=0, block_s=20), lambda ts: None),
            "from 0 s to 20 s has no value",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
