"""Percentiles with a named estimator and N, plain or weighted, and the rule for the tail.

`nearest_rank` is the smallest value x such that at least q % of the values are <= x: always a
value that occurred. `linear` interpolates between the two values around position (N - 1) q / 100
(type 7 of Hyndman and Fan, *Sample quantiles in statistical packages*, 1996). With integer weights
both are those of the list in which value i is repeated `weights[i]` times; it is never built.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from helpers.errors import InputError

ESTIMATORS = ("nearest_rank", "linear")
P99_REQUESTS = 3000


@dataclass(frozen=True, slots=True)
class Percentile:
    """The `q`-th percentile of `n` values, by the named estimator."""

    q: float
    value: float
    n: int
    estimator: str


class Ordered:
    """Values sorted once, for their mean and any number of percentiles.

    `groups` maps a weight (a whole number above 0) to the values that are repeated so often; plain
    values are `{1: values}`. Millions of weighted gaps stay as cheap as their distinct values.
    Raises InputError on a value that is not finite, or another weight.
    """

    __slots__ = ("_groups", "mean", "n")

    def __init__(self, groups: Mapping[int, Iterable[float]]) -> None:
        if any(w < 1 or w != int(w) for w in groups):
            raise InputError("a percentile weight is not a whole number above 0; weights count repetitions")
        self._groups = [(weight, ordered) for weight, values in groups.items() if (ordered := sorted(values))]
        # NaN has no place in an order: it may hide anywhere in a sorted list, so every value is looked at.
        if not all(all(map(math.isfinite, values)) for _, values in self._groups):
            raise InputError(
                "a percentile of values that are not all finite is not defined; leave such values out first"
            )
        self.n = sum(weight * len(values) for weight, values in self._groups)
        total = math.fsum(weight * math.fsum(values) for weight, values in self._groups)
        self.mean: float | None = total / self.n if self.n else None

    def _at(self, position: int) -> float:
        """The value at `position` (0 … n - 1) of the sorted list in which every value is repeated by its weight."""
        if len(self._groups) == 1:
            weight, values = self._groups[0]
            return values[position // weight]
        low = min(values[0] for _, values in self._groups)
        high = max(values[-1] for _, values in self._groups)
        if self._up_to(low) > position:
            return low
        while low < (middle := low / 2 + high / 2) < high:  # ends with neighbouring floats: high is one of the values
            if self._up_to(middle) > position:
                high = middle
            else:
                low = middle
        return high

    def _up_to(self, value: float) -> int:
        """How many values, by weight, are <= `value`."""
        return sum(weight * bisect_right(values, value) for weight, values in self._groups)

    def percentile(self, q: float, estimator: str = "nearest_rank") -> Percentile:
        """The `q`-th percentile, q in 0 … 100.

        Raises InputError on an unknown estimator, q outside 0 … 100, or no values.
        """
        if estimator not in ESTIMATORS:
            raise InputError(f"unknown percentile estimator {estimator!r}; use one of {', '.join(ESTIMATORS)}")
        if not 0 <= q <= 100:
            raise InputError(f"percentile q is {q}; give a number from 0 to 100")
        if not self.n:
            raise InputError("a percentile of no values is not defined; give at least one")
        share = _share(q)
        if estimator == "nearest_rank":
            value = self._at(max(math.ceil(share * self.n), 1) - 1)
        else:
            position = share * (self.n - 1)
            below = math.floor(position)
            value = low = self._at(below)
            if position > below:
                value = low + float(position - below) * (self._at(below + 1) - low)
        return Percentile(q, value, self.n, estimator)


@lru_cache(maxsize=512)
def _share(q: float) -> Fraction:
    """q / 100 exactly, so that p99 of 100 values is the 99th and not the 100th."""
    return Fraction(str(q)) / 100


def percentile(
    values: Sequence[float], q: float, estimator: str = "nearest_rank", weights: Sequence[int] | None = None
) -> Percentile:
    """The `q`-th percentile (0 … 100) of values in any order, value i repeated `weights[i]` times.

    Raises InputError as `Ordered` does, and on a weight list of another length.
    """
    if weights is None:
        return Ordered({1: values}).percentile(q, estimator)
    if len(weights) != len(values):
        raise InputError(f"{len(values)} values have {len(weights)} weights; give one weight for each value")
    groups: dict[int, list[float]] = {}
    for value, weight in zip(values, weights, strict=True):
        groups.setdefault(weight, []).append(value)
    return Ordered(groups).percentile(q, estimator)


def tail_q(requests: int) -> int:
    """The tail percentile that may be printed for `requests` pooled requests: 99 from 3,000 up, else 90.

    The count is of requests even where the values are gaps: the gaps of one request are not
    independent, so more of them per request do not make the tail better known.
    """
    return 99 if requests >= P99_REQUESTS else 90


def tail(values: Sequence[float], estimator: str = "nearest_rank") -> Percentile:
    """The tail percentile of one value for each request, p99 or p90 by `tail_q`."""
    return percentile(values, tail_q(len(values)), estimator)
