"""Settling, overshoot and oscillation of first and second order responses, whose values are known."""

import math
from random import Random

import pytest

from helpers.errors import InputError
from helpers.metrics.series import Series
from helpers.metrics.settling import oscillation, settle

DT_S, STEP_S, END_S = 0.01, 5.0, 65.0


def response(after, before: float = 0.0) -> Series:
    """`before` up to the step, after(t) from it on, t seconds after the step."""
    times = [i * DT_S for i in range(round(END_S / DT_S))]
    return Series(tuple(times), tuple(before if t < STEP_S else after(t - STEP_S) for t in times))


def first_order(tau_s: float):
    return lambda t: 1 - math.exp(-t / tau_s)


def second_order(damping: float, omega: float):
    """Unit step response of an underdamped second-order system."""
    damped = omega * math.sqrt(1 - damping**2)
    return lambda t: (
        1
        - math.exp(-damping * omega * t)
        * (math.cos(damped * t) + damping / math.sqrt(1 - damping**2) * math.sin(damped * t))
    )


@pytest.mark.parametrize("tau_s", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("band", [0.02, 0.05, 0.2])
def test_a_first_order_step_settles_after_tau_ln_1_over_band(tau_s, band):
    series = response(first_order(tau_s))
    found = settle(series, STEP_S, band)
    assert found.settling_s == pytest.approx(tau_s * math.log(1 / band), abs=2 * DT_S)
    assert (found.initial, found.final, found.overshoot) == (0, pytest.approx(1, abs=1e-4), pytest.approx(0, abs=1e-4))
    assert oscillation(series, STEP_S, band).swings == 0


@pytest.mark.parametrize("damping", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("scale", [1.0, -30.0])
def test_a_second_order_step_overshoots_and_swings(damping, scale):
    """Overshoot exp(-pi z / sqrt(1 - z^2)), period 2 pi / omega_d, for steps up and down."""
    omega = 2.0
    unit = second_order(damping, omega)
    series = response(lambda t: 100 + scale * unit(t), before=100.0)
    expected = math.exp(-math.pi * damping / math.sqrt(1 - damping**2))
    assert settle(series, STEP_S).overshoot == pytest.approx(expected, abs=2e-3)
    swings = oscillation(series, STEP_S)
    peaks = [expected**k for k in range(1, 50) if expected**k > 0.05]
    assert swings.swings == len(peaks)
    assert swings.amplitude == pytest.approx(abs(scale) * sum(peaks) / len(peaks), rel=0.02)
    if len(peaks) > 1:
        damped = omega * math.sqrt(1 - damping**2)
        assert swings.period_s == pytest.approx(2 * math.pi / damped, rel=0.02)
    else:
        assert swings.period_s is None


def test_settling_counts_from_the_last_departure_from_the_band():
    """In the band at 1 s, out of it again at 8 s for 1 s: settled at 9 s."""
    series = response(lambda t: 0.5 if t < 1 or 8 <= t < 9 else 1.0)
    assert settle(series, STEP_S).settling_s == pytest.approx(9.0, abs=2 * DT_S)


def test_what_still_moves_has_not_settled():
    assert settle(response(lambda t: t), STEP_S).settling_s is None
    endless = response(lambda t: math.sin(2 * math.pi * t / 4), before=-2.0)
    assert settle(endless, STEP_S).settling_s is None
    assert endless.values[-1] == pytest.approx(0, abs=0.05)  # although it happens to end in the band


def test_a_sustained_oscillation_keeps_its_period_under_noise():
    rng = Random(0)
    series = response(lambda t: 50 + 10 * math.sin(2 * math.pi * t / 6) + rng.gauss(0, 0.2), before=20.0)
    found = oscillation(series, STEP_S, band=0.1, final_share=1.0)
    assert found.period_s == pytest.approx(6.0, rel=0.03)
    assert found.amplitude == pytest.approx(10, rel=0.06)
    assert found.swings == 20  # ten periods in 60 s


def test_a_burst_that_passes_has_no_overshoot_but_settles():
    """5 up to 12 and back within 10 s: the band is 5 % of the 7 it departed."""
    series = response(lambda t: 5 + max(0.0, 7 * (1 - t / 10)), before=5.0)
    found = settle(series, STEP_S)
    assert found.overshoot is None
    assert (found.low, found.high) == (pytest.approx(5 - 0.35), pytest.approx(5 + 0.35))
    assert found.settling_s == pytest.approx(9.5, abs=2 * DT_S)


def test_with_a_dwell_what_comes_later_does_not_count():
    """In the band for 0.5 s from 1 s on, and from 2 s on but for 1 s at 8 s; a sample is 10 ms."""
    series = response(lambda t: 0.5 if t < 1 or 1.5 <= t < 2 or 8 <= t < 9 else 1.0)
    assert settle(series, STEP_S).settling_s == pytest.approx(9.0, abs=2 * DT_S)
    assert settle(series, STEP_S, dwell=40).settling_s == pytest.approx(1.0, abs=2 * DT_S)
    assert settle(series, STEP_S, dwell=100).settling_s == pytest.approx(2.0, abs=2 * DT_S)
    assert settle(series, STEP_S, dwell=700).settling_s == pytest.approx(9.0, abs=2 * DT_S)
    assert settle(series, STEP_S, dwell=6000).settling_s is None  # 51 s are left after the last departure


def test_the_floor_widens_a_band_that_noise_would_leave():
    """Steady noise of up to 1 about 10, up from 2: 5 % of the step of 8 is 0.4, and noise leaves it all the time."""
    rng = Random(3)
    series = response(lambda t: 10 + rng.uniform(-1, 1) if t >= 3 else 6.0, before=2.0)
    assert settle(series, STEP_S).settling_s is None
    found = settle(series, STEP_S, floor=1.1)
    assert found.settling_s == pytest.approx(3.0, abs=2 * DT_S)
    assert found.high - found.low == pytest.approx(2.2) and settle(series, STEP_S, floor=0.1) == settle(series, STEP_S)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: settle(response(first_order(1)), STEP_S, floor=-1.0), "a floor of -1.0"),
        (lambda: settle(response(first_order(1)), STEP_S, dwell=0), "a dwell of 0 samples"),
        (lambda: settle(response(first_order(1)), 0.0), "before the step"),
        (lambda: settle(response(first_order(1)), END_S), "only 0 samples"),
        (lambda: settle(response(first_order(1)), STEP_S, band=0), "band 0"),
        (lambda: Series((1.0, 1.0), (2.0, 3.0)), "do not increase"),
        (lambda: Series((1.0,), (2.0, 3.0)), "1 times but 2 values"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
