"""How unevenly requests lay on the workers over time, and how fast that swings.

Routers with old views herd: all see the same worker idle and send there until the next report. The mean load
of the fleet shows nothing of it, since what one worker has too much another has too little.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import mul
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.series import InSystem, Series, Window
from helpers.metrics.timeline import EventLog

# A swing must come back by so much of what it was to be called one, and within so many seconds.
LEAST_CORRELATION = 0.1
LONGEST_SWING_S = 10.0
LEAST_SAMPLES = 8
ROUNDING = 1e-9  # of the mean: less is the last digits of an average


def waiting_on(log: EventLog, workers: Sequence[int], window: Window, step_s: float) -> list[Series]:
    """Requests on each of `workers` without a first token, averaged over steps of the window: queue and prefill.

    From the (last) dispatch to the first token, by the worker that prefilled. What got no token counts to the end.
    """
    members: dict[int, list] = {worker: [] for worker in workers}
    for t in log.timelines:
        if t.dispatched_s is not None and t.prefill_worker in members:
            members[t.prefill_worker].append(replace(t, arrival_s=t.dispatched_s, finished_s=t.first_token_s, spans=()))
    return [InSystem(ones).sampled(window.start_s, window.end_s, step_s) for ones in members.values()]


def rms_imbalance(series: Sequence[Series]) -> float:
    """Root mean square of (requests on a worker - mean of the workers), over workers and time, over the mean.

    0 when all are always equal; with one of n workers having everything, sqrt(n - 1). 0 where there are no requests.
    Raises InputError for no workers.
    """
    deviations, mean = _deviations(series)
    square = fmean(d * d for one in deviations for d in one)
    return math.sqrt(square) / mean if mean else 0.0


def swing_period_s(series: Sequence[Series], longest_s: float = LONGEST_SWING_S) -> float | None:
    """The period of the swings between workers: where the autocorrelation of the deviations peaks after its first dip.

    Summed over the workers, each about its own mean, so that a lasting unevenness is no swing. None when within
    `longest_s` it does not fall below 0 and come back above 0.1: then nothing swings regularly.
    """
    deviations, mean = _deviations(series)
    times = series[0].times_s
    centred = [[d - fmean(one) for d in one] for one in deviations]
    power = math.fsum(d * d for one in centred for d in one)
    rounding = len(times) * (ROUNDING * mean) ** 2
    if len(times) < LEAST_SAMPLES or power <= rounding:
        return None
    step_s = times[1] - times[0]
    dipped, best, best_lag = False, LEAST_CORRELATION, 0
    for lag in range(1, min(len(times) // 2, round(longest_s / step_s)) + 1):
        found = math.fsum(sum(map(mul, one, one[lag:])) for one in centred) / power
        dipped = dipped or found < 0
        if dipped and found > best:
            best, best_lag = found, lag
        elif best_lag and found < 0:
            break  # the first peak is over
    return best_lag * step_s if best_lag else None


def _deviations(series: Sequence[Series]) -> tuple[list[list[float]], float]:
    """What each worker has above the mean of the workers at each time, and the mean over workers and time."""
    if not series:
        raise InputError("the imbalance of no workers is not defined; give at least one")
    means = [fmean(values) for values in zip(*(one.values for one in series), strict=True)]
    deviations = [[value - mean for value, mean in zip(one.values, means, strict=True)] for one in series]
    return deviations, fmean(means)
