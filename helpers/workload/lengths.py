"""Distributions of lengths and times: prompt tokens, output tokens, think times, burst durations.

A distribution has `draw(rng) -> float`; `Tokens` turns one into a token count, rounded and clipped.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from random import Random
from typing import Protocol

from helpers.errors import InputError


class Distribution(Protocol):
    """Anything that draws a number of at least zero from the generator it is handed."""

    def draw(self, rng: Random) -> float: ...


@dataclass(frozen=True)
class Constant:
    """Always `value`."""

    value: float

    def __post_init__(self) -> None:
        _require(math.isfinite(self.value) and self.value >= 0, f"a constant length is {self.value}; use 0 or more")

    def draw(self, rng: Random) -> float:
        return self.value


@dataclass(frozen=True)
class Exponential:
    """Exponential with the given mean."""

    mean: float

    def __post_init__(self) -> None:
        _require(0 < self.mean < math.inf, f"an exponential distribution has mean {self.mean}; use a number above 0")

    def draw(self, rng: Random) -> float:
        return rng.expovariate(1.0) * self.mean


@dataclass(frozen=True)
class Lognormal:
    """`median` * exp(`sigma` * N(0, 1))."""

    median: float
    sigma: float

    def __post_init__(self) -> None:
        _require(0 < self.median < math.inf, f"a lognormal has median {self.median}; use a number above 0")
        _require(0 <= self.sigma < math.inf, f"a lognormal has sigma {self.sigma}; use 0 or more")

    def draw(self, rng: Random) -> float:
        return self.median * math.exp(self.sigma * rng.gauss(0.0, 1.0))

    @property
    def mean(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)

    @classmethod
    def fit(cls, values: Sequence[float]) -> "Lognormal":
        """Maximum likelihood on positive `values`: mean and deviation of their logarithms."""
        logs = _logs(values)
        centre = math.fsum(logs) / len(logs)
        return cls(math.exp(centre), math.sqrt(math.fsum((x - centre) ** 2 for x in logs) / len(logs)))


@dataclass(frozen=True)
class Mixture:
    """One of several distributions, chosen with probability proportional to its weight."""

    parts: tuple[tuple[float, Distribution], ...]
    _cumulative: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.parts]
        _require(bool(weights) and min(weights) >= 0 and sum(weights) > 0, f"mixture weights {weights}: none above 0")
        total = math.fsum(weights)
        object.__setattr__(self, "_cumulative", tuple(x / total for x in accumulate(weights)))

    def draw(self, rng: Random) -> float:
        chosen = min(bisect_right(self._cumulative, rng.random()), len(self.parts) - 1)
        return self.parts[chosen][1].draw(rng)

    @classmethod
    def fit(cls, values: Sequence[float], components: int = 2, rounds: int = 200) -> "Mixture":
        """Lognormal components by expectation-maximisation on the logarithms of positive `values`.

        Starts from equal slices of the sorted sample, so the result is deterministic.
        """
        _require(1 <= components <= len(values), f"a fit of {components} components to {len(values)} values")
        logs = sorted(_logs(values))
        cuts = [len(logs) * k // components for k in range(components + 1)]
        model = [_moments(logs[a:b], [1.0] * (b - a), len(logs)) for a, b in pairwise(cuts)]
        for _ in range(rounds):
            model = _em_round(logs, model)
        return cls(tuple((share, Lognormal(math.exp(centre), sigma)) for share, centre, sigma in model))


@dataclass(frozen=True)
class Quantiles:
    """Inverse transform over published quantiles: `values[i]` at probability `levels[i]`, linear between.

    `levels` run from 0 to 1, both lists ascend. A plateau (equal values) is a spike of the distribution.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        same = len(self.levels) == len(self.values) >= 2
        _require(same and self.levels[0] == 0 and self.levels[-1] == 1, "quantile levels must run from 0 to 1")
        rising = all(a < b for a, b in pairwise(self.levels))
        _require(rising and list(self.values) == sorted(self.values), "quantile levels and values must ascend")

    def draw(self, rng: Random) -> float:
        u = rng.random()
        i = bisect_right(self.levels, u)
        low, high = self.levels[i - 1], self.levels[i]
        return self.values[i - 1] + (self.values[i] - self.values[i - 1]) * (u - low) / (high - low)

    @classmethod
    def of(cls, values: Sequence[float], points: int = 21) -> "Quantiles":
        """The nearest-rank quantiles of a sample at `points` evenly spaced levels."""
        _require(len(values) > 0 and points >= 2, f"quantiles at {points} points of {len(values)} values")
        ordered = sorted(values)
        levels = tuple(k / (points - 1) for k in range(points))
        return cls(levels, tuple(nearest_rank(ordered, level) for level in levels))


