"""Do 95 % intervals hold the truth in 95 % of cases? On M/M/1, whose mean wait is known.

200 experiments each. Intervals over seeds and over time blocks must cover in 90 to 98 %; the two
usual mistakes, an interval or a bootstrap over the requests of one run, must not reach 90 %.
"""

from itertools import islice
from random import Random
from statistics import NormalDist, fmean, stdev

import pytest

from helpers.metrics.latency import defined, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.queueing import mm1_wait_s
from helpers.metrics.stats import block_values, longest_e2e_s, mean_interval, time_blocks

EXPERIMENTS, SEEDS, CUSTOMERS, RATE_PER_S = 200, 10, 1000, 0.5
TRUTH_S = mm1_wait_s(RATE_PER_S, 1.0)


@pytest.fixture(scope="module")
def runs(lindley):
    """The waits of every customer, by experiment and seed."""
    rng = Random(20)
    return [
        [[w for _, w, _ in lindley(rng, RATE_PER_S, CUSTOMERS, stationary=True)] for _ in range(SEEDS)]
        for _ in range(EXPERIMENTS)
    ]


def coverage(intervals) -> float:
    found = [low <= TRUTH_S <= high for low, high in intervals]
    assert len(found) == EXPERIMENTS
    return fmean(found)


def test_intervals_over_seeds_cover(runs):
    intervals = [mean_interval([fmean(waits) for waits in experiment]) for experiment in runs]
    assert 0.90 <= coverage((i.low, i.high) for i in intervals) <= 0.98


def test_intervals_over_time_blocks_cover(queue_log):
    """One long run each, cut into blocks of at least ten times its longest E2E."""
    rng, intervals = Random(21), []
    for _ in range(EXPERIMENTS):
        log = queue_log(rng, RATE_PER_S, 1500, stationary=True)
        block_s = max(250.0, 10 * longest_e2e_s(log))
        blocks = time_blocks(log, warmup_s=0, drain_s=0, block_s=block_s)
        values = block_values(blocks, lambda timelines: fmean(defined(ttft_s, timelines)))
        intervals.append(mean_interval(list(values.values()), unit="block"))
    assert 0.90 <= coverage((i.low, i.high) for i in intervals) <= 0.98


def test_intervals_over_the_requests_of_a_run_do_not_cover(runs):
    """Control: as if the 1,000 waits of one run were independent."""
    z = NormalDist().inv_cdf(0.975)

    def interval(waits):
        half = z * stdev(waits) / len(waits) ** 0.5
        return fmean(waits) - half, fmean(waits) + half

    assert coverage(interval(experiment[0]) for experiment in runs) < 0.90


def test_a_bootstrap_over_the_requests_of_a_run_does_not_cover(runs):
    """Control: resampling requests does not bring back the dependence between them."""
    rng = Random(22)

    def interval(waits):
        some = list(islice(waits, 300))
        means = [fmean(rng.choices(some, k=len(some))) for _ in range(80)]
        return percentile(means, 2.5).value, percentile(means, 97.5).value

    assert coverage(interval(experiment[0]) for experiment in runs) < 0.90
