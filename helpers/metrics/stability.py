"""Was a run past its knee? And TTFT ratios, which are refused when either side was.

Past the knee the queue grows for as long as the load lasts, so TTFT measures the length of the
run and not the system. The test looks at block means over time and, like guidellm's
over-saturation detection, asks that both the number of requests in the system and TTFT rise.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.latency import defined, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.series import InSystem, Window, arrived
from helpers.metrics.stats import Interval, compare
from helpers.metrics.student import t_cdf
from helpers.metrics.timeline import EventLog, Timeline

BLOCKS = 20
ALPHA = 0.01
MIN_RISE = 0.5
MIN_EXCESS = 0.005
MIN_SPAN_S = 30.0
MIN_BLOCKS = 5
MIN_REQUESTS = 5 * BLOCKS


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through block means: its slope per second, the one-sided p of "the slope is above 0",
    and `rise`, the fitted growth over the whole window relative to the mean of the block means."""

    slope_per_s: float
    p_value: float
    rise: float

    @property
    def significant(self) -> bool:
        """True when the growth is significant: p < 0.01."""
        return self.p_value < ALPHA


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Least squares with a t test on the slope. Raises InputError on fewer than three points."""
    n = len(times_s)
    if n < 3 or len(values) != n:
        raise InputError(f"a trend needs three points or more, as many values as times; got {n} and {len(values)}")
    time_mean, mean = fmean(times_s), fmean(values)
    spread = math.fsum((t - time_mean) ** 2 for t in times_s)
    slope = math.fsum((t - time_mean) * (v - mean) for t, v in zip(times_s, values, strict=True)) / spread
    errors = math.fsum((v - mean - slope * (t - time_mean)) ** 2 for t, v in zip(times_s, values, strict=True))
    error = math.sqrt(errors / (n - 2) / spread)
    statistic = slope / error if error else math.copysign(math.inf, slope) if slope else 0.0
    rise = slope * (times_s[-1] - times_s[0]) * n / (n - 1) / mean if mean else 0.0
    return Trend(slope, t_cdf(-statistic, n - 2), rise)


@dataclass(frozen=True)
class Stability:
    """Whether a run was below its knee (None: too short to say), and why, in a sentence."""

    stable: bool | None
    evidence: str
    in_system: Trend | None = None
    ttft: Trend | None = None


def stability(log: EventLog, window: Window | None = None) -> Stability:
    """Test the requests that arrived in the window (default: all of them) for a growing queue.

    The time from the first to the last of these arrivals is cut into 20 blocks. Unstable when all
    of these hold: the time-average number in the system and the mean TTFT of the blocks both rise
    with p < 0.01 (one-sided t test on the slope); the fitted rise of TTFT is at least half of its
    mean; and TTFT grows by 5 ms or more per second, which is what an excess load of 0.5 % does to
    a queue. Undecided below 30 s or 100 requests. A request without a first token counts the time
    it had waited by the end of the run, but blocks in which most have none are left out, as that
    time says little; rejected requests do not count. The drain after the last arrival is never
    looked at. A load that itself rises can look like this too: the test says what happened, not why.
    """
    chosen = [t for t in arrived(log.timelines, window) if t.status != "rejected"]
    if len(chosen) < MIN_REQUESTS:
        return Stability(None, f"undecided: {len(chosen)} requests are too few to tell ({MIN_REQUESTS} are needed)")
    start_s, end_s = min(t.arrival_s for t in chosen), max(t.arrival_s for t in chosen)
    if end_s - start_s < MIN_SPAN_S:
        return Stability(
            None, f"undecided: {end_s - start_s:.4g} s of arrivals are too short to tell ({MIN_SPAN_S:g} s are needed)"
        )
    cuts = [start_s + (end_s - start_s) * i / BLOCKS for i in range(BLOCKS + 1)]
    ttfts = _block_ttfts(chosen, cuts, log.end_s)
    if len(ttfts) < MIN_BLOCKS:
        return Stability(None, f"undecided: requests got a first token in {len(ttfts)} of {BLOCKS} time blocks only")
    counts = InSystem(log.timelines)
    levels = [(a + b, counts.average(Window(a, b))) for a, b in pairwise(cuts)]
    return _verdict(
        trend([m / 2 for m, _ in levels], [v for _, v in levels]), trend([m for m, _ in ttfts], [v for _, v in ttfts])
    )


def _block_ttfts(timelines: Sequence[Timeline], cuts: Sequence[float], end_s: float) -> list[tuple[float, float]]:
    """(middle, mean TTFT) in seconds of each block in which requests arrived and half of them got a first token."""
    blocks: list[list[float]] = [[] for _ in cuts[1:]]
    waiting = [0] * len(blocks)
    for t in timelines:
        index = min(bisect_right(cuts, t.arrival_s), len(blocks)) - 1
        waiting[index] += t.first_token_s is None
        blocks[index].append((end_s if t.first_token_s is None else t.first_token_s) - t.arrival_s)
    return [
        ((cuts[i] + cuts[i + 1]) / 2, fmean(block))
        for i, block in enumerate(blocks)
        if block and 2 * waiting[i] <= len(block)
    ]


def _verdict(in_system: Trend, ttft: Trend) -> Stability:
    stable = not (
        in_system.significant and ttft.significant and ttft.rise >= MIN_RISE and ttft.slope_per_s >= MIN_EXCESS
    )
    evidence = (
        f"{'no growing queue' if stable else 'the queue grows'}: requests in the system "
        f"{in_system.slope_per_s:+.3g} per second (p = {in_system.p_value:.2g}), TTFT {ttft.slope_per_s:+.3g} s per "
        f"second (p = {ttft.p_value:.2g}, {ttft.rise:+.0%} of its mean over the window)"
    )
    return Stability(stable, evidence, in_system, ttft)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A number that is not printed, and the sentence that says why."""

    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, slots=True)
