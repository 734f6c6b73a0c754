"""The front end of a cluster: requests come in, are routed, admitted, held, rejected, sent to a worker.

With several routers, front end i gets every i-th request, and its router and its admission policy hear
only of those. An admission policy given alone is one gate before all front ends: it hears of every request.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from itertools import count, cycle
from random import Random

from helpers.errors import InputError
from helpers.policies.view import (
    ACCEPT,
    Admission,
    Arrived,
    Decision,
    Dispatched,
    Event,
    Rejected,
    Router,
    Scaler,
    Verdict,
)
from helpers.scheduling.sequence import Sequence
from helpers.simulator.gate import Gate
from helpers.simulator.ranks import ARRIVAL, NEVER
from helpers.simulator.spec import WorkerSpec
from helpers.workload.request import Request

SEED_STRIDE = 1_000_003  # seeds of the streams of one run, apart from those of its neighbours
FIRST_GATE = 500_000  # the stream of the first gate, after those of the routers

OnDecision = Callable[[Sequence, Decision, Verdict, float], None]


def ears_of(router: Router, workers: Iterable[WorkerSpec], scaler: Scaler | None) -> tuple:
    """The router, and what pairs its workers where some prefill or decode alone, or may come to."""
    apart = scaler is not None or any(worker.role != "mixed" for worker in workers)
    return (router, router.pairing) if apart and hasattr(router, "pairing") else (router,)


class FrontEnd:
    """The routers, the gates of admission and the requests that wait for either or for a parent."""

    def __init__(
        self, cluster, routers: Seq[Router], admissions: Seq[Admission], seed: int, closed_loop: bool,
        on_decision: OnDecision | None, scaler: Scaler | None = None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._routers, self._fronts = routers, len(routers)
        self._rngs = [Random(seed * SEED_STRIDE + i) for i in range(len(routers))]
        self._gates = [Gate(a, Random(seed * SEED_STRIDE + FIRST_GATE + i)) for i, a in enumerate(admissions)]
        self._gated = bool(self._gates)
        self._checks_decode = any(hasattr(a, "admit_decode") for a in admissions)
        self._closed_loop, self._on_decision = closed_loop, on_decision
        self._ears = self._listeners(scaler)
        self._crowd = {kind: unique(one for ears in fronts for one in ears) for kind, fronts in self._ears.items()}
        self._open = not self._gates and Arrived not in self._ears
        self._hears_dispatch = Dispatched in self._ears
        # A sequence's number, in order of arrival, divided by the number of front ends leaves its own.
        self._turns, self._in_turn = count(), cycle(range(self._fronts))
        self.held = 0  # requests for which admission said: queue
        self._ended: dict[int, float] = {}  # closed loop: when a request left, NEVER when it was rejected
        self._children: dict[int, list[Request]] = {}
        self._rooms = [w.limits.kv_blocks * w.limits.block_tokens for w in cluster.spec.workers]
        self._least_room = min(self._rooms)
        self._hop_s = cluster.spec.hop_s
        self._targets: dict[tuple[int, int], object] = {}  # decisions that were found valid

    # -- arrivals

    def arrive(self, request: Request, now: float) -> None:
        """A request comes in."""
        sequence = Sequence(request, next(self._turns) * self._fronts + next(self._in_turn), now)
        if self._open:
            self.place(sequence, now)
            return
        self.tell(sequence, Arrived(request), now)
        if self.held and (gate := self._gate(sequence)).head_of_line and len(gate):
            self._hold(sequence, gate, now)
            self._ask(gate, now)
        elif self.place(sequence, now):
            self._hold(sequence, self._gate(sequence), now)

    def _renumber(self, sequence: Sequence) -> None:
        """Give a request that was held a number after all before: to the workers it comes only now."""
        sequence.number = next(self._turns) * self._fronts + sequence.number % self._fronts

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
            number = next(self._turns) * self._fronts + next(self._in_turn)
            sequence = Sequence(request, number, request.arrival_s)
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

    def place(self, sequence: Sequence, now: float, again: bool = False) -> bool:
        """Route a sequence and, unless it was admitted before, ask admission; True when it is to be held."""
        views, request = self._cluster.views, sequence.request
        views.now = now
        front = sequence.number % self._fronts
        router = self._routers[front]
        if not views.prefill or not views.decode:
            self._turn_away(sequence, "no worker is left that could serve it", now)
            return False
        decision = router.route(request, views, now, self._rngs[front])
        verdict = ACCEPT
        if self._gated and not again:
            gate = self._gate(sequence)
            verdict = gate.admission.admit(request, views, decision, now, gate.rng)
        if self._on_decision:
            self._on_decision(sequence, decision, verdict, now)
        if verdict is ACCEPT or verdict.action == "accept":
            self._dispatch(sequence, decision, router, now)
            return False
        if verdict.action == "reject":
            self._turn_away(sequence, verdict.reason, now)
            return False
        self._check_holding(gate, verdict)
        return True

    def _dispatch(self, sequence: Sequence, decision: Decision, router: Router, now: float) -> None:
        prefill, decode = decision.prefill, decision.decode
        worker = self._targets.get((prefill, decode)) or self._target(decision, router)
        need = sequence.prompt + sequence.output - 1
        if need > self._least_room and need > (room := min(self._rooms[prefill], self._rooms[decode])):
            self._turn_away(sequence, f"its {need} tokens of KV do not fit in a worker, which holds {room}", now)
            return
        sequence.prefill_worker, sequence.decode_worker = prefill, decode
        sequence.dispatched_s = now
        if self._cluster.changes:
            self._cluster.changes.dispatched(sequence)
        if self._hears_dispatch:
            self.tell(sequence, Dispatched(sequence.request, decision), now)
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
        workers, takes = self._cluster.workers, self._cluster.open
        if not (0 <= p < len(workers) and 0 <= d < len(workers)):
            raise InputError(f"router {router.name} chose workers {p} and {d}; the fleet has 0 to {len(workers) - 1}")
        hands_off = workers[p].spec.role == "prefill"
        if not (takes[p] and takes[d]) or hands_off == (p == d) or workers[d].spec.role == "prefill":
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
        if self._cluster.changes:
            self._cluster.changes.left(sequence, now)
        sequence.restart()
        sequence.requeues += 1
        self.place(sequence, now, again=True)

    # -- rejections

    def _turn_away(self, sequence: Sequence, reason: str, now: float) -> None:
        """Reject a request that has arrived, and say so."""
        if Rejected in self._ears:
            self.tell(sequence, Rejected(sequence.request, reason), now)
        if self._cluster.changes:
            self._cluster.changes.left(sequence, now)
        self._reject(sequence, reason)

    def _reject(self, sequence: Sequence, reason: str) -> None:
        sequence.status, sequence.reason = "rejected", reason
        self._cluster.done.append(sequence)
        self.left(sequence, NEVER, sequence.arrival_s)

    def turned_away(self, sequence: Sequence, now: float) -> bool:
        """Ask admission about a split sequence whose prefill has ended; True when it goes no further.

        Whoever has lost a worker on the way has streamed tokens already, and is not asked.
        """
        if not self._checks_decode or sequence.requeues:
            return False
        gate, views = self._gate(sequence), self._cluster.views
        views.now = now
        decision = Decision(sequence.prefill_worker, sequence.decode_worker)
        verdict = gate.admission.admit_decode(sequence.request, views, decision, now, gate.rng)
        if verdict.action == "accept":
            return False
        self._turn_away(sequence, verdict.reason, now)
        return True

    # -- what is held

    def _gate(self, sequence: Sequence) -> Gate:
        """The gate that a sequence has to pass: the only one, or that of its front end."""
        gates = self._gates
        return gates[0] if len(gates) == 1 else gates[sequence.number % self._fronts]

    def _check_holding(self, gate: Gate, verdict: Verdict) -> None:
        name = gate.admission.name
        if verdict.action != "queue":
            raise InputError(f"admission {name} said {verdict.action!r}; use accept, queue or reject")
        if not gate.may_hold:
            raise InputError(f"admission {name} said 'queue'; give it queues = True, so that it is asked again")

    def _hold(self, sequence: Sequence, gate: Gate, now: float) -> None:
        gate.hold(sequence, now)
        self.held += 1

    def _ask(self, gate: Gate, now: float) -> None:
        """Ask a gate again about those that it holds, in their order."""
        back = []
        while len(gate) and not (back and gate.head_of_line):
            lane, entry = gate.take(now)
            self._renumber(entry[2])
            if self.place(entry[2], now):
                back.append((lane, entry))
            else:
                self.held -= 1
        for lane, entry in back:
            gate.put_back(lane, entry)

    def retry_held(self, now: float) -> None:
        """Ask again for those that admission holds."""
        for gate in self._gates:
            if len(gate):
                self._ask(gate, now)

    def reject_held(self, now: float) -> None:
        """The run is over for those that are still held."""
        for gate in self._gates:
            while len(gate):
                _, (_, _, sequence) = gate.take(now)
                self.held -= 1
                self._turn_away(sequence, "held by admission until the end of the run", now)

    # -- what the policies hear

    def _listeners(self, scaler: Scaler | None) -> dict[type, list[list]]:
        """Kind of event -> who wants to hear of such an event at each front end, its router first, the scaler last."""
        ears: dict[type, list[list]] = {}
        for front, router in enumerate(self._routers):
            gate = self._gates[front % len(self._gates)].admission if self._gates else None
            for one in (*ears_of(router, self._cluster.spec.workers, scaler), gate, scaler):
                for kind in getattr(one, "observes", ()):
                    ears.setdefault(kind, [[] for _ in self._routers])[front].append(one)
        return ears

    def tell(self, sequence: Sequence, event: Event, now: float) -> None:
        """Tell the policies of its front end what has become of a sequence."""
        ears = self._ears.get(type(event))
        if ears:
            for one in ears[sequence.number % self._fronts]:
                one.observe(event, now)

    def tell_all(self, event: Event, now: float) -> None:
        """Tell everybody who wants to hear of such events."""
        for one in self._crowd.get(type(event), ()):
            one.observe(event, now)

    def grow(self, spec: WorkerSpec) -> None:
        """One more worker."""
        self._rooms.append(spec.limits.kv_blocks * spec.limits.block_tokens)
        self._least_room = min(self._rooms)

    def forget_targets(self) -> None:
        """The fleet has changed: decisions are to be checked again."""
        self._targets.clear()


def unique(policies: Iterable) -> list:
    """Each policy once: one that stands before several front ends is one."""
    return list({id(one): one for one in policies}.values())
