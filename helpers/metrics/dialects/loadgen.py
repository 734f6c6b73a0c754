"""A run as MLPerf LoadGen reports it in the Server scenario with token latencies, under the names of its summary.

Read in loadgen/results.cc, logging.cc, early_stopping.cc and mlperf.conf of mlcommons/inference at b66003e1
(2026-08-20). Every latency counts from the *scheduled* time of the query, in whole nanoseconds. A percentile is the
value at place floor(n q) of the sorted list, counted from 0: where n q is a whole number, one place above nearest rank.
"""

from collections.abc import Callable, Sequence

from helpers.metrics.dialects.client import ON_TIME, Answer, Clock, answers
from helpers.metrics.student import beta_share
from helpers.metrics.timeline import EventLog
from helpers.workload.slo import SLOs, slo_of

NS = 1e9
TARGET = 0.99
CONFIDENCE = 0.99
MIN_DURATION_S = 600.0
MIN_QUERIES = 100
KINDS = {
    "latency": "scheduled time to last token",
    "first token latency": "scheduled time to first token",
    "time to output token": "(latency - first token latency) / (n - 1), one value a request",
}
MEANS = {
    "latency": "Mean latency (ns)",
    "first token latency": "Mean First Token latency (ns)",
    "time to output token": "Mean Time per Output Token (ns)",
}
SHARES = (0.5, 0.9, 0.99)
METRICS = {
    "Completed samples per second": "(completed - 1) / the time at which the last query sent was done",
    "Completed tokens per second": "tokens / the time at which the last query sent was done",
    "Scheduled samples per second": "(completed - 1) / the scheduled time of the last query",
    **{MEANS[kind]: f"mean: {text}" for kind, text in KINDS.items()},
    **{f"{100 * q:.2f} percentile {kind} (ns)": f"p{100 * q:g}: {KINDS[kind]}" for kind in KINDS for q in SHARES},
    "Performance constraints satisfied": "p99 of first token latency and of time to output token within their limits",
    "Min duration satisfied": "the last query was scheduled 600 s after the start, or later",
    "Min queries satisfied": "100 queries or more",
    "Early stopping satisfied": "so few are late that p99 is within the limit with 99 % confidence, for both",
    "errors": "samples of one token, whose pace LoadGen notes as 0, and samples that never came back",
    "Result is": "VALID when all of the above hold and there is no error",
}


def report(log: EventLog, slos: SLOs | None = None, clock: Clock = ON_TIME) -> dict[str, float | bool | str | None]:
    """The metrics of `METRICS`; None for those that need SLOs or requests that are not there.

    The limits are the bounds on TTFT and TPOT. LoadGen has one limit for all; here each request is held to
    that of its class, which is the same when there is one class. LoadGen waits for every sample: refused and
    unfinished requests are errors here, and in no latency.
    """
    done = answers(log, clock)
    last_due_s = max(map(clock.due, log.timelines), default=0.0)
    last_done_s = max(((a.due_s, a.timeline.id, a.last_s) for a in done), default=(0, 0, 0.0))[2]
    latencies = {
        "latency": [_ns(a.last_s - a.due_s) for a in done],
        "first token latency": [_ns(a.first_s - a.due_s) for a in done],
        "time to output token": [pace_ns(a) for a in done],
    }
    tokens = sum(a.tokens for a in done if a.tokens > 1)
    errors = len(log.timelines) - len(done) + sum(a.tokens < 2 for a in done)
    verdicts = {
        "Performance constraints satisfied": _judge(done, slos, within_target),
        "Min duration satisfied": last_due_s >= MIN_DURATION_S,
        "Min queries satisfied": len(log.timelines) >= MIN_QUERIES,
        "Early stopping satisfied": _judge(done, slos, early_stopping),
    }
    valid = None if None in verdicts.values() else all(verdicts.values()) and not errors
    found: dict[str, float | bool | str | None] = {
        "Completed samples per second": (len(done) - 1) / last_done_s if done and last_done_s else None,
        "Completed tokens per second": tokens / last_done_s if last_done_s else None,
        "Scheduled samples per second": (len(done) - 1) / last_due_s if done and last_due_s else None,
    }
    found |= {MEANS[kind]: sum(values) // len(values) if values else None for kind, values in latencies.items()}
    for kind, values in latencies.items():
        found |= {f"{100 * q:.2f} percentile {kind} (ns)": percentile_ns(values, q) for q in SHARES}
    word = None if valid is None else "VALID" if valid else "INVALID"
    return {**found, **verdicts, "errors": errors, "Result is": word}


def percentile_ns(values: Sequence[int], q: float) -> int | None:
    """The value at place floor(n q) of the sorted list, counted from 0; None of none. q is below 1."""
    return sorted(values)[int(len(values) * q)] if values else None


def pace_ns(answer: Answer) -> int:
    """The time per output token, rounded down; 0 for an answer of one token, which LoadGen calls an error."""
    latency, first = _ns(answer.last_s - answer.due_s), _ns(answer.first_s - answer.due_s)
    return (latency - first) // (answer.tokens - 1) if answer.tokens > 1 else 0


def within_target(late: int, queries: int) -> bool:
    """Whether the 99th percentile of `queries` latencies is within the limit that `late` of them exceed."""
    return queries - late > int(queries * TARGET)


def early_stopping(late: int, queries: int) -> bool:
    """Whether so few of the queries are late that the run may end: `least_in_time(late)` others were in time."""
    return queries >= least_in_time(late) + late


def least_in_time(late: int) -> int:
    """The least number h of queries in time beside `late` late ones that shows, with 99 % confidence, a p99 in time.

    The least h with P(at most `late` late among h + late | each is late with probability 1 %) < 1 %. That
    probability is the regularised incomplete beta function I_0.99(h, late + 1).
    """
    low, high = 0, 512
    while not beta_share(high, late + 1, TARGET) < 1 - CONFIDENCE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if beta_share(middle, late + 1, TARGET) < 1 - CONFIDENCE else (middle, high)
    return high


def _judge(done: Sequence[Answer], slos: SLOs | None, rule: Callable[[int, int], bool]) -> bool | None:
    """Whether a rule holds for the first token and for the pace; a bound that is not set holds."""
    if slos is None or not done:
        return None
    first = pace = 0
    for answer in done:
        slo = slo_of(answer.timeline, slos)
        first += slo.ttft_s is not None and _ns(answer.first_s - answer.due_s) > _ns(slo.ttft_s)
        pace += slo.tpot_s is not None and pace_ns(answer) > _ns(slo.tpot_s)
    return rule(first, len(done)) and rule(pace, len(done))


def _ns(seconds: float) -> int:
    return round(seconds * NS)
