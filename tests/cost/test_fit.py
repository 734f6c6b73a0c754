"""Coefficients come back from steps that were made with them, intervals hold them, and nothing is negative."""

import json
from random import Random

import numpy as np
import pytest

from helpers.cost.calibration import COEFFICIENTS, read_cost
from helpers.cost.fit import coefficients, design, fit, launch_bound, non_negative_least_squares, residuals
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

TRUE = AffineCost(4e-3, 3e-5, 2e-9, 1e-4, 5e-8)


def steps(count=400, noise=0.0, cost=TRUE, seed=0):
    draw = Random(seed)
    found = []
    for i in range(count):
        chunks = ((draw.randint(16, 2048), draw.choice((0, 500, 4000))),) if i % 3 else ()
        decodes = draw.randint(1, 64) if i % 3 != 1 else 0
        kv_tokens = decodes * draw.randint(32, 4000)
        seconds = cost.step(chunks, decodes, kv_tokens) * (1 + noise * draw.gauss(0, 1))
        found.append(StepSample(chunks, decodes, kv_tokens, seconds))
    return found


def values(cost):
    return [getattr(cost, name) for name in COEFFICIENTS]


def test_the_columns_are_those_of_the_formula():
    samples = [StepSample(((10, 5), (3, 0)), 2, 77, 1.0), StepSample((), 4, 9, 1.0)]
    # pairs: 10 * (5 + 10) + 3 * (0 + 3) = 159
    assert design(samples).tolist() == [[1, 13, 159, 2, 77], [1, 0, 0, 4, 9]]


def test_exact_steps_give_the_coefficients_back():
    found = fit(steps())
    assert values(found.cost) == pytest.approx(values(TRUE), rel=1e-6)
    assert [r.kind for r in found.residuals] == ["decode", "prefill", "mixed"]
    assert all(r.p90 < 1e-6 for r in found.residuals)
    assert found.steps + found.held_out == 400
    other = fit(steps(cost=AffineCost(8e-3, 3e-5, 2e-9, 1e-4, 5e-8)))
    assert other.cost.overhead_s == pytest.approx(8e-3, rel=1e-6)  # control: it follows the data


def test_what_a_launch_takes_comes_back():
    """Every step with chunks is launched for 50 ms, which is longer than the device needs for some of them."""
    slow = [
        s._replace(seconds=max(s.seconds, 0.05), launch_s=0.05) if s.chunks else s._replace(launch_s=1e-3)
        for s in steps()
    ]
    found = fit(slow)
    assert 0.2 < sum(launch_bound(s) for s in slow) / len(slow) < 0.8
    assert found.cost.launch_s == pytest.approx(0.05, rel=0.01)  # steps of up to 55 ms of work are taken for launches
    assert values(found.cost) == pytest.approx(values(TRUE), rel=1e-6)
    assert all(r.p90 < 0.01 for r in found.residuals)
    blind = fit([s._replace(launch_s=0.0) for s in slow])  # control: a fit that is not told
    assert blind.cost.launch_s == 0.0
    assert max(r.p90 for r in blind.residuals) > 0.05


def test_gaps_before_a_step_are_a_part_of_what_it_takes():
    samples = [s._replace(gap_s=1e-3) for s in steps()]
    assert values(fit(samples).cost) == pytest.approx([TRUE.overhead_s + 1e-3, *values(TRUE)[1:]], rel=1e-6)


def test_noise_widens_the_intervals_which_hold_the_truth():
    quiet, loud = fit(steps(noise=0.01)), fit(steps(noise=0.10))
    for name, true in zip(COEFFICIENTS, values(TRUE), strict=True):
        low, high = loud.intervals[name]
        assert low <= true <= high
        assert high - low > quiet.intervals[name][1] - quiet.intervals[name][0]
    # |noise| of 10 %: half of a normal's absolute values are below 0.6745 sigma, 90 % below 1.645 sigma
    for r in loud.residuals:
        assert r.p50 == pytest.approx(0.067, abs=0.04)
        assert r.p90 == pytest.approx(0.16, abs=0.08)


def test_residuals_are_of_steps_that_were_not_seen():
    """One block of the held-out fifth is twice as slow: the fit must not know, the residuals must tell."""
    samples = steps()
    slow = [s._replace(seconds=2 * s.seconds) if 80 <= i < 100 else s for i, s in enumerate(samples)]  # block 4 of 20
    found = fit(slow)
    assert values(found.cost) == pytest.approx(values(TRUE), rel=1e-6)
    assert max(r.p90 for r in found.residuals) == pytest.approx(0.5, abs=1e-3)  # predicted half of what was measured
    seen = [s._replace(seconds=2 * s.seconds) if 60 <= i < 80 else s for i, s in enumerate(samples)]  # block 3 is seen
    assert values(fit(seen).cost) != pytest.approx(values(TRUE), rel=1e-3)


