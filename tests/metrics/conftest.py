"""Event logs to measure: random ones that keep the contract, and single-server queues by Lindley's recursion."""

from random import Random

import pytest
from hypothesis import strategies as st

from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline, WorkerInfo

TICK_S = 2.0**-10


def lindley(rng: Random, rate_per_s: float, customers: int, constant: bool = False, stationary: bool = False):
    """(arrival, wait, service) of each customer of M/M/1 (or M/D/1) with a mean service of 1 s.

    W' = max(0, W + S - A). A stationary start draws the first wait from its own stationary
    distribution (0 with probability 1 - rho, else exponential), so that no warm-up is needed.
    """
    wait = rng.expovariate(1 - rate_per_s) if stationary and rng.random() < rate_per_s else 0.0
    now, found = 0.0, []
    for _ in range(customers):
        service = 1.0 if constant else rng.expovariate(1)
        found.append((now, wait, service))
        gap = rng.expovariate(rate_per_s)
        now += gap
        wait = max(0.0, wait + service - gap)
    return found


def queue_log(rng: Random, rate_per_s: float, customers: int, constant: bool = False, stationary: bool = False):
    """The event log of such a queue; the first token is out when the service starts, the second when it ends."""
    timelines = [
        Timeline(i, a, 100, 2, "finished", prefill_start_s=a + w, first_token_s=a + w, finished_s=a + w + s)
        for i, (a, w, s) in enumerate(lindley(rng, rate_per_s, customers, constant, stationary))
    ]
    return EventLog(tuple(timelines), end_s=max(t.finished_s for t in timelines))


@st.composite
def event_logs(draw, dyadic: bool = True):
    """Event logs of up to three workers with hand-offs, preemptions, pauses and unfinished requests.

    Dyadic ones hold multiples of 2^-10 s only, on which float arithmetic is exact.
    """
    ticks = st.integers(1, 64)
    seconds = ticks.map(lambda n: n * TICK_S) if dyadic else st.floats(1e-4, 0.1)
    logs = []
    for _ in range(draw(st.integers(1, 3))):
        log, now = StepLog(), draw(seconds)
        for _ in range(draw(st.integers(1, 8))):
            now += draw(st.one_of(st.just(0.0), seconds))  # a pause, more often none
            steps, base_s, growth_s = draw(st.integers(1, 6)), draw(seconds), draw(st.one_of(st.just(0.0), seconds))
            log.append(now, steps, base_s, growth_s, 0, 0)
            now = max(log.segment(len(log) - 1).token_times())
        logs.append(log)
    timelines = [_random_timeline(draw, i, logs, seconds) for i in range(draw(st.integers(0, 8)))]
    for t in timelines:
        logs[0].prefilled[0] += t.prefilled_tokens
        for span in t.spans:
            for row in range(span.first, span.last + 1):
                logs[span.worker].decoding[row] += 1
    ends = [log.segment(len(log) - 1).start_s + 100 for log in logs]
    return EventLog(tuple(timelines), tuple(logs), tuple(WorkerInfo() for _ in logs), max(ends))


def _random_timeline(draw, number: int, logs: list[StepLog], seconds) -> Timeline:
    worker = draw(st.integers(0, len(logs) - 1))
    row = draw(st.integers(0, len(logs[worker]) - 1))
    first_s = logs[worker].start_s[row] - draw(st.one_of(st.just(0.0), seconds))  # a hand-off, more often none
    arrival_s = first_s - draw(seconds)
    spans, tokens, now = [], 1, first_s
    for _ in range(draw(st.integers(0, 3))):
        last = draw(st.integers(row, len(logs[worker]) - 1))
        spans.append(Span(worker, row, last))
        tokens += sum(logs[worker].steps[row : last + 1])
        now = max(logs[worker].segment(last).token_times())
        later = [(w, r) for w, log in enumerate(logs) for r in range(len(log)) if log.start_s[r] >= now]
        if not later:
            break
        worker, row = draw(st.sampled_from(later))
    status = draw(st.sampled_from(["finished", "finished", "unfinished"]))
    ended = {"finished_s": now, "output_tokens": tokens} if status == "finished" else {"output_tokens": tokens + 1}
    return Timeline(
        number, arrival_s, 10, status=status, prefill_start_s=arrival_s, first_token_s=first_s,
        generated_tokens=tokens, prefilled_tokens=10, spans=tuple(spans), **ended,
    )  # fmt: skip


@pytest.fixture(scope="session", name="event_logs")
def event_logs_fixture():
    """The strategy, as a fixture: test modules cannot import each other."""
    return event_logs


@pytest.fixture(scope="session", name="lindley")
def lindley_fixture():
    return lindley


@pytest.fixture(scope="session", name="queue_log")
def queue_log_fixture():
    return queue_log


@pytest.fixture
def small_log() -> EventLog:
    """Two mixed workers and five requests, small enough to be measured by hand.

    Worker 0: a step 0-1 s that prefills request 0 (100 tokens); a step 1-1.5 s that decodes it and
    prefills request 1 (40 tokens); a step 1.5-2 s that decodes request 0 alone; three steps of 1 s
    that decode both. Worker 1: a step 2-4 s that prefills request 2 (20 tokens), a step 4-5 s for
    30 tokens of request 4, which the end of the run cuts off. Request 3 is turned away.
    """
    first, second = StepLog(), StepLog()
    first.append(0.0, 1, 1.0, 0.0, 0, 100)
    first.append(1.0, 1, 0.5, 0.0, 1, 40)
    first.append(1.5, 1, 0.5, 0.0, 1, 0)
    first.append(2.0, 3, 1.0, 0.0, 2, 0)
    second.append(2.0, 1, 2.0, 0.0, 0, 20)
    second.append(4.0, 1, 1.0, 0.0, 0, 30)
    timelines = (
        Timeline(0, 0.0, 120, 6, "finished", "", 0, 0, 0.0, 0.0, 1.0, 5.0, 6, 20, 0, 100, spans=(Span(0, 1, 3),)),
        Timeline(1, 0.5, 50, 4, "finished", "", 0, 0, 0.5, 1.0, 1.5, 5.0, 4, 0, 20, 40, 1, spans=(Span(0, 3, 3),)),
        Timeline(2, 1.0, 30, 1, "finished", "", 1, 1, 1.0, 2.0, 4.0, 4.0, 1, 10, 0, 20, slo_class="strict"),
        Timeline(3, 2.0, 50, 9, "rejected", "queue is full"),
        Timeline(4, 3.0, 60, 9, "unfinished", "", 1, 1, 3.0, 4.0, None, None, 0, 0, 0, 30, 0, 1),
    )
    return EventLog(timelines, (first, second), (WorkerInfo(), WorkerInfo()), 5.0)
