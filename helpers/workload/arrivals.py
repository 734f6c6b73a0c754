"""Arrival processes: scheduled arrival times in seconds from the start, in order.

Each is an iterator that draws from the `random.Random` it is handed and yields for ever unless it
says otherwise; cut it with `until` or `itertools.islice`.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import count, pairwise, repeat, takewhile
from random import Random

from helpers.errors import InputError
from helpers.workload.lengths import Distribution


def steady(rate_per_s: float) -> Iterator[float]:
    """One request every 1/rate seconds, the first at 0: no randomness at all."""
    _positive("rate_per_s", rate_per_s)
    return (i / rate_per_s for i in count())


def poisson(rng: Random, rate_per_s: float) -> Iterator[float]:
    """A Poisson process: independent exponential gaps, coefficient of variation 1."""
    return gamma(rng, rate_per_s, 1.0)


def gamma(rng: Random, rate_per_s: float, burstiness: float) -> Iterator[float]:
    """Gamma-distributed gaps with shape `burstiness`: CV = 1/sqrt(burstiness), so lower is burstier.

    The convention of common load generators: 1 is Poisson, infinity is `steady`. Gaps are
    independent, so a very bursty gamma process is clumps that arrive at one instant between long
    silences; for bursts that last at a rate of their own, see `on_off`.
    """
    _positive("rate_per_s", rate_per_s)
    return modulated(rng, [(math.inf, rate_per_s)], burstiness)


def on_off(
    rng: Random,
    on_rate_per_s: Distribution,
    on_s: Distribution,
    off_s: Distribution,
    off_rate_per_s: float = 0.0,
    burstiness: float = 1.0,
) -> Iterator[float]:
    """Bursts: the source is on for `on_s` at a rate drawn anew for each burst, then off for `off_s`."""

    def segments() -> Iterator[tuple[float, float]]:
        while True:
            yield on_s.draw(rng), on_rate_per_s.draw(rng)
            yield off_s.draw(rng), off_rate_per_s

    return modulated(rng, segments(), burstiness)


def step(rng: Random, steps: Iterable[tuple[float, float]], burstiness: float = 1.0) -> Iterator[float]:
    """The rate changes at stated times: `steps` is (start_s, rate_per_s), starts ascending from 0; the last holds."""
    plan = list(steps)
    starts = [start for start, _ in plan]
    if not plan or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
        raise InputError(f"step starts {starts}: begin at 0 and ascend")
    ends = [*starts[1:], math.inf]
    return modulated(rng, [(end - s, rate) for (s, rate), end in zip(plan, ends, strict=True)], burstiness)


def drift(
    rng: Random, rate_per_s: float, spread: float, correlation_s: float, burstiness: float = 1.0, every_s: float = 10.0
) -> Iterator[float]:
    """A rate that wanders around its mean: the logarithm is a first-order autoregression.

    `spread` is the standard deviation of the logarithm of the rate, `correlation_s` the time over
    which it forgets (correlation exp(-t/correlation_s)), `every_s` the grid on which it changes.
    """
    _positive("rate_per_s", rate_per_s)
    _positive("correlation_s", correlation_s)
    if spread < 0:
        raise InputError(f"spread is {spread}; use 0 or more")

    def segments() -> Iterator[tuple[float, float]]:
        keep = math.exp(-every_s / correlation_s)
        level = rng.gauss(0.0, 1.0)
        while True:
            yield every_s, rate_per_s * math.exp(spread * level - spread**2 / 2)
            level = keep * level + math.sqrt(1 - keep**2) * rng.gauss(0.0, 1.0)

    return modulated(rng, segments(), burstiness)


def modulated(rng: Random, segments: Iterable[tuple[float, float]], burstiness: float = 1.0) -> Iterator[float]:
    """A renewal process of unit rate, stretched so that its rate follows `segments` (duration_s, rate_per_s).

    Time-rescaling: each gap is drawn with mean 1 in units of expected arrivals, and an arrival
    happens when the integral of the rate has covered it. Ends with the last segment.
    """
    if not burstiness > 0:
        raise InputError(f"burstiness is {burstiness}; give a number above 0")
    return _rescale(_unit_gaps(rng, burstiness), segments)


def until(times: Iterable[float], duration_s: float) -> Iterator[float]:
    """The arrivals before `duration_s`."""
    _positive("duration_s", duration_s)
    return takewhile(lambda t: t < duration_s, times)


def _rescale(gaps: Iterator[float], segments: Iterable[tuple[float, float]]) -> Iterator[float]:
    start, work = 0.0, next(gaps)
    for duration, rate in segments:
        if not (duration >= 0 and 0 <= rate < math.inf):
            raise InputError(f"an arrival segment of {duration} s at {rate} req/s; use numbers of 0 or more")
        if rate == 0:
            start += duration
            continue
        now, end = start, start + duration
        while now + work / rate <= end:
            now += work / rate
            yield now
            work = next(gaps)
        work = max(0.0, work - (end - now) * rate)
        start = end


def _unit_gaps(rng: Random, burstiness: float) -> Iterator[float]:
    if burstiness == math.inf:
        return repeat(1.0)
    if burstiness == 1:
        return (rng.expovariate(1.0) for _ in repeat(None))
    return (rng.gammavariate(burstiness, 1 / burstiness) for _ in repeat(None))


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; give a finite number above 0")
