"""The step without noise, and what its answers are read from."""

from statistics import correlation

import pytest

from helpers.errors import InputError
from helpers.lessons.closed_loop import between, even_step, on_each_worker, over_mean, pool_loads, response
from helpers.metrics.series import Series
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.views import Telemetry


def test_a_step_has_equal_gaps_before_and_after():
    """2 a second until 3 s: 0, 0.5 ... 2.5; then 4 a second until 5 s: 3, 3.25 ... 4.75."""
    step = even_step(2, 4, 3, 5, prompt=100, output=10)
    times = [r.arrival_s for r in step]
    assert times == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, *(3 + i / 4 for i in range(8))])
    assert {(r.prompt_tokens, r.output_tokens, r.prefix_blocks) for r in step} == {(100, 10, ())}
    with pytest.raises(InputError, match="above 0"):
        even_step(2, 4, 5, 5, 100, 10)


def test_a_herd_swings_once_a_round_of_reports_and_fresh_views_do_not():
    """The prediction of the chapter: four workers, reports every half second, so every two seconds."""
    step = even_step(30, 60, 10, 30, prompt=1500, output=150)
    late, fresh = (
        Experiment(step, Fleet(workers=4, telemetry=Telemetry(period_s)), "least_requests").run()
        for period_s in (0.5, 0.0)
    )
    assert response(late, 10, 30)[1].period_s == pytest.approx(2.0, rel=0.05)
    assert response(fresh, 10, 30)[1].swings == 0
    shown = on_each_worker(late, 12, 14)
    assert len(shown) == 4 and all(12 <= t <= 14 for t in shown[0].times_s)


def test_parts_and_means():
    series = Series((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    assert between(series, 2, 3) == Series((2.0, 3.0), (2.0, 3.0))
    assert over_mean(series).values == (0.5, 1.0, 1.5)
    with pytest.raises(InputError, match="has no mean"):
        over_mean(Series((1.0,), (0.0,)))


def test_the_pools_swing_against_each_other():
    prefill, decode = pool_loads("current").values()
    assert correlation(prefill.values, decode.values) < -0.4
    # The control: the same loads a quarter of a swing apart.
    assert correlation(prefill.values[3:], decode.values[:-3]) > -0.3
