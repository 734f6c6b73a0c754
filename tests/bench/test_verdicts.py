"""Verdicts by hand: intervals of paired differences against a margin."""

import pytest

from helpers.bench import verdicts
from helpers.bench.verdicts import HIGHER, LOWER, NO_EFFECT, NOT_SHOWN, difference, spread, verdict


def between(low, high):
    return {"mean": (low + high) / 2, "low": low, "high": high, "n": 10}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.5, 1.0, HIGHER),
        (-1.0, -0.5, LOWER),
        (-0.05, 0.05, NO_EFFECT),
        (0.01, 0.09, NO_EFFECT),  # above 0, and of no account
        (0.01, 0.2, HIGHER),  # above 0, and it may be of account
        (-0.2, -0.01, LOWER),
        (-0.2, 0.05, NOT_SHOWN),
        (-0.5, 0.5, NOT_SHOWN),
        (0.0, 0.0, NO_EFFECT),
        (-0.1, 0.1, NO_EFFECT),  # the margin belongs to it
        (0.0, 0.2, NOT_SHOWN),  # 0 itself is not excluded
    ],
)
def test_verdicts_with_a_margin_of_a_tenth(low, high, said):
    assert verdict(between(low, high), 0.1) == said


def test_nothing_is_said_without_an_interval():
    assert verdict(None, 0.1) == NOT_SHOWN
    assert spread({0: 1.0}) is None and difference({0: 1.0}, {0: 2.0}) is None
    assert difference({0: 1.0, 1: 2.0}, {1: 2.0, 2: 3.0}) is None  # one seed in common


def test_differences_are_paired():
    """Seeds that differ by 100 hide a difference of 1, unless they are paired: 1, 1.1 and 0.9 about 1.

    Standard deviation 0.1, over the root of three 0.0577, times t(0.975, 2) = 4.303: 0.2484.
    """
    base = {0: 0.0, 1: 100.0, 2: 200.0}
    found = difference({0: 1.0, 1: 101.1, 2: 200.9}, base)
    assert (found["mean"], found["n"]) == (pytest.approx(1.0), 3)
    assert found["low"] == pytest.approx(1 - 0.2484, abs=1e-3) and found["high"] == pytest.approx(1.2484, abs=1e-3)
    shuffled = difference({0: 101.1, 1: 200.9, 2: 1.0}, base)  # control: the wrong pairs show nothing
    assert shuffled["low"] < 0 < shuffled["high"]


def test_the_last_digits_of_a_run_are_no_difference():
    base = {0: 10.0, 1: 20.0}
    assert difference({0: 10.0 * (1 + 1e-12), 1: 20.0}, base) == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 2}
    assert difference({0: 10.0 * (1 + 1e-6), 1: 20.0}, base)["mean"] > 0  # control
    assert verdicts.SAME == 1e-9
