"""A run as `vllm bench serve` reports it, under the names of its JSON result.

Read in vllm/benchmarks/serve.py of vllm-project/vllm at commit 009e6d4a (2026). A latency counts from the send, after
any wait for `--max-concurrency`. Percentiles are NumPy's, interpolated; where nothing was measured vLLM writes 0.
"""

from collections.abc import Mapping, Sequence

from helpers.metrics.dialects.client import ON_TIME, Answer, Clock, answers, deviation, pooled_gaps
from helpers.metrics.percentiles import Ordered
from helpers.metrics.timeline import EventLog
from helpers.workload.slo import SLO, SLOs, slo_of

MS = 1e3
LATENCIES = {
    "ttft": "send to first token",
    "tpot": "(last - first token) / (n - 1), one value a request; requests of one token left out",
    "itl": "gaps between tokens, pooled over all requests",
    "e2el": "send to last token",
}
STATISTICS = {"mean": "mean", "median": "median", "std": "standard deviation", "p99": "p99"}
METRICS = {
    "duration": "from the start of the run to the end of its last request, failed ones too, in seconds",
    "completed": "requests answered to the end",
    "failed": "requests refused or not finished; they are in no other figure",
    "total_input_tokens": "prompt tokens of completed requests",
    "total_output_tokens": "output tokens of completed requests",
    "request_throughput": "completed / duration",
    "request_goodput": "completed within TTFT, TPOT and E2EL bounds / duration; the TPOT of one token counts as 0",
    "output_throughput": "output tokens / duration",
    "total_token_throughput": "(prompt + output tokens) / duration",
    **{
        f"{short}_{name}_ms": f"{what}: {text}"
        for name, text in LATENCIES.items()
        for short, what in STATISTICS.items()
    },
}


def report(log: EventLog, slos: SLOs | None = None, clock: Clock = ON_TIME) -> dict[str, float | None]:
    """The metrics of `METRICS`; None for those that need SLOs or token times that are not there."""
    done = answers(log, clock)
    prompts, outputs = sum(a.timeline.prompt_tokens for a in done), sum(a.tokens for a in done)
    good = None if slos is None else sum(is_good(a, slo_of(a.timeline, slos)) for a in done)
    rate = {
        "request_throughput": len(done),
        "request_goodput": good,
        "output_throughput": outputs,
        "total_token_throughput": prompts + outputs,
    }
    values = {
        "ttft": {1: [a.first_s - a.sent_s for a in done]},
        "tpot": {1: [a.pace_s for a in done if a.pace_s is not None]},
        "itl": pooled_gaps(log, done),
        "e2el": {1: [a.last_s - a.sent_s for a in done]},
    }
    found = {
        "duration": log.end_s,
        "completed": len(done),
        "failed": len(log.timelines) - len(done),
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        **{name: count / log.end_s if count is not None and log.end_s else None for name, count in rate.items()},
    }
    for name, groups in values.items():
        found |= _statistics(name, groups)
    return found


def is_good(answer: Answer, slo: SLO) -> bool:
    """Whether every bound that is set holds; a latency equal to its bound does, and one token has a TPOT of 0."""
    pairs = (
        (answer.first_s - answer.sent_s, slo.ttft_s),
        (answer.pace_s or 0.0, slo.tpot_s),
        (answer.last_s - answer.sent_s, slo.e2e_s),
    )
    return all(bound is None or value <= bound for value, bound in pairs)


def _statistics(name: str, groups: Mapping[int, Sequence[float]] | None) -> dict[str, float | None]:
    if groups is None:
        return {f"{short}_{name}_ms": None for short in STATISTICS}
    ordered = Ordered(groups)
    if not ordered.n:
        return {f"{short}_{name}_ms": 0.0 for short in STATISTICS}
    return {
        f"mean_{name}_ms": MS * ordered.mean,
        f"median_{name}_ms": MS * ordered.percentile(50, "linear").value,
        f"std_{name}_ms": MS * deviation(groups),
        f"p99_{name}_ms": MS * ordered.percentile(99, "linear").value,
    }
