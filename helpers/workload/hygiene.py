"""What a workload is like, and what is wrong with it, before anything is measured on it.

`describe` states facts and findings; it changes nothing. Repairs are separate, seeded, and
written into `Workload.repairs`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from helpers.errors import InputError
from helpers.workload.lengths import nearest_rank
from helpers.workload.request import Workload
from helpers.workload.reuse import Reuse, describe_reuse

FAR_APART_S = 30.0  # gaps of a trace that was meant in milliseconds are longer


@dataclass(frozen=True)
class Summary:
    """Nearest-rank percentiles, maximum and mean of one quantity."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float


@dataclass(frozen=True)
class Ticks:
    """How timestamps are quantised: `tick_s` is None where no tick was found.

    `shared_share` is the share of requests that arrive at the very instant of another.
    """

    distinct: int
    shared_share: float
    tick_s: float | None


@dataclass(frozen=True)
class Hygiene:
    """Statistics of a workload. Shares lie in [0, 1], times are seconds, lengths tokens.

    `gap_cv` is the coefficient of variation of the gaps between arrivals (1 for Poisson),
    `dispersion_60s` variance over mean of the counts in full 60 s windows (1 for Poisson),
    `peak_to_mean_*` the fullest full window over the mean one. A value is None where the
    workload is too short to have it. `reuse` is None when requests carry no prefix blocks.
    """

    name: str
    n: int
    span_s: float
    rate_per_s: float | None
    prompt_tokens: Summary
    output_tokens: Summary
    correlation: float | None
    gap_cv: float | None
    dispersion_60s: float | None
    peak_to_mean_10s: float | None
    peak_to_mean_60s: float | None
    ticks: Ticks
    sessions: int
    reuse: Reuse | None
    repairs: tuple[str, ...]
    findings: tuple[str, ...]


def describe(workload: Workload) -> Hygiene:
    """The hygiene report of a workload; raises `InputError` when it holds no request."""
    requests = workload.requests
    if not requests:
        raise InputError(f"workload {workload.name} holds no request; there is nothing to describe")
    times = [r.arrival_s for r in requests]
    report = Hygiene(
        name=workload.name,
        n=len(requests),
        span_s=workload.span_s,
        rate_per_s=len(requests) / workload.span_s if workload.span_s > 0 else None,
        prompt_tokens=summary([r.prompt_tokens for r in requests]),
        output_tokens=summary([r.output_tokens for r in requests]),
        correlation=correlation([r.prompt_tokens for r in requests], [r.output_tokens for r in requests]),
        gap_cv=gap_cv(times),
        dispersion_60s=dispersion(times, 60.0),
        peak_to_mean_10s=peak_to_mean(times, 10.0),
        peak_to_mean_60s=peak_to_mean(times, 60.0),
        ticks=find_ticks(times),
        sessions=len({r.session for r in requests if r.session is not None}),
        reuse=describe_reuse(workload),
        repairs=workload.repairs,
        findings=(),
    )
    return replace(report, findings=tuple(_findings(report, workload)))


def summary(values: Sequence[float]) -> Summary:
    ordered = sorted(values)
    ranks = (nearest_rank(ordered, level) for level in (0.5, 0.9, 0.99, 1.0))
    return Summary(*ranks, mean=math.fsum(values) / len(values))


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's correlation, or None when one side does not vary."""
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    var_x, var_y = math.fsum((x - mean_x) ** 2 for x in xs), math.fsum((y - mean_y) ** 2 for y in ys)
    if var_x == 0 or var_y == 0:
        return None
    shared = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return shared / math.sqrt(var_x * var_y)


def gap_cv(times: Sequence[float]) -> float | None:
    """Standard deviation over mean of the gaps between consecutive arrivals."""
    gaps = [b - a for a, b in pairwise(times)]
    mean = math.fsum(gaps) / len(gaps) if gaps else 0.0
    if mean <= 0:
        return None
    return math.sqrt(math.fsum((g - mean) ** 2 for g in gaps) / len(gaps)) / mean


def window_counts(times: Sequence[float], window_s: float) -> list[int]:
    """Arrivals in each full window, counted from the first arrival; the unfinished last window is left out."""
    windows = int((times[-1] - times[0]) / window_s)
    counts = [0] * windows
    for t in times:
        k = int((t - times[0]) / window_s)
        if k < windows:
            counts[k] += 1
    return counts


def dispersion(times: Sequence[float], window_s: float) -> float | None:
    """Index of dispersion of the counts in full windows: population variance over mean."""
    counts = window_counts(times, window_s)
    mean = sum(counts) / len(counts) if counts else 0.0
    return math.fsum((c - mean) ** 2 for c in counts) / len(counts) / mean if len(counts) > 1 and mean else None


def peak_to_mean(times: Sequence[float], window_s: float) -> float | None:
    """The fullest full window over the mean full window."""
    counts = window_counts(times, window_s)
    return max(counts) * len(counts) / sum(counts) if counts and sum(counts) else None