@dataclass(frozen=True)
class Tokens:
    """A token count: a draw rounded to the nearest integer and clipped to [`low`, `high`].

    Clipping puts the mass of the tail on the bound, as a context limit does in real traces.
    """

    of: Distribution
    low: int = 1
    high: int | None = None

    def __post_init__(self) -> None:
        top = self.low if self.high is None else self.high
        _require(0 <= self.low <= top, f"token counts clipped to [{self.low}, {self.high}]; use 0 <= low <= high")

    def draw(self, rng: Random) -> int:
        tokens = round(self.of.draw(rng))
        if tokens < self.low:
            return self.low
        return tokens if self.high is None or tokens <= self.high else self.high


@dataclass(frozen=True)
class Pairs:
    """Prompt and output tokens drawn together: bands of requests, each with its own two distributions.

    `bands` holds (weight, prompt distribution, output distribution); the bands carry the
    correlation between prompt and output that two independent draws would lose.
    """

    bands: tuple[tuple[float, Distribution, Distribution], ...]
    _choice: Mixture = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choice = Mixture(tuple((weight, Constant(i)) for i, (weight, _, _) in enumerate(self.bands)))
        object.__setattr__(self, "_choice", choice)

    def draw(self, rng: Random) -> tuple[int, int]:
        _, prompt, output = self.bands[int(self._choice.draw(rng))]
        return max(1, round(prompt.draw(rng))), max(1, round(output.draw(rng)))


def nearest_rank(ordered: Sequence[float], level: float) -> float:
    """The nearest-rank percentile: the smallest value with at least `level` (0 to 1) of the sample at or below it."""
    return ordered[max(0, math.ceil(level * len(ordered) - 1e-9) - 1)]


def parse(text: str) -> Distribution:
    """`1000`, `constant:1000`, `exponential:MEAN` or `lognormal:MEDIAN:SIGMA`, as typed on the command line."""
    kinds = {"constant": (Constant, 1), "exponential": (Exponential, 1), "lognormal": (Lognormal, 2)}
    name, *arguments = str(text).split(":") if ":" in str(text) else ("constant", str(text))
    kind, wanted = kinds.get(name, (None, 0))
    try:
        numbers = [float(x) for x in arguments]
    except ValueError:
        numbers = []
    if kind is None or len(numbers) != wanted:
        raise InputError(f"length {text!r}: write 1000, exponential:MEAN or lognormal:MEDIAN:SIGMA")
    return kind(*numbers)


def _em_round(logs: list[float], model: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    belongs = [[] for _ in model]
    for x in logs:
        densities = [w / s * math.exp(-((x - c) ** 2) / (2 * s * s)) for w, c, s in model]
        total = math.fsum(densities) or 1.0
        for column, density in zip(belongs, densities, strict=True):
            column.append(density / total)
    return [_moments(logs, column, len(logs)) for column in belongs]


def _moments(logs: Sequence[float], weights: Sequence[float], n: int) -> tuple[float, float, float]:
    total = math.fsum(weights) or 1e-300
    centre = math.fsum(w * x for w, x in zip(weights, logs, strict=True)) / total
    spread = math.fsum(w * (x - centre) ** 2 for w, x in zip(weights, logs, strict=True)) / total
    return total / n, centre, max(math.sqrt(spread), 1e-3)


def _logs(values: Sequence[float]) -> list[float]:
    _require(len(values) > 0 and min(values) > 0, "a lognormal fit needs values above 0")
    return [math.log(x) for x in values]


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise InputError(sentence)
