"""A worker in fast-forward: whole runs of decode steps in closed form, one step at a time only in prefill.

Between events the decoding requests of a worker do not change, so that step k of such a run takes
`first + k * growth` seconds and n steps take `n * first + growth * n (n-1) / 2`. The rules of a
step are those of `helpers.scheduling.scheduler`; `stepwise.StepWorker` runs that scheduler itself,
and a property test holds the two to the same timelines.

Growing decodes take blocks at known iterations. The blocks of growth have no content that anyone
can share, so they are counted in a bag (`_loose`) instead of being assigned one by one.
"""

from bisect import insort
from heapq import heapify, heappop, heappush
from math import sqrt

from helpers.metrics.timeline import StepLog
from helpers.scheduling.blocks import BlockPool, blocks_for
from helpers.scheduling.sequence import Sequence
from helpers.simulator.spec import WorkerSpec

PREFILLED, FINISHED, STORED, EVICTED = range(4)


def queue_key(sequence: Sequence) -> tuple[int, int]:
    """The order of a waiting queue: priority, then arrival."""
    return sequence.priority, sequence.number


def further_token(sequence: Sequence, index: int, log: StepLog) -> None:
    """Book the token that ends a recomputation: not a first token, but not put out by a decode either."""
    last = len(log) - 1
    log.decoding[last] += 1
    sequence.spans.append((index, last, last))


