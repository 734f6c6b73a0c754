"""What each worker did when: the step logs and the hand-offs of a run as stretches of one kind of work."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from helpers.metrics.series import Window
from helpers.metrics.steps import row_end_s
from helpers.metrics.timeline import EventLog, StepLog, Timeline

IDLE, DECODE, PREFILL, MIXED, TRANSFER = "idle", "decode", "prefill", "prefill and decode", "transfer"
QUEUE = "queue"
KINDS = (PREFILL, MIXED, DECODE, TRANSFER, IDLE)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One worker doing one kind of work from `start_s` to `end_s`.

    `prefilling` and `decoding` are the ids of the requests, `tokens` the prompt tokens computed. A transfer is on the
    worker that sends.
    """

    worker: int
    kind: str
    start_s: float
    end_s: float
    prefilling: tuple[int, ...] = ()
    decoding: tuple[int, ...] = ()
    tokens: int = 0


def activity(log: EventLog, window: Window) -> list[Stretch]:
    """What each worker did in a window, by worker and time, cut at its ends; idle where no step ran.

    Steps that follow each other without a pause are one stretch while they are of one kind and prefill the same
    requests. Who prefills in a step is taken from the times of the requests: those between the start of their prefill
    and their first token, at their first prefill. Costs O(rows + spans in the window x rows they cover there).
    """
    found = []
    for worker, steps in enumerate(log.step_logs):
        mine = [t for t in log.timelines if t.prefill_worker == worker and t.prefill_start_s is not None]
        stretches = _joined(_rows(worker, steps, _decoding(log, worker, steps, window), mine, window))
        found += _with_idle(worker, stretches, window)
    return found + transfers(log.timelines, window)


def transfers(timelines: Sequence[Timeline], window: Window) -> list[Stretch]:
    """The hand-offs of KV from prefill to decode workers that were under way in a window."""
    sent = (t for t in timelines if t.transfer_start_s is not None and t.transfer_end_s is not None)
    cut = (
        _cut(Stretch(t.prefill_worker, TRANSFER, t.transfer_start_s, t.transfer_end_s, (t.id,)), window) for t in sent
    )
    return sorted((one for one in cut if one), key=lambda one: (one.worker, one.start_s))


def stages(timeline: Timeline, window: Window) -> list[tuple[str, float, float]]:
    """(kind, from, to) of what one request waits for in a window: queue, prefill, transfer, decode.

    Preemptions and repeats are not told apart: what comes after the first token is decode. Empty when the request is
    not in the system in the window, or was rejected.
    """
    t = timeline
    if t.status == "rejected":
        return []
    times = [t.arrival_s, t.prefill_start_s, t.first_token_s, t.transfer_end_s or t.first_token_s, t.finished_s]
    known = [inf if one is None else one for one in times]
    parts = zip((QUEUE, PREFILL, TRANSFER, DECODE), known, known[1:], strict=False)
    cut = ((kind, max(a, window.start_s), min(b, window.end_s)) for kind, a, b in parts)
    return [(kind, a, b) for kind, a, b in cut if a < b]


def _rows_in(steps: StepLog, window: Window) -> range:
    """The rows that overlap a window; rows are in order of time."""
    first = max(bisect_right(steps.start_s, window.start_s) - 1, 0)
    if first < len(steps) and row_end_s(steps, first) <= window.start_s:
        first += 1
    return range(first, bisect_left(steps.start_s, window.end_s))


def _decoding(log: EventLog, worker: int, steps: StepLog, window: Window) -> dict[int, list[int]]:
    """The ids of the requests that decode in each row of the window."""
    rows = _rows_in(steps, window)
    found: dict[int, list[int]] = {row: [] for row in rows}
    for t in log.timelines:
        for span in t.spans:
            if span.worker == worker and rows and span.first <= rows[-1] and span.last >= rows[0]:
                for row in range(max(span.first, rows[0]), min(span.last, rows[-1]) + 1):
                    found[row].append(t.id)
    return found


def _rows(
    worker: int, steps: StepLog, decoding: dict[int, list[int]], prefilled: Sequence[Timeline], window: Window
) -> Iterator[Stretch]:
    for row, ids in decoding.items():
        start_s, end_s, tokens = steps.start_s[row], row_end_s(steps, row), steps.prefilled[row]
        kind = (MIXED if steps.decoding[row] else PREFILL) if tokens else DECODE
        prefilling = ()
        if tokens:
            prefilling = tuple(t.id for t in prefilled if t.prefill_start_s < end_s and _first_s(t, end_s) > start_s)
        cut = _cut(Stretch(worker, kind, start_s, end_s, prefilling, tuple(ids), tokens), window)
        if cut:
            yield cut


def _first_s(timeline: Timeline, otherwise_s: float) -> float:
    return otherwise_s if timeline.first_token_s is None else timeline.first_token_s


def _cut(one: Stretch, window: Window) -> Stretch | None:
    start_s, end_s = max(one.start_s, window.start_s), min(one.end_s, window.end_s)
    return replace(one, start_s=start_s, end_s=end_s) if start_s < end_s else None


def _joined(stretches: Iterator[Stretch]) -> list[Stretch]:
    found: list[Stretch] = []
    for one in stretches:
        last = found[-1] if found else None
        alike = last and (last.kind, last.prefilling) == (one.kind, one.prefilling)
        if alike and one.start_s - last.end_s <= 1e-9 * max(1.0, one.start_s):
            ids = tuple(dict.fromkeys((*last.decoding, *one.decoding)))
            found[-1] = replace(last, end_s=one.end_s, decoding=ids, tokens=last.tokens + one.tokens)
        else:
            found.append(one)
    return found


def _with_idle(worker: int, stretches: Sequence[Stretch], window: Window) -> Iterator[Stretch]:
    now_s = window.start_s
    for one in stretches:
        if one.start_s - now_s > 1e-9 * max(1.0, now_s):
            yield Stretch(worker, IDLE, now_s, one.start_s)
        yield one
        now_s = one.end_s
    if now_s < window.end_s:
        yield Stretch(worker, IDLE, now_s, window.end_s)
