"""Admission by tier: a reserve is kept for those who are served first, and deadlines that cannot be met are refused."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.forecast import Forecast
from helpers.policies.lengths import OutputGuess
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import ACCEPT, Arrived, Decision, Dispatched, Event, Finished, Rejected, Verdict, Views
from helpers.workload.request import Request

SHARE_USED = "the share of its tier is used up"
DEADLINE = Verdict("reject", "predicted to miss its deadline")


class InFlight:
    """The tokens of the requests that were dispatched and have not left; `total` is their sum."""

    __slots__ = ("_tokens", "total")

    def __init__(self) -> None:
        self._tokens: dict[int, float] = {}
        self.total = 0.0

    def add(self, request: int, tokens: float) -> None:
        """A request was dispatched; a second dispatch replaces the first."""
        self.remove(request)
        self._tokens[request] = tokens
        self.total += tokens

    def remove(self, request: int) -> None:
        """A request has left; one that is not known is passed over. Nobody left is exactly 0, whatever was rounded."""
        self.total -= self._tokens.pop(request, 0.0)
        if not self._tokens:
            self.total = 0.0


@dataclass(frozen=True, slots=True)
class PriorityTiers(Forecast):
    """Each tier may use the fleet up to its share, so that a reserve is left for the tiers above it.

    share(priority) = 1 - reserve x priority             (0, the first to be served, may use all)
    capacity        = capacity_tokens x live decode workers
    full when tokens in flight + the request's > share x capacity, unless nothing is in flight
    late when seconds since the arrival + TTFT + (output - 1) x TPOT > deadline

    Trunk reservation, as telephone exchanges keep lines for some calls: the tokens of all tiers count
    together. The tokens of a request are its prompt and its guessed output (`guess_tokens`, none: the true
    length; see `OutputGuess`), from the dispatch to its end. A full tier is rejected, or held with `hold`:
    then in order of priority, and whoever waits has his deadline checked when he is asked again. Requests
    without a deadline have none; the predictions are those of `Forecast`. With several front ends each
    counts its own requests, so give each its part of the capacity.
    """

    name: ClassVar[str] = "priority_tiers"
    hears: ClassVar[frozenset[type]] = frozenset({Arrived, Dispatched, Finished, Rejected})
    head_of_line: ClassVar[bool] = True
    kv_blocks: int = 1000
    reserve: float = parameter(0.2, "share of the capacity that each tier leaves to the tiers above it")
    capacity_tokens: int | None = parameter(None, "tokens in flight that fill a worker; none: its KV capacity")
    hold: bool = parameter(False, "hold what finds its share used up; false: reject it")
    guess_tokens: int | None = parameter(None, "output tokens believed of every request; none: the true length")
    guess_error: float = parameter(0.0, "lognormal error of the guess; 0: none")
    in_flight: InFlight = field(default_factory=InFlight, **STATE)
    _arrived_s: dict[int, float] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        Forecast.__post_init__(self)
        if not 0 <= self.reserve <= 1:
            raise InputError(f"admission priority_tiers: reserve is {self.reserve}; give a share from 0 to 1")
        if self.capacity_tokens is not None and self.capacity_tokens < 1:
            raise InputError(f"admission priority_tiers: capacity_tokens is {self.capacity_tokens}; give 1 or more")
        OutputGuess(self.guess_tokens, self.guess_error)

    @property
    def queues(self) -> bool:
        """Whether it may hold a request."""
        return self.hold

    def rank(self, request: Request, now: float) -> int:
        """Whoever is served first is asked first."""
        return request.priority

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        if request.deadline_s is not None and self.end_s(request, views, decision, now) > request.deadline_s:
            return DEADLINE
        free = self.share(request) * self.capacity(views) - self.in_flight.total
        if not self.in_flight.total or self.tokens(request) <= free:
            return ACCEPT
        return Verdict("queue" if self.hold else "reject", SHARE_USED)

    def share(self, request: Request) -> float:
        """The part of the capacity that the tier of a request may fill, together with all others."""
        return min(1.0, max(0.0, 1.0 - self.reserve * request.priority))

    def capacity(self, views: Views) -> float:
        """The tokens in flight that fill the live fleet."""
        each = self.kv_blocks * self.block_tokens if self.capacity_tokens is None else self.capacity_tokens
        return each * len(views.decode)

    def tokens(self, request: Request) -> float:
        """What a request weighs: its prompt and its guessed output."""
        return request.prompt_tokens + OutputGuess(self.guess_tokens, self.guess_error).of(request)

    def end_s(self, request: Request, views: Views, decision: Decision, now: float) -> float:
        """The predicted end of a request, in seconds after its arrival."""
        waited_s = now - self._arrived_s.get(request.id, now)
        output = OutputGuess(self.guess_tokens, self.guess_error).of(request)
        decode_s = max(0.0, output - 1) * self.tpot_s(request, views, decision)
        return waited_s + self.ttft_s(request, views, decision) + decode_s

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Arrived:
            self._arrived_s[event.request.id] = now
        elif kind is Dispatched:
            self._arrived_s.pop(event.request.id, None)
            self.in_flight.add(event.request.id, self.tokens(event.request))
        elif kind is Finished or kind is Rejected:
            self._arrived_s.pop(event.request.id, None)
            self.in_flight.remove(event.request.id)
        else:
            Forecast.observe(self, event, now)
