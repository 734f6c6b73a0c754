"""A worker that runs the scheduler step by step: the slow reference for `worker.FastWorker`."""

from helpers.cost.warm import Recent, WarmCost
from helpers.metrics.timeline import Span, StepLog
from helpers.scheduling.scheduler import Scheduler, Step
from helpers.scheduling.sequence import Sequence
from helpers.simulator.decoding import EVICTED, FINISHED, PREFILLED, STORED
from helpers.simulator.spec import WorkerSpec


class StepWorker:
    """The interface of `FastWorker` over `helpers.scheduling`, one step at a time."""

    def __init__(self, index: int, spec: WorkerSpec, done: list, tell: bool = False, tell_cache: bool = False) -> None:
        self.index, self.spec, self.done = index, spec, done
        self.tell, self.tell_cache = tell, tell_cache
        self.t = 0.0
        self.slow = 1.0
        self.log = StepLog()
        self.outbox: list[tuple] = []
        self.scheduler = Scheduler(spec.limits, hand_off=spec.role == "prefill")
        self._recent = Recent()
        self._blocked = False  # nothing could run at the last look, and nothing has changed since

    @property
    def pool(self):
        """The KV blocks."""
        return self.scheduler.pool

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> list[Sequence]:
        return self.scheduler.waiting

    @property
    def reserved(self) -> list[Sequence]:
        return self.scheduler.reserved

    @property
    def waiting_tokens(self) -> int:
        return self.scheduler.waiting_tokens()

    @property
    def kv_tokens(self) -> int:
        return sum(s.computed for s in self.scheduler.running)

    def touch(self, now: float) -> None:
        self.advance(now)
        if self.t < now:
            self.t = now
        self._blocked = False

    def submit(self, sequence: Sequence, now: float) -> None:
        self.touch(now)
        self.scheduler.add(sequence)

    def has_room(self, sequence: Sequence, now: float) -> bool:
        self.touch(now)
        return self.scheduler.has_room(sequence)

    def reserve(self, sequence: Sequence, now: float) -> None:
        self.scheduler.reserve(sequence)
        self._tell_evictions()

    def join(self, sequence: Sequence, now: float) -> None:
        self.touch(now)
        sequence.row = len(self.log)
        self.scheduler.join(sequence)

    def keep(self, sequence: Sequence) -> list[int]:
        kept, sequence.blocks = sequence.blocks, []
        return kept

    def release(self, kept: list[int], now: float) -> None:
        self.touch(now)
        self.scheduler.release(kept)

    def stall(self, until: float) -> None:
        self.t = max(self.t, until)

    def lose(self, now: float) -> list[Sequence]:
        self.touch(now)
        for s in self.scheduler.running:
            if s.generated and s.computed >= s.goal:
                self._close_span(s)
        lost = self.scheduler.drain()
        for s in lost:
            s.restart()
            s.row = -1
        return lost

    def advance(self, until: float) -> None:
        while self.t < until and not self._blocked and (self.scheduler.running or self.scheduler.waiting):
            self._step()

    def wake(self) -> float | None:
        busy = self.scheduler.running or self.scheduler.waiting
        return self.t if busy and not self._blocked else None

    def _step(self) -> None:
        """Run the next step."""
        step = self.scheduler.schedule()
        for sequence in step.preempted:
            if sequence.row >= 0:
                self._close_span(sequence)
        self._tell_evictions()
        if not step:
            self._blocked = not step.preempted
            return
        for sequence, _ in step.chunks:
            if sequence.prefill_start_s is None:
                sequence.prefill_start_s = self.t
        chunks = [(n, sequence.computed) for sequence, n in step.chunks]
        cost, tokens = self.spec.cost, sum(n for n, _ in chunks)
        seconds = cost.step(chunks, len(step.decode), step.kv_tokens())
        warms = tokens and isinstance(cost, WarmCost)
        if warms:
            seconds += cost.warm_s(chunks, self._recent.left(self.t))
        seconds *= self.slow
        self.log.append(self.t, 1, seconds, 0.0, len(step.decode), tokens)
        self.t += seconds
        if warms:
            self._recent = self._recent.after(tokens, self.t)
        self._commit(step)

    def _commit(self, step: Step) -> None:
        committed = self.scheduler.commit(step)
        if self.tell_cache and committed.stored:
            self.outbox.append((self.t, STORED, tuple(committed.stored)))
        for s in committed.prefilled:
            if s.first_token_s is None:
                s.first_token_s = self.t
            else:
                last = len(self.log) - 1
                self.log.decoding[last] += 1
                s.spans += (Span(self.index, last, last),)
            s.row = len(self.log)
            if self.tell:
                self.outbox.append((self.t, PREFILLED, s))
        for s in committed.finished:
            s.finished_s, s.status = self.t, "finished"
            self._close_span(s)
            self.done.append(s)
            if self.tell:
                self.outbox.append((self.t, FINISHED, s))

    def settle(self) -> None:
        """Everything is always booked."""

    def _close_span(self, sequence: Sequence) -> None:
        last = len(self.log) - 1
        if sequence.row <= last:
            sequence.spans += (Span(self.index, sequence.row, last),)
        sequence.row = -1

    def _tell_evictions(self) -> None:
        evicted = self.scheduler.pool.evicted
        if evicted and self.tell_cache:
            self.outbox.append((self.t, EVICTED, tuple(evicted)))
        evicted.clear()
