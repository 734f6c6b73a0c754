"""Does an event log keep the contract of `helpers.metrics.timeline`? What backends and packs are checked with."""

from collections.abc import Iterator
from itertools import accumulate, pairwise

from helpers.metrics.steps import checked_spans, coverage, row_end_s
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo

STATUSES = ("finished", "rejected", "unfinished")
TOLERANCE_S = 1e-9


def audit(log: EventLog) -> list[str]:
    """Every breach of the contract as a sentence; an empty list for a sound event log.

    Costs O(rows + spans). Raises InputError on a span that is not in the step logs. Times agree
    within 1e-9, absolute below one second and relative above.
    """
    tokens = [list(accumulate(steps.steps, initial=0)) for steps in log.step_logs]
    found = [sentence for t in log.timelines for sentence in _breaches(t, log, tokens)]
    ids = [t.id for t in log.timelines]
    if ids != sorted(set(ids)):
        found.append("the timelines are not sorted by id, or an id occurs twice")
    counted, booked = sum(t.prefilled_tokens for t in log.timelines), sum(sum(s.prefilled) for s in log.step_logs)
    if counted != booked:
        found.append(f"the timelines count {counted} prefilled tokens, but the step logs {booked}")
    found += [sentence for worker, stay in enumerate(log.workers) for sentence in _outside(worker, stay, log)]
    for worker, (cover, steps) in enumerate(zip(coverage(log.timelines, log.step_logs), log.step_logs, strict=True)):
        found += [
            f"worker {worker}, row {row}: {steps.decoding[row]} requests decoding, but {count} spans over it"
            for row, count in enumerate(cover)
            if count != steps.decoding[row]
        ]
        found += [
            f"worker {worker}, row {row} starts at {steps.start_s[row]:.9g} s, before the row above it ended"
            for row in range(1, len(steps))
            if _before(steps.start_s[row], row_end_s(steps, row - 1))
        ]
    return found


def _outside(worker: int, stay: WorkerInfo, log: EventLog) -> Iterator[str]:
    """Steps of a worker before it was ready, or after it stopped."""
    steps = log.step_logs[worker] if worker < len(log.step_logs) else ()
    if not len(steps):
        return
    first_s, last_s = steps.start_s[0], row_end_s(steps, len(steps) - 1)
    if stay.ready_s is None or _before(first_s, stay.ready_s):
        yield f"worker {worker}: a step starts at {first_s:.9g} s, but it was ready at {stay.ready_s} s"
    if stay.stop_s is not None and _before(stay.stop_s, last_s):
        yield f"worker {worker}: a step ends at {last_s:.9g} s, but it stopped at {stay.stop_s:.9g} s"


def _before(a_s: float, b_s: float) -> bool:
    """True when a_s is earlier than b_s by more than the tolerance."""
    return a_s < b_s - TOLERANCE_S * max(1.0, abs(b_s))


def _breaches(t: Timeline, log: EventLog, tokens: list[list[int]]) -> Iterator[str]:
    if t.status not in STATUSES:
        yield f"request {t.id}: unknown status {t.status!r}"
    milestones = [t.arrival_s, t.prefill_start_s, t.first_token_s, t.finished_s]
    seen = [m for m in milestones if m is not None]
    if any(_before(b, a) for a, b in pairwise(seen)):
        yield f"request {t.id}: its times are not in order ({', '.join(f'{m:.9g}' for m in seen)})"
    if seen[-1] > log.end_s and t.status != "rejected":
        yield f"request {t.id}: something happened at {seen[-1]:.9g} s, after the end of the run at {log.end_s:.9g} s"
    if not 0 <= t.cached_tokens + t.fetched_tokens <= t.prompt_tokens:
        yield f"request {t.id}: {t.cached_tokens} cached and {t.fetched_tokens} fetched of {t.prompt_tokens} tokens"
    if t.status == "finished":
        yield from _check_tokens(t, log, tokens)


def _check_tokens(t: Timeline, log: EventLog, tokens: list[list[int]]) -> Iterator[str]:
    """A finished request has a first token, output_tokens - 1 decoded ones, and ends with the last of them."""
    if t.first_token_s is None or t.finished_s is None:
        yield f"request {t.id}: finished, but without a first token or an end"
        return
    out, last_s = 1, t.first_token_s
    for span in checked_spans(t, log.step_logs):
        steps = log.step_logs[span.worker]
        if _before(steps.start_s[span.first], last_s):
            yield f"request {t.id}: a span starts before the token that came out at {last_s:.9g} s"
        out += tokens[span.worker][span.last + 1] - tokens[span.worker][span.first]
        last_s = row_end_s(steps, span.last)
    if out != t.output_tokens:
        yield f"request {t.id}: {out} tokens in its spans, the first included, but {t.output_tokens} were put out"
    if _before(t.finished_s, last_s) or _before(last_s, t.finished_s):
        yield f"request {t.id}: finished at {t.finished_s:.9g} s, but its last token was out at {last_s:.9g} s"
