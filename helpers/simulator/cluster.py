"""The cluster: arrivals meet routers and admission, workers run, KV moves, things go wrong.

Time advances from event to event. Events at time t come before the step that starts at t, and
among themselves in the order of the ranks below, then in the order in which they were caused.

Workers are booked lazily: a worker that nobody looks at is not touched. When something must be
told as it happens (split roles, a router that observes, closed loops), each worker announces when
its next telling step starts, and is woken then.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, groupby
from math import nextafter
from operator import itemgetter
from random import Random

from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Timeline
from helpers.policies.view import (
    ACCEPT,
    Admission,
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Router,
    Verdict,
    WorkerLost,
)
from helpers.scheduling.sequence import Sequence
from helpers.simulator.decoding import EVICTED, FINISHED, PREFILLED
from helpers.simulator.disturbances import Disturbance, SlowWorker
from helpers.simulator.handoff import HandOff
from helpers.simulator.spec import WorkerSpec
from helpers.simulator.stepwise import StepWorker
from helpers.simulator.views import LiveViews, StaleViews, Telemetry
from helpers.simulator.worker import FastWorker
from helpers.workload.request import Request

EMISSION, TRANSFER, DISTURBANCE, TELEMETRY, ARRIVAL, STEP = range(6)  # the order of events at one time
NEVER = float("inf")


@dataclass(frozen=True)
class ClusterSpec:
    """The hardware side of a simulation.

    `link` connects workers of different roles (needed for hand-offs and fetches);
    `kv_bytes_per_token` is what one token's KV weighs on the wire, over all layers and GPUs of a
    worker; `hop_s` is the time from the front end to a worker. Raises `InputError` for a fleet
    that cannot serve.
    """

    workers: tuple[WorkerSpec, ...]
    link: Link | None = None
    kv_bytes_per_token: float = 0.0
    layers: int = 1
    telemetry: Telemetry = field(default_factory=Telemetry)
    hop_s: float = 0.0

    def __post_init__(self) -> None:
        roles = {w.role for w in self.workers}
        if not self.workers:
            raise InputError("a fleet of 0 workers serves nothing; give at least one")
        if not roles - {"decode"} or not roles - {"prefill"}:
            raise InputError(f"a fleet of {roles.pop()} workers only cannot finish a request; add the other role")
        if "prefill" in roles and self.link is None:
            raise InputError("a fleet with prefill workers hands KV over; give it a link")
        if len({w.limits.block_tokens for w in self.workers}) > 1:
            raise InputError("workers with different block_tokens cannot share prefix hashes; use one size")


class Cluster:
    """One run of a fleet under its policies. Make a new one for each run.

    `stepwise` runs the reference workers instead of the fast ones; `eager` wakes workers even when
    nobody must be told (both must not change the result). `on_decision(sequence, decision,
    verdict, now)` sees every decision; `sink(timeline)` takes finished timelines out of the run as
    it goes, for workloads too long to keep.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        routers: Seq[Router],
        admission: Admission | None = None,
        seed: int = 0,
        disturbances: Seq[Disturbance] = (),
        closed_loop: bool = False,
        stepwise: bool = False,
        eager: bool = False,
        on_decision: Callable[[Sequence, Decision, Verdict, float], None] | None = None,
        sink: Callable[[Timeline], None] | None = None,
        tick: Callable[[int], None] | None = None,
    ) -> None:
        wanted = frozenset().union(*(r.observes for r in routers)) if routers else frozenset()
        split = any(w.role == "prefill" for w in spec.workers)
        cache = bool(wanted & {KVStored, KVEvicted})
        queues = getattr(admission, "queues", False)
        self.spec, self.routers, self.admission = spec, routers, admission
        self.eager = eager or split or closed_loop or cache or queues or bool(wanted & {FirstToken, Finished})
        self.done: list[Sequence] = []
        kind = StepWorker if stepwise else FastWorker
        self.workers = [kind(i, w, self.done, self.eager, cache) for i, w in enumerate(spec.workers)]
        self.alive = [True] * len(self.workers)
        self._rngs = [Random(seed * 1_000_003 + i) for i in range(len(routers))]
        self._admission_rng = Random(seed * 1_000_003 + 999_983)
        if spec.telemetry.period_s:
            self.views = StaleViews(self.workers, spec.telemetry, Random(seed * 1_000_003 + 999_979))
        else:
            self.views = LiveViews(self.workers)
        self.hand_off = HandOff(self)
        self._rooms = [w.limits.kv_blocks * w.limits.block_tokens for w in spec.workers]
        self._least_room = min(self._rooms)
        self._wanted, self._split = wanted, split
        self._closed_loop = closed_loop
        self._on_decision, self._sink, self._tick = on_decision, sink, tick
        self._heap: list[tuple] = []
        self._count = count()
        self._plan: list[float | None] = [None] * len(self.workers)
        self._number = 0
        self._arrivals_left = True
        self._held: list[Sequence] = []  # admission said: queue
        self._ended: dict[int, float] = {}  # closed loop: when a request left, NEVER when it was rejected
        self._children: dict[int, list[Request]] = {}
        self._timelines: list[Timeline] = []
        self._left_count = 0
        self._targets: dict[tuple[int, int], object] = {}  # decisions that were found valid
        for d in disturbances:
            self._disturb(d)

    # -- the loop

    def run(self, requests: Iterable[Request]) -> EventLog:
        """Serve the requests, which must come in order of arrival, and return what happened."""
        with no_collection():
            return self._run(requests)

    def _run(self, requests: Iterable[Request]) -> EventLog:
        heap, number = self._heap, 0
        if self.spec.telemetry.period_s:
            self.at(0.0, TELEMETRY, self._on_tick, None)
        for request in requests:
            now = request.arrival_s
            if heap and heap[0] < (now, ARRIVAL):
                self._until(now)
            if request.parent is None:
                self._arrive(request, now)
            else:
                self._await_parent(request, now)
            number += 1
            if not number % 4096:
                self._drain(number)
        self._arrivals_left = False
        self._until(NEVER)
        for w in self.workers:
            w.advance(NEVER)
        self._empty_held()
        for sequence in self._held:
            self._reject(sequence, "held by admission until the end of the run")
        self._drain(number)
        if self._left_count != number:
            raise RuntimeError(f"{number} requests came and {self._left_count} left: the simulator lost some")
        timelines = tuple(sorted(self._timelines, key=lambda t: t.id))
        logs = tuple(w.log for w in self.workers)
        return EventLog(timelines, logs, tuple(w.info() for w in self.spec.workers), self._end_s(timelines))

    def at(self, time: float, rank: int, handler: Callable, what: object) -> None:
        """Call `handler(what, time)` at `time`."""
        heappush(self._heap, (time, rank, next(self._count), handler, what))

    def _until(self, now: float) -> None:
        heap, limit = self._heap, (now, ARRIVAL)
        while heap and heap[0] < limit:
            time, _, _, handler, what = heappop(heap)
            handler(what, time)

    def _drain(self, number: int) -> None:
        """Turn finished sequences into timelines."""
        keep = self._sink or self._timelines.append
        for sequence in self.done:
            keep(timeline_of(sequence))
        for w in self.workers:
            w.write_log()
        self._left_count += len(self.done)
        self.done.clear()
        if self._tick:
            self._tick(number)

    def _end_s(self, timelines: Seq[Timeline]) -> float:
        return max((t.finished_s for t in timelines if t.finished_s is not None), default=0.0)

    # -- arrivals, routing, admission

    def _arrive(self, request: Request, now: float) -> None:
        sequence = Sequence(request, self._number, now)
        self._number += 1
        self._place(sequence, now)

    def _await_parent(self, request: Request, now: float) -> None:
        if not self._closed_loop:
            raise InputError(f"request {request.id} waits for request {request.parent}: run it as a closed loop")
        ended = self._ended.get(request.parent)
        if ended is None:
            self._children.setdefault(request.parent, []).append(request)
        else:
            self._child(request, ended, now)

    def _child(self, request: Request, ended: float, now: float) -> None:
        if ended == NEVER:
            sequence = Sequence(request, self._number, request.arrival_s)
            self._number += 1
            self._reject(sequence, f"its parent {request.parent} was rejected")
        else:
            time = max(now, request.arrival_s, ended + request.think_time_s)
            self.at(time, ARRIVAL, self._arrive, request)

    def _place(self, sequence: Sequence, now: float, again: bool = False) -> None:
        """Route a sequence and, unless it was admitted before, ask admission."""
        views, request = self.views, sequence.request
        views.now = now
        front = sequence.number % len(self.routers)
        router = self.routers[front]
        if not views.prefill or not views.decode:
            self._reject(sequence, "no worker is left that could serve it")
            return
        decision = router.route(request, views, now, self._rngs[front])
        verdict = ACCEPT
        if self.admission is not None and not again:
            verdict = self.admission.admit(request, views, decision, now, self._admission_rng)
        if self._on_decision:
            self._on_decision(sequence, decision, verdict, now)
        if verdict.action == "accept":
            self._dispatch(sequence, decision, router, now)
        elif verdict.action == "reject":
            self._reject(sequence, verdict.reason)
        elif verdict.action == "queue" and self.eager:
            self._held.append(sequence)
        else:
            raise InputError(f"admission {self.admission.name} said {verdict.action!r}; use accept, queue or reject")

    def _dispatch(self, sequence: Sequence, decision: Decision, router: Router, now: float) -> None:
        target = self._targets.get((decision.prefill, decision.decode)) or self._target(decision, router)
        need = sequence.prompt + sequence.output - 1
        if need > self._least_room and need > (
            room := min(self._rooms[decision.prefill], self._rooms[decision.decode])
        ):
            self._reject(sequence, f"its {need} tokens of KV do not fit in a worker that holds {room}")
            return
        sequence.prefill_worker, sequence.decode_worker = decision.prefill, decision.decode
        sequence.dispatched_s = now
        if Dispatched in self._wanted:
            router.observe(Dispatched(sequence.request, decision), now)
        there = now if decision.kv_source is None else self.hand_off.fetch(sequence, decision, now)
        there += self.spec.hop_s
        if there > now:
            self.at(there, ARRIVAL, self._submit, sequence)
        else:
            target.submit(sequence, now)
            if self.eager:
                self.replan(target)

    def _target(self, decision: Decision, router: Router):
        """The worker that prefills; raises `InputError` for a decision that cannot be carried out."""
        p, d = decision.prefill, decision.decode
        if not (0 <= p < len(self.workers) and 0 <= d < len(self.workers)):
            raise InputError(f"router {router.name} chose workers {p} and {d} of {len(self.workers)}")
        hands_off = self.spec.workers[p].role == "prefill"
        if not (self.alive[p] and self.alive[d]) or hands_off == (p == d) or self.spec.workers[d].role == "prefill":
            raise InputError(f"router {router.name} chose prefill on {p} and decode on {d}: lost, or of the wrong role")
        self._targets[p, d] = self.workers[p]
        return self.workers[p]

    def _submit(self, sequence: Sequence, now: float) -> None:
        if not self.alive[sequence.prefill_worker]:
            self.requeue(sequence, now)
            return
        worker = self.workers[sequence.prefill_worker]
        worker.submit(sequence, now)
        if self.eager:
            self.replan(worker)

    def requeue(self, sequence: Sequence, now: float) -> None:
        """Send a sequence whose worker is gone back to its router."""
        sequence.restart()
        sequence.requeues += 1
        self._place(sequence, now, again=True)

    def _reject(self, sequence: Sequence, reason: str) -> None:
        sequence.status, sequence.reason = "rejected", reason
        self.done.append(sequence)
        self._left(sequence, NEVER, sequence.arrival_s)

    def _left(self, sequence: Sequence, ended: float, now: float) -> None:
        """A request has left: its children can come."""
        if self._closed_loop:
            request_id = sequence.request.id
            self._ended[request_id] = ended
            for child in self._children.pop(request_id, ()):
                self._child(child, ended, now)

    # -- workers tell

    def replan(self, worker) -> None:
        """Ask a worker when it must be woken next, and take in what it has to tell."""
        if worker.outbox:
            self._collect(worker)
        wake = worker.wake()
        if wake != self._plan[worker.index]:
            self._plan[worker.index] = wake
            if wake is not None:
                self.at(wake, STEP, self._on_wake, worker)

    def _collect(self, worker) -> None:
        """File what a worker tells under the times at which it happens, a step's news together."""
        told, worker.outbox = worker.outbox, []
        if told[0][0] == told[-1][0]:
            self.at(told[0][0], EMISSION, self._on_emissions, (worker, told))
            return
        for time, news in groupby(told, key=itemgetter(0)):
            self.at(time, EMISSION, self._on_emissions, (worker, list(news)))

    def _on_wake(self, worker, now: float) -> None:
        if self._plan[worker.index] == now:
            self._plan[worker.index] = None
            worker.advance(nextafter(now, NEVER))  # the steps that start at `now` too
            self.replan(worker)

    def _on_emissions(self, news: tuple, now: float) -> None:
        worker, told = news
        wanted, split = self._wanted, self._split
        for _, kind, what in told:
            if kind == FINISHED:
                if Finished in wanted:
                    self._tell(what, Finished(what.request, worker.index), now)
                if self._closed_loop:
                    self._left(what, now, now)
                if split:
                    self.hand_off.serve(worker, now)
                if self._held:
                    self._retry_held(now)
            elif kind == PREFILLED:
                if FirstToken in wanted and what.first_token_s == now:
                    self._tell(what, FirstToken(what.request, worker.index), now)
                if split and worker.spec.role == "prefill" and what.status != "finished":
                    self.hand_off.begin(what, worker, now)
            elif self.alive[worker.index]:
                event = (KVEvicted if kind == EVICTED else KVStored)(worker.index, what)
                delay_s = self.spec.telemetry.delay_s
                if delay_s:
                    self.at(now + delay_s, EMISSION, self._tell_all, event)
                else:
                    self._tell_all(event, now)

    def _tell(self, sequence: Sequence, event: object, now: float) -> None:
        """Tell the router that the sequence came through."""
        self.routers[sequence.number % len(self.routers)].observe(event, now)

    def _tell_all(self, event: object, now: float) -> None:
        for router in self.routers:
            if type(event) in router.observes:
                router.observe(event, now)

    def _retry_held(self, now: float) -> None:
        held, self._held = self._held, []
        for sequence in held:
            self._place(sequence, now)

    def _empty_held(self) -> None:
        """Nothing else will happen: ask admission for as long as it lets somebody through."""
        before = None
        while self._held and len(self._held) != before:
            before = len(self._held)
            self._retry_held(max(self.views.now, *(w.t for w in self.workers)))
            self._until(NEVER)

    # -- telemetry and disturbances

    def _on_tick(self, _: None, now: float) -> None:
        self.views.sample(now)
        if self._arrivals_left or self._busy():
            self.at(now + self.spec.telemetry.period_s, TELEMETRY, self._on_tick, None)

    def _busy(self) -> bool:
        return any(w.running or w.waiting or w.reserved for w in self.workers)

    def _disturb(self, d: Disturbance) -> None:
        if not 0 <= d.worker < len(self.workers):
            raise InputError(f"a disturbance names worker {d.worker}; the fleet has 0 to {len(self.workers) - 1}")
        if isinstance(d, SlowWorker):
            self.at(d.at_s, DISTURBANCE, self._on_pace, (d.worker, d.factor))
            self.at(d.until_s, DISTURBANCE, self._on_pace, (d.worker, 1.0))
        else:
            self.at(d.at_s, DISTURBANCE, self._on_loss, d.worker)

    def _on_pace(self, change: tuple[int, float], now: float) -> None:
        worker = self.workers[change[0]]
        worker.touch(now)
        worker.slow = change[1]
        if self.eager:
            self.replan(worker)

    def _on_loss(self, index: int, now: float) -> None:
        worker = self.workers[index]
        if not self.alive[index]:
            return
        lost = worker.lose(now)
        self.alive[index] = False
        self._targets.clear()
        if self.eager:
            self.replan(worker)
        lost += self.hand_off.lose(index, now)
        self.views.refresh(self.alive)
        self._tell_all(WorkerLost(index), now)
        for sequence in sorted(lost, key=lambda s: s.number):
            self.requeue(sequence, now)


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage collection off: a run makes millions of objects and no cycles, and looking for some costs an eighth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def timeline_of(s: Sequence) -> Timeline:
    """The record of a sequence that has left, or never will."""
    r = s.request
    return Timeline(
        r.id,
        s.arrival_s,
        s.prompt,
        s.output,
        s.status,
        s.reason,
        s.prefill_worker,
        s.decode_worker,
        s.dispatched_s,
        s.prefill_start_s,
        s.first_token_s,
        s.finished_s,
        s.generated,
        s.cached_tokens,
        s.fetched_tokens,
        s.prefilled_tokens,
        s.preemptions,
        s.requeues,
        s.transfer_start_s,
        s.transfer_end_s,
        r.session,
        r.tenant,
        r.slo_class,
        r.priority,
        tuple(s.spans),
    )
