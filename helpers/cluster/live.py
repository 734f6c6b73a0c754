"""The live cluster: the front end of the simulator, driven by the real clock, over workers that are processes.

The same router, admission policy and front end decide as in a simulation. What differs is what they are told: views
come with telemetry and are as old as that is, and events arrive when the message about them does.
"""

from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import perf_counter, sleep

from helpers.cluster.books import Books, Ticket
from helpers.cluster.faults import Fault, Faults
from helpers.cluster.messages import Message
from helpers.cluster.orders import Order, Part
from helpers.cluster.stand_ins import LiveSpec, LiveWorker, NoFetch, Payload
from helpers.cluster.views import TelemetryViews
from helpers.cluster.watch import EVERY_S, Progress, Watch
from helpers.cluster.workers import Workers
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo
from helpers.policies.view import Admission, Finished, FirstToken, HandedOver, KVEvicted, KVStored, Rejected, Router
from helpers.scheduling.sequence import Sequence
from helpers.simulator.disturbances import Disturbance
from helpers.simulator.frontend import FrontEnd, OnDecision
from helpers.simulator.ranks import ARRIVAL, NEVER
from helpers.simulator.record import timeline_of
from helpers.simulator.spec import WorkerSpec
from helpers.workload.request import Request

MOST_TRIES = 4  # a request that has failed on so many workers fails