class TTFTRatio:
    """Percentile `q` of TTFT, arm a over arm b: geometric mean over `n` paired runs; `interval` from two pairs up."""

    value: float
    q: float
    n: int
    interval: Interval | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.3g} (N = {self.n})"
        low, high, level = self.interval.low, self.interval.high, self.interval.level
        return f"{self.value:.3g} (N = {self.n}, {level:.0%} interval {low:.3g} to {high:.3g})"


Runs = EventLog | Mapping[int, EventLog]


def ttft_ratio(a: Runs, b: Runs, q: float = 50, window: Window | None = None) -> TTFTRatio | Refusal:
    """Percentile q of TTFT of arm a over that of arm b, or a Refusal when a run of either is past its knee.

    Each arm is one run, or its runs by seed (the same seeds in both). A run whose stability is
    undecided is refused as well. Raises InputError when the seeds of the arms differ.
    """
    first, second = ({0: arm} if isinstance(arm, EventLog) else dict(arm) for arm in (a, b))
    for name, arm in (("first", first), ("second", second)):
        for seed, log in arm.items():
            found = stability(log, window)
            if found.stable is not True:
                why = "is past its knee" if found.stable is False else "is not shown to be below its knee"
                return Refusal(
                    f"no TTFT ratio: the {name} arm {why} (seed {seed}: {found.evidence}); "
                    "compare goodput at a stated SLO instead"
                )
    values = [{s: _ttft(log, q, window) for s, log in arm.items()} for arm in (first, second)]
    if len(first) == 1 and set(first) == set(second):
        seed = next(iter(first))
        return TTFTRatio(values[0][seed] / values[1][seed], q, 1, None)
    ratio = compare(*values).ratio
    if ratio is None:
        return Refusal("no TTFT ratio: a TTFT is 0 in one of the runs")
    return TTFTRatio(ratio.mean, q, ratio.n, ratio)


def _ttft(log: EventLog, q: float, window: Window | None) -> float:
    return percentile(defined(ttft_s, arrived(log.timelines, window)), q).value
