"""A run as guidellm reports it, under the names of its metrics.

Read in src/guidellm/schemas/request_stats.py, schemas/statistics.py and benchmark/schemas/metrics.py of
vllm-project/guidellm at ee7a7745 (2026-08-07). A latency counts from the send. Percentiles are the smallest value
whose share of the weight reaches q: nearest rank. The two paces are weighted by tokens: a request with twice
the tokens counts twice, so that they are neither per request nor of pooled gaps.
"""

from collections.abc import Callable, Sequence

from helpers.metrics.dialects.client import ON_TIME, Answer, Clock, answers, first_sent_s, last_left_s
from helpers.metrics.percentiles import Ordered
from helpers.metrics.timeline import EventLog
from helpers.workload.slo import SLOs

MS = 1e3
DISTRIBUTIONS = {
    "request_latency": "send to last token, in seconds",
    "time_to_first_token_ms": "send to first token",
    "inter_token_latency_ms": "(last - first token) / (n - 1), each request weighted by its n - 1",
    "time_per_output_token_ms": "(last token - send) / n, so it contains TTFT; each request weighted by its n",
}
STATISTICS = ("mean", "median", "p95", "p99")
SINGLES = {
    "request_totals.successful": "requests answered to the end",
    "request_totals.incomplete": "requests that were cut off",
    "request_totals.errored": "requests that were refused",
    "requests_per_second.mean": "successful / duration, from the first send to the last request that left",
    "output_tokens_per_second.mean": "output tokens of successful requests / duration",
}
METRICS = SINGLES | {f"{name}.{s}": f"{s}: {text}" for name, text in DISTRIBUTIONS.items() for s in STATISTICS}


def report(log: EventLog, slos: SLOs | None = None, clock: Clock = ON_TIME) -> dict[str, float | None]:
    """The metrics of `METRICS`, over the successful requests. guidellm counts no goodput, so `slos` are not read.

    A rate over time is given by its mean alone, which is the count over the duration; guidellm's other
    figures of it (a median of rates between neighbouring events, say) are left out. Of nothing it says 0.
    """
    done = answers(log, clock)
    duration_s = last_left_s(log) - first_sent_s(log, clock)
    ended = [t.status for t in log.timelines]
    found = {
        "request_totals.successful": len(done),
        "request_totals.incomplete": ended.count("unfinished"),
        "request_totals.errored": ended.count("rejected"),
        "requests_per_second.mean": len(done) / duration_s if duration_s > 0 else 0.0,
        "output_tokens_per_second.mean": sum(a.tokens for a in done) / duration_s if duration_s > 0 else 0.0,
    }
    one = lambda a: 1  # noqa: E731
    found |= _statistics("request_latency", done, lambda a: a.last_s - a.sent_s, one)
    found |= _statistics("time_to_first_token_ms", done, lambda a: MS * (a.first_s - a.sent_s), one)
    found |= _statistics("inter_token_latency_ms", done, lambda a: MS * (a.pace_s or 0.0), lambda a: a.tokens - 1)
    found |= _statistics(
        "time_per_output_token_ms", done, lambda a: MS * (a.last_s - a.sent_s) / a.tokens, lambda a: a.tokens
    )
    return found


def _statistics(
    name: str, done: Sequence[Answer], value: Callable[[Answer], float], weight: Callable[[Answer], int]
) -> dict[str, float]:
    groups: dict[int, list[float]] = {}
    for answer in done:
        if weight(answer):
            groups.setdefault(weight(answer), []).append(value(answer))
    ordered = Ordered(groups)
    if not ordered.n:
        return {f"{name}.{s}": 0.0 for s in STATISTICS}
    shares = {"median": 50, "p95": 95, "p99": 99}
    return {f"{name}.mean": ordered.mean, **{f"{name}.{s}": ordered.percentile(q).value for s, q in shares.items()}}
