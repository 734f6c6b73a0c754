"""Statistics of one run, each by the name under which a target declares it."""

from collections.abc import Sequence
from math import inf
from statistics import fmean, pstdev

from helpers.bench.targets.target import Scenario, Statistic, Values
from helpers.metrics.goodput import goodput, hit_rate, meets, outcomes
from helpers.metrics.latency import defined, tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.series import Series, Window, until_last_arrival, windowed_ttft
from helpers.metrics.settling import settle
from helpers.metrics.stability import stability
from helpers.metrics.timeline import EventLog, Timeline, by_class
from helpers.metrics.uneven import rms_imbalance, swing_period_s, waiting_on
from helpers.metrics.workers import balance_by_role, worker_loads
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run
from helpers.workload.slo import SLO, SLOs, slo_of

GOODPUT = Statistic(
    "goodput_per_s", "requests/s", "requests that met their SLO, over the time from 0 to the last arrival", "higher"
)
SERVICE = (
    Statistic("attainment", "share", "requests that met their SLO, of all that arrived", "higher"),
    Statistic("ttft_p50_s", "s", "median TTFT of the requests that got a first token", "lower"),
    Statistic("ttft_p90_s", "s", "p90 of the same (nearest rank)", "lower"),
    Statistic("tpot_p90_s", "s", "p90 of TPOT", "lower"),
    Statistic("hit_rate", "share", "prompt tokens found in the worker's own cache at the first admission", "higher"),
    Statistic("imbalance", "ratio", "tokens computed by the busiest worker, over the mean of the workers", "lower"),
    Statistic("unstable", "0 or 1", "whether the queue grew all the time: the run was past its knee", "lower"),
)

WINDOWS = 30  # of TTFT, in the time in which requests arrive
BAND, FINAL_SHARE, DWELL, NOISE = 0.15, 0.2, 3, 2.0
LOOK_S = 0.05  # how finely the requests on each worker are looked at

UPSETS = (
    Statistic(
        "settling_s",
        "s",
        f"from the upset to the first of {DWELL} windows in a row in which p95 of TTFT lies within {BAND:.0%} of its "
        f"level over the last {FINAL_SHARE:.0%} of the windows after the upset, or, if that is wider, within {NOISE:g} "
        "standard deviations of the windows before it, scaled to that level; the whole time when there is none, or "
        "when the queue grows all the time. Whose level was steady before has the narrower band",
        "lower",
    ),
    Statistic("late_s", "s", "seconds after the upset in windows in which p95 of TTFT was over its SLO", "lower"),
    Statistic("settled", "0 or 1", "whether there were such windows", "higher"),
    Statistic("peak_s", "s", "the highest p95 of TTFT of a window after the upset", "lower"),
    Statistic(
        "overshoot", "share", "how far that lies above the level over the last windows, as a share of it", "lower"
    ),
    Statistic(
        "oscillation",
        "share",
        "root mean square of (requests without a first token on a worker - mean of the workers) after the upset, over "
        f"workers and steps of {LOOK_S:g} s, over the mean",
        "lower",
    ),
    Statistic(
        "swing_period_s", "s", "the period of these swings by their autocorrelation; none where nothing is regular"
    ),
)


def service(run: Run, experiment: Experiment) -> Values:
    """Goodput and the statistics of `SERVICE`."""
    log = run.log
    met = goodput(log, experiment.slo, until_last_arrival(run.timelines))
    ttfts, tpots = defined(ttft_s, log.timelines), defined(tpot_s, log.timelines)
    balance = balance_by_role(worker_loads(log))
    stable = stability(log).stable
    return {
        "goodput_per_s": met.per_s,
        "attainment": met.attainment,
        "ttft_p50_s": percentile(ttfts, 50).value if ttfts else None,
        "ttft_p90_s": percentile(ttfts, 90).value if ttfts else None,
        "tpot_p90_s": percentile(tpots, 90).value if tpots else None,
        "hit_rate": hit_rate(log.timelines),
        "imbalance": max((b.imbalance for b in balance.values() if b.imbalance is not None), default=None),
        "unstable": None if stable is None else float(not stable),
    }


