"""A cost on a device that slows down while it computes prompts: by hand, found again from steps, in both simulators."""

from dataclasses import replace
from math import exp, log
from random import Random

import pytest

from helpers.cost.fit import coefficients, design, fit, residuals
from helpers.cost.iteration import AffineCost
from helpers.cost.roofline import RooflineCost
from helpers.cost.samples import StepSample
from helpers.cost.warm import MEMORY_S, Recent, WarmCost, seconds_of
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.models import model
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload
from tests.simulator.random_cases import FLOAT, make_case, play

REST = AffineCost(1e-3, 1e-5, 0.0, 1e-4, 1e-7)
WARM = WarmCost(1e-3, 1e-5, 0.0, 1e-4, 1e-7, per_recent_token_s=1e-7)


def test_tokens_count_less_the_longer_they_are_ago():
    """Half of 800 is left after log 2 of the memory; 100 more are 500, of which 1/e is left after the whole of it."""
    recent = Recent().after(800, 1.0)
    at = 1.0 + MEMORY_S * log(2)
    assert recent.left(at) == pytest.approx(400)
    assert recent.after(100, at).left(at + MEMORY_S) == pytest.approx(500 / exp(1))
    assert Recent().left(7.0) == 0.0


def test_a_warm_step_is_longer_by_new_times_recent_tokens():
    """30 + 20 new tokens after 400 recent ones: 50 * 400 * 1e-7 s = 2 ms. At rest, and of decodes alone, nothing is."""
    sample = StepSample(((30, 0), (20, 64)), 2, 100, 0.5, recent_tokens=400.0)
    assert seconds_of(WARM, sample) - seconds_of(REST, sample) == pytest.approx(2e-3)
    assert (
        seconds_of(WARM, sample._replace(recent_tokens=0.0))
        == WARM.step(sample.chunks, 2, 100)
        == seconds_of(REST, sample)
    )
    assert seconds_of(WARM, sample._replace(chunks=())) == REST.step((), 2, 100)
    with pytest.raises(InputError, match="the cost coefficient per_recent_token_s is"):
        replace(WARM, per_recent_token_s=-1e-9)


def steps(cost, count=300):
    """Chunks, some beside decodes, after anything from no to 2,000 recent tokens."""
    rng, found = Random(1), []
    for i in range(count):
        chunks = ((rng.choice([1, 20, 90, 300]), rng.choice([0, 64])),) if i % 2 else ()
        decodes = rng.randrange(0 if chunks else 1, 9)
        sample = StepSample(chunks, decodes, 90 * decodes + i % 7, 1.0, recent_tokens=rng.uniform(0.0, 2e3))
        found.append(sample._replace(seconds=seconds_of(cost, sample)))
    return found


def test_the_column_is_new_times_recent_tokens():
    """30 + 20 times 400, and nothing for a decode."""
    some = [
        StepSample(((30, 0), (20, 64)), 2, 100, 0.5, recent_tokens=400.0),
        StepSample((), 1, 9, 0.5, 0.0, 0.0, 400.0),
    ]
    assert design(some, WarmCost)[:, 5].tolist() == [20_000, 0]
    assert design(some, WarmCost)[:, :5].tolist() == design(some).tolist()


def test_a_planted_warmth_is_found_again():
    """Controls: an affine fit misses those steps, and recent tokens of other steps explain nothing."""
    samples = steps(WARM)
    found = fit(samples, draws=2, kind=WarmCost)
    assert found.cost.per_recent_token_s == pytest.approx(1e-7, rel=1e-3)
    assert found.cost.per_prefill_token_s == pytest.approx(1e-5, rel=1e-2)
    assert max(r.p90 for r in found.residuals) < 1e-3
    assert max(r.p90 for r in fit(samples, draws=2).residuals) > 0.1
    others = [s.recent_tokens for s in samples]
    Random(2).shuffle(others)
    shuffled = [s._replace(recent_tokens=recent) for s, recent in zip(samples, others, strict=True)]
    assert coefficients(shuffled, WarmCost)[5] < 0.5e-7


