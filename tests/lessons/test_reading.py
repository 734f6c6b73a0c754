"""One number of a run, by hand."""

import pytest

from helpers.lessons import reading
from helpers.metrics.knee import Knee
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.timeline import EventLog, Timeline
from helpers.serving.run import Run
from helpers.workload.slo import SLO


def run_of(*ttfts_s: float) -> Run:
    """Requests that arrive every ten seconds, get a first token after the given time and end a second later."""
    timelines = [
        Timeline(i, 10.0 * i, 10, 3, "finished", "", 0, 0, 10.0 * i, 10.0 * i + t / 2, 10.0 * i + t, 10.0 * i + t + 1)
        for i, t in enumerate(ttfts_s)
    ]
    return Run(EventLog(tuple(timelines), end_s=10.0 * len(ttfts_s)), None)


def test_values_means_and_percentiles():
    run = run_of(1.0, 3.0, 2.0, 4.0)
    assert reading.values_s(run, "ttft_s") == pytest.approx([1.0, 3.0, 2.0, 4.0])
    assert reading.mean_s(run, "ttft_s") == pytest.approx(2.5)
    assert reading.percentile_s(run, "ttft_s") == pytest.approx(2.0)
    assert reading.percentile_s(run, "ttft_s", 99) == pytest.approx(4.0)


def test_attainment_leaves_the_warm_up_out():
    run, slo = run_of(9.0, 1.0, 1.0, 9.0), SLO(ttft_s=2.0)
    assert reading.attainment(run, slo) == pytest.approx(0.5)
    assert reading.attainment(run, slo, after_s=10.0) == pytest.approx(2 / 3)


def test_the_knee_is_the_last_rate_that_passes():
    slo = SLO(ttft_s=2.0)
    sweep = {3.0: run_of(9.0, 9.0), 1.0: run_of(1.0, 1.0), 2.0: run_of(1.0, 9.0)}
    assert reading.knee_in(sweep, slo, 0.5).rate_per_s == 2.0
    assert reading.knee_in(sweep, slo, 0.9).rate_per_s == 1.0


def test_words():
    assert reading.per_s(3.3123) == "3.31 requests/s"
    assert reading.promise(SLO(ttft_s=2.0, tpot_s=0.05)) == "TTFT of at most 2 s and TPOT of at most 50 ms"
    assert reading.bracket(Knee(0.8, 2.5, 3.0, (), True)) == "2.5 to 3 requests/s"
    assert reading.bracket(Knee(0.8, None, 3.0, (), True)) == "below to 3 requests/s"
    assert reading.between(mean_interval([1.0, 3.0])).startswith("-")
    assert reading.points(compare({0: 0.9, 1: 0.8}, {0: 0.7, 1: 0.6})) == "+20.0"


def test_inside_includes_the_ends_only():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert reading.inside(interval.low, interval) and reading.inside(2.0, interval)
    assert not reading.inside(interval.high + 0.01, interval)
