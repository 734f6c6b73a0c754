"""The knee of a system whose capacity is known by arithmetic."""

from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.knees import counted, knee_of_seed, knees
from helpers.workload.generate import generate
from helpers.workload.request import Request, Workload
from helpers.workload.slo import SLO

# One worker, one prompt of 100 tokens and one token out in each step of 0.1 s: it serves 10 requests a second.
TENTH = AffineCost(0.1, 0.0, 0.0, 0.0, 0.0)
FLEET = Fleet(workers=1, chunk_tokens=100, max_batch=1, cost=TENTH)


def even(count: int = 200, rate_per_s: float = 4.0) -> Workload:
    requests = tuple(Request(i, i / rate_per_s, 100, 1) for i in range(count))
    return Workload("even", requests)


QUESTION = Experiment(even(2), FLEET, slo=SLO(ttft_s=0.15))


@pytest.mark.parametrize("start", [None, 1.0, 9.9, 300.0])
def test_the_knee_is_the_capacity(start):
    """Evenly spaced, nobody waits up to 10/s. At a rate r above, request k waits k (0.1 - 1/r), at most 0.05 s to meet.

    Of 200, 180 must meet: 179 (0.1 - 1/r) <= 0.05, so r <= 10.028. The rungs there are 1.02^116 = 9.945 and 10.144.
    The offered rate counts 200 requests over 199 gaps, so that gaps are 1/r x 200/199: r <= 10.028 x 200/199 = 10.079.
    """
    found = knee_of_seed(QUESTION, even(), 0, 0.9, start_per_s=start)
    assert found.rate_per_s == pytest.approx(1.02**116, rel=1e-12)
    assert (found.attainment, found.monotone) == (1.0, True)
    assert found.goodput_per_s == pytest.approx(found.rate_per_s, rel=0.01)


def test_twice_the_workers_have_twice_the_knee():
    two = replace(QUESTION, fleet=replace(FLEET, workers=2))
    found = knee_of_seed(two, even(400), 0, 0.9)
    assert found.rate_per_s == pytest.approx(20, rel=0.021)


def test_each_search_starts_at_the_knee_before():
    """The draws of two seeds are the same here: the second search needs the rungs around the knee alone."""
    first, second = knees(QUESTION, lambda seed: even(), (0, 1), 0.9)
    assert first.rate_per_s == second.rate_per_s
    assert second.runs <= 4 < first.runs


def test_the_same_question_has_the_same_knees():
    draws = {
        seed: generate("poisson", requests=150, seed=seed, prompt_tokens="100", output_tokens="1") for seed in (0, 1)
    }
    one, two = (knees(QUESTION, draws.__getitem__, (0, 1), 0.9) for _ in range(2))
    assert one == two
    faster = replace(QUESTION, slo=SLO(ttft_s=1.0))  # the control
    assert all(
        a.rate_per_s < b.rate_per_s for a, b in zip(one, knees(faster, draws.__getitem__, (0, 1), 0.9), strict=True)
    )


def test_a_bound_that_nobody_can_meet_has_no_knee():
    found = knee_of_seed(replace(QUESTION, slo=SLO(ttft_s=0.09)), even(50), 0, 0.9)
    assert (found.rate_per_s, found.attainment, found.goodput_per_s, found.stable) == (None, None, None, None)


def test_the_warm_up_leaves_the_same_requests_out_at_every_rate():
    """Forty requests at once, then 160 evenly: the first forty miss at any rate, and cost the knee unless left out."""
    jam = tuple(Request(i, 0.0, 100, 1) for i in range(40))
    rest = tuple(replace(r, id=40 + r.id, arrival_s=20.0 + r.arrival_s) for r in even(160))
    workload = Workload("jam", jam + rest)
    without = knee_of_seed(QUESTION, workload, 0, 0.9, warmup_s=15.0)
    assert without.attainment == pytest.approx(1.0) and without.rate_per_s > 4.0
    assert knee_of_seed(QUESTION, workload, 0, 0.9).rate_per_s is None  # the control: 40 of 200 always miss
    for scale in (0.5, 1.0, 3.0):
        window = counted(workload, 15.0, scale)
        assert sum(r.arrival_s in window for r in workload.at_rate(scale)) == 160


@pytest.mark.parametrize(("warmup_s", "target"), [(1e6, 0.9), (-1.0, 0.9), (0.0, 90.0)])
def test_bad_input_is_refused(warmup_s, target):
    with pytest.raises(InputError):
        knee_of_seed(QUESTION, even(20), 0, target, warmup_s)