class LiveCluster:
    """One run on running workers, of which the first play the `parts`, one each; the others stand by.

    A worker from which nothing is heard for `hang_s` is lost. A run in which no worker has made a step for `stall_s`,
    though requests are there, is given up. Without `record` nothing is kept of what is over.
    """

    eager, changes = False, None  # as the front end reads them

    def __init__(
        self,
        workers: Workers,
        parts: Seq[Part],
        routers: Seq[Router],
        admissions: Seq[Admission] = (),
        seed: int = 0,
        *,
        disturbances: Seq[Disturbance | Fault] = (),
        closed_loop: bool = False,
        on_decision: OnDecision | None = None,
        telemetry_delay_s: float = 0.0,
        hang_s: float = 20.0,
        stall_s: float = inf,
        record: bool = True,
    ) -> None:
        roles, limits = [part.role for part in parts], workers.limits
        if not 0 < len(roles) <= workers.spec.count:
            raise InputError(f"{len(roles)} parts for {workers.spec.count} workers; give each at most one")
        if not workers.whole:
            raise InputError("a worker was lost in an earlier run; start the workers again")
        self.crew, self._parts = workers, list(parts)
        self.spec = LiveSpec(tuple(WorkerSpec(limits, None, role) for role in roles))
        self.workers = [LiveWorker(i, one, self._dispatch) for i, one in enumerate(self.spec.workers)]
        self.alive = [True] * len(roles)
        self.open = [True] * len(roles)
        self.views = TelemetryViews(roles, [limits.kv_blocks] * len(roles), telemetry_delay_s)
        self.hand_off = NoFetch()
        self.done: list[Sequence] = []
        self.books = Books(len(roles), record)
        self._record = record
        self.counts = dict.fromkeys(("workers_lost", "rerouted", "failed", "disconnected"), 0)
        self.lateness_s: list[float] = []
        self.payloads: dict[int, Payload] = {}
        self._watch, self._progress, self._stall_s = Watch(self, hang_s), Progress(stall_s), stall_s
        self._heap: list[tuple[float, int, int, Callable, object]] = []
        self._count, self._numbers = count(), count()
        self._tickets: dict[int, Ticket] = {}
        self._live: dict[int, Ticket] = {}
        self._due_s: dict[int, float] = {}  # when each request was to arrive
        self._coming = 0  # arrivals in the heap
        self._said: list[deque[Message]] = [deque() for _ in roles]  # by worker, what was not heard yet
        self._gone: set[int] = set()  # requests whose clients left before they were sent to a worker
        self._told = 0  # of `done`: who listens has heard of so many
        self.front = FrontEnd(self, routers, list(admissions), seed, closed_loop, on_decision)
        self._faults = Faults(self, disturbances)

    # -- a run

    def start(self) -> None:
        """Let the workers begin, and the clock."""
        self.crew.begin(self._parts)
        self._origin_s = perf_counter()
        self.crew.start_clocks(self._origin_s, len(self.workers))

    def now(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._origin_s

    def run(self, requests: Iterable[Request], limit_s: float = inf) -> EventLog:
        """Send each request at its scheduled arrival, whatever the workers do; returns what happened."""
        number = 0
        for request in requests:
            arrive = self.front.arrive if request.parent is None else self.front.await_parent
            self.at(request.arrival_s, ARRIVAL, arrive, request)
            number += 1
        self.start()
        stalled = False
        while len(self.done) < number and self.now() < limit_s and not stalled:
            self.turn()
            self._settle_held()
            stalled = self._progress.stalled(bool(self._live), self.now())
        sent = len(self.done) + len(self._live)
        self.stop_all(
            f"no worker made a step for {self._stall_s:g} s" if stalled else f"the run ended after {limit_s:g} s"
        )
        if limit_s == inf and not stalled and len(self.done) != number:
            raise RuntimeError(f"{number} requests came and {len(self.done)} left: the cluster lost some")
        self.never_came = number - sent
        return self.log()

    def turn(self, most_s: float = EVERY_S) -> None:
        """Do what is due, then listen until something else is, or `most_s` have passed."""
        self._fire()
        wait_s = most_s
        if self._heap:
            wait_s = min(wait_s, max(0.0, self._heap[0][0] - self.now()))
        if 0 < wait_s < 1e-3:  # the poll counts in milliseconds
            sleep(wait_s)
            wait_s = 0.0
        self.listen(wait_s)
        self._watch.look()
        self._tell_ends()

    def listen(self, seconds: float) -> None:
        """Take in what workers have said; waits for the first message, at most so long.

        Each is heard in its order, but no token before the one of its prefill, which another worker tells: the two may
        come in either order, and a worker whose turn it is not yet waits.
        """
        for worker, message in self.crew.receive(seconds):
            if worker < len(self.alive) and self.alive[worker]:
                self._watch.heard(worker, self.now())
                self._said[worker].append(message)
        while ready := [w for w, said in enumerate(self._said) if said and not self._is_early(w, said[0])]:
            for worker in ready:
                self._on(worker, self._said[worker].popleft())

    def _is_early(self, worker: int, message: Message) -> bool:
        tickets = (self._live.get(number) for number, *_ in message.get("tokens", ()))
        return self.alive[worker] and any(ticket and ticket.is_early(worker) for ticket in tickets)

    def at(self, time: float, rank: int, handler: Callable, what: object) -> None:
        """Call `handler(what, now)` at `time`, or as soon as that can be."""
        self._coming += rank == ARRIVAL
        heappush(self._heap, (time, rank, next(self._count), handler, what))

    def _fire(self) -> None:
        heap = self._heap
        while heap and heap[0][0] <= (now := self.now()):
            due_s, rank, _, handler, what = heappop(heap)
            if rank == ARRIVAL:
                self._coming -= 1
                if handler == self.front.arrive:
                    self._due_s[what.id] = due_s
                    self.lateness_s.append(now - due_s)
            handler(what, now)

    def _settle_held(self) -> None:
        """Whom admission holds when nothing else is left is asked once more, and then turned away."""
        if self.front.held and not self._live and not self._coming:
            held, now = self.front.held, self.now()
            self.front.retry_held(now)
            if self.front.held == held and not self._live:
                self.front.reject_held(now)

    def log(self) -> EventLog:
        """The record of the run so far."""
        end_s = self.now()
        infos = tuple(
            WorkerInfo(w.spec.role, kv_blocks=w.spec.limits.kv_blocks, block_tokens=w.spec.limits.block_tokens,
                       stop_s=stop_s)
            for w, stop_s in zip(self.workers, self._watch.stops_s, strict=True)
        )  # fmt: skip
        timelines = tuple(sorted(map(self._timeline, self.done), key=lambda t: t.id))
        counts = {**self.counts, "ignored_tokens": self.books.ignored}
        return EventLog(timelines, self.books.logs, infos, end_s, counts)

    def _timeline(self, sequence: Sequence) -> Timeline:
        """The record of a request; it counts from its scheduled arrival, however late it was sent."""
        made = timeline_of(sequence)
        return replace(made, arrival_s=self._due_s.get(made.id, made.arrival_s))

    # -- requests

    def _dispatch(self, worker: LiveWorker, sequence: Sequence, now: float) -> None:
        """Send a request to the worker that prefills it."""
        request = sequence.request
        if request.id in self._gone:
            self._gone.discard(request.id)
            self._end_left(sequence, now)
            return
        payload = self.payloads.get(request.id) or Payload()
        number = next(self._numbers)
        prefill, decode = worker.index, sequence.decode_worker
        ticket = Ticket(number, sequence, prefill, decode, prefill == decode, sequence.preemptions)
        self._tickets[number] = self._live[number] = ticket
        out = self.books.tokens.get(request.id, [])
        order = Order(number, sequence.number, request, decode, payload.prompt, out, payload.sampling, payload.stop)
        self.crew.tell(prefill, order.message())

    def _on(self, worker: int, message: Message) -> None:
        if not self.alive[worker]:
            return
        now, kind = self.now(), message["kind"]
        if "view" in message:
            self.views.show(worker, message["at_s"], message["view"])
        for values in message.get("joined", ()):
            joined = self.books.joined(values, self._live)
            if joined:
                request, at_s = joined.request, joined.transfer_end_s
                self.front.tell(joined, HandedOver(request, worker, at_s), now)
        if kind == "step":
            self._on_step(worker, message, now)
        elif kind == "failed":
            ticket = self._live.get(message["ticket"])
            if ticket:
                self._try_again(ticket, message["reason"], now, message["again"])
        elif kind == "refused":
            self._watch.lose(worker)
        if self.front.held and "view" in message:
            self.front.retry_held(now)

    def _on_step(self, worker: int, message: Message, now: float) -> None:
        front = self.front
        self._progress.came(now)
        if message.get("evicted"):
            front.tell_all(KVEvicted(worker, tuple(message["evicted"])), now)
        if message.get("stored"):
            front.tell_all(KVStored(worker, tuple(message["stored"])), now)
        credited = self.books.step(worker, message, self._tickets, self._live)
        for ticket, token, first, ended in credited.tokens:
            sequence = ticket.sequence
            if first:
                front.tell(sequence, FirstToken(sequence.request, ticket.prefill, sequence.cached_tokens), now)
            payload = self.payloads.get(sequence.request.id)
            if payload and payload.on_token:
                payload.on_token(token, ended)
            if ended:
                sequence.finished_s, sequence.status = credited.end_s, "finished"
                sequence.output = sequence.generated
                self._leave(ticket, credited.end_s, now)
                front.tell(sequence, Finished(sequence.request, worker), now)
            elif first and ticket.prefill != ticket.decode and front.turned_away(sequence, now):
                self._cancel(ticket)
        if front.held and credited.tokens:
            front.retry_held(now)

    def _leave(self, ticket: Ticket, ended_s: float, now: float) -> None:
        del self._live[ticket.number]
        self.done.append(ticket.sequence)
        self.front.left(ticket.sequence, ended_s, now)

    def _tell_ends(self) -> None:
        """Tell those who listen which requests have left."""
        for sequence in self.done[self._told :]:
            payload = self.payloads.get(sequence.request.id)
            if payload and payload.on_end:
                payload.on_end(sequence)
        self._told = len(self.done)
        if not self._record:
            for sequence in self.done:
                self._forget(sequence.request.id)
            self.done.clear()
            self._told = 0

    def _forget(self, request_id: int) -> None:
        self.books.forget(request_id)
        self.payloads.pop(request_id, None)
        self._gone.discard(request_id)
        self._due_s.pop(request_id, None)
        self._tickets = {n: t for n, t in self._tickets.items() if n in self._live}
        self.lateness_s.clear()

    def arrive(self, request: Request, payload: Payload) -> None:
        """A request comes in now."""
        self.payloads[request.id] = payload
        self.at(self.now(), ARRIVAL, self.front.arrive, request)

    def _cancel(self, ticket: Ticket, but: int = -1) -> None:
        """A try is over: nobody credits what still comes of it. `but` is the worker that knows already."""
        self._live.pop(ticket.number, None)
        for worker in {ticket.prefill, ticket.decode} - {but}:
            if self.alive[worker]:
                self.crew.tell(worker, {"kind": "cancel", "ticket": ticket.number})

    def _try_again(self, ticket: Ticket, reason: str, now: float, again: bool = True, but: int = -1) -> None:
        """A try has failed: the request goes back to its router, or fails with the reason."""
        sequence = ticket.sequence
        self._cancel(ticket, but)
        if again and sequence.requeues + 1 < MOST_TRIES:
            self.counts["rerouted"] += 1
            self.front.requeue(sequence, now)
            return
        self.counts["failed"] += 1
        self._give_up(sequence, "unfinished" if sequence.generated else "rejected", reason, now)

    def _give_up(self, sequence: Sequence, status: str, reason: str, now: float) -> None:
        """A request that was dispatched leaves without its answer: nobody is to count on it any more."""
        sequence.status, sequence.reason = status, reason
        self.done.append(sequence)
        self.front.tell(sequence, Rejected(sequence.request, reason), now)
        self.front.left(sequence, NEVER, now)

    def reroute(self, worker: int, now: float) -> None:
        """A worker is gone: whoever cannot go on without it is tried elsewhere."""
        lost = sorted((t for t in self._live.values() if t.is_on(worker)), key=lambda t: t.sequence.number)
        for ticket in lost:
            self._try_again(ticket, f"worker {worker} was lost", now, but=worker)

    def disconnect(self, request_id: int) -> None:
        """The client of a request has left; nothing happens when it has its answer."""
        tickets = [t for t in self._live.values() if t.sequence.request.id == request_id]
        if not tickets and request_id in self._due_s and all(s.request.id != request_id for s in self.done):
            self._gone.add(request_id)  # admission holds it still
        for ticket in tickets:
            self._cancel(ticket)
            self._end_left(ticket.sequence, self.now())

    def _end_left(self, sequence: Sequence, now: float) -> None:
        self.counts["disconnected"] += 1
        self._give_up(sequence, "unfinished", "its client left", now)

    def stop_all(self, reason: str) -> None:
        """Give up whatever is still under way."""
        for ticket in list(self._live.values()):
            self._cancel(ticket)
            ticket.sequence.reason = reason
            self.done.append(ticket.sequence)
        self._tell_ends()
