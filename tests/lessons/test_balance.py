"""Balls into bins: cases worked by hand, the formula, and what more looking buys."""

from random import Random

import pytest

from helpers.errors import InputError
from helpers.lessons.balance import ALL, excess, one_choice_excess, thrown


def test_who_looks_at_all_fills_the_emptiest():
    """Weights 5, 1, 1, 3 on two workers: 5 | 0, 5 | 1, 5 | 2, 5 | 5."""
    assert thrown(2, [5, 1, 1, 3], ALL, Random(0)) == [5, 5]


def test_nothing_is_lost_and_one_look_is_a_draw():
    loads = thrown(4, [1.0] * 400, 1, Random(3))
    assert sum(loads) == 400
    assert loads != thrown(4, [1.0] * 400, 1, Random(4))
    assert max(loads) - 100 > max(thrown(4, [1.0] * 400, 2, Random(3))) - 100


def test_the_formula():
    """sqrt(2 x 50 x ln 4) = sqrt(138.63) = 11.77; one worker has nobody to differ from."""
    assert one_choice_excess(4, 50) == pytest.approx(11.774, abs=1e-3)
    assert one_choice_excess(1, 50) == 0


def test_more_balls_widen_one_choice_and_not_two():
    few, many = (excess(16, m, 1, range(5)) for m in (25, 400))
    assert 2.5 < many / few < 6  # about sqrt(400 / 25) = 4
    assert excess(16, 400, 2, range(5)) < 3
    assert excess(16, 400, ALL, range(5)) == 0


def test_no_workers_is_an_error():
    with pytest.raises(InputError, match="at least one worker"):
        thrown(0, [1], 1, Random(0))
