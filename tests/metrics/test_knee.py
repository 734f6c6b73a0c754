"""The knee of a system whose attainment is known in closed form."""

import math

import pytest

from helpers.errors import InputError
from helpers.metrics.knee import RatePoint, knee_near, knee_of

BOUND_S, TARGET = 5.0, 0.9
TRUE_KNEE = 1 - math.log(1 / (1 - TARGET)) / BOUND_S  # M/M/1, mu = 1: P(T <= t) = 1 - exp(-(mu - lambda) t)


def mm1_attainment(rate_per_s: float) -> float:
    return 1 - math.exp(-(1 - rate_per_s) * BOUND_S) if rate_per_s < 1 else 0.0


@pytest.mark.parametrize("start", [0.002, 0.1, 0.5, 0.54, 0.56, 0.9, 40.0])
def test_the_knee_on_a_ladder_is_the_same_from_every_start(start):
    """The true knee is 1 - ln(10) / 5 = 0.5395, and 1.02^-32 = 0.5306 is below it, 1.02^-31 = 0.5412 above."""
    found = knee_near(mm1_attainment, TARGET, start, reach=1000)
    assert (found.rate_per_s, found.failing_per_s) == (1.02**-32, 1.02**-31)
    assert found.rate_per_s <= TRUE_KNEE < found.failing_per_s and found.monotone
    assert [p.rate_per_s for p in found.points] == sorted({p.rate_per_s for p in found.points})
    assert all(p.attainment == mm1_attainment(p.rate_per_s) for p in found.points)


def test_a_good_start_saves_points():
    def points(start):
        return len(knee_near(mm1_attainment, TARGET, start).points)

    assert points(TRUE_KNEE) <= 5 < points(20 * TRUE_KNEE)


def test_a_ladder_that_ends_leaves_the_side_open():
    always, never = (knee_near(lambda rate, share=share: share, 0.9, 1.0, reach=4) for share in (1.0, 0.0))
    assert always.failing_per_s is None and always.rate_per_s == pytest.approx(4, rel=0.02)
    assert never.rate_per_s is None and never.failing_per_s == pytest.approx(1 / 4, rel=0.02)


def test_another_target_has_another_knee():
    strict = knee_near(mm1_attainment, 0.99, 1.0, reach=1000)
    assert strict.failing_per_s < TRUE_KNEE


def test_no_rate_is_tried_twice():
    calls = []
    knee_near(lambda r: calls.append(r) or mm1_attainment(r), TARGET, 0.1)
    assert len(calls) == len(set(calls)) <= 16


def test_the_knee_of_measured_points_interpolates_nothing():
    curve = [RatePoint(r, a) for r, a in [(4, 0.5), (1, 1.0), (2, 0.95), (3, 0.91)]]
    found = knee_of(curve, 0.9)
    assert (found.rate_per_s, found.failing_per_s, found.monotone) == (3, 4, True)
    assert [p.rate_per_s for p in found.points] == [1, 2, 3, 4]


def test_a_rate_counts_only_when_all_lower_rates_pass():
    bumpy = [RatePoint(1, 0.95), RatePoint(2, 0.85), RatePoint(3, 0.93), RatePoint(4, 0.2)]
    found = knee_of(bumpy, 0.9)
    assert (found.rate_per_s, found.failing_per_s, found.monotone) == (1, 2, False)


def test_an_attainment_that_rises_with_the_rate_is_reported_as_not_monotone():
    """It passes with 0.6 up to 1/s and with 0.7 up to 1.1/s; without the rise the same search is monotone."""
    bumpy, falling = (
        knee_near(lambda rate, low=low: 0.2 if rate > 1.1 else low if rate <= 1.0 else 0.7, 0.5, 1.0)
        for low in (0.6, 0.8)
    )
    assert (bumpy.rate_per_s, bumpy.monotone) == (1.02**4, False)
    assert (falling.rate_per_s, falling.monotone) == (1.02**4, True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: knee_of([], 0.9), "no points"),
        (lambda: knee_of([RatePoint(1, 0.5), RatePoint(1, 0.6)], 0.9), "two points have the rate 1"),
        (lambda: knee_of([RatePoint(-1, 0.5)], 0.9), "out of range"),
        (lambda: knee_of([RatePoint(1, 0.5)], 90), "attainment target is 90"),
        (lambda: knee_near(lambda rate: 95.0, 0.9, 1.0), "attainment 95.0"),
        (lambda: knee_near(mm1_attainment, 0.9, 0.0), "a search from 0/s"),
        (lambda: knee_near(mm1_attainment, 9, 1.0), "attainment target is 9"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
