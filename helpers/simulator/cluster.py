"""The cluster: arrivals meet the front end, workers run, KV moves, things go wrong.

Time advances from event to event. Events at time t come before the step that starts at t, and
among themselves in the order of `ranks`; then the news of workers come by id, and all else in the
order in which it was caused.

Workers are booked lazily: a worker that nobody looks at is not touched. When something must be
told as it happens (split roles, a router that observes, closed loops, a fleet that changes), each
worker announces when its next telling step starts, and is woken then.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count, groupby
from math import nextafter, prod
from operator import attrgetter, itemgetter
from random import Random

from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Timeline
from helpers.policies.view import Admission, Finished, FirstToken, KVEvicted, KVStored, Router, Scaler, WorkerLost
from helpers.scheduling.sequence import Sequence
from helpers.simulator.decoding import EVICTED, FINISHED, PREFILLED
from helpers.simulator.disturbances import Disturbance, SlowWorker
from helpers.simulator.fleet_changes import FleetChanges, Stay
from helpers.simulator.frontend import SEED_STRIDE, FrontEnd, OnDecision, ears_of
from helpers.simulator.handoff import HandOff
from helpers.simulator.ranks import ARRIVAL, DISTURBANCE, EMISSION, NEVER, STEP, TELEMETRY, TRANSFER
from helpers.simulator.record import timeline_of
from helpers.simulator.reporting import views_of, worker_kind
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.workload.request import Request

DRAIN_EVERY = 4096  # arrivals between two clearings of what has finished
# Places in the order of events: each worker has so many, all of them before those that are given out in turn.
NEWS_OF_A_WORKER, FIRST_NEWS = 2**40, 2**62


class Cluster:
    """One run of a fleet under its policies. Make a new one for each run.

    `stepwise` runs the reference workers instead of the fast ones; `eager` wakes workers even when
    nobody must be told (both must not change the result). `on_decision(sequence, decision,
    verdict, now)` sees every decision; `sink(timeline)` takes finished timelines out of the run as
    it goes, for workloads too long to keep; `tick(arrivals)` is called now and then. Without a
    `scaler` the fleet stays as it is.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        routers: Seq[Router],
        admission: Admission | Seq[Admission] | None = None,
        seed: int = 0,
        disturbances: Seq[Disturbance] = (),
        closed_loop: bool = False,
        stepwise: bool = False,
        eager: bool = False,
        on_decision: OnDecision | None = None,
        sink: Callable[[Timeline], None] | None = None,
        tick: Callable[[int], None] | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        admissions = [admission] if hasattr(admission, "admit") else list(admission or ())
        ears = [ear for router in routers for ear in ears_of(router, spec.workers, scaler)]
        wanted = frozenset().union(*(getattr(one, "observes", ()) for one in (*ears, *admissions, scaler)))
        split = any(w.role == "prefill" for w in spec.workers)
        cache = bool(wanted & {KVStored, KVEvicted})
        queues = any(getattr(one, "queues", False) for one in admissions)
        self.spec = spec
        told = split or closed_loop or cache or queues or scaler or wanted & {FirstToken, Finished}
        self.eager = eager or bool(told)
        self.done: list[Sequence] = []
        kind = worker_kind(stepwise, spec.telemetry.by_step)
        self._make = lambda index, one: kind(index, one, self.done, self.eager, cache)
        self.workers = [self._make(i, w) for i, w in enumerate(spec.workers)]
        self.alive = [True] * len(self.workers)
        self.open = self.alive.copy()  # who takes new requests; whoever drains is alive all the same
        self.stays = [Stay() for _ in self.workers]
        noise = Random(seed * SEED_STRIDE + SEED_STRIDE - 24)
        self.views = views_of(self.workers, spec.telemetry, noise)
        self.changes = FleetChanges(self, scaler) if scaler else None
        self.front = FrontEnd(self, routers, admissions, seed, closed_loop, on_decision, scaler)
        self.hand_off = HandOff(self)
        self._wanted, self._split, self._closed_loop = wanted, split, closed_loop
        self._sink, self._tick = sink, tick
        self._heap: list[tuple] = []
        self._count = count()
        self._plan: list[float | None] = [None] * len(self.workers)  # when a worker is to be woken
        self._slowed: dict[int, list[float]] = {}  # the factors at work on each worker
        self._arrivals_left = True
        self._timelines: list[Timeline] = []
        self._left_count = 0
        for d in disturbances:
            self._disturb(d)

    # -- the loop

    def run(self, requests: Iterable[Request]) -> EventLog:
        """Serve the requests, which must come in order of arrival, and return what happened."""
        with no_collection():
            return self._run(requests)

    def _run(self, requests: Iterable[Request]) -> EventLog:
        number = self._serve(requests)
        if self._left_count != number:
            raise RuntimeError(f"{number} requests came and {self._left_count} left: the simulator lost some")
        timelines = tuple(sorted(self._timelines, key=attrgetter("id")))
        logs = tuple(w.log for w in self.workers)
        end_s = max([t.arrival_s if t.finished_s is None else t.finished_s for t in timelines], default=0.0)
        infos = tuple(stay.info(w.spec, end_s) for stay, w in zip(self.stays, self.workers, strict=True))
        return EventLog(timelines, logs, infos, end_s, self.changes.counts if self.changes else {})

    def _serve(self, requests: Iterable[Request]) -> int:
        """Bring every request in and out again; returns how many there were."""
        heap, front, number, before = self._heap, self.front, 0, -NEVER
        if self.spec.telemetry.period_s:
            self.at(0.0, TELEMETRY, self._on_sample, None)
        if self.changes:
            self.changes.begin()
        for request in requests:
            now = request.arrival_s
            if now < before:
                raise InputError(f"request {request.id} arrives at {now} s, after one of {before} s; sort by arrival_s")
            before = now
            if heap and heap[0] < (now, ARRIVAL):
                self._until(now)
            if request.parent is None:
                front.arrive(request, now)
            else:
                front.await_parent(request, now)
            number += 1
            if not number % DRAIN_EVERY:
                self._drain(number)
        self._arrivals_left = False
        self._finish()
        self._drain(number)
        return number

    def _finish(self) -> None:
        """Nothing more arrives: run dry, and ask admission for as long as it lets somebody through."""
        asked = None
        while True:
            self._until(NEVER)
            for w in self.workers:
                w.advance(NEVER)
            end = max(self.views.now, *(w.t for w in self.workers))
            if not self.front.held or self.front.held == asked:
                break
            asked = self.front.held
            if self.spec.telemetry.period_s:
                self.views.sample(end)
                end += self.spec.telemetry.delay_s
            self.front.retry_held(end)
        self.front.reject_held(end)

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
        if self._sink:
            for w in self.workers:
                w.log.compact()
        self._left_count += len(self.done)
        self.done.clear()
        if self._tick:
            self._tick(number)

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
            self._tell(told[0][0], worker, told)
            return
        for time, news in groupby(told, key=itemgetter(0)):
            self._tell(time, worker, list(news))

    def _tell(self, time: float, worker, news: list[tuple]) -> None:
        """File news. When a worker was looked at must not matter, so those of one time go by worker."""
        place = worker.index * NEWS_OF_A_WORKER + next(self._count) - FIRST_NEWS
        heappush(self._heap, (time, EMISSION, place, self._on_news, (worker, news)))

    def _on_wake(self, worker, now: float) -> None:
        if self._plan[worker.index] == now:
            self._plan[worker.index] = None
            worker.advance(nextafter(now, NEVER))  # the steps that start at `now` too
            self.replan(worker)

    def _on_news(self, news: tuple, now: float) -> None:
        worker, told = news
        front, wanted, split = self.front, self._wanted, self._split
        for _, kind, what in told:
            if kind == FINISHED:
                if Finished in wanted:
                    front.tell(what, Finished(what.request, worker.index), now)
                if self._closed_loop:
                    front.left(what, now, now)
                if split:
                    self.hand_off.serve(worker, now)
                if self.changes:
                    self.changes.left(what, now)
                if front.held:
                    front.retry_held(now)
            elif kind == PREFILLED:
                if FirstToken in wanted and what.first_token_s == now:
                    cached = what.cached_tokens + what.fetched_tokens
                    front.tell(what, FirstToken(what.request, worker.index, cached), now)
                if split and worker.spec.role == "prefill" and what.status != "finished":
                    self.hand_off.begin(what, worker, now)
                if front.held:
                    front.retry_held(now)
            elif self.open[worker.index]:
                event = (KVEvicted if kind == EVICTED else KVStored)(worker.index, what)
                delay_s = self.spec.telemetry.delay_s
                if delay_s:
                    self.at(now + delay_s, EMISSION, front.tell_all, event)
                else:
                    front.tell_all(event, now)

    # -- telemetry and disturbances

    def _on_sample(self, _: None, now: float) -> None:
        self.views.sample(now)
        if self.front.held:
            self.front.retry_held(now)
        if self.busy():
            self.at(now + self.spec.telemetry.period_s, TELEMETRY, self._on_sample, None)

    def busy(self) -> bool:
        """Whether requests are still to come, or to be served."""
        if self._arrivals_left or any(w.running or w.waiting or w.reserved for w in self.workers):
            return True
        return any(rank in (EMISSION, TRANSFER, ARRIVAL) for _, rank, *_ in self._heap)

    # -- a fleet that changes

    def grow(self, spec: WorkerSpec) -> int:
        """A further worker, which does not serve yet; returns its id."""
        index = len(self.workers)
        self.workers.append(self._make(index, spec))
        self.alive.append(False)
        self.open.append(False)
        self.stays.append(Stay(None, None))
        self._plan.append(None)
        self.front.grow(spec)
        self.hand_off.grow()
        self._split = self._split or spec.role == "prefill"
        return index

    def set_open(self, index: int, takes: bool) -> None:
        """Let a worker take new requests, or no more."""
        self.open[index] = takes
        self.front.forget_targets()
        self.views.refresh(self.open)

    def _disturb(self, d: Disturbance) -> None:
        if not 0 <= d.worker < len(self.workers):
            raise InputError(f"a disturbance names worker {d.worker}; the fleet has 0 to {len(self.workers) - 1}")
        if isinstance(d, SlowWorker):
            self.at(d.at_s, DISTURBANCE, self._on_pace, (d, True))
            if d.until_s < NEVER:
                self.at(d.until_s, DISTURBANCE, self._on_pace, (d, False))
        else:
            self.at(d.at_s, DISTURBANCE, self._on_loss, d.worker)

    def _on_pace(self, change: tuple[SlowWorker, bool], now: float) -> None:
        """A disturbance of a worker's pace begins or ends; those that overlap multiply."""
        d, begins = change
        worker, slowed = self.workers[d.worker], self._slowed.setdefault(d.worker, [])
        worker.touch(now)
        if begins:
            slowed.append(d.factor)
        else:
            slowed.remove(d.factor)
        worker.slow = prod(slowed)
        if self.eager:
            self.replan(worker)

    def _on_loss(self, index: int, now: float) -> None:
        if not self.alive[index]:
            return
        worker = self.workers[index]
        lost = worker.lose(now)
        was_open, self.alive[index], self.stays[index].stop_s = self.open[index], False, worker.t
        self.set_open(index, False)
        if self.eager:
            self.replan(worker)
        if self.changes:
            self.changes.lost(index)
        if was_open:  # else they have heard of it when it began to drain
            self.front.tell_all(WorkerLost(index), now)
        if worker.t > now:  # the step in flight is booked: its tokens are out when it ends, and nobody starts before
            self.at(worker.t, ARRIVAL, self._requeue, lost)
            lost = []
        self._requeue(lost + self.hand_off.lose(index, now), now)
        if self.front.held:
            self.front.retry_held(now)

    def _requeue(self, lost: list[Sequence], now: float) -> None:
        for sequence in sorted(lost, key=lambda s: s.number):
            self.front.requeue(sequence, now)


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
