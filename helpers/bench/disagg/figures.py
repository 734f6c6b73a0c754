"""What a live run says of its hand-offs, from times that the workers took themselves."""

from collections.abc import Iterable

from helpers.metrics.goodput import throughput
from helpers.metrics.latency import Latency, defined, itl, tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.steps import gaps
from helpers.metrics.timeline import EventLog, Timeline


def exposed_s(t: Timeline) -> float | None:
    """Seconds from the end of a prefill (its token is out) until all KV is there and the request decodes elsewhere."""
    if t.transfer_end_s is None or t.first_token_s is None:
        return None
    return max(0.0, t.transfer_end_s - t.first_token_s)


def hidden_s(t: Timeline) -> float | None:
    """Seconds of a hand-off during which the prefill was still computing: from its first bytes to the first token."""
    if t.transfer_start_s is None or t.first_token_s is None:
        return None
    return max(0.0, t.first_token_s - t.transfer_start_s)


def mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else None


def at(values: list[float], q: float) -> float | None:
    """A percentile by nearest rank, None of nothing."""
    return percentile(values, q).value if values else None


def longest_gap_s(log: EventLog, t: Timeline) -> float | None:
    """The longest wait between two tokens of a request, in seconds: what a prefill beside it can do to it."""
    return max((max(found) for found in gaps([t], log.step_logs).by_weight.values() if found), default=None)


def second_token_s(log: EventLog) -> Latency:
    """Seconds from the arrival to the second token: the first that needs all KV where it is decoded."""

    def of(t: Timeline) -> float | None:
        if not t.spans:
            return None
        steps, row = log.step_logs[t.spans[0].worker], t.spans[0].first
        return steps.start_s[row] + steps.base_s[row] - t.arrival_s

    return of


def latencies(log: EventLog) -> dict[str, float | None]:
    """TTFT, TPOT and ITL in seconds, and what comes out."""
    ttfts, tpots = defined(ttft_s, log.timelines), defined(tpot_s, log.timelines)
    pooled = {p.q: p.value for p in itl(log).percentiles}
    return {
        "ttft_mean_s": mean(ttfts),
        "ttft_p90_s": at(ttfts, 90),
        "tpot_mean_s": mean(tpots),
        "tpot_p90_s": at(tpots, 90),
        "itl_p90_s": pooled.get(90),
        "longest_gap_s": mean(longest for t in log.timelines if (longest := longest_gap_s(log, t)) is not None),
        "tokens_per_s": throughput(log).tokens_per_s,
    }


def hand_offs(log: EventLog) -> dict[str, float | None]:
    """Exposed and hidden seconds of the hand-offs of a run; nothing where nothing was handed over."""
    exposed, hidden = defined(exposed_s, log.timelines), defined(hidden_s, log.timelines)
    ttft = mean(defined(ttft_s, log.timelines))
    shown = mean(exposed)
    return {
        "exposed_mean_s": shown,
        "exposed_p90_s": at(exposed, 90),
        "hidden_mean_s": mean(hidden),
        "exposed_of_ttft": shown / ttft if shown is not None and ttft else None,
    }


LEGS = ("offered", "took", "told", "heard", "joined", "stepped")


def legs(log: EventLog, stamps: dict[int, list]) -> dict[str, float | None]:
    """The way of a hand-off leg by leg, medians in seconds; `stamps` as `helpers.cluster.receiver.Legs` by request.

    From the first token (the prefill's end) until the copy of the last piece was `offered` to the device (negative:
    before) and until the sender had `told` everything; what the device `took` for that copy; then from each event to
    the next: `heard` by the receiver, `joined` its batch, `stepped`: the end of the first step that decodes it.
    """
    found: dict[str, list[float]] = {name: [] for name in LEGS}
    for t in log.timelines:
        if t.id not in stamps or t.first_token_s is None or not t.spans:
            continue
        offered_s, took_s, told_s, heard_s = stamps[t.id]
        steps, row = log.step_logs[t.spans[0].worker], t.spans[0].first
        found["offered"].append(offered_s - t.first_token_s)
        found["took"] += [] if took_s is None else [took_s]
        found["told"].append(told_s - t.first_token_s)
        found["heard"].append(heard_s - told_s)
        found["joined"].append(t.transfer_end_s - heard_s)
        found["stepped"].append(steps.start_s[row] + steps.base_s[row] - t.transfer_end_s)
    return {f"{name}_leg_s": at(values, 50) for name, values in found.items()}
