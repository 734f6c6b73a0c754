"""Who met the service level objectives, goodput and attainment; and what became of the rest.

Goodput alone can be raised by refusing or dropping requests (arXiv 2410.14257), so `outcomes`
with its rejected, aborted and wasted counts belongs beside it wherever it is shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helpers.errors import InputError
from helpers.metrics.latency import e2e_s, tpot_s, ttft_s
from helpers.metrics.series import Window, arrived
from helpers.metrics.steps import tokens_out
from helpers.metrics.timeline import EventLog, Timeline
from helpers.workload.slo import SLO, SLOs, slo_of


def meets(timeline: Timeline, slo: SLO) -> bool:
    """True when the request finished and every bound that is set holds (a latency equal to its bound does).

    A request of one output token has no TPOT; that bound then holds, as there is no gap to be slow.
    """
    first, pace, whole = ttft_s(timeline), tpot_s(timeline), e2e_s(timeline)
    if whole is None or first is None:
        return False
    return (
        (slo.ttft_s is None or first <= slo.ttft_s)
        and (slo.tpot_s is None or pace is None or pace <= slo.tpot_s)
        and (slo.e2e_s is None or whole <= slo.e2e_s)
    )


@dataclass(frozen=True, slots=True)
class Goodput:
    """`met` of `arrived` requests met their SLO; `per_s` counts them over `duration_s` seconds."""

    met: int
    arrived: int
    duration_s: float

    @property
    def per_s(self) -> float | None:
        """Requests that met their SLO, per second; None over no time."""
        return per_second(self.met, self.duration_s)

    @property
    def attainment(self) -> float | None:
        """The share of all requests that arrived; rejected and unfinished ones count as missed. None of none."""
        return self.met / self.arrived if self.arrived else None


def per_second(count: float, duration_s: float) -> float | None:
    """A count over a duration; None when no time passed."""
    return count / duration_s if duration_s > 0 else None


def goodput(log: EventLog, slos: SLOs, window: Window | None = None) -> Goodput:
    """Goodput and attainment of the requests that arrived in the window, over the length of the window.

    Without a window: of all requests, from 0 to the end of the run, the drain included. A met
    request counts by its arrival, also when it finished after the window. Raises InputError
    when a request's class has no SLO.
    """
    chosen = arrived(log.timelines, window)
    met = sum(meets(t, slo_of(t, slos)) for t in chosen)
    return Goodput(met, len(chosen), log.end_s if window is None else window.duration_s)


def goodput_by_class(log: EventLog, slos: SLOs, window: Window | None = None) -> dict[str, Goodput]:
    """Goodput of each class on its own, in order of first appearance; they add up to `goodput`."""
    duration_s = log.end_s if window is None else window.duration_s
    counts: dict[str, list[int]] = {}
    for t in arrived(log.timelines, window):
        both = counts.setdefault(t.slo_class, [0, 0])
        both[0] += meets(t, slo_of(t, slos))
        both[1] += 1
    return {name: Goodput(met, total, duration_s) for name, (met, total) in counts.items()}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How requests ended and what was spent on them.

    `aborted` requests are among the rejected and unfinished ones: their prefill had started, so
    work went into them. `wasted_prefill_tokens` were computed without need: all those of requests
    that did not finish, and what a finished one computed beyond the prompt tokens that no cache held.
    """

    arrived: int
    finished: int
    rejected: int
    unfinished: int
    aborted: int
    preemptions: int
    requeues: int
    wasted_prefill_tokens: int


def wasted_prefill_tokens(timeline: Timeline) -> int:
    """Prefill tokens computed for one request without need: see `Outcomes`."""
    if timeline.status != "finished":
        return timeline.prefilled_tokens
    needed = timeline.prompt_tokens - timeline.cached_tokens - timeline.fetched_tokens
    return max(timeline.prefilled_tokens - needed, 0)


def outcomes(timelines: Sequence[Timeline]) -> Outcomes:
    """How these requests ended. Raises InputError on a status that is none of the three."""
    counts = {"finished": 0, "rejected": 0, "unfinished": 0}
    for t in timelines:
        if t.status not in counts:
            raise InputError(f"request {t.id} has the status {t.status!r}; it must be one of {', '.join(counts)}")
        counts[t.status] += 1
    return Outcomes(
        arrived=len(timelines),
        **counts,
        aborted=sum(t.status != "finished" and t.prefill_start_s is not None for t in timelines),
        preemptions=sum(t.preemptions for t in timelines),
        requeues=sum(t.requeues for t in timelines),
        wasted_prefill_tokens=sum(map(wasted_prefill_tokens, timelines)),
    )


def rejections(timelines: Iterable[Timeline]) -> dict[str, int]:
    """How many requests were rejected for which reason, the most frequent first.

    Figures in a reason count as `N`, so that reasons which differ in nothing else are counted together.
    """
    counts = Counter(re.sub(r"\d+", "N", t.reason) for t in timelines if t.status == "rejected")
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def hit_rate(timelines: Iterable[Timeline]) -> float | None:
    """The share of prompt tokens found in the worker's own prefix cache at the first admission.

    Over the requests whose prefill started; None when there is none. Counted once for each
    request: a preempted request that finds its own blocks again adds nothing.
    """
    return _prompt_share((t.cached_tokens, t) for t in timelines)


def fetch_rate(timelines: Iterable[Timeline]) -> float | None:
    """The share of prompt tokens copied from another worker's cache, over the same requests as `hit_rate`."""
    return _prompt_share((t.fetched_tokens, t) for t in timelines)


def _prompt_share(counted: Iterable[tuple[int, Timeline]]) -> float | None:
    started = [(tokens, t.prompt_tokens) for tokens, t in counted if t.prefill_start_s is not None]
    prompts = sum(prompt for _, prompt in started)
    return sum(tokens for tokens, _ in started) / prompts if prompts else None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Output tokens that came out, and requests that finished, within `duration_s` seconds, whatever their latency."""

    tokens: int | None  # None when the recording does not say when they came out
    finished: int
    duration_s: float

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens per second; None over no time, or when the tokens are not known."""
        return None if self.tokens is None else per_second(self.tokens, self.duration_s)

    @property
    def requests_per_s(self) -> float | None:
        """Requests finished per second; None over no time."""
        return per_second(self.finished, self.duration_s)


def throughput(log: EventLog, window: Window | None = None) -> Throughput:
    """What came out in the window, by the time it came out; without one, from 0 to the end of the run."""
    finished = sum(
        t.status == "finished" and t.finished_s is not None and (window is None or t.finished_s in window)
        for t in log.timelines
    )
    return Throughput(tokens_out(log, window), finished, log.end_s if window is None else window.duration_s)
