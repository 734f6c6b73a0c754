"""The latencies of a request, each with one definition, and their distributions over many requests.

Tools disagree on these names; here they mean:
TTFT: scheduled arrival to first token. Queue time: scheduled arrival to the start of the prefill.
TPOT: per request, (last token - first token) / (n - 1), the first token left out.
ITL: the gaps between consecutive tokens of all requests, pooled, so long requests weigh more.
E2E: scheduled arrival to last token.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from helpers.metrics.percentiles import Ordered, Percentile, tail_q
from helpers.metrics.steps import gaps
from helpers.metrics.timeline import EventLog, Timeline

Latency = Callable[[Timeline], float | None]


def ttft_s(timeline: Timeline) -> float | None:
    """Time to first token from the scheduled arrival, in seconds; None when no token came out."""
    return None if timeline.first_token_s is None else timeline.first_token_s - timeline.arrival_s


def queue_s(timeline: Timeline) -> float | None:
    """Queue time, from the scheduled arrival to the start of the prefill, in seconds; None when it never started."""
    return None if timeline.prefill_start_s is None else timeline.prefill_start_s - timeline.arrival_s


def e2e_s(timeline: Timeline) -> float | None:
    """End-to-end latency from the scheduled arrival to the last token, in seconds; None unless finished."""
    if timeline.status != "finished" or timeline.finished_s is None:
        return None
    return timeline.finished_s - timeline.arrival_s


def tpot_s(timeline: Timeline) -> float | None:
    """Time per output token, in seconds: the mean gap after the first token.

    None unless finished, and None for a request of one token: it has no gap.
    """
    if timeline.status != "finished" or timeline.finished_s is None or timeline.first_token_s is None:
        return None
    if timeline.output_tokens < 2:
        return None
    return (timeline.finished_s - timeline.first_token_s) / (timeline.output_tokens - 1)


LATENCIES: dict[str, Latency] = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s, "queue_s": queue_s}


def defined(latency: Latency, timelines: Iterable[Timeline]) -> list[float]:
    """The latency of each request that has one, in the order of the timelines."""
    return [value for value in map(latency, timelines) if value is not None]


@dataclass(frozen=True)
class Distribution:
    """A latency over many requests: mean and percentiles of `n` values from `requests` requests.

    p95 and p99 are there from 3,000 requests up only; the last percentile is the tail to print.
    Without any value there are no percentiles and no mean.
    """

    mean: float | None
    percentiles: tuple[Percentile, ...]
    n: int
    requests: int
    estimator: str

    @property
    def tail(self) -> Percentile | None:
        """The highest percentile that may be printed."""
        return self.percentiles[-1] if self.percentiles else None

    def as_dict(self) -> dict:
        """Plain numbers, `{"mean": …, "p50": …, "p90": …, "n": …, "requests": …, "estimator": …}`."""
        shares = {f"p{p.q:g}": p.value for p in self.percentiles}
        return {"mean": self.mean, **shares, "n": self.n, "requests": self.requests, "estimator": self.estimator}


def _distribution(ordered: Ordered, requests: int, estimator: str) -> Distribution:
    wanted = (50, 90, 95, 99) if tail_q(requests) == 99 else (50, 90)
    shares = tuple(ordered.percentile(q, estimator) for q in wanted) if ordered.n else ()
    return Distribution(ordered.mean, shares, ordered.n, requests, estimator)


def distribution(latency: Latency, timelines: Iterable[Timeline], estimator: str = "nearest_rank") -> Distribution:
    """The distribution of a latency over the requests that have it. Raises InputError on an unknown estimator."""
    values = defined(latency, timelines)
    return _distribution(Ordered({1: values}), len(values), estimator)


def itl(log: EventLog, timelines: Iterable[Timeline] | None = None, estimator: str = "nearest_rank") -> Distribution:
    """The pooled inter-token gaps, in seconds, of all requests of a run (or of the given ones among them).

    Costs O(steps + spans): see `helpers.metrics.steps.gaps`. Raises InputError on a damaged event log.
    """
    pooled = gaps(log.timelines if timelines is None else timelines, log.step_logs)
    return _distribution(Ordered(pooled.by_weight), pooled.requests, estimator)
