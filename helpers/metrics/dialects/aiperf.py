"""A run as AIPerf (the successor of GenAI-Perf) reports it, under the tags of its metrics.

Read in aiperf/metrics of ai-dynamo/aiperf at db4f6397 (2025-10-10); the rule of goodput again at cf79369e (2026).
A latency counts from the start of the request, which is its send. Percentiles are NumPy's, interpolated. A metric
that no record has is absent.
"""

from collections.abc import Mapping, Sequence

from helpers.metrics.dialects.client import ON_TIME, Answer, Clock, answers, deviation, pooled_gaps, second_gap_s
from helpers.metrics.percentiles import Ordered
from helpers.metrics.timeline import EventLog
from helpers.workload.slo import SLO, SLOs, slo_of

MS = 1e3
DISTRIBUTIONS = {
    "time_to_first_token": "request start to first response, ms",
    "time_to_second_token": "first to second response, ms",
    "request_latency": "request start to last response, ms",
    "inter_token_latency": "(request latency - TTFT) / (n - 1), one value a request, ms; none for n = 1",
    "inter_chunk_latency": "gaps between responses, pooled over all requests, ms",
    "output_token_throughput_per_user": "1 / inter_token_latency of a request, tokens/s",
}
STATISTICS = ("avg", "p50", "p90", "p99", "std")
SINGLES = {
    "request_count": "requests answered to the end",
    "error_request_count": "requests refused or not finished",
    "benchmark_duration": "first request start to last response, of valid requests, in seconds",
    "request_throughput": "request_count / benchmark_duration",
    "output_token_throughput": "output tokens / benchmark_duration",
    "good_request_count": "requests within every bound; without a value (n = 1 and a bound on ITL) none is met",
    "goodput": "good_request_count / benchmark_duration",
}
METRICS = SINGLES | {f"{tag}.{s}": f"{s}: {text}" for tag, text in DISTRIBUTIONS.items() for s in STATISTICS}


def report(log: EventLog, slos: SLOs | None = None, clock: Clock = ON_TIME) -> dict[str, float | None]:
    """The metrics of `METRICS`; None for those that need SLOs, token times or requests that are not there."""
    done = answers(log, clock)
    duration_s = max(a.last_s for a in done) - min(a.sent_s for a in done) if done else 0.0
    good = None if slos is None else sum(is_good(a, slo_of(a.timeline, slos)) for a in done)
    paces = [a.pace_s for a in done if a.pace_s is not None]
    found = {
        "request_count": len(done),
        "error_request_count": len(log.timelines) - len(done),
        "benchmark_duration": duration_s if done else None,
        "request_throughput": _over(len(done), duration_s),
        "output_token_throughput": _over(sum(a.tokens for a in done), duration_s),
        "good_request_count": good,
        "goodput": _over(good, duration_s),
    }
    values = {
        "time_to_first_token": {1: [MS * (a.first_s - a.sent_s) for a in done]},
        "time_to_second_token": {1: [MS * s for a in done if (s := second_gap_s(a, log)) is not None]},
        "request_latency": {1: [MS * (a.last_s - a.sent_s) for a in done]},
        "inter_token_latency": {1: [MS * pace for pace in paces]},
        "inter_chunk_latency": _in_ms(pooled_gaps(log, done) or {}),
        "output_token_throughput_per_user": {1: [1 / pace for pace in paces if pace]},
    }
    for tag, groups in values.items():
        found |= _statistics(tag, groups)
    return found


def is_good(answer: Answer, slo: SLO) -> bool:
    """Whether every bound that is set holds. A request of one token has no ITL, and fails a bound on it."""
    if slo.tpot_s is not None and (answer.pace_s is None or answer.pace_s > slo.tpot_s):
        return False
    pairs = ((answer.first_s - answer.sent_s, slo.ttft_s), (answer.last_s - answer.sent_s, slo.e2e_s))
    return all(bound is None or value <= bound for value, bound in pairs)


def _in_ms(groups: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    return {weight: [MS * v for v in values] for weight, values in groups.items()}


def _over(count: int | None, duration_s: float) -> float | None:
    return count / duration_s if count is not None and duration_s > 0 else None


def _statistics(tag: str, groups: Mapping[int, Sequence[float]]) -> dict[str, float | None]:
    ordered = Ordered(groups)
    if not ordered.n:
        return {f"{tag}.{s}": None for s in STATISTICS}
    shares = {f"{tag}.p{q}": ordered.percentile(q, "linear").value for q in (50, 90, 99)}
    return {f"{tag}.avg": ordered.mean, **shares, f"{tag}.std": deviation(groups)}
