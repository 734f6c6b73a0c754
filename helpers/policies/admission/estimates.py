"""Admission by measured service: an estimate that leaves the queue out of it, and one that does not."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.forecast import CacheAware
from helpers.policies.admission.predicted import late
from helpers.policies.ledger import Ledger
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import (
    ACCEPT,
    Decision,
    Dispatched,
    Event,
    Finished,
    FirstToken,
    Rejected,
    Verdict,
    Views,
    WorkerLost,
)
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of


class ServiceEstimate:
    """Prefill seconds per prompt token, measured, with the wait in the queue left out.

    seconds of a request = its first token - max(its dispatch, the first token before it on that worker)
    estimate             = sum of seconds / sum of tokens, both sums losing `1 - keep` of themselves at each request

    A worker that computes one prompt after the other has worked on each since the one before it was done.
    Prompts that share a step end together: the first of them is booked with the time of all, and the ratio
    of the sums is right although neither of the two is. A wait for KV memory counts as service.
    """

    __slots__ = ("_last_s", "_placed", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._placed: dict[int, tuple[float, int]] = {}  # request -> when it was dispatched, tokens
        self._last_s: dict[int, float] = {}  # worker -> its last first token
        self._seconds = self._tokens = 0.0

    @property
    def per_token_s(self) -> float | None:
        """Seconds per prompt token; None before the first measurement."""
        return self._seconds / self._tokens if self._tokens else None

    def dispatched(self, request: int, tokens: int, now: float) -> None:
        """A request left with so many prompt tokens to compute."""
        self._placed[request] = now, tokens

    def first_token(self, request: int, worker: int, now: float, keep: float) -> None:
        """The first token of a request is out on `worker`; one that is not known only sets the clock."""
        placed = self._placed.pop(request, None)
        if placed is not None:
            began_s, tokens = max(placed[0], self._last_s.get(worker, placed[0])), placed[1]
            self._seconds = keep * self._seconds + now - began_s
            self._tokens = keep * self._tokens + tokens
        self._last_s[worker] = now

    def forget(self, request: int) -> None:
        """A request comes to no first token."""
        self._placed.pop(request, None)


@dataclass(frozen=True, slots=True)
class MeasuredSLO(CacheAware):
    """A request is rejected when the TTFT expected from measured service is over the bound of its class.

    TTFT = (prompt tokens in flight on the prefill worker + its own) x seconds per token of `ServiceEstimate`

    Tokens are uncached ones, as they were believed at the dispatch, in the measurement as in the
    prediction: a wrong belief and the decodes beside the prefill go into the rate. Before the first
    measurement all are accepted. With several front ends each knows the queue of its own requests only,
    and sees the work of the others as slow service. TPOT is not looked at.
    """

    name: ClassVar[str] = "measured_slo"
    hears: ClassVar[frozenset[type]] = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})
    slos: SLOs = field(default_factory=SLO)
    slack: float = parameter(1.0, "reject when the expected TTFT is over this times its bound")
    keep: float = parameter(0.95, "part of the measured sums that is kept at each request")
    estimate: ServiceEstimate = field(default_factory=ServiceEstimate, **STATE)
    prompts: Ledger = field(default_factory=Ledger, **STATE)

    def __post_init__(self) -> None:
        if not self.slack > 0:
            raise InputError(f"admission measured_slo: slack is {self.slack}; give a number above 0")
        if not 0 <= self.keep < 1:
            raise InputError(f"admission measured_slo: keep is {self.keep}; give a share from 0 to below 1")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        per_token_s, bound_s = self.estimate.per_token_s, slo_of(request, self.slos).ttft_s
        if per_token_s is None or bound_s is None:
            return ACCEPT
        worker = decision.prefill
        self.prompts.grow(worker + 1)
        tokens = self.prompts.amount[worker] + request.prompt_tokens - self.cached_tokens(request, worker)
        ttft_s, bound_s = tokens * per_token_s, self.slack * bound_s
        return late(ttft_s, bound_s) if ttft_s > bound_s else ACCEPT

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            request, worker = event.request, event.decision.prefill
            tokens = request.prompt_tokens - self.cached_tokens(request, worker)
            self.prompts.add(request.id, (worker,), tokens)
            self.estimate.dispatched(request.id, tokens, now)
        elif kind is FirstToken:
            self.prompts.remove(event.request.id)
            self.estimate.first_token(event.request.id, event.worker, now, self.keep)
        elif kind is Finished or kind is Rejected:
            self.prompts.remove(event.request.id)
            self.estimate.forget(event.request.id)
        else:
            if kind is WorkerLost:
                for request in self.prompts.lost(event.worker):
                    self.estimate.forget(request)
            CacheAware.observe(self, event, now)


@dataclass(frozen=True, slots=True)
class SelfExciting:
    """A counter-example: an average service time that is fed with estimates which contain the queue.

    estimate = min(cap_s, (requests waiting on the prefill worker + 1) x mean_s), rejected when over the TTFT bound
    at the first token of a request: mean_s += weight x (the estimate made when it was accepted - mean_s)

    With n requests waiting, each completion multiplies the mean by 1 + weight x n: by 1.8 for four of them,
    tenfold in four completions, although the service has not changed. On an idle fleet the estimate is the
    mean itself, so that nothing brings it down again: whoever is promised less than the mean is turned away
    from idle workers for ever, while those with a wide bound, or none, keep it where it is. The form of a
    controller that was published with a course on this subject: find what is wrong, then see `measured_slo`.
    """

    name: ClassVar[str] = "self_exciting"
    observes: ClassVar[frozenset[type]] = frozenset({FirstToken, Rejected})
    slos: SLOs = field(default_factory=SLO)
    start_s: float = parameter(0.05, "seconds of a prefill, believed before the first completion")
    weight: float = parameter(0.2, "weight of each completion in the average")
    cap_s: float = parameter(10.0, "seconds that no estimate exceeds")
    _mean_s: list[float] = field(default_factory=list, **STATE)
    _estimates: dict[int, float] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        if not 0 < self.start_s <= self.cap_s:
            raise InputError(f"admission self_exciting: start_s is {self.start_s}; give seconds above 0, up to cap_s")
        if not 0 <= self.weight <= 1:
            raise InputError(f"admission self_exciting: weight is {self.weight}; give a share from 0 to 1")
        self._mean_s.append(self.start_s)

    @property
    def mean_s(self) -> float:
        """What it believes a prefill to take, in seconds."""
        return self._mean_s[0]

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        estimate_s = min(self.cap_s, (views[decision.prefill].waiting + 1) * self.mean_s)
        bound_s = slo_of(request, self.slos).ttft_s
        if bound_s is not None and estimate_s > bound_s:
            return late(estimate_s, bound_s)
        self._estimates[request.id] = estimate_s
        return ACCEPT

    def observe(self, event: Event, now: float) -> None:
        estimate_s = self._estimates.pop(event.request.id, None)
        if type(event) is FirstToken and estimate_s is not None:
            self._mean_s[0] += self.weight * (estimate_s - self.mean_s)
