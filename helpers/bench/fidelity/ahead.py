"""How long before a step a request has to be there to be in it, where steps are launched before they can run.

A worker on a GPU launches a step while the one before it runs. Who comes after that launch waits for the step after,
though the device has not begun this one yet. To the simulator that is a longer way to the worker: a request that is
`lead` later at the queue misses the very steps that it missed live.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from statistics import fmean, median

from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, StepLog

LEAST = 10  # requests
TRIED = 121  # leads
MOST_STEPS = 3.0  # the longest lead that is tried, in median steps


def lead_s(logs: Sequence[EventLog]) -> float:
    """The lead by which requests would have begun nearest to when they did, in the mean of the absolute error.

    A request that is there in a pause begins at once, else with the next step. Those that had to queue longer are off
    by a whole step or more whatever the lead, and so decide nothing. Raises `InputError` for too few requests.
    """
    begun = [one for log in logs for one in begins(log)]
    if len(begun) < LEAST:
        raise InputError(f"{len(begun)} requests were prefilled, and a lead needs {LEAST}; serve more")
    took_s = median(base_s for log in logs for steps in log.step_logs for base_s in steps.base_s)
    tried = [i * MOST_STEPS * took_s / (TRIED - 1) for i in range(TRIED)]
    return min(tried, key=lambda lead: fmean(abs(steps.begin_s(came + lead) - at) for came, at, steps in begun))


class Steps:
    """When the steps of a worker began and ended, one by one."""

    def __init__(self, log: StepLog) -> None:
        spans = list(single(log))
        self._starts, self._ends = [start for start, _ in spans], [end for _, end in spans]

    def begin_s(self, there_s: float) -> float:
        """When a request begins that is there at a time: at once in a pause, else with the next step."""
        starts, ends = self._starts, self._ends
        running = bisect_right(starts, there_s) - 1
        if running < 0 or ends[running] <= there_s:
            return there_s
        return starts[running + 1] if running + 1 < len(starts) else ends[running]


def single(log: StepLog) -> Iterator[tuple[float, float]]:
    """(start, end) of every step of a log."""
    for row in range(len(log)):
        start_s = log.start_s[row]
        for end_s in log.segment(row).token_times():
            yield start_s, end_s
            start_s = end_s


def begins(log: EventLog) -> Iterator[tuple[float, float, Steps]]:
    """(arrival, start of its first step, the steps of its worker) of every finished request."""
    steps = [Steps(one) for one in log.step_logs]
    for t in log.timelines:
        if t.status == "finished" and t.prefill_start_s is not None:
            yield t.arrival_s, t.prefill_start_s, steps[t.prefill_worker]