def ttft_windows(run: Run) -> Series:
    """p95 of TTFT of the requests that arrived in each of `WINDOWS` equal windows."""
    end_s = until_last_arrival(run.timelines).end_s
    return windowed_ttft(run.timelines, 95, end_s / WINDOWS, end_s)


def after_upset(run: Run, experiment: Experiment, scenario: Scenario) -> Values:
    """The statistics of `UPSETS`; none without an upset."""
    if scenario.upset is None:
        return {}
    at_s, end_s = scenario.upset.at_s(experiment.workload), until_last_arrival(run.timelines).end_s
    series = ttft_windows(run)
    before = [v for t, v in zip(series.times_s, series.values, strict=True) if t < at_s]
    after = [v for t, v in zip(series.times_s, series.values, strict=True) if t >= at_s]
    final = fmean(after[-max(1, round(FINAL_SHARE * len(after))) :])
    floor = NOISE * pstdev(before) / fmean(before) * final
    # The band is a share of the level, not of the step: where a router hardly notices the upset there is no step.
    found = settle(series, at_s, 1e-9, FINAL_SHARE, max(BAND * final, floor), DWELL)
    grows = stability(run.log, Window(at_s, end_s)).stable is False
    settled = found.settling_s is not None and not grows
    left = scenario.upset.workers_left(len(run.workers))
    waiting = waiting_on(run.log, left, Window(at_s, end_s), LOOK_S)
    return {
        "settling_s": found.settling_s if settled else end_s - at_s,
        "late_s": end_s / WINDOWS * sum(v > slo_ttft_s(experiment) for v in after),
        "settled": float(settled),
        "peak_s": max(after),
        "overshoot": max(after) / final - 1.0,
        "oscillation": rms_imbalance(waiting),
        "swing_period_s": swing_period_s(waiting),
    }


def slo_ttft_s(experiment: Experiment) -> float:
    """The TTFT bound that holds for all requests of the experiment; endless without one."""
    slo = experiment.slo
    return slo.ttft_s if isinstance(slo, SLO) and slo.ttft_s is not None else inf


def series_after_upset(run: Run, experiment: Experiment, scenario: Scenario) -> dict:
    """p95 of TTFT over time, for figures; nothing without an upset."""
    if scenario.upset is None:
        return {}
    found = ttft_windows(run)
    return {"times_s": [round(t, 3) for t in found.times_s], "ttft_p95_s": [round(v, 5) for v in found.values]}


CLASSES = ("high", "low", "high long", "low long")
REJECTION = (
    *(Statistic(f"attainment of {name}", "share", f"of the class {name}: met its SLO", "higher") for name in CLASSES),
    Statistic("rejected", "share", "requests turned away, of all that arrived"),
    Statistic("aborted", "share", "requests turned away after their prefill had begun", "lower"),
    Statistic("wasted_prefill", "share", "prompt tokens computed for requests that missed their SLO", "lower"),
)


def rejection(run: Run, experiment: Experiment) -> Values:
    """The statistics of `REJECTION`; None for a class that the run does not have."""
    classes = by_class(run.timelines)
    ended = outcomes(run.timelines)
    return {
        **{f"attainment of {name}": _attained(classes.get(name, ()), experiment.slo) for name in CLASSES},
        "rejected": ended.rejected / ended.arrived,
        "aborted": ended.aborted / ended.arrived,
        "wasted_prefill": wasted_share(run.log, experiment.slo),
    }


def _attained(timelines: Sequence[Timeline], slos: SLOs) -> float | None:
    return fmean(meets(t, slo_of(t, slos)) for t in timelines) if timelines else None


def wasted_share(log: EventLog, slos: SLOs) -> float | None:
    """Of the prompt tokens that were computed, those of requests that missed their SLO; None when there were none."""
    computed = sum(t.prefilled_tokens for t in log.timelines)
    missed = sum(t.prefilled_tokens for t in log.timelines if not meets(t, slo_of(t, slos)))
    return missed / computed if computed else None
