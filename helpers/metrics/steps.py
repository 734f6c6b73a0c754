"""What the step logs say, without expanding them token by token.

How many requests decoded in a row is counted from their spans, so any subset of the requests
(a class, a time window) has its own counts; over all requests of a run they equal the column
`decoding`, which `helpers.metrics.audit` checks.
"""

import math
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from helpers.errors import InputError
from helpers.metrics.series import Window
from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline


@dataclass(frozen=True)
class Gaps:
    """Pooled inter-token gaps of `requests` requests, in seconds; those in `by_weight[w]` occurred w times each."""

    by_weight: dict[int, list[float]]
    requests: int


def row_end_s(log: StepLog, row: int) -> float:
    """When the last step of a row ends; the same expression as the last of `Segment.token_times`."""
    k = log.steps[row]
    return log.start_s[row] + k * log.base_s[row] + log.growth_s[row] * (k * (k - 1) // 2)


def row_duration_s(log: StepLog, row: int) -> float:
    """Seconds from the start of the first step of a row to the end of its last."""
    k = log.steps[row]
    return k * log.base_s[row] + log.growth_s[row] * (k * (k - 1) // 2)


def coverage(timelines: Iterable[Timeline], step_logs: Sequence[StepLog]) -> list[array]:
    """For each worker and row, how many of these requests decoded in it. Raises InputError on a span out of range."""
    changes = [array("q", bytes(8 * (len(log) + 1))) for log in step_logs]
    for t in timelines:
        for span in checked_spans(t, step_logs):
            changes[span.worker][span.first] += 1
            changes[span.worker][span.last + 1] -= 1
    return [array("q", accumulate(c[:-1])) for c in changes]


def checked_spans(timeline: Timeline, step_logs: Sequence[StepLog]) -> Iterator[Span]:
    """The spans of a timeline. Raises InputError when one points outside the step logs."""
    for span in timeline.spans:
        if not (0 <= span.worker < len(step_logs) and 0 <= span.first <= span.last < len(step_logs[span.worker])):
            raise InputError(
                f"request {timeline.id}: the span (worker {span.worker}, rows {span.first} to {span.last}) is not in "
                "the step logs; the event log is damaged, record it again"
            )
        yield span


def gaps(timelines: Iterable[Timeline], step_logs: Sequence[StepLog]) -> Gaps:
    """The gaps between consecutive tokens of each request, pooled, in O(steps + spans).

    A row gives each of its step durations the weight of the requests that decoded in it. Two
    kinds of gap are longer than the step that ends them and are put in their true length: the
    first of a span that does not start where the request's previous token left off (it waited
    in between: hand-off, preemption, loss), and those across a pause between two rows of a span.
    Equal, up to rounding, to the differences of `token_times` of each request. Gaps of unfinished
    requests count too: they were seen.
    """
    starting = [array("q", bytes(8 * len(log))) for log in step_logs]  # spans whose first row this is
    seamless = [array("q", bytes(8 * len(log))) for log in step_logs]  # of those, without a wait before
    streamed: list[Timeline] = []
    waits: list[float] = []
    for t in timelines:
        if t.first_token_s is None or not t.spans:
            continue
        streamed.append(t)
        previous_s = t.first_token_s
        for span in checked_spans(t, step_logs):
            log, row = step_logs[span.worker], span.first
            starting[span.worker][row] += 1
            if _same_time(log.start_s[row], previous_s):
                seamless[span.worker][row] += 1
            else:
                waits.append(log.start_s[row] + log.base_s[row] - previous_s)
            previous_s = row_end_s(log, span.last)
    by_weight = defaultdict(list, {1: waits})
    for worker, cover in enumerate(coverage(streamed, step_logs)):
        _add_rows(by_weight, step_logs[worker], cover, starting[worker], seamless[worker])
    return Gaps(dict(by_weight), len(streamed))


def _same_time(a_s: float, b_s: float) -> bool:
    """True when two times differ by rounding only: a backend may add up the end of a row in another order."""
    return a_s == b_s or abs(a_s - b_s) <= 8 * math.ulp(a_s)


def _add_rows(by_weight: dict[int, list[float]], log: StepLog, cover: array, starting: array, seamless: array) -> None:
    """Add the gaps that end with a step of one worker: the first step of each row apart, the others by weight."""
    for row, count in enumerate(cover):
        if not count:
            continue
        base_s, growth_s, steps = log.base_s[row], log.growth_s[row], log.steps[row]
        first, going_on = seamless[row], count - starting[row]
        if going_on:
            end_s = row_end_s(log, row - 1)  # a span covers row - 1 too, so it exists
            if _same_time(log.start_s[row], end_s):
                first += going_on
            else:
                by_weight[going_on].append(log.start_s[row] + base_s - end_s)
        if first:
            by_weight[first].append(base_s)
        if steps > 1 and growth_s == 0.0:
            by_weight[count * (steps - 1)].append(base_s)
        elif steps > 1:
            by_weight[count].extend([base_s + k * growth_s for k in range(1, steps)])


def steps_in(log: StepLog, row: int, window: Window | None) -> int:
    """How many steps of a row end inside the window; all of them without one."""
    if window is None:
        return log.steps[row]
    end_s = row_end_s(log, row)
    if end_s < window.start_s or log.start_s[row] >= window.end_s:
        return 0
    if log.start_s[row] >= window.start_s and end_s < window.end_s:
        return log.steps[row]
    times = list(log.segment(row).token_times())  # only the rows that straddle an edge come here
    return bisect_left(times, window.end_s) - bisect_left(times, window.start_s)


def tokens_out(log: EventLog, window: Window | None = None) -> int | None:
    """Output tokens that came out in the window: first tokens, and decoded ones by the step that made them.

    A recording without steps knows only how many there were in all; None for a window of it.
    """
    if not log.step_logs and any(t.generated_tokens > 1 for t in log.timelines):
        return None if window else sum(t.generated_tokens for t in log.timelines)
    first = sum(
        1 for t in log.timelines if t.first_token_s is not None and (window is None or t.first_token_s in window)
    )
    decoded = 0
    for steps, cover in zip(log.step_logs, coverage(log.timelines, log.step_logs), strict=True):
        decoded += sum(count * steps_in(steps, row, window) for row, count in enumerate(cover) if count)
    return first + decoded
