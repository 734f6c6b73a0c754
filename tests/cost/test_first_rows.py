"""A cost whose first rows cost more: by hand, found again from steps, and the same in both modes of the simulator."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from helpers.cost.first_rows import FirstRowsCost
from helpers.cost.fit import coefficients, design, fit
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

AFFINE = AffineCost(2e-3, 1e-4, 1e-8, 3e-4, 1e-6)
FIRST = FirstRowsCost(2e-3, 1e-4, 1e-8, 3e-4, 1e-6, per_first_row_s=5e-4)


def served(cost, steps=400):
    """Steps as a worker has them: mostly decodes of one to eight requests, some beside a prompt or without one."""
    rng, found = Random(0), []
    for i in range(steps):
        chunks = ((rng.choice([1, 20, 60, 130]), rng.choice([0, 64])),) if i % 4 == 0 else ()
        decodes = rng.randrange(0 if chunks else 1, 9)
        kv_tokens = sum(rng.randrange(30, 200) for _ in range(decodes))
        found.append(StepSample(chunks, decodes, kv_tokens, cost.step(chunks, decodes, kv_tokens)))
    return found


@pytest.mark.parametrize(
    ("chunks", "decodes", "more_s"),
    [
        ((), 1, 5e-4),  # one row
        ((), 2, 1e-3),
        ((), 8, 1e-3),  # of eight rows two cost more
        (((1, 40),), 0, 5e-4),  # one token of a prompt is a row like any other
        (((60, 0),), 0, 1e-3),
        (((60, 0),), 1, 1e-3),  # a decode and the first token
        (((1, 9), (1, 9)), 0, 1e-3),
    ],
)
def test_the_first_two_rows_of_a_step_cost_more(chunks, decodes, more_s):
    assert FIRST.step(chunks, decodes, 100) - AFFINE.step(chunks, decodes, 100) == pytest.approx(more_s)


def test_a_decode_is_affine_in_its_kv_tokens():
    for decodes in (1, 2, 7):
        base_s, slope_s = FIRST.decode(decodes)
        assert FIRST.step((), decodes, 500) == pytest.approx(base_s + 500 * slope_s)
    assert FIRST.steps(5, (0, 7), 1, 30) == [FIRST.step(((5, c),), 1, 30) for c in (0, 7)]


def test_without_it_the_cost_is_affine():
    none = replace(FIRST, per_first_row_s=0.0)
    for s in served(AFFINE, 40):
        assert none.step(s.chunks, s.decodes, s.kv_tokens) == AFFINE.step(s.chunks, s.decodes, s.kv_tokens)


def test_a_negative_one_is_refused():
    with pytest.raises(InputError, match="the cost coefficient per_first_row_s is"):
        replace(FIRST, per_first_row_s=-0.001)


def test_the_column_counts_rows_up_to_two():
    """Rows: 13 + 2, 1 + 0, 0 + 1 and 0 + 5, of which two count at most."""
    steps = [(((5, 7), (8, 0)), 2), (((1, 3),), 0), ((), 1), ((), 5)]
    samples = [StepSample(chunks, decodes, 9, 0.5) for chunks, decodes in steps]
    assert design(samples, FirstRowsCost)[:, 5].tolist() == [2, 1, 1, 2]
    assert design(samples, FirstRowsCost)[:, :5].tolist() == design(samples).tolist()


def test_a_planted_cost_is_found_again_and_an_affine_fit_misses_it():
    samples = served(FIRST)
    found = fit(samples, draws=2, kind=FirstRowsCost)
    assert found.cost.per_first_row_s == pytest.approx(5e-4, rel=1e-3)
    assert found.cost.per_decode_s == pytest.approx(3e-4, rel=1e-3)
    assert found.intervals["per_first_row_s"] == pytest.approx((5e-4, 5e-4), rel=1e-2)
    assert max(r.p90 for r in found.residuals) < 1e-3
    # control: affine, the increase of the first rows is taken for that of every row, so that large batches are too long
    affine = fit(samples, draws=2).cost
    assert affine.per_decode_s > 1.1 * 3e-4
    assert affine.step((), 32, 3200) > 1.05 * FIRST.step((), 32, 3200)
    assert affine.step((), 1, 100) > 1.05 * FIRST.step((), 1, 100)


def test_an_affine_cost_has_no_first_rows():
    found = coefficients(served(AFFINE), FirstRowsCost)
    assert found[5] == pytest.approx(0.0, abs=1e-8)
    assert np.allclose(found[:5], [2e-3, 1e-4, 1e-8, 3e-4, 1e-6], rtol=1e-3)
    assert type(fit(served(AFFINE), draws=2).cost) is AffineCost


def test_both_modes_of_the_simulator_agree_on_it():
    requests = tuple(Request(i, 0.004 * i, 30 + 17 * (i % 5), 2 + i % 7) for i in range(60))
    asked = Experiment(
        Workload("test", requests, block_tokens=16), Fleet(workers=2, chunk_tokens=64, max_batch=8, cost=FIRST)
    )
    fast, slow = asked.run(), asked.run(stepwise=True)
    times = [[(t.first_token_s, t.finished_s) for t in run.timelines] for run in (fast, slow)]
    assert np.allclose(*times, rtol=0, atol=1e-9)
    affine = replace(asked, fleet=replace(asked.fleet, cost=AFFINE)).run()  # control: it is not the affine run
    assert min(a.finished_s - b.finished_s for a, b in zip(fast.timelines, affine.timelines, strict=True)) > 1e-3
