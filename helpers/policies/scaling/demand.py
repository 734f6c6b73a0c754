"""What is asked of a fleet, as a scaler learns it from events."""

from collections import deque
from dataclasses import dataclass

from helpers.policies.view import Arrived, Event, Finished, FirstToken

DEMAND_EVENTS = frozenset({Arrived, FirstToken, Finished})
SAMPLES = 64  # as many as Dynamo's planner keeps for its regressions
FEWEST = 5  # below these nothing is decided: the first requests of a run say little


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests a second and their mean lengths in tokens; `cached_tokens` of a prompt need no computation."""

    rate_per_s: float
    prompt_tokens: float
    cached_tokens: float
    output_tokens: float

    @property
    def context_tokens(self) -> float:
        """The mean context of a request while it decodes."""
        return self.prompt_tokens + self.output_tokens / 2


class RecentDemand:
    """The demand of the last 64 arrivals, first tokens and finished requests.

    The rate is that of the arrivals kept: their number over the time since the first of them, so that it
    falls when nothing comes any more. Requests that end have the output lengths that are known.
    """

    __slots__ = ("_arrivals", "_cached", "_outputs")

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self._cached: deque[int] = deque(maxlen=SAMPLES)
        self._outputs: deque[int] = deque(maxlen=SAMPLES)

    def observe(self, event: Event, now: float) -> None:
        """Learn from an arrival, a first token or the end of a request."""
        kind = type(event)
        if kind is Arrived:
            self._arrivals.append((now, event.request.prompt_tokens))
        elif kind is FirstToken:
            self._cached.append(event.cached_tokens)
        elif kind is Finished:
            self._outputs.append(event.request.output_tokens)

    def at(self, now: float) -> Demand | None:
        """The demand as it is at `now`; None as long as fewer than five requests have come and ended."""
        if min(len(self._arrivals), len(self._outputs)) < FEWEST or now <= self._arrivals[0][0]:
            return None
        return Demand(
            len(self._arrivals) / (now - self._arrivals[0][0]),
            sum(tokens for _, tokens in self._arrivals) / len(self._arrivals),
            sum(self._cached) / max(1, len(self._cached)),
            sum(self._outputs) / len(self._outputs),
        )


class WindowedDemand:
    """The demand of the last `windows` windows, which `close` ends; one window is the constant predictor."""

    __slots__ = ("_closed", "_counts", "_since")

    def __init__(self, windows: int) -> None:
        self._closed: deque[tuple[float, list[int]]] = deque(maxlen=windows)
        self._since = 0.0
        self._counts = [0] * 6  # arrivals and their prompt tokens, first tokens and cached ones, ends and their outputs

    def observe(self, event: Event, now: float) -> None:
        """Count an arrival, a first token or the end of a request."""
        kind = type(event)
        if kind is Arrived:
            self._add(0, event.request.prompt_tokens)
        elif kind is FirstToken:
            self._add(2, event.cached_tokens)
        elif kind is Finished:
            self._add(4, event.request.output_tokens)

    def _add(self, place: int, tokens: int) -> None:
        self._counts[place] += 1
        self._counts[place + 1] += tokens

    def close(self, now: float) -> Demand | None:
        """End the window and predict the next one: the means over the windows kept; None of fewer than five requests.

        A window without any request counts as one in which nothing was asked.
        """
        self._closed.append((now - self._since, self._counts))
        self._since, self._counts = now, [0] * 6
        seconds = sum(length for length, _ in self._closed)
        arrivals, prompts, firsts, cached, ends, outputs = (
            sum(c) for c in zip(*(c for _, c in self._closed), strict=True)
        )
        if min(arrivals, ends) < FEWEST or seconds <= 0:
            return None
        return Demand(arrivals / seconds, prompts / arrivals, cached / max(1, firsts), outputs / ends)
