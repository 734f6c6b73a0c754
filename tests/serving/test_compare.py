"""Paired comparisons of two experiments."""

import pytest

from helpers.errors import InputError
from helpers.serving.compare import compare, value_of
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate

SEEDS = range(4)


def drawn(seed: int, rate: float = 12.0):
    return generate("poisson", rate_per_s=rate, requests=150, seed=seed)


def arm(**changes) -> Experiment:
    return Experiment(drawn(0), Fleet(workers=2), **changes)


def test_an_arm_against_itself_differs_by_nothing():
    same = compare(arm(), arm(), SEEDS, drawn, "ttft_s.mean")
    assert same.difference.mean == 0.0
    assert same.verdict == "no effect shown"
    assert same.n == len(SEEDS)


def test_four_workers_are_faster_than_one_at_every_seed():
    one = Experiment(drawn(0), Fleet(workers=1))
    four = Experiment(drawn(0), Fleet(workers=4))
    slower = compare(one, four, SEEDS, lambda seed: drawn(seed, 30.0), "ttft_s.mean")
    assert slower.verdict == "a higher"
    assert slower.ratio.low > 1.0


def test_the_arms_see_the_same_draw():
    seen = []

    def noted(seed):
        seen.append(seed)
        return drawn(seed)

    compare(arm(), arm(router="random"), SEEDS, noted)
    assert seen == list(SEEDS)  # one draw a pair: a second one would not be paired


def test_one_seed_is_no_replication():
    with pytest.raises(InputError, match="two"):
        compare(arm(), arm(), [0], drawn)


@pytest.mark.parametrize("metric", ["speed", "ttft"])
def test_an_unknown_metric_is_named(metric):
    with pytest.raises(InputError, match=metric):
        compare(arm(), arm(), SEEDS, drawn, metric)


def test_a_number_that_the_run_does_not_have_is_none():
    assert value_of({"ttft_s": {"p50": None, "n": 0}}, "ttft_s.p50") is None
    assert value_of({"ttft_s": {"p50": 0.5}}, "ttft_s.p50") == 0.5
    assert value_of({"goodput_per_s": None}, "goodput_per_s.mean") is None
