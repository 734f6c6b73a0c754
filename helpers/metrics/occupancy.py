"""How many requests each worker holds over time, waiting or running: what a router balances."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from helpers.errors import InputError
from helpers.metrics.series import Series
from helpers.metrics.timeline import EventLog, Timeline

Stay = tuple[int, float, float]  # worker, from, to; seconds


def stays(timeline: Timeline, end_s: float) -> Iterator[Stay]:
    """When a request was on which worker.

    On its prefill worker from the dispatch to the first token, on its decode worker from the end of the hand-off
    to its last token; on a mixed worker from the dispatch to the last token. What never came lasts to `end_s`. Of a
    request that was sent again after a loss, the timeline knows the last workers only. Nothing for one that was
    rejected, or that was never dispatched.
    """
    if timeline.dispatched_s is None or timeline.prefill_worker is None or timeline.status == "rejected":
        return
    last_s = end_s if timeline.finished_s is None else timeline.finished_s
    if timeline.decode_worker in (None, timeline.prefill_worker):
        yield timeline.prefill_worker, timeline.dispatched_s, last_s
        return
    first_s = end_s if timeline.first_token_s is None else timeline.first_token_s
    yield timeline.prefill_worker, timeline.dispatched_s, min(first_s, last_s)
    if timeline.transfer_end_s is not None and timeline.transfer_end_s < last_s:
        yield timeline.decode_worker, timeline.transfer_end_s, last_s


def requests_on_workers(log: EventLog, windows: int) -> list[Series]:
    """The time-average number of requests on each worker in each of `windows` equal windows from 0 to the end.

    A value stands at the end of its window. Costs O(requests + workers x windows). Raises `InputError` for no window,
    and for a log that ends as it starts.
    """
    if windows < 1 or not log.end_s > 0:
        raise InputError(f"{windows} windows over {log.end_s:g} s hold nothing; give a window and a run that lasts")
    width_s = log.end_s / windows
    parts = [[0.0] * (windows + 1) for _ in log.workers]  # request-seconds of windows that a stay covers in part
    whole = [[0] * (windows + 1) for _ in log.workers]  # by how much the number of stays that cover a window changes
    for timeline in log.timelines:
        for worker, start_s, stop_s in stays(timeline, log.end_s):
            first, last = min(int(start_s / width_s), windows - 1), min(int(stop_s / width_s), windows - 1)
            if first == last:
                parts[worker][first] += stop_s - start_s
                continue
            parts[worker][first] += (first + 1) * width_s - start_s
            parts[worker][last] += stop_s - last * width_s
            whole[worker][first + 1] += 1
            whole[worker][last] -= 1
    times = tuple((i + 1) * width_s for i in range(windows))
    return [Series(times, _averages(part, change, width_s)) for part, change in zip(parts, whole, strict=True)]


def _averages(parts: Sequence[float], changes: Sequence[int], width_s: float) -> tuple[float, ...]:
    covered = accumulate(changes)
    return tuple(count + part / width_s for count, part in zip(covered, parts[:-1], strict=False))
