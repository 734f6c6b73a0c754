"""A step without noise, and how the fleet and its first worker answer: what still swings is the loop itself."""

from dataclasses import replace

from helpers.bench.cases import admission
from helpers.errors import InputError
from helpers.metrics.occupancy import requests_on_workers
from helpers.metrics.series import InSystem, Series
from helpers.metrics.settling import Oscillation, Settling, oscillation, settle
from helpers.serving.run import Run
from helpers.workload.request import Request, Workload

BAND = 0.15  # of the step: a worker of a fleet of four holds some requests more or fewer even when all is well
WINDOW_S = 0.1


def even_step(slow_per_s: float, fast_per_s: float, at_s: float, end_s: float, prompt: int, output: int) -> Workload:
    """Equal requests at equal gaps that share nothing, `slow_per_s` a second until `at_s` and `fast_per_s` after it."""
    if not (slow_per_s > 0 and fast_per_s > 0 and 0 < at_s < end_s):
        raise InputError(f"a step from {slow_per_s} to {fast_per_s}/s at {at_s} of {end_s} s; give values above 0")
    time_s, made = 0.0, []
    while time_s < end_s:
        made.append(Request(len(made), time_s, prompt, output))
        time_s += 1 / (slow_per_s if time_s < at_s else fast_per_s)
    source = f"equal gaps: {slow_per_s:g} to {fast_per_s:g} requests/s at {at_s:g} s"
    return Workload("step", tuple(made), source=source)


def on_each_worker(run: Run, start_s: float, end_s: float) -> list[Series]:
    """The requests on each worker, waiting or running, averaged over windows of about a tenth of a second."""
    return [between(one, start_s, end_s) for one in requests_on_workers(run.log, round(run.end_s / WINDOW_S))]


def response(run: Run, at_s: float, end_s: float) -> tuple[Settling, Oscillation]:
    """How the requests in the fleet settled after a step, and how those on its first worker swung, until `end_s`."""
    fleet, first = InSystem(run.timelines).sampled(0.0, end_s, 5 * WINDOW_S), on_each_worker(run, 0.0, end_s)[0]
    return settle(fleet, at_s, BAND), oscillation(first, at_s, BAND)


def between(series: Series, start_s: float, end_s: float) -> Series:
    """The part of a series from `start_s` to `end_s`, both included."""
    kept = [(t, v) for t, v in zip(series.times_s, series.values, strict=True) if start_s <= t <= end_s]
    return Series(tuple(t for t, _ in kept), tuple(v for _, v in kept))


def over_mean(series: Series) -> Series:
    """A series in units of its own mean, so that two of different units fit one axis."""
    mean = sum(series.values) / len(series)
    if not mean > 0:
        raise InputError("a series that is nothing has no mean to be measured by")
    return Series(series.times_s, tuple(v / mean for v in series.values))


def pool_loads(mode: str, start_s: float = 8.0, end_s: float = 28.0, seed: int = 0) -> dict[str, Series]:
    """The loads of twelve prefill workers and of the decode worker behind them, each in units of its own mean.

    The fleet and the traffic are those of the case `early_rejection_oscillates`; rejection asks for the decode load
    once, as `mode` says: "current" or "predicted" (with one guess for all outputs).
    """
    fleet, slo = admission.split_fleet(), admission.SPLIT_SLO
    guess = {} if mode == "current" else {"guess_tokens": admission.OUTPUT_TOKENS}
    asked = admission.admitting(fleet, slo, "predicted_load", mode=mode, check_again=False, **guess)
    offered = admission.split_traffic(duration_s=end_s + 5, seed=seed)
    loads = admission.loads(replace(asked, workload=offered, seed=seed).run())
    shown = (over_mean(between(one, start_s, end_s)) for one in loads)
    return dict(zip(("prefill workers busy", "requests decoding"), shown, strict=True))