def find_ticks(times: Sequence[float]) -> Ticks:
    """Look for a tick: a spacing of which nearly all gaps between distinct timestamps are multiples.

    The candidate is the 5 % quantile of those gaps. It counts when 99 % of the gaps lie within 1 % of a
    tick of a multiple (recorded ticks jitter by a millisecond) and at least a tenth of the requests share
    their instant with another; evenly spaced requests have no tick.
    """
    counts = Counter(times)
    shared = sum(c for c in counts.values() if c > 1) / len(times)
    distinct = sorted(counts)
    gaps = sorted(b - a for a, b in pairwise(distinct))
    if not gaps or shared < 0.1:
        return Ticks(len(distinct), shared, None)
    candidate = nearest_rank(gaps, 0.05)
    multiples = sum(round(gap / candidate) for gap in gaps)
    tick = (distinct[-1] - distinct[0]) / multiples
    fitting = sum(1 for gap in gaps if abs(gap - tick * round(gap / tick)) <= 0.01 * tick)
    return Ticks(len(distinct), shared, _tidy(tick) if fitting >= 0.99 * len(gaps) else None)


def _tidy(tick_s: float) -> float:
    """To three digits after the point, or three significant ones below a tenth of a second."""
    return round(tick_s, 3) if tick_s >= 0.1 else float(f"{tick_s:.3g}")


def spread_ticks(workload: Workload, seed: int, tick_s: float | None = None) -> Workload:
    """Each request moved uniformly within the tick it was recorded in, then sorted by arrival.

    Ids stay, so runs with other seeds can be compared request by request. Raises `InputError`
    when the timestamps show no tick and none is given.
    """
    if not workload.requests:
        raise InputError(f"workload {workload.name} holds no request; there is nothing to spread")
    tick = find_ticks([r.arrival_s for r in workload]).tick_s if tick_s is None else tick_s
    if tick is None:
        raise InputError(f"the timestamps of {workload.name} show no tick; leave them as they are (no --spread-ticks)")
    if not 0 < tick < math.inf:
        raise InputError(f"the tick is {tick} s; give a number above 0")
    rng = Random(f"spread_ticks/{seed}")
    moved = [replace(r, arrival_s=r.arrival_s + tick * rng.random()) for r in workload]
    return _retimed(workload, moved, f"ticks of {tick:g} s spread uniformly (seed {seed})")


def quantise(workload: Workload, tick_s: float) -> Workload:
    """The damage that `spread_ticks` repairs, for experiments: arrivals cut down to multiples of `tick_s`."""
    if not 0 < tick_s < math.inf:
        raise InputError(f"the tick is {tick_s} s; give a number above 0")
    cut = [replace(r, arrival_s=math.floor(r.arrival_s / tick_s) * tick_s) for r in workload]
    return _retimed(workload, cut, f"arrivals cut to ticks of {tick_s:g} s")


def _retimed(workload: Workload, requests: list, repair: str) -> Workload:
    ordered = tuple(sorted(requests, key=lambda r: r.arrival_s))
    return replace(workload, requests=ordered, repairs=(*workload.repairs, repair))


def doubtful_times(workload: Workload) -> list[str]:
    """What about the arrival times would make a replay mislead, each in a sentence; not the load that they are."""
    times = [request.arrival_s for request in workload]
    found, ticks, span_s = [], find_ticks(times), workload.span_s
    if ticks.tick_s is not None:
        found.append(
            f"timestamps fall on {ticks.tick_s:g} s ticks: {ticks.distinct:,} distinct values for {len(times):,} "
            f"requests, about {len(times) / ticks.distinct:.0f} at once; spread them before an open-loop replay "
            "(--spread-ticks)"
        )
    if times[0] > max(60.0, 0.1 * span_s):
        found.append(f"nothing arrives before {times[0]:g} s; a run starts with an idle fleet, and rates count from 0")
    apart_s = span_s / len(times)
    if apart_s > FAR_APART_S and all(time == int(time) for time in times):
        found.append(f"requests come {apart_s:.0f} s apart, all at whole seconds: if these are ms, divide by 1000")
    return found


def _findings(report: Hygiene, workload: Workload) -> list[str]:
    found = doubtful_times(workload)
    if report.gap_cv is not None and report.gap_cv > 1.5 and report.ticks.tick_s is None:
        found.append(f"arrivals are bursty: gaps have a coefficient of variation of {report.gap_cv:.2f} (Poisson: 1)")
    if report.dispersion_60s is not None and report.dispersion_60s > 3:
        found.append(
            f"the load wanders: 60 s counts have an index of dispersion of {report.dispersion_60s:.0f} "
            "(Poisson: 1), so a Poisson process of the same rate is too smooth"
        )
    if report.n < 3000:
        found.append(f"{report.n:,} requests are too few for a p99 (3,000 pooled requests needed); use p90")
    return found + (_reuse_findings(report.reuse) if report.reuse else [])


def _reuse_findings(reuse: Reuse) -> list[str]:
    found = []
    if reuse.common_blocks:
        found.append(
            f"{100 * reuse.root_share:.0f} % of the requests share block 0 and {reuse.common_blocks} block(s) are "
            "common to at least half of them: longest-prefix routing without a load term sends all to one worker"
        )
    if reuse.partial_last_share > 0:
        found.append(
            f"the last block is partial in {100 * reuse.partial_last_share:.3g} % of the prompts: count hits in "
            f"tokens as min(k * {reuse.block_tokens}, prompt tokens)"
        )
    if reuse.unchained_blocks:
        found.append(
            f"{reuse.unchained_blocks:,} block ids follow more than one predecessor: they are not chained hashes, "
            "and every figure on prefix reuse is wrong"
        )
    return found