class FastWorker:
    """One worker. `t` is the time at which its next step can start; steps that start before `now`
    are booked when the worker is brought to `now`, although they end later.

    `outbox` collects (time, kind, what) for the cluster when `tell` is set, cache events only when
    `tell_cache` is set too; `done` receives each sequence that has finished.
    """

    def __init__(self, index: int, spec: WorkerSpec, done: list, tell: bool = False, tell_cache: bool = False) -> None:
        limits = spec.limits
        self.index, self.spec, self.done = index, spec, done
        self.tell, self.tell_cache = tell, tell_cache
        self.t = 0.0
        self.slow = 1.0
        self.log = StepLog()
        self.outbox: list[tuple] = []
        self.pool = BlockPool(limits.kv_blocks)
        self.waiting: list[Sequence] = []
        self.reserved: list[Sequence] = []
        self.waiting_tokens = 0
        self._hand_off = spec.role == "prefill"
        self._step_s = spec.cost.step
        self._rates: dict[int, tuple[float, float]] = {}
        self._budget, self._max_batch = limits.token_budget, limits.max_batch
        self._block_tokens, self._reserve_blocks = limits.block_tokens, limits.reserve_blocks
        self._it = 0  # steps so far; decoding sequences are filed under iterations
        self._kv = 0  # context tokens that the next step's decodes attend to
        self._partial: list[Sequence] = []  # in prefill, in order of admission
        self._ends: list[tuple[int, int, Sequence]] = []  # heap: (iteration after the last token, order, sequence)
        self._grow: list[tuple[int, int, Sequence]] = []  # heap: (iteration that needs one more block, order, sequence)
        self._loose: list[int] = []  # blocks of growth
        self._stuck = False  # the head of the queue does not fit until something changes
        self._admissions = 0

    # -- what a view shows

    @property
    def running(self) -> int:
        """Sequences in prefill or decode."""
        return len(self._ends) + len(self._partial)

    @property
    def kv_tokens(self) -> int:
        """Tokens of the running sequences whose KV is on the worker."""
        kv = self._kv - len(self._ends)
        for s in self._partial:
            kv += s.computed
        return kv

    # -- what the cluster does to a worker, always at the current time

    def touch(self, now: float) -> None:
        """Book every step that starts before `now`."""
        if self.t < now:
            self.advance(now)
            if self.t < now:
                self.t = now

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence for prefill."""
        self.touch(now)
        waiting = self.waiting
        self.waiting_tokens += sequence.goal - sequence.computed
        if not waiting:
            waiting.append(sequence)
            self._stuck = False
        elif queue_key(waiting[-1]) < queue_key(sequence):
            waiting.append(sequence)
        else:
            insort(waiting, sequence, key=queue_key)
            self._stuck = False

    def reserve(self, sequence: Sequence, now: float) -> bool:
        """Take blocks for a sequence whose KV will arrive; False when there is no room."""
        self.touch(now)
        need = blocks_for(sequence.computed, self._block_tokens)
        if self.running + len(self.reserved) >= self._max_batch or need > self._room():
            return False
        sequence.blocks = self._take(need)
        sequence.published = need
        self.reserved.append(sequence)
        return True

    def join(self, sequence: Sequence, now: float) -> None:
        """The KV of a reserved sequence has arrived."""
        self.touch(now)
        self.reserved.remove(sequence)
        self._admissions += 1
        sequence.order = self._admissions
        self._start_decode(sequence)

    def release(self, blocks: list[int], now: float) -> None:
        """Give back blocks that were kept for a hand-off."""
        self.touch(now)
        self.pool.release(blocks)
        self._stuck = False

    def stall(self, until: float) -> None:
        """Start no step before `until`."""
        self.t = max(self.t, until)

    def lose(self, now: float) -> list[Sequence]:
        """The worker is gone: its unfinished sequences, in order of arrival, with nothing computed."""
        self.touch(now)
        for _, _, s in self._ends:
            self._leave_decode(s)
        decoding = [s for _, _, s in self._ends]
        lost = sorted([*decoding, *self._partial, *self.reserved, *self.waiting], key=lambda s: s.number)
        for s in lost:
            s.restart()
        self._partial, self._ends, self._grow, self._loose = [], [], [], []
        self.waiting, self.reserved, self.waiting_tokens, self._kv = [], [], 0, 0
        self.pool = BlockPool(self.spec.limits.kv_blocks)
        return lost

    # -- time

    def advance(self, until: float) -> None:
        """Book every step that starts before `until`."""
        while self.t < until:
            if self._partial or (self.waiting and not self._stuck):
                self._step()
            elif self._ends:
                n = self._run_length()
                if n:
                    self._run(n, until)
                else:
                    self._step()
            else:
                return

    def wake(self) -> float | None:
        """When the next step starts that could tell the cluster something; None when idle.

        Never later than that step, possibly earlier.
        """
        if self._partial or (self.waiting and not self._stuck):
            return self.t
        if self._ends:
            n = self._run_length()
            if n < 2:
                return self.t
            first, growth = self._pace()
            n -= 1
            return self.t + (n * first + growth * (n * (n - 1) // 2))
        return None

    # -- decode runs

    def _pace(self) -> tuple[float, float]:
        """Seconds of the next decode step, and by how much each further one is longer."""
        decodes = len(self._ends)
        rates = self._rates.get(decodes)
        if rates is None:
            rates = self._rates[decodes] = self.spec.cost.decode(decodes)
        base, slope = rates
        return (base + slope * self._kv) * self.slow, slope * decodes * self.slow

    def _run_length(self) -> int:
        """Steps until a sequence ends or a block may be missing; 0 when that is the next step."""
        n = self._ends[0][0] - self._it
        grow = self._grow
        if grow and grow[0][0] < self._it + n:
            free = self.pool.fresh if self.tell_cache else self.pool.available
            if len(grow) * (n // self._block_tokens + 1) > free:
                return grow[0][0] - self._it
        return n

    def _run(self, n: int, until: float) -> None:
        first, growth = self._pace()
        t = self.t
        end = t + (n * first + growth * (n * (n - 1) // 2))
        if end > until:
            n, end = _steps_before(until, t, first, growth, n)
        decodes = len(self._ends)
        self.log.append(t, n, first, growth, decodes, 0)
        self.t = end
        self._it += n
        self._kv += n * decodes
        if self._grow and self._grow[0][0] < self._it:
            self._grow_by_count()
        if self._ends[0][0] <= self._it:
            self._end_decodes()

    def _grow_by_count(self) -> None:
        """Take the blocks of all growth before the current iteration; the caller knows that they are there."""
        grow, it, block_tokens, count = self._grow, self._it, self._block_tokens, 0
        while grow and grow[0][0] < it:
            at, order, sequence = heappop(grow)
            count += 1
            at += block_tokens
            if at < sequence.finish_it:
                heappush(grow, (at, order, sequence))
        self._loose += self._take(count)

    def _end_decodes(self) -> None:
        ends, it = self._ends, self._it
        while ends and ends[0][0] <= it:
            sequence = heappop(ends)[2]
            self._leave_decode(sequence)
            self._finish(sequence)

    # -- single steps

    def _step(self) -> None:
        """One step by the rules of the scheduler; nothing at all when nothing can run."""
        preempted = bool(self._grow) and self._grow[0][0] <= self._it and self._grow_or_preempt()
        decodes = len(self._ends)
        budget = self._budget - decodes
        chunks, work = [], []
        for sequence in self._partial:
            if budget <= 0:
                break
            n = min(sequence.goal - sequence.computed, budget)
            chunks.append((n, sequence.computed))
            work.append((sequence, n))
            budget -= n
        if self.waiting and not preempted and budget > 0:
            self._admit(budget, chunks, work)
        if not chunks:
            self._stuck = not preempted
            if not decodes:
                return
        if chunks:
            seconds = self._step_s(chunks, decodes, self._kv) * self.slow
        else:
            seconds = self._pace()[0]
        self.log.append(self.t, 1, seconds, 0.0, decodes, sum(n for n, _ in chunks))
        self.t += seconds
        self._it += 1
        self._kv += decodes
        if work:
            self._book_chunks(work)
        if decodes and self._ends[0][0] <= self._it:
            self._end_decodes()

    def _room(self) -> int:
        """Blocks that admission may use."""
        if self._ends or self._partial or self.reserved:
            return self.pool.available - self._reserve_blocks
        return self.pool.available

    def _admit(self, budget: int, chunks: list, work: list) -> None:
        waiting, pool, block_tokens = self.waiting, self.pool, self._block_tokens
        while waiting and budget > 0 and self.running + len(self.reserved) < self._max_batch:
            sequence = waiting[0]
            hashes, hit, need = sequence.hashes, 0, blocks_for(sequence.goal, block_tokens)
            if hashes:
                hit = pool.cached(hashes, sequence.matchable(block_tokens))
                need -= hit
            if need + (pool.idle_among(hashes, hit) if hit else 0) > self._room():
                break
            del waiting[0]
            self.waiting_tokens += sequence.computed - sequence.goal
            self._start_prefill(sequence, hit, need)
            left = sequence.goal - sequence.computed
            self.waiting_tokens += left
            n = left if left < budget else budget
            chunks.append((n, sequence.computed))
            work.append((sequence, n))
            budget -= n

    def _start_prefill(self, sequence: Sequence, hit: int, need: int) -> None:
        block_tokens = self._block_tokens
        shared = self.pool.share(sequence.hashes, hit) if hit else []
        sequence.blocks = shared + self._take(need)
        have = hit
        if sequence.imported:
            have = max(hit, min(sequence.imported // block_tokens, sequence.matchable(block_tokens)))
        sequence.published = hit
        sequence.computed = have * block_tokens
        if not sequence.first_admitted:
            sequence.first_admitted = True
            sequence.cached_tokens = hit * block_tokens
            sequence.fetched_tokens = (have - hit) * block_tokens
        if sequence.prefill_start_s is None:
            sequence.prefill_start_s = self.t
        self._admissions += 1
        sequence.order = self._admissions
        self._partial.append(sequence)

    def _book_chunks(self, work: list[tuple[Sequence, int]]) -> None:
        """Book the prefill chunks of a step that has run."""
        stored, prefilled = [], []
        for sequence, n in work:
            sequence.computed += n
            sequence.prefilled_tokens += n
            self.waiting_tokens -= n
            if sequence.hashes:
                stored += self._publish(sequence)
            if sequence.computed == sequence.goal:
                prefilled.append(sequence)
        if stored:
            self._stuck = False  # the head of the queue may share these blocks now
            if self.tell_cache:
                self.outbox.append((self.t, STORED, tuple(stored)))
        for sequence in prefilled:
            sequence.generated += 1
            if sequence.first_token_s is None:
                sequence.first_token_s = self.t
            else:
                further_token(sequence, self.index, self.log)
            if self.tell:
                self.outbox.append((self.t, PREFILLED, sequence))
        for sequence in prefilled:
            self._partial.remove(sequence)
            if sequence.generated == sequence.output:
                self._finish(sequence)
            elif self._hand_off:
                self._stuck = False  # a place in the batch is free
            else:
                self._start_decode(sequence)

    def _publish(self, sequence: Sequence) -> list[int]:
        block_tokens, start = self._block_tokens, sequence.published
        upto = min(sequence.computed // block_tokens, sequence.full_hashes(block_tokens))
        if upto <= start:
            return []
        sequence.published = upto
        return self.pool.publish(sequence.blocks[start:upto], sequence.hashes[start:upto])

    # -- a sequence's way through decode

    def _start_decode(self, sequence: Sequence) -> None:
        it = self._it
        sequence.row = len(self.log)
        sequence.finish_it = end = it + sequence.output - sequence.generated
        heappush(self._ends, (end, sequence.order, sequence))
        self._kv += sequence.computed + 1
        at = it + len(sequence.blocks) * self._block_tokens - sequence.computed
        if at < end:
            heappush(self._grow, (at, sequence.order, sequence))

    def _leave_decode(self, sequence: Sequence) -> None:
        """Note what the sequence has, and give back its context (not its blocks)."""
        generated = sequence.output - (sequence.finish_it - self._it)
        sequence.computed += generated - sequence.generated
        sequence.generated = generated
        self._kv -= sequence.computed + 1
        last = len(self.log) - 1
        if sequence.row <= last:
            sequence.spans.append((self.index, sequence.row, last))

    def _finish(self, sequence: Sequence) -> None:
        self._release(sequence, blocks_for(sequence.computed, self._block_tokens))
        sequence.blocks = []
        sequence.finished_s = self.t
        sequence.status = "finished"
        self._stuck = False
        self.done.append(sequence)
        if self.tell:
            self.outbox.append((self.t, FINISHED, sequence))

    # -- blocks

    def _take(self, count: int) -> list[int]:
        ids = self.pool.take(count)
        if self.pool.evicted:
            if self.tell_cache:
                self.outbox.append((self.t, EVICTED, tuple(self.pool.evicted)))
            self.pool.evicted.clear()
        return ids

    def _release(self, sequence: Sequence, held: int) -> None:
        """Give back the `held` blocks of a sequence, growth first."""
        growth = held - len(sequence.blocks)
        if growth > 0:
            self.pool.release(self._loose[-growth:])
            del self._loose[-growth:]
        self.pool.release(sequence.blocks)

    def _grow_or_preempt(self) -> bool:
        """The growth of this one step, sequence by sequence; True when something was preempted."""
        grow, needers = self._grow, []
        while grow and grow[0][0] <= self._it:
            needers.append(heappop(grow))
        needers.sort(key=lambda entry: entry[1])
        granted: set[int] = set()
        out: set[int] = set()
        for at, order, sequence in needers:
            if sequence.number not in out and self._find_block(sequence, granted, out):
                self._loose += self._take(1)
                granted.add(sequence.number)
                if at + self._block_tokens < sequence.finish_it:
                    heappush(grow, (at + self._block_tokens, order, sequence))
        if out:
            self._grow = [entry for entry in self._grow if entry[2].number not in out]
            heapify(self._grow)
        return bool(out)

    def _find_block(self, sequence: Sequence, granted: set[int], out: set[int]) -> bool:
        """Preempt until a block is free; False when `sequence` itself had to go."""
        while not self.pool.available:
            decoding = [s for _, _, s in self._ends]
            victim = max([*decoding, *self._partial], key=lambda s: (s.priority, s.order))
            self._preempt(victim, victim.number in granted)
            out.add(victim.number)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence, granted: bool) -> None:
        held = len(victim.blocks)
        if victim in self._partial:
            self._partial.remove(victim)
            self.waiting_tokens += victim.computed - victim.goal
        else:
            self._leave_decode(victim)
            held = max(held, blocks_for(victim.computed + granted, self._block_tokens))
            self._ends = [entry for entry in self._ends if entry[2] is not victim]
            heapify(self._ends)
        self._release(victim, held)
        victim.restart()
        victim.preemptions += 1
        self.waiting_tokens += victim.goal
        insort(self.waiting, victim, key=queue_key)
        self._stuck = False


def _steps_before(until: float, t: float, first: float, growth: float, most: int) -> tuple[int, float]:
    """The fewest steps (at most `most`) whose end is not before `until`, and that end.

    The square root guesses; the sum that books the steps decides.
    """
    if growth > 0:
        b = first - growth / 2
        n = int((sqrt(b * b + 2 * growth * (until - t)) - b) / growth)
    else:
        n = int((until - t) / first)
    n = min(max(n, 1), most)
    end = t + (n * first + growth * (n * (n - 1) // 2))
    while end < until and n < most:
        n += 1
        end = t + (n * first + growth * (n * (n - 1) // 2))
    while n > 1:
        before = t + ((n - 1) * first + growth * ((n - 1) * (n - 2) // 2))
        if before < until:
            break
        n, end = n - 1, before
    return n, end
