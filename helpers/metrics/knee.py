"""The knee: the highest rate at which a system still meets its SLOs for the share of requests asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from helpers.errors import InputError

FIRST_JUMP = 4  # steps


@dataclass(frozen=True, slots=True, order=True)
class RatePoint:
    """A measured point: the offered rate in requests per second, and the attainment (0 … 1) at it."""

    rate_per_s: float
    attainment: float


@dataclass(frozen=True)
class Knee:
    """The knee lies between `rate_per_s`, the highest rate seen to pass, and `failing_per_s`, the lowest to fail.

    `rate_per_s` is None when even the lowest rate failed, `failing_per_s` None when the highest
    passed. `points` are all that were evaluated, by rate; `monotone` is False when attainment
    rose with the rate somewhere, so that a knee is not well defined (more seeds, or a longer run).
    """

    target: float
    rate_per_s: float | None
    failing_per_s: float | None
    points: tuple[RatePoint, ...]
    monotone: bool


def knee_of(points: Sequence[RatePoint], target: float) -> Knee:
    """The knee of measured points, in any order: nothing is interpolated between them.

    A rate passes when its attainment and that of every lower rate reach the target. Raises
    InputError on no points, equal rates, or numbers out of range.
    """
    _check_target(target)
    ordered = tuple(sorted(points))
    if not ordered:
        raise InputError("the knee of no points is not defined; measure at least one rate")
    for before, after in pairwise(ordered):
        if before.rate_per_s == after.rate_per_s:
            raise InputError(f"two points have the rate {after.rate_per_s:g}/s; average them before finding the knee")
    passing = failing = None
    for point in ordered:
        if not (point.rate_per_s > 0 and 0 <= point.attainment <= 1):
            raise InputError(
                f"the point (rate {point.rate_per_s}/s, attainment {point.attainment}) is out of range; "
                "rates are above 0 and attainment lies between 0 and 1"
            )
        if failing is None and point.attainment >= target:
            passing = point.rate_per_s
        elif failing is None:
            failing = point.rate_per_s
    monotone = all(a.attainment >= b.attainment for a, b in pairwise(ordered))
    return Knee(target, passing, failing, ordered, monotone)


def knee_near(
    attainment: Callable[[float], float],
    target: float,
    start_per_s: float,
    step: float = 0.02,
    reach: float = 64.0,
) -> Knee:
    """Find the knee on the rates (1 + step)^k, k a whole number, from the one nearest to `start_per_s`.

    From there, jumps that double lead up while rates pass, or down while they fail, at most to `reach` times the
    start or its part; what lies between the last two is halved. The rates are the same for every start, so where
    attainment falls with the rate the start does not change the knee, and knees of paired runs can be subtracted:
    equal systems differ by exactly 0. Raises InputError for a search that cannot begin, a target out of range, and when
    `attainment` gives something that is not a share.
    """
    _check_target(target)
    if not (start_per_s > 0 and step > 0 and reach > 1):
        raise InputError(
            f"a search from {start_per_s:g}/s by steps of {step:g} up to {reach:g} times as far cannot begin; "
            "give a rate and a step above 0, and a reach above 1"
        )
    points: dict[int, RatePoint] = {}

    def passes(k: int) -> bool:
        if k not in points:
            rate_per_s = (1 + step) ** k
            points[k] = RatePoint(rate_per_s, attainment(rate_per_s))
            knee_of((points[k],), target)  # refuses an attainment out of range at once
        return points[k].attainment >= target

    start, furthest = round(math.log(start_per_s, 1 + step)), math.ceil(math.log(reach, 1 + step))
    upward = passes(start)
    jump, near = FIRST_JUMP, start
    far = start + jump if upward else start - jump
    while passes(far) == upward and jump < furthest:
        jump, near = min(2 * jump, furthest), far
        far = start + jump if upward else start - jump
    if passes(far) != upward:
        low, high = sorted((near, far))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(middle) else (low, middle)
    return knee_of(tuple(points.values()), target)


def _check_target(target: float) -> None:
    if not 0 < target <= 1:
        raise InputError(f"the attainment target is {target}; give a share above 0 and up to 1, such as 0.9")
