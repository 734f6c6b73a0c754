"""Intervals and comparisons over replicates.

A replicate is a seed (arrivals, lengths and prefixes redrawn) or, on a fixed trace, a time block
of at least ten times the longest E2E. Never a request: the requests of one run share a queue, so
an interval over them is several times too narrow (the tests show by how much). For that reason
nothing here takes requests; it takes one number for each replicate.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.latency import e2e_s
from helpers.metrics.series import Window, arrived, edges
from helpers.metrics.student import t_quantile
from helpers.metrics.timeline import EventLog, Timeline

BLOCK_FACTOR = 10
VERDICTS = ("a higher", "b higher", "no effect shown")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` replicates (of kind `unit`) and its confidence interval at `level`."""

    mean: float
    low: float
    high: float
    n: int
    level: float
    unit: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: Sequence[float], level: float = 0.95, unit: str = "seed") -> Interval:
    """Student's t interval of the mean of independent replicates, one value for each.

    Raises InputError on fewer than two replicates, a value that is not finite, or a level outside 0 … 1.
    """
    if len(values) < 2:
        raise InputError(f"an interval needs at least two replicates and has {len(values)}; run more seeds or blocks")
    if not all(map(math.isfinite, values)):
        raise InputError("a replicate has no finite value; an interval over the others would hide it")
    if not 0 < level < 1:
        raise InputError(f"the confidence level is {level}; give a number between 0 and 1, such as 0.95")
    n, mean = len(values), fmean(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = t_quantile((1 + level) / 2, n - 1) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n, level, unit)


@dataclass(frozen=True, slots=True)
class Block:
    """The requests of a run that arrived in one time block."""

    window: Window
    timelines: tuple[Timeline, ...]


def longest_e2e_s(log: EventLog) -> float:
    """The longest E2E of a run in seconds; an unfinished request counts the time it was in the system."""
    times = [e2e_s(t) for t in log.timelines]
    stuck = (log.end_s - t.arrival_s for t in log.timelines if t.status == "unfinished")
    return max((*(t for t in times if t is not None), *stuck), default=0.0)


def block_windows(first_s: float, last_s: float, block_s: float, longest_s: float) -> list[Window]:
    """The time blocks of `block_s` seconds that fit between two times, where the longest E2E is `longest_s`.

    Raises InputError when a block is shorter than ten times that (blocks would depend on each other) or
    fewer than two fit.
    """
    if block_s < BLOCK_FACTOR * longest_s:
        raise InputError(
            f"a time block of {block_s:g} s is shorter than {BLOCK_FACTOR} times the longest E2E ({longest_s:.4g} s), "
            f"so blocks depend on each other; use {BLOCK_FACTOR * longest_s:.4g} s or more, or replicate by seed"
        )
    cuts = edges(first_s, last_s, block_s)
    if len(cuts) < 3:
        raise InputError(
            f"only one time block of {block_s:g} s fits between the warm-up and the drain; "
            "an interval needs two: use a longer trace or replicate by seed"
        )
    return [Window(a, b) for a, b in pairwise(cuts)]


def time_blocks(log: EventLog, *, warmup_s: float, drain_s: float, block_s: float) -> tuple[Block, ...]:
    """The run cut into blocks of `block_s` seconds of arrivals: the replicates of a fixed trace.

    The first `warmup_s` seconds and the last `drain_s` seconds before the last arrival are left
    out; both are declared before the run. Raises InputError as `block_windows` does.
    """
    if warmup_s < 0 or drain_s < 0:
        raise InputError(f"warm-up {warmup_s} s and drain {drain_s} s must be 0 or more")
    last_s = max((t.arrival_s for t in log.timelines), default=0.0)
    windows = block_windows(warmup_s, last_s - drain_s, block_s, longest_e2e_s(log))
    return tuple(Block(w, tuple(arrived(log.timelines, w))) for w in windows)


def block_values(blocks: Sequence[Block], metric: Callable[[tuple[Timeline, ...]], float | None]) -> dict[float, float]:
    """The metric of each block, by the start of the block in seconds: replicates to average or to pair.

    Raises InputError when a block has no value, as leaving it out would bias the mean.
    """
    values: dict[float, float] = {}
    for block in blocks:
        value = metric(block.timelines)
        if value is None:
            raise InputError(
                f"the time block from {block.window.start_s:g} s to {block.window.end_s:g} s has no value "
                f"({len(block.timelines)} requests arrived in it); use longer blocks"
            )
        values[block.window.start_s] = value
    return values


@dataclass(frozen=True)
class Comparison:
    """Arms a and b over paired replicates: a - b with its interval, a / b, and a verdict in words.

    `ratio` is the geometric mean of the paired ratios with a t interval on their logarithms; None
    when a value is 0 or below. The verdict follows from `difference` alone: an arm is higher when
    the interval excludes 0. "no effect shown" does not say that there is none.
    """

    a: Interval
    b: Interval
    difference: Interval
    ratio: Interval | None
    seeds: tuple[float, ...]
    verdict: str

    @property
    def n(self) -> int:
        """The number of pairs."""
        return self.difference.n


def compare(a: Mapping[float, float], b: Mapping[float, float], level: float = 0.95, unit: str = "seed") -> Comparison:
    """Compare two arms by one value for each seed (or time block), the same draw in both arms.

    `a` and `b` map the seed to the value. Raises InputError when the seeds of the arms differ
    (values of different draws cannot be paired) or there are fewer than two.
    """
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        raise InputError(
            f"the arms were not run on the same {unit}s ({', '.join(f'{s:g}' for s in odd[:5])} in one arm only); "
            "pair each draw with itself"
        )
    seeds = tuple(sorted(a))
    first, second = [a[s] for s in seeds], [b[s] for s in seeds]
    difference = mean_interval([x - y for x, y in zip(first, second, strict=True)], level, unit)
    ratio = None
    if min(*first, *second) > 0:
        logs = mean_interval([math.log(x / y) for x, y in zip(first, second, strict=True)], level, unit)
        ratio = Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.n, level, unit)
    verdict = VERDICTS[0] if difference.low > 0 else VERDICTS[1] if difference.high < 0 else VERDICTS[2]
    return Comparison(
        mean_interval(first, level, unit), mean_interval(second, level, unit), difference, ratio, seeds, verdict
    )
