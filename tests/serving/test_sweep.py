"""The same question at several rates and on several draws."""

import pytest

from helpers.errors import InputError
from helpers.metrics.latency import distribution, ttft_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.sweep import over_rates, over_seeds, redraw
from helpers.workload.generate import generate

KNOBS = {"rate_per_s": 4.0, "requests": 200, "prompt_tokens": "2000", "output_tokens": "20"}


def test_each_run_is_offered_its_rate():
    runs = over_rates(Experiment(generate("poisson", seed=3, **KNOBS), Fleet(workers=1)), (1.0, 4.0, 16.0))
    for rate, run in runs.items():
        arrivals = [t.arrival_s for t in run.timelines]
        assert len(arrivals) / (max(arrivals) - min(arrivals)) == pytest.approx(rate)
    means = [distribution(ttft_s, run.timelines).mean for run in runs.values()]
    assert means == sorted(means) and means[0] < means[-1] / 2


def test_draws_differ_and_come_again():
    first, again = redraw("poisson", range(3), **KNOBS), redraw("poisson", range(3), **KNOBS)
    assert [w.sha256 for w in first.values()] == [w.sha256 for w in again.values()]
    assert len({w.sha256 for w in first.values()}) == 3


def test_each_seed_gets_its_draw_and_its_seed():
    draws = redraw("poisson", (5, 7), **KNOBS)
    runs = over_seeds(Experiment(draws[5], Fleet(workers=2), "random"), draws)
    assert {seed: run.provenance.seeds for seed, run in runs.items()} == {5: (5,), 7: (7,)}
    assert [run.provenance.workload_sha256 for run in runs.values()] == [draw.sha256 for draw in draws.values()]


def test_bad_input_is_refused():
    one = generate("poisson", seed=0, **{**KNOBS, "requests": 1})
    with pytest.raises(InputError, match="no rate"):
        over_rates(Experiment(one, Fleet(workers=1)), (1.0,))
    many = generate("poisson", seed=0, **KNOBS)
    with pytest.raises(InputError, match="above 0"):
        over_rates(Experiment(many, Fleet(workers=1)), (0.0,))