def test_steps_of_a_cold_device_have_no_warmth():
    assert coefficients(steps(REST), WarmCost)[5] == pytest.approx(0.0, abs=1e-11)


# -- in the simulator

FLOAT_WARM = WarmCost(**{name: getattr(FLOAT, name) for name in FLOAT.__slots__}, per_recent_token_s=1e-6)


def served(cost, *arrivals, stepwise=False):
    """When the first tokens of prompts of 100 tokens are out that come at these times, one worker, one token each."""
    requests = tuple(Request(i, arrival, 100, 1) for i, arrival in enumerate(arrivals))
    fleet = Fleet(workers=1, chunk_tokens=100, max_batch=8, cost=cost)
    run = Experiment(Workload("test", requests, block_tokens=16), fleet).run(stepwise=stepwise)
    return [t.first_token_s for t in run.timelines]


@pytest.mark.parametrize("stepwise", [False, True])
def test_who_comes_at_once_waits_for_a_warm_device_and_who_comes_late_for_a_cold_one(stepwise):
    """A step at rest: 1 ms + 100 * 10 us = 2 ms. Right after it another 100 * 100 * 0.1 us = 1 ms longer, so it ends at
    5 ms; there 100 e^(-3 ms / 50 ms) + 100 tokens are recent, of which after ten seconds none is left.
    """
    found = served(WARM, 0.0, 0.001, 10.0, stepwise=stepwise)
    assert found == pytest.approx([0.002, 0.005, 10.002])
    third = served(WARM, 0.0, 0.001, 0.002, stepwise=stepwise)[2]
    assert third == pytest.approx(0.005 + 0.002 + 1e-5 * 100 * (exp(-0.003 / MEMORY_S) + 1))
    assert served(REST, 0.0, 0.001, 10.0, stepwise=stepwise) == pytest.approx([0.002, 0.004, 10.002])  # control


def test_a_cost_without_warmth_is_the_affine_run_to_the_last_bit():
    arrivals = [0.0007 * i for i in range(40)]
    assert served(replace(WARM, per_recent_token_s=0.0), *arrivals) == served(REST, *arrivals)


@pytest.mark.parametrize("seed", range(40))
def test_both_modes_of_the_simulator_agree_on_it(seed):
    """On small, tight, eventful runs with losses, slow workers and split roles."""
    case = make_case(seed, 0.0)
    (fast, _), (slow, _) = play(case, FLOAT_WARM), play(case, FLOAT_WARM, stepwise=True)
    for a, b in zip(fast.timelines, slow.timelines, strict=True):
        assert (a.status, a.prefill_worker, a.decode_worker) == (b.status, b.prefill_worker, b.decode_worker)
        assert a.finished_s == pytest.approx(b.finished_s, abs=1e-9)


def test_control_warmth_changes_those_runs():
    for seed in range(10):
        rest, warm = (play(make_case(seed, 0.0), cost)[0].timelines for cost in (FLOAT, FLOAT_WARM))
        both = [(a, b) for a, b in zip(rest, warm, strict=True) if a.first_token_s and b.first_token_s]
        assert max(b.first_token_s - a.first_token_s for a, b in both) > 1e-3


def test_a_cost_that_knows_no_warmth_says_the_same_of_a_measured_step():
    """A data sheet's roofline is held against measured steps as well."""
    sample = StepSample(((100, 50),), 2, 100, 0.01, recent_tokens=1000.0)
    cost = RooflineCost(model("llama-3.1-8b"), gpu("h100"))
    assert seconds_of(cost, sample) == cost.step(sample.chunks, 2, 100) != seconds_of(WARM, sample)
    assert residuals(cost, [sample])[0].bias == seconds_of(cost, sample) / 0.01 - 1
