"""A single worker is a queue whose mean wait is known in closed form."""

from random import Random
from statistics import fmean

import pytest

from helpers.cost.iteration import AffineCost
from helpers.metrics.latency import queue_s
from helpers.metrics.queueing import md1_wait_s, mm1_wait_s
from helpers.metrics.stats import mean_interval
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request

RATE_PER_S, SEEDS, CUSTOMERS, WARMUP = 0.7, range(24), 3000, 300
ALONE = Limits(4000, 16, 64_000, max_batch=1)
# Each serves a request in one second on average: a prefill of 1,000 tokens, or ten decode steps after a quick prefill.
PREFILL = AffineCost(1e-9, 1e-3, 0.0, 0.0, 0.0)
STEPS = AffineCost(0.1, 0.0, 0.0, 0.0, 0.0)
SERVICES = {
    "constant prefills": (PREFILL, lambda rng: (1000, 1)),
    "constant decodes": (STEPS, lambda rng: (16, 10)),
    "exponential prefills": (PREFILL, lambda rng: (max(1, round(rng.expovariate(1e-3))), 1)),
}


def mean_waits(serve, name, limits=ALONE):
    """The mean wait of each seed in seconds, the first customers left out."""
    cost, lengths = SERVICES[name]
    means = []
    for seed in SEEDS:
        rng, now, requests = Random(seed), 0.0, []
        for i in range(CUSTOMERS):
            now += rng.expovariate(RATE_PER_S)
            requests.append(Request(i, now, *lengths(rng)))
        log = serve(requests, limits=limits, cost=cost)
        means.append(fmean(queue_s(t) for t in log.timelines[WARMUP:]))
    return mean_interval(means, level=0.99)


@pytest.mark.parametrize("name", ["constant prefills", "constant decodes"])
def test_constant_service_waits_as_m_d_1(name, serve):
    waits = mean_waits(serve, name)
    assert md1_wait_s(RATE_PER_S, 1.0) in waits, waits
    assert mm1_wait_s(RATE_PER_S, 1.0) not in waits  # control: twice as long
    assert md1_wait_s(RATE_PER_S + 0.05, 1.0) not in waits  # control: a slightly higher load


def test_exponential_service_waits_as_m_m_1(serve):
    waits = mean_waits(serve, "exponential prefills")
    assert mm1_wait_s(RATE_PER_S, 1.0) in waits, waits
    assert md1_wait_s(RATE_PER_S, 1.0) not in waits


def test_a_batch_of_two_is_another_queue(serve):
    """Control: what makes it a single server is the batch of one."""
    waits = mean_waits(serve, "constant decodes", Limits(4000, 16, 64_000, max_batch=2))
    assert md1_wait_s(RATE_PER_S, 1.0) not in waits
