"""One run in plain numbers: what the command line prints as JSON and a pack stores."""

from dataclasses import asdict

from helpers.metrics.goodput import Goodput, fetch_rate, goodput, goodput_by_class, hit_rate, outcomes, rejections
from helpers.metrics.goodput import throughput as throughput_of
from helpers.metrics.latency import LATENCIES, distribution, itl
from helpers.metrics.series import Window, arrived
from helpers.metrics.stability import Stability, stability
from helpers.metrics.timeline import EventLog, by_class
from helpers.metrics.workers import Balance, balance_by_role, gpu_s, worker_loads
from helpers.workload.slo import SLO, SLOs

HOUR_S = 3600.0


def summarize(
    log: EventLog, slos: SLOs | None = None, window: Window | None = None, estimator: str = "nearest_rank"
) -> dict:
    """All metrics of a run as numbers, strings, lists and dictionaries that JSON can hold; None where there is none.

    The window (half-open, seconds) chooses requests by their scheduled arrival, and tokens and
    steps by the time they came out; without one the whole run counts, from 0 to `end_s`, the
    drain included. Without SLOs there is no goodput and no attainment. Raises InputError when
    a class has no SLO, the estimator is unknown, or the event log is damaged.
    """
    chosen = arrived(log.timelines, window)
    ended = outcomes(chosen)
    out = throughput_of(log, window)
    balance = balance_by_role(worker_loads(log, window))
    verdict = stability(log, window)
    return {
        "window_s": None if window is None else [window.start_s, window.end_s],
        "duration_s": out.duration_s,
        "requests": ended.arrived,
        "completed": ended.finished,
        "rejected": ended.rejected,
        "unfinished": ended.unfinished,
        "aborted": ended.aborted,
        **{name: distribution(latency, chosen, estimator).as_dict() for name, latency in LATENCIES.items()},
        "itl_s": itl(log, chosen, estimator).as_dict(),
        **_service(log, slos, window),
        "classes": _classes(log, slos, window),
        "rejections": rejections(chosen),
        "throughput_tokens_per_s": out.tokens_per_s,
        "throughput_requests_per_s": out.requests_per_s,
        "output_tokens": out.tokens,
        "hit_rate": hit_rate(chosen),
        "fetch_rate": fetch_rate(chosen),
        "preemptions": ended.preemptions,
        "requeues": ended.requeues,
        "wasted_prefill_tokens": ended.wasted_prefill_tokens,
        **_worst(balance),
        "balance": {role: asdict(b) for role, b in balance.items()},
        **_cost(log, slos, window),
        "stable": verdict.stable,
        "stability": _evidence(verdict),
    }


def _service(log: EventLog, slos: SLOs | None, window: Window | None) -> dict:
    """Goodput and attainment, in all and by class, beside the SLOs they were judged by."""
    if slos is None:
        return {"slos": None, **_rates(None)}
    named = {"all": slos} if isinstance(slos, SLO) else slos
    return {"slos": {name: asdict(slo) for name, slo in named.items()}, **_rates(goodput(log, slos, window))}


def _classes(log: EventLog, slos: SLOs | None, window: Window | None) -> dict:
    """What became of each class, so that a goodput which only shifts the pain to one of them shows it."""
    good = {} if slos is None else goodput_by_class(log, slos, window)
    return {
        name: {
            "requests": ended.arrived,
            "completed": ended.finished,
            "rejected": ended.rejected,
            "aborted": ended.aborted,
            "wasted_prefill_tokens": ended.wasted_prefill_tokens,
            **_rates(good.get(name)),
        }
        for name, members in by_class(arrived(log.timelines, window)).items()
        for ended in [outcomes(members)]
    }


def _rates(good: Goodput | None) -> dict:
    if good is None:
        return {"goodput_per_s": None, "attainment": None}
    return {"goodput_per_s": good.per_s, "attainment": good.attainment}


def _cost(log: EventLog, slos: SLOs | None, window: Window | None) -> dict:
    """The GPU-seconds that the run occupied, and what came of an hour of them; None where the workers are not known."""
    seconds = gpu_s(log, window)
    if not seconds:
        return {"gpu_s": None, "goodput_per_gpu_hour": None}
    met = None if slos is None else goodput(log, slos, window).met
    return {"gpu_s": seconds, "goodput_per_gpu_hour": None if met is None else met / (seconds / HOUR_S)}


def _worst(balance: dict[str, Balance]) -> dict:
    """The balance of the least even role: on a fleet of mixed workers that of all workers."""
    jains = [b.jain for b in balance.values() if b.jain is not None]
    shares = [b.imbalance for b in balance.values() if b.imbalance is not None]
    return {"imbalance": max(shares, default=None), "jain": min(jains, default=None)}


def _evidence(verdict: Stability) -> dict:
    """The stability test in numbers."""
    trends = {"in_system": verdict.in_system, "ttft": verdict.ttft}
    return {"evidence": verdict.evidence, **{name: None if t is None else asdict(t) for name, t in trends.items()}}
