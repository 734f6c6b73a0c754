"""How busy a group of workers was over time, from their step logs."""

from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

from helpers.metrics.series import Series, edges
from helpers.metrics.steps import row_end_s
from helpers.metrics.timeline import EventLog, StepLog


def workers_of(log: EventLog, role: str) -> list[int]:
    """The workers of a role, ascending."""
    return [index for index, worker in enumerate(log.workers) if worker.role == role]


def busy_share(log: EventLog, workers: Sequence[int], step_s: float, end_s: float) -> Series:
    """The share of the time that `workers` spent in steps, over windows of `step_s` seconds from 0, each at its end."""
    return _averaged(log, workers, lambda steps, row: 1, step_s, end_s)


def decoding(log: EventLog, workers: Sequence[int], step_s: float, end_s: float) -> Series:
    """The requests that decoded on each of `workers`, averaged over the same windows; prefills do not count."""
    return _averaged(log, workers, lambda steps, row: steps.decoding[row], step_s, end_s)


def swing(series: Series, after_s: float = 0.0) -> float:
    """The standard deviation of a series over its mean, its first `after_s` seconds left out; 0 for nothing at all."""
    values = [v for t, v in zip(series.times_s, series.values, strict=True) if t > after_s]
    mean = fmean(values) if values else 0.0
    return pstdev(values) / mean if mean else 0.0


def _averaged(
    log: EventLog, workers: Sequence[int], weight: Callable[[StepLog, int], float], step_s: float, end_s: float
) -> Series:
    """The time average of the rows' weights, per worker. What ran across a cut counts on both sides of it."""
    cuts = edges(0.0, end_s, step_s)
    areas = [0.0] * (len(cuts) - 1)
    for worker in workers:
        steps = log.step_logs[worker]
        for row in range(len(steps)):
            _spread(areas, step_s, steps.start_s[row], row_end_s(steps, row), weight(steps, row))
    return Series(tuple(cuts[1:]), tuple(area / step_s / len(workers) for area in areas))


def _spread(areas: list[float], step_s: float, start_s: float, end_s: float, weight: float) -> None:
    """Add `weight` x seconds of [start, end) to the windows that it lies in."""
    window = int(start_s / step_s)
    while start_s < end_s and window < len(areas):
        until_s = min(end_s, (window + 1) * step_s)
        areas[window] += weight * (until_s - start_s)
        start_s, window = max(until_s, start_s), window + 1
