"""Effects of a factorial, worked by hand; a planted interaction, and what cannot be paired."""

import pytest

from helpers.errors import InputError
from helpers.metrics.factorial import effects

# Two factors, two seeds: y = 10 + 2 a + 3 b + a b, and 10 more. Effects are means at +1 less those at -1: 4, 6 and 2.
CELLS = {(a, b): {0: 10 + 2 * a + 3 * b + a * b, 1: 20 + 2 * a + 3 * b + a * b} for a in (-1, 1) for b in (-1, 1)}


def by_name(cells, names=("a", "b")):
    return {one.name: one for one in effects(names, cells)}


def test_effects_are_differences_of_means():
    found = by_name(CELLS)
    assert list(found) == ["a", "b", "a x b"]
    # a: (10 + 2 + 3 + 1 + 10 + 2 - 3 - 1) / 2 - (10 - 2 + 3 - 1 + 10 - 2 - 3 + 1) / 2 = 12 - 8.
    assert [one.interval.mean for one in found.values()] == [4, 6, 2]
    # Both seeds have the same effects, however far apart their levels are: the interval has no width.
    assert all(one.interval.low == one.interval.high and one.shown for one in found.values())


def test_an_interaction_is_half_the_difference_of_differences():
    # b brings 2 where a is low and 10 where a is high: half of the difference is 4, the mean is 6.
    cells = {(-1, -1): 5, (-1, 1): 7, (1, -1): 5, (1, 1): 15}
    found = by_name({at: {0: value, 1: value} for at, value in cells.items()})
    assert (found["b"].interval.mean, found["a x b"].interval.mean, found["a"].interval.mean) == (6, 4, 4)


def test_the_interval_is_over_seeds():
    # Effects of a: 4 and 6. Mean 5, standard error 1, Student's t with one degree of freedom: 12.706.
    cells = {(-1,): {0: 1.0, 1: 1.0}, (1,): {0: 5.0, 1: 7.0}}
    (one,) = effects(("a",), cells)
    assert (one.interval.mean, one.interval.low, one.interval.high) == pytest.approx(
        (5, 5 - 12.706, 5 + 12.706), abs=1e-3
    )
    assert not one.shown


def test_three_factors_have_seven_effects_and_no_effect_where_there_is_none():
    cells = {(a, b, c): {0: 3 * a * b * c, 1: 3 * a * b * c} for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)}
    found = by_name(cells, ("a", "b", "c"))
    assert len(found) == 7 and found["a x b x c"].interval.mean == 6
    assert all(one.interval.mean == 0 for name, one in found.items() if name != "a x b x c")


@pytest.mark.parametrize(
    ("names", "cells", "sentence"),
    [
        (("a", "b"), {at: v for at, v in CELLS.items() if at != (1, 1)}, "has 4 cells, .* got 3"),
        (("a",), CELLS, "a factorial of 1 factors has 2 cells"),
        (("a", "b"), CELLS | {(1, 1): {0: 1, 2: 1}}, "not run on the same seeds"),
        (("a", "b"), {at: {0: 1} for at in CELLS}, "at least two replicates"),
    ],
)
def test_what_is_no_factorial_is_refused(names, cells, sentence):
    with pytest.raises(InputError, match=sentence):
        effects(names, cells)
