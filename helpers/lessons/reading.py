"""Short words for the cells of a page: one number of a run, and how it reads in a sentence."""

from collections.abc import Mapping

from helpers.metrics.goodput import goodput
from helpers.metrics.knee import Knee, RatePoint, knee_of
from helpers.metrics.latency import LATENCIES, defined, distribution
from helpers.metrics.percentiles import percentile
from helpers.metrics.series import Window
from helpers.metrics.stats import Comparison, Interval
from helpers.serving.run import Run
from helpers.workload.slo import SLO


def values_s(run: Run, latency: str) -> list[float]:
    """A latency (`ttft_s`, `tpot_s`, `e2e_s`, `queue_s`) of each request that has it, in seconds."""
    return defined(LATENCIES[latency], run.timelines)


def mean_s(run: Run, latency: str) -> float | None:
    """The mean of a latency in seconds; None when no request has it."""
    return distribution(LATENCIES[latency], run.timelines).mean


def percentile_s(run: Run, latency: str, q: float = 50) -> float:
    """The q-th percentile of a latency in seconds, by nearest rank."""
    return percentile(values_s(run, latency), q).value


def attainment(run: Run, slo: SLO, after_s: float = 0.0) -> float | None:
    """The share of the requests arriving from `after_s` on that met the SLO."""
    return goodput(run.log, slo, Window(after_s, run.end_s)).attainment


def knee_in(sweep: Mapping[float, Run], slo: SLO, target: float) -> Knee:
    """The knee of runs by their offered rate."""
    return knee_of([RatePoint(rate, attainment(run, slo)) for rate, run in sweep.items()], target)


def inside(value: float, interval: Interval) -> bool:
    """True when the value lies in the interval."""
    return value in interval


def per_s(rate: float) -> str:
    """A rate as words."""
    return f"{rate:.3g} requests/s"


def promise(slo: SLO) -> str:
    """An SLO on TTFT and TPOT as words."""
    return f"TTFT of at most {slo.ttft_s:g} s and TPOT of at most {1e3 * slo.tpot_s:g} ms"


def bracket(knee: Knee) -> str:
    """Where a knee lies, as words: the highest rate that passed and the lowest that failed."""
    low = "below" if knee.rate_per_s is None else f"{knee.rate_per_s:g}"
    high = "beyond" if knee.failing_per_s is None else f"{knee.failing_per_s:g}"
    return f"{low} to {high} requests/s"


def between(interval: Interval) -> str:
    """The ends of an interval of seconds as words."""
    return f"{interval.low:.2f} s to {interval.high:.2f} s"


def points(found: Comparison) -> str:
    """A mean difference of shares in points, that is hundredths, as words."""
    return f"{100 * found.difference.mean:+.1f}"