def test_a_known_bias_is_told():
    samples = steps(60)
    fast = AffineCost(*(0.9 * v for v in values(TRUE)))
    assert all(r.bias == pytest.approx(-0.1) for r in residuals(fast, samples))
    assert all(r.p50 == pytest.approx(0.1) for r in residuals(fast, samples))


def test_no_coefficient_is_negative():
    """Times that fall with the batch would need one below 0; least squares without the bound gives it."""
    samples = [StepSample((), n, 0, 0.010 - 1e-5 * n) for n in range(1, 41)]
    found = coefficients(samples)
    assert found.min() == 0.0
    assert found[3] == 0.0
    a = design(samples)[:, [0, 3]]
    assert np.linalg.lstsq(a, [s.seconds for s in samples], rcond=None)[0][1] < 0  # control
    assert fit(samples).cost.overhead_s > 0


def test_least_squares_by_hand():
    # |x - 1|^2 + |x + y - 1|^2 + |y + 1|^2 alone wants y = -2/3: 3 normal equations 2x + y = 2, x + 2y = 0.
    a, b = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([1.0, 1.0, -1.0])
    assert np.linalg.lstsq(a, b, rcond=None)[0] == pytest.approx([4 / 3, -2 / 3])
    # With y = 0 the rest is |x - 1|^2 twice, so x = 1.
    assert non_negative_least_squares(a, b) == pytest.approx([1.0, 0.0])
    assert non_negative_least_squares(a, np.array([1.0, 2.0, 1.0])) == pytest.approx([1.0, 1.0])  # inside: as without


def test_least_squares_meets_its_optimality_conditions():
    """Where x > 0 the gradient is 0; where x = 0 it points out of the region. A shifted x does not meet them."""
    draw = np.random.default_rng(3)
    met = lambda x: (  # noqa: E731
        np.abs((gradient := a.T @ (a @ x - b)) * (x > 1e-9)).max() < 1e-6 and gradient.min() > -1e-6
    )
    bound = 0
    for _ in range(50):
        a, b = draw.normal(size=(20, 5)), draw.normal(size=20)
        x = non_negative_least_squares(a, b)
        assert x.min() >= 0
        assert met(x)
        assert not met(x + 0.05)
        bound += (x == 0).any()
    assert bound > 10  # the bound mattered


@pytest.mark.parametrize("samples", [steps(30), [s._replace(seconds=0.0) for s in steps(60)]])
def test_too_few_or_timeless_steps_are_refused(samples):
    with pytest.raises(InputError):
        fit(samples)


def test_a_calibration_goes_through_a_file_into_a_fleet(tmp_path):
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(fit(steps()).record()))
    cost = read_cost(path)
    assert values(cost) == pytest.approx(values(TRUE), rel=1e-6)
    assert cost.kind == "fitted"
    one = Workload("one", (Request(0, 0.0, 100, 3),), block_tokens=64)
    run = Experiment(one, Fleet(workers=1, cost=cost)).run()
    # prefill 4e-3 + 100 * 3e-5 + 100 * 100 * 2e-9 = 7.02e-3 s
    assert run.timelines[0].first_token_s == pytest.approx(7.02e-3, rel=1e-5)
    assert run.provenance.cost == "fitted"


def test_the_launch_goes_through_a_file(tmp_path):
    path = tmp_path / "cost.json"
    record = fit(steps()).record()
    record["coefficients"]["launch_s"] = 0.02
    path.write_text(json.dumps(record))
    assert read_cost(path).launch_s == 0.02
    del record["coefficients"]["launch_s"]  # a calibration of before it was there
    path.write_text(json.dumps(record))
    assert read_cost(path).launch_s == 0.0
    record["coefficients"]["launch_s"] = "soon"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="launch_s"):
        read_cost(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"coefficients": {"overhead_s": 1}}', '{"coefficients": 3}'])
def test_a_damaged_calibration_is_refused(tmp_path, text):
    path = tmp_path / "cost.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"cost\.json"):
        read_cost(path)
    with pytest.raises(InputError):
        read_cost(tmp_path / "nowhere.json")
