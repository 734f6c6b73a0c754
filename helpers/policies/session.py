"""Sticky sessions: a conversation stays where its cache is, unless that worker is overloaded or gone."""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.counting import CountingRouter
from helpers.policies.loads import bits
from helpers.policies.routing import STATE, candidates, explained, parameter
from helpers.policies.view import Decision, Dispatched, Event, Views, WorkerLost
from helpers.workload.request import Request


class Bindings:
    """Which worker each session is bound to, with the time of its last request, longest unused first."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bound)

    def worker(self, session: int) -> int | None:
        """The worker of a session, None when it is bound to none."""
        bound = self._bound.get(session)
        return None if bound is None else bound[0]

    def bind(self, session: int, worker: int, now: float) -> None:
        """A request of the session went to `worker`."""
        self._bound[session] = worker, now
        self._bound.move_to_end(session)

    def expire(self, before: float) -> None:
        """Free the sessions whose last request was earlier than `before`."""
        bound = self._bound
        while bound and next(iter(bound.values()))[1] < before:
            bound.popitem(last=False)

    def lost(self, worker: int) -> None:
        """Free the sessions of a worker that is gone."""
        for session in [session for session, (where, _) in self._bound.items() if where == worker]:
            del self._bound[session]


@dataclass(frozen=True, slots=True)
class Session(CountingRouter):
    """The worker that the session was last sent to, while it is alive, known for `ttl_s` and not overloaded.

    load_w = this front end's own requests under way on worker w; total = their sum over the n live workers
    overloaded: load_w + 1 > max(`spare_requests`, ceil(`bound_factor` * (total + 1) / n))

    A session that is bound nowhere, or to such a worker, and a request without a session go to the least loaded
    worker, the lowest id among equals; the session is bound there from then on. The bound is that of Mirrokni,
    Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018 (a factor of 1 + epsilon times the
    mean), here for bindings that are remembered instead of hashed. `spare_requests` keeps a nearly idle fleet, where
    the bound is one request or two, from moving sessions about. Both defaults are set by hand.
    """

    name: ClassVar[str] = "session"
    bound_factor: float = parameter(1.25, "times the mean load from which on a worker loses its sessions")
    spare_requests: int = parameter(8, "requests that a worker may always have without losing its sessions")
    ttl_s: float | None = parameter(600.0, "seconds after its last request that a session is bound; none: for ever")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    bindings: Bindings = field(default_factory=Bindings, **STATE)

    def __post_init__(self) -> None:
        if not self.bound_factor >= 1:
            raise InputError(
                f"router session: bound_factor is {self.bound_factor}; give 1 or more (1 is the mean load)"
            )
        if self.spare_requests < 0:
            raise InputError(f"router session: spare_requests is {self.spare_requests}; give 0 or more")
        if self.ttl_s is not None and not self.ttl_s > 0:
            raise InputError(f"router session: ttl_s is {self.ttl_s}; give a number above 0")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        live, load, session = self._live(views), self.own.load, request.session
        if self.ttl_s is not None:
            self.bindings.expire(now - self.ttl_s)
        worker = None if session is None else self.bindings.worker(session)
        if worker is None or not live >> worker & 1 or load[worker] + 1 > self.most(views):
            worker = self.own.least(live)
        decision = self.pairing(views, worker, now)
        if not self.explain:
            return decision
        most = self.most(views)
        return explained(decision, ("requests", "most_requests"), [(w, load[w], most) for w in bits(live)])

    def most(self, views: Views) -> int:
        """The most requests that a worker may have with one more, and keep its sessions."""
        workers, load = candidates(views), self.own.load
        mean = (sum(load[worker] for worker in workers) + 1) / len(workers)
        return max(self.spare_requests, ceil(self.bound_factor * mean))

    def observe(self, event: Event, now: float) -> None:
        CountingRouter.observe(self, event, now)
        kind = type(event)
        if kind is Dispatched and event.request.session is not None:
            self.bindings.bind(event.request.session, event.decision.prefill, now)
        elif kind is WorkerLost:
            self.bindings.lost(event.worker)
