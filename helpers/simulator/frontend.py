"""The front end of a cluster: requests come in, are routed, admitted, held, rejected, sent to a worker.

With several routers, front end i gets every i-th request and hears only of its own.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from random import Random

from helpers.errors import InputError
from helpers.policies.view import ACCEPT, Admission, Decision, Dispatched, Router, Verdict
from helpers.scheduling.sequence import Sequence
from helpers.simulator.ranks import ARRIVAL, NEVER
from helpers.workload.request import Request

SEED_STRIDE = 1_000_003  # seeds of the streams of one run, apart from those of its neighbours

OnDecision = Callable[[Sequence, Decision, Verdict, float], None]


class FrontEnd:
    """The routers, the admission policy and the requests that wait for either or for a parent."""

    def __init__(
        self, cluster, routers: Seq[Router], admission: Admission | None, seed: int, closed_loop: bool,
        on_decision: OnDecision | None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._routers, self._admission, self._fronts = routers, admission, len(routers)
        self._rngs = [Random(seed * SEED_STRIDE + i) for i in range(len(routers))]
        self._admission_rng = Random(seed * SEED_STRIDE + SEED_STRIDE - 20)
        self._closed_loop, self._on_decision = closed_loop, on_decision
        self._hears_dispatch = any(Dispatched in r.observes for r in routers)
        self._number = 0
        self.held: list[Sequence] = []  # admission said: queue
        self._ended: dict[int, float] = {}  # closed loop: when a request left, NEVER when it was rejected
        self._children: dict[int, list[Request]] = {}
        self._rooms = [w.limits.kv_blocks * w.limits.block_tokens for w in cluster.spec.workers]
        self._least_room = min(self._rooms)
        self._hop_s = cluster.spec.hop_s
        self._targets: dict[tuple[int, int], object] = {}  # decisions that were found valid

    # -- arrivals

    def arrive(self, request: Request, now: float) -> None:
        """A request comes in."""
        sequence = Sequence(request, self._number, now)
        self._number += 1
        self.place(sequence, now)

    def await_parent(self, request: Request, now: float) -> None:
        """A request that follows another one comes in when that one has left and its user has thought."""
        if not self._closed_loop:
            raise InputError(f"request {request.id} waits for request {request.parent}: run it as a closed loop")
        ended = self._ended.get(request.parent)
        if ended is None:
            self._children.setdefault(request.parent, []).append(request)
        else:
            self._follow(request, ended, now)

    def _follow(self, request: Request, ended: float, now: float) -> None:
        if ended == NEVER:
            sequence = Sequence(request, self._number, request.arrival_s)
            self._number += 1
            self._reject(sequence, f"its parent {request.parent} was rejected")
        else:
            time = max(now, request.arrival_s, ended + request.think_time_s)
            self._cluster.at(time, ARRIVAL, self.arrive, request)

    def left(self, sequence: Sequence, ended: float, now: float) -> None:
        """A request has left: those that follow it can come."""
        if self._closed_loop:
            request_id = sequence.request.id
            self._ended[request_id] = ended
            for child in self._children.pop(request_id, ()):
                self._follow(child, ended, now)

    # -- routing and admission

    def place(self, sequence: Sequence, now: float, again: bool = False) -> None:
        """Route a sequence and, unless it was admitted before, ask admission."""
        views, request = self._cluster.views, sequence.request
        views.now = now
        front = sequence.number % self._fronts
        router = self._routers[front]
        if not views.prefill or not views.decode:
            self._reject(sequence, "no worker is left that could serve it")
            return
        decision = router.route(request, views, now, self._rngs[front])
        verdict = ACCEPT
        if self._admission is not None and not again:
            verdict = self._admission.admit(request, views, decision, now, self._admission_rng)
        if self._on_decision:
            self._on_decision(sequence, decision, verdict, now)
        if verdict is ACCEPT or verdict.action == "accept":
            self._dispatch(sequence, decision, router, now)
        elif verdict.action == "reject":
            self._reject(sequence, verdict.reason)
        elif verdict.action == "queue" and self._cluster.eager:
            self.held.append(sequence)
        else:
            raise InputError(f"admission {self._admission.name} said {verdict.action!r}; use accept, queue or reject")

    def _dispatch(self, sequence: Sequence, decision: Decision, router: Router, now: float) -> None:
        prefill, decode = decision.prefill, decision.decode
        worker = self._targets.get((prefill, decode)) or self._target(decision, router)
        need = sequence.prompt + sequence.output - 1
        if need > self._least_room and need > (room := min(self._rooms[prefill], self._rooms[decode])):
            self._reject(sequence, f"its {need} tokens of KV do not fit in a worker, which holds {room}")
            return
        sequence.prefill_worker, sequence.decode_worker = prefill, decode
        sequence.dispatched_s = now
        if self._hears_dispatch and Dispatched in router.observes:
            router.observe(Dispatched(sequence.request, decision), now)
        cluster = self._cluster
        there = now if decision.kv_source is None else cluster.hand_off.fetch(sequence, decision, now)
        there += self._hop_s
        if there > now:
            cluster.at(there, ARRIVAL, self._submit, sequence)
        else:
            worker.submit(sequence, now)
            if cluster.eager:
                cluster.replan(worker)

    def _target(self, decision: Decision, router: Router):
        """The worker that prefills; raises `InputError` for a decision that cannot be carried out."""
        p, d = decision.prefill, decision.decode
        workers, alive = self._cluster.workers, self._cluster.alive
        if not (0 <= p < len(workers) and 0 <= d < len(workers)):
            raise InputError(f"router {router.name} chose workers {p} and {d}; the fleet has 0 to {len(workers) - 1}")
        hands_off = workers[p].spec.role == "prefill"
        if not (alive[p] and alive[d]) or hands_off == (p == d) or workers[d].spec.role == "prefill":
            raise InputError(
                f"router {router.name} chose worker {p} for prefill and {d} for decode; "
                "choose live workers of the right role, and one worker for both unless the first only prefills"
            )
        self._targets[p, d] = workers[p]
        return workers[p]

    def _submit(self, sequence: Sequence, now: float) -> None:
        cluster = self._cluster
        if not cluster.alive[sequence.prefill_worker]:
            self.requeue(sequence, now)
            return
        worker = cluster.workers[sequence.prefill_worker]
        worker.submit(sequence, now)
        if cluster.eager:
            cluster.replan(worker)

    def requeue(self, sequence: Sequence, now: float) -> None:
        """Send a sequence whose worker is gone back to its router."""
        sequence.restart()
        sequence.requeues += 1
        self.place(sequence, now, again=True)

    def _reject(self, sequence: Sequence, reason: str) -> None:
        sequence.status, sequence.reason = "rejected", reason
        self._cluster.done.append(sequence)
        self.left(sequence, NEVER, sequence.arrival_s)

    # -- what was held

    def retry_held(self, now: float) -> None:
        """Ask again for those that admission holds, in their order."""
        held, self.held = self.held, []
        for sequence in held:
            self.place(sequence, now)

    def reject_held(self) -> None:
        """The run is over for those that are still held."""
        for sequence in self.held:
            self._reject(sequence, "held by admission until the end of the run")
        self.held = []

    # -- what the routers hear

    def tell(self, sequence: Sequence, event: object, now: float) -> None:
        """Tell the router that the sequence came through."""
        self._routers[sequence.number % self._fronts].observe(event, now)

    def tell_all(self, event: object, now: float) -> None:
        """Tell every router that wants to hear of such events."""
        for router in self._routers:
            if type(event) in router.observes:
                router.observe(event, now)

    def forget_targets(self) -> None:
        """The fleet has changed: decisions are to be checked again."""
        self._targets.clear()
