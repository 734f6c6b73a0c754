"""A run of four requests, small enough to be measured by hand in every dialect."""

import pytest

from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline


def steps(start_s: float, *durations_s: float) -> StepLog:
    """Steps one after the other, in each of which one request decodes."""
    log = StepLog()
    for duration_s in durations_s:
        log.append(start_s, 1, duration_s, 0.0, 1, 0)
        start_s += duration_s
    return log


@pytest.fixture
def four() -> EventLog:
    """Two answers of several tokens, one of a single token, one refusal; nothing arrives in the first ten seconds.

    0: due 10.0 s, first token 11.0 s, then gaps of 0.1, 0.1, 0.1, 0.5 s: five tokens, the last at 11.8 s.
    1: due 11.0 s, first token 11.5 s, then gaps of 0.4, 0.4 s: three tokens, the last at 12.3 s.
    2: due 12.0 s, its only token at 12.25 s.
    3: refused as it comes, at 13.0 s.
    """
    timelines = (
        Timeline(0, 10.0, 100, 5, "finished", "", 0, 0, 10.0, 10.0, 11.0, 11.8, 5, spans=(Span(0, 0, 3),)),
        Timeline(1, 11.0, 50, 3, "finished", "", 1, 1, 11.0, 11.0, 11.5, 12.3, 3, spans=(Span(1, 0, 1),)),
        Timeline(2, 12.0, 30, 1, "finished", "", 0, 0, 12.0, 12.0, 12.25, 12.25, 1),
        Timeline(3, 13.0, 70, 8, "rejected", "the queue is full"),
    )
    return EventLog(timelines, (steps(11.0, 0.1, 0.1, 0.1, 0.5), steps(11.5, 0.4, 0.4)), (), 13.0)
