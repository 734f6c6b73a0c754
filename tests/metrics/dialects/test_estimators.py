"""The estimators of the five tools against NumPy, against plain lists, and against the binomial distribution."""

import math
from random import Random

import numpy as np
import pytest

from helpers.metrics.dialects import aiperf, guidellm, loadgen, vllm
from helpers.metrics.timeline import EventLog, Timeline
from helpers.workload.slo import SLO


def random_log(requests: int, seed: int = 1) -> EventLog:
    rng = Random(seed)
    timelines = []
    for i in range(requests):
        first_s = i + rng.expovariate(1.0)
        tokens = rng.randint(1, 9)
        last_s = first_s + (tokens - 1) * rng.expovariate(10.0)
        timelines.append(Timeline(i, float(i), 10, tokens, "finished", "", 0, 0, i, i, first_s, last_s, tokens))
    return EventLog(tuple(timelines), (), (), max(t.finished_s for t in timelines))


def ttfts(log: EventLog) -> np.ndarray:
    return np.array([t.first_token_s - t.arrival_s for t in log.timelines])


@pytest.mark.parametrize("requests", [1, 2, 100, 101, 357])
def test_vllm_and_aiperf_are_numpys(requests):
    log = random_log(requests)
    values_ms = 1000 * ttfts(log)
    found = vllm.report(log)
    assert found["p99_ttft_ms"] == pytest.approx(np.percentile(values_ms, 99))
    assert found["median_ttft_ms"] == pytest.approx(np.median(values_ms))
    assert found["std_ttft_ms"] == pytest.approx(np.std(values_ms), abs=1e-9)
    found = aiperf.report(log)
    for q in (50, 90, 99):
        assert found[f"time_to_first_token.p{q}"] == pytest.approx(np.percentile(values_ms, q))


@pytest.mark.parametrize("requests", [1, 2, 100, 357])
def test_guidellm_is_nearest_rank_of_the_list_with_each_value_repeated(requests):
    log = random_log(requests)
    repeated = []
    for t in log.timelines:
        repeated += [1000 * (t.finished_s - t.arrival_s) / t.output_tokens] * t.output_tokens
    found = guidellm.report(log)
    for name, q in (("median", 50), ("p95", 95), ("p99", 99)):
        expected = np.percentile(repeated, q, method="inverted_cdf")
        assert found[f"time_per_output_token_ms.{name}"] == pytest.approx(expected)
    assert found["time_per_output_token_ms.mean"] == pytest.approx(np.mean(repeated))


def test_loadgen_takes_the_next_value_where_nearest_rank_would_take_this_one():
    """Of 1 … 100, place floor(0.99 x 100) = 99, counted from 0, is the 100th value; nearest rank says the 99th."""
    assert loadgen.percentile_ns(list(range(1, 101)), 0.99) == 100
    assert loadgen.percentile_ns(list(range(1, 102)), 0.99) == 100  # floor(99.99) = 99: no difference here
    assert loadgen.percentile_ns([3, 1, 2], 0.5) == 2


@pytest.mark.parametrize("requests", [1, 99, 100, 101, 250])
def test_loadgens_constraint_is_its_percentile_within_the_limit(requests):
    rng = Random(requests)
    values = [rng.randint(1, 1000) for _ in range(requests)]
    for limit in range(0, 1001, 7):
        late = sum(v > limit for v in values)
        assert loadgen.within_target(late, requests) == (loadgen.percentile_ns(values, 0.99) <= limit)


def chance_of_at_most(late: int, total: int) -> float:
    """P(at most `late` of `total` are late) when each is with probability 1 %."""
    return math.fsum(math.comb(total, x) * 0.01**x * 0.99 ** (total - x) for x in range(late + 1))


def test_early_stopping_by_hand():
    """No query late: 0.99^h < 0.01 needs h > ln 0.01 / ln 0.99 = 458.2."""
    assert loadgen.least_in_time(0) == 459
    assert loadgen.early_stopping(0, 459) and not loadgen.early_stopping(0, 458)


@pytest.mark.parametrize("late", [1, 2, 7, 20])
def test_early_stopping_against_the_binomial_distribution(late):
    least = loadgen.least_in_time(late)
    assert chance_of_at_most(late, least + late) < 0.01 <= chance_of_at_most(late, least - 1 + late)


def server(requests: int, late: int) -> EventLog:
    """A query each second, answered after 1 s (late ones after 3 s) and 0.1 s later once more."""
    timelines = []
    for i in range(requests):
        first_s = i + (3.0 if i < late else 1.0)
        timelines.append(Timeline(i, float(i), 10, 2, "finished", "", 0, 0, i, i, first_s, first_s + 0.1, 2))
    return EventLog(tuple(timelines), (), (), requests + 3.1)


def test_a_valid_server_run_and_each_way_to_lose_it():
    limits = SLO(ttft_s=2.0, tpot_s=0.2)
    assert loadgen.report(server(700, 0), limits)["Result is"] == "VALID"
    assert loadgen.report(server(601, 0), limits)["Min duration satisfied"]
    short = loadgen.report(server(600, 0), limits)
    assert not short["Min duration satisfied"] and short["Result is"] == "INVALID"
    assert not loadgen.report(server(99, 0), limits)["Min queries satisfied"]
    # 6 of 700 are below 1 %, so p99 holds; but 700 are too few to be sure of it.
    few = loadgen.report(server(700, 6), limits)
    assert few["Performance constraints satisfied"] and not few["Early stopping satisfied"]
    assert few["Result is"] == "INVALID"
    assert not loadgen.report(server(700, 7), limits)["Performance constraints satisfied"]  # floor(693.0) = 693
    assert not loadgen.report(server(700, 0), SLO(ttft_s=2.0, tpot_s=0.05))["Performance constraints satisfied"]
