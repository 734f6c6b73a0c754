"""Is the run that was timed a sound run of the workload that was asked for? And does this check notice when it is not?

What is judged is the run itself: its own event log is held against the requests that it was given. The digests are
exact, so that the same arm in another process must come to the very same run.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from helpers.metrics.audit import audit
from helpers.metrics.timeline import EventLog, Timeline
from helpers.workload.request import Request, Workload

MOST = 5  # sentences that are kept of one run


def breaches(log: EventLog, workload: Workload, sha256: str) -> tuple[str, ...]:
    """What is wrong with a run, a sentence each, the first five; nothing for a sound one.

    Each request of the workload has left exactly once, finished or rejected; a finished one has exactly the tokens
    that it asked for; the workload is still the one of the digest taken before the run; and the event log keeps its
    contract (`helpers.metrics.audit`).
    """
    found = [] if workload.sha256 == sha256 else ["the workload is not the one that was frozen before the run"]
    found += _left_once(log, workload)
    asked = {r.id: r for r in workload}
    found += [sentence for t in log.timelines if t.id in asked for sentence in _served(t, asked[t.id])]
    return tuple((found or audit(log))[:MOST])


def _left_once(log: EventLog, workload: Workload) -> list[str]:
    came, left = [r.id for r in workload], sorted(t.id for t in log.timelines)
    if sorted(came) == left:
        return []
    lost, strange = sorted(set(came) - set(left)), sorted(set(left) - set(came))
    twice = sorted({one for one in set(left) if left.count(one) > 1}) if len(left) != len(set(left)) else []
    kinds = (("never left", lost), ("left twice", twice), ("were never asked for", strange))
    return [f"{len(ids)} requests {what}, the first is {ids[0]}" for what, ids in kinds if ids]


def _served(t: Timeline, r: Request) -> list[str]:
    if (t.arrival_s, t.prompt_tokens) != (r.arrival_s, r.prompt_tokens) and r.parent is None:
        return [f"request {t.id} is another one than the one that was asked for"]
    if t.status == "unfinished":
        return [f"request {t.id} is neither finished nor rejected"]
    if t.status == "finished" and not r.output_tokens == t.output_tokens == t.generated_tokens:
        return [f"request {t.id} has {t.generated_tokens} tokens, and asked for {r.output_tokens}"]
    return []


def digests(log: EventLog) -> dict[str, str]:
    """`decisions`: who went where and what became of it; `timelines`: with every time, to the last bit."""
    decisions, times = hashlib.sha256(), hashlib.sha256()
    for t in log.timelines:
        decisions.update(decision_line(t).encode())
        moments = (t.dispatched_s, t.prefill_start_s, t.first_token_s, t.finished_s)
        exact = " ".join("-" if m is None else float(m).hex() for m in moments)
        times.update(f"{t.id} {exact} {t.cached_tokens} {t.prefilled_tokens} {t.preemptions}\n".encode())
    return {"decisions": decisions.hexdigest(), "timelines": times.hexdigest()}


def decision_line(t: Timeline) -> str:
    """What the digest of decisions has of a request."""
    return f"{t.id} {t.status} {t.reason} {t.prefill_worker} {t.decode_worker} {t.generated_tokens}\n"


# -- controls: faults that must be noticed

Corrupt = Callable[[EventLog, Workload], tuple[EventLog, Workload]]


def _one(log: EventLog, **changed: object) -> EventLog:
    """The log with one finished request changed."""
    index = next(i for i, t in enumerate(log.timelines) if t.status == "finished" and t.output_tokens > 1)
    ones = list(log.timelines)
    ones[index] = replace(ones[index], **{k: f(ones[index]) for k, f in changed.items()})
    return replace(log, timelines=tuple(ones))


CORRUPTIONS: dict[str, Corrupt] = {
    "a request is missing": lambda log, w: (replace(log, timelines=log.timelines[1:]), w),
    "a request is there twice": lambda log, w: (replace(log, timelines=(*log.timelines, log.timelines[-1])), w),
    "a token is missing": lambda log, w: (_one(log, generated_tokens=lambda t: t.generated_tokens - 1), w),
    "an output is longer in both places": lambda log, w: (
        _one(log, output_tokens=lambda t: t.output_tokens + 1, generated_tokens=lambda t: t.generated_tokens + 1),
        w,
    ),
    "an end is moved": lambda log, w: (_one(log, finished_s=lambda t: t.finished_s + 0.001), w),
    "a first token is before the prefill": lambda log, w: (
        _one(log, first_token_s=lambda t: t.prefill_start_s - 0.001),
        w,
    ),
    "a prompt of the workload is changed": lambda log, w: (
        log,
        replace(w, requests=(replace(w.requests[0], output_tokens=w.requests[0].output_tokens + 1), *w.requests[1:])),
    ),
}


def unnoticed(log: EventLog, workload: Workload, sha256: str) -> list[str]:
    """The corruptions of a sound run that `breaches` does not notice; there must be none."""
    return [name for name, corrupt in CORRUPTIONS.items() if not breaches(*corrupt(log, workload), sha256)]
