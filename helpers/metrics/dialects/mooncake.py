"""A run as the Mooncake paper reports it: TTFT, TBT and the effective request capacity.

Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST'25, section 5.2, read in the authors' release
(kvcache-ai/Mooncake, FAST25-release, at commit 3b5a5941). The paper replays a trace, so a latency counts from the
scheduled arrival. It gives averages and names no estimator of percentiles; none are given here.
"""

from itertools import pairwise
from statistics import fmean

from helpers.metrics.dialects.client import ON_TIME, Answer, Clock, answers, knows_tokens
from helpers.metrics.dialects.pace import mooncake_tbt_s
from helpers.metrics.timeline import EventLog, token_times
from helpers.workload.slo import SLO, SLOs, slo_of

MS = 1e3
METRICS = {
    "requests": "all requests that arrived",
    "Avg TTFT (ms)": "scheduled arrival to first token, mean over finished requests",
    "Avg TBT (ms)": "mean of the longest 10 % of a request's gaps; mean over finished requests that have one",
    "effective requests": "requests whose TTFT and TBT are below their thresholds",
    "effective request capacity": "effective requests / all requests, refused ones among them",
}


def report(log: EventLog, slos: SLOs | None = None, clock: Clock = ON_TIME) -> dict[str, float | None]:
    """The metrics of `METRICS`; None for those that need SLOs, token times or requests that are not there.

    The bound on TPOT stands in for the threshold of TBT. A request of one token has no gap and is judged by
    its TTFT alone: the paper says nothing of it.
    """
    done = answers(log, clock)
    known = knows_tokens(log)
    tbts = [tbt_s(a, log) for a in done] if known else []
    gapped = [tbt for tbt in tbts if tbt is not None]
    effective = None
    if slos is not None and known:
        effective = sum(is_effective(a, tbt, slo_of(a.timeline, slos)) for a, tbt in zip(done, tbts, strict=True))
    total = len(log.timelines)
    return {
        "requests": total,
        "Avg TTFT (ms)": MS * fmean(a.first_s - a.due_s for a in done) if done else None,
        "Avg TBT (ms)": MS * fmean(gapped) if gapped else None,
        "effective requests": effective,
        "effective request capacity": effective / total if effective is not None and total else None,
    }


def tbt_s(answer: Answer, log: EventLog) -> float | None:
    """The TBT of one request, from all its token times; None for one token."""
    return mooncake_tbt_s([b - a for a, b in pairwise(token_times(answer.timeline, log.step_logs))])


def is_effective(answer: Answer, tbt: float | None, slo: SLO) -> bool:
    """Whether TTFT and TBT are below (not at) their thresholds."""
    late = slo.ttft_s is not None and not answer.first_s - answer.due_s < slo.ttft_s
    slow = slo.tpot_s is not None and tbt is not None and not tbt < slo.tpot_s
    return not late and not slow
