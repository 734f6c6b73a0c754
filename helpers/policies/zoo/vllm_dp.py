"""vLLM's own balancer between data-parallel engines, in two forms: by queues, and by requests under way.

vllm-project/vllm, vllm/v1/engine/core_client.py and coordinator.py: the form by queues in v0.10.2, the other,
of pull requests 47420 and 49204 (2026-07), at commit 00080ee1.
"""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.counting import COUNTED, CountingRouter
from helpers.policies.pairing import SAME_S, Pairing
from helpers.policies.routing import STATE, candidates, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, Views, WorkerLost, WorkerView
from helpers.workload.request import Request


class SinceReport:
    """Own dispatches to each worker since its last report came in: what is added to the reported queue.

    A new report takes the place of all that was added, also of what it does not show yet because it was made
    before the dispatch: that is how vLLM loses count. A report of this moment (age 0) shows everything already.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: dict[int, list] = {}  # worker -> [when its report was made, dispatches since it came in]

    def waiting(self, view: WorkerView, now: float) -> int:
        """Requests that wait on a worker as its last report has it, with what was sent there since."""
        if not view.age_s:
            return view.waiting
        made_s = now - view.age_s
        since = self._since.get(view.worker)
        if since is None or made_s > since[0] + SAME_S:
            since = self._since[view.worker] = [made_s, 0]
        return view.waiting + since[1]

    def add(self, worker: int, requests: int) -> None:
        """As many `requests` were sent to `worker`."""
        since = self._since.get(worker)
        if since is not None:
            since[1] += requests

    def lost(self, worker: int) -> None:
        """`worker` is gone."""
        self._since.pop(worker, None)


@dataclass(frozen=True, slots=True)
class VllmDP:
    """argmin of `waiting_weight` * waiting + running, the lowest id among equals.

    Both are as last reported; engines report through a coordinator, at most each 100 ms, which is the period of
    the fleet's `Telemetry`. Between two reports each dispatch adds `clients` to the waiting requests of its worker:
    as many API servers are believed to do the same. The next report erases that (`SinceReport`).
    """

    name: ClassVar[str] = "vllm_dp"
    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, WorkerLost})
    waiting_weight: float = parameter(4.0, "running requests that a waiting one counts as")
    clients: int = parameter(1, "API servers that share the engines")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    since: SinceReport = field(default_factory=SinceReport, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, waiting_weight=self.waiting_weight)
        check_clients(self.name, self.clients)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        terms = []
        for worker in candidates(views):
            view = views[worker]
            waiting = self.since.waiting(view, now)
            terms.append((self.waiting_weight * waiting + view.running, worker, waiting, view.running))
        decision = self.pairing(views, min(terms)[1], now)
        if self.explain:
            names = ("score", "waiting", "running")
            scores = [
                (worker, *term) for score, worker, *rest in terms for term in zip(names, (score, *rest), strict=True)
            ]
            decision = decision._replace(scores=tuple(scores))
        return decision

    def observe(self, event: Event, now: float) -> None:
        if type(event) is Dispatched:
            self.since.add(event.decision.prefill, self.clients)
        else:
            self.since.lost(event.worker)


@dataclass(frozen=True, slots=True)
class VllmDPInFlight(CountingRouter):
    """argmin of max(`clients` * own, waiting + running) + `pressure` * waiting * max(0, KV usage - 0.5).

    own = this front end's requests under way, which no report can erase; waiting, running and the share of KV
    blocks in use are as last reported, with the dispatches since then added to waiting (`SinceReport`). The scan
    begins one worker later each time, so that equals take turns.
    """

    name: ClassVar[str] = "vllm_dp_inflight"
    observes: ClassVar[frozenset[type]] = COUNTED
    pressure: float = parameter(6.0, "requests that a waiting one adds for each full share of KV usage above one half")
    clients: int = parameter(1, "API servers that share the engines")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    since: SinceReport = field(default_factory=SinceReport, **STATE)
    _start: list[int] = field(default_factory=lambda: [0], **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, pressure=self.pressure)
        check_clients(self.name, self.clients)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        self._live(views)
        workers = candidates(views)
        start = self._start[0] % len(workers)
        self._start[0] = start + 1
        order, terms = [], []
        for place, worker in enumerate(workers):
            view, own = views[worker], self.own.load[worker]
            waiting = self.since.waiting(view, now)
            queue = self.pressure * waiting * max(0.0, view.kv_used_blocks / view.kv_total_blocks - 0.5)
            score = max(self.clients * own, waiting + view.running) + queue
            order.append((score, (place - start) % len(workers), worker))
            terms.append((worker, score, own, waiting, view.running))
        decision = self.pairing(views, min(order)[2], now)
        return explained(decision, ("score", "own", "waiting", "running"), terms) if self.explain else decision

    def observe(self, event: Event, now: float) -> None:
        CountingRouter.observe(self, event, now)
        if type(event) is Dispatched:
            self.since.add(event.decision.prefill, self.clients)
        elif type(event) is WorkerLost:
            self.since.lost(event.worker)


def check_clients(router: str, clients: int) -> None:
    """Raise `InputError` for fewer than one API server."""
    if clients < 1:
        raise InputError(f"router {router}: clients is {clients}; give 1 or more")
