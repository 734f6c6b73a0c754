"""A worker in fast-forward: decode runs in closed form, one step at a time only in prefill.

The rules of a step are those of `helpers.scheduling.scheduler`; `stepwise.StepWorker` runs that
scheduler itself, and a property test holds the two to the same timelines.
"""

from bisect import insort

from helpers.metrics.timeline import Span
from helpers.scheduling.blocks import blocks_for
from helpers.scheduling.scheduler import queue_key
from helpers.scheduling.sequence import Sequence
from helpers.simulator.decoding import PREFILLED, STORED, DecodeRuns
from helpers.simulator.memory import BlockCount

Work = list[tuple[Sequence, int]]


class FastWorker(DecodeRuns):
    """One worker, as the cluster sees it.

    Steps that start before `now` are booked when the worker is brought to `now`, although they
    end later: what a view shows includes the step in flight.
    """

    __slots__ = ()

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
        if self.t < now:
            self.advance(now)
            if self.t < now:
                self.t = now
        waiting = self.waiting
        self.waiting_tokens += sequence.goal
        if not waiting:
            waiting.append(sequence)
            self._stuck = False
        elif queue_key(waiting[-1]) < queue_key(sequence):
            waiting.append(sequence)
        else:
            insort(waiting, sequence, key=queue_key)
            self._stuck = False

    def has_room(self, sequence: Sequence, now: float) -> bool:
        """Whether `reserve` can be called for a sequence whose KV is on another worker."""
        self.touch(now)
        self.settle()
        need = blocks_for(sequence.computed, self._block_tokens)
        return self.running + len(self.reserved) < self._max_batch and need <= self._room()

    def reserve(self, sequence: Sequence, now: float) -> None:
        """Take blocks for a sequence whose KV will arrive."""
        need = blocks_for(sequence.computed, self._block_tokens)
        self._take(need)
        sequence.held, sequence.published = need, need
        self.reserved.append(sequence)

    def join(self, sequence: Sequence, now: float) -> None:
        """The KV of a reserved sequence has arrived."""
        self.touch(now)
        self.reserved.remove(sequence)
        self._admissions += 1
        sequence.order = self._admissions
        self._start_decode(sequence)

    def keep(self, sequence: Sequence) -> tuple[int, list[int]]:
        """The blocks of a sequence that leaves for another worker, to be given back with `release`."""
        kept = sequence.held, sequence.named
        sequence.held, sequence.named = 0, ()
        return kept

    def release(self, kept: tuple[int, list[int]], now: float) -> None:
        """Give back blocks that were kept for a hand-off."""
        self.touch(now)
        self.pool.release(*kept)
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
        self._partial, self._ends, self._grow = [], [], []
        self.waiting, self.reserved, self.waiting_tokens, self._kv = [], [], 0, 0
        self.pool = BlockCount(self.spec.limits.kv_blocks)
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
        if not self._ends:
            return None
        n = self._run_length() - 1
        if n < 1:
            return self.t
        first, growth = self._pace()
        return self.t + (n * first + growth * (n * (n - 1) // 2))

    # -- single steps

    def _step(self) -> None:
        """One step by the rules of the scheduler; nothing at all when nothing can run."""
        preempted = bool(self._grow) and self._grow[0][0] <= self._it and self._grow_or_preempt()
        ends = self._ends
        decodes = len(ends)
        budget = self._budget - decodes
        work: Work = []
        for sequence in self._partial:
            n = sequence.goal - sequence.computed
            if n > budget:
                n = budget
            if n:
                work.append((sequence, n))
                budget -= n
        if self.waiting and not preempted and budget > 0:
            budget = self._admit(budget, work)
        if work:
            chunks = [(n, sequence.computed) for sequence, n in work]
            seconds = self._step_s(chunks, decodes, self._kv)
            if self._warms:
                seconds += self.spec.cost.warm_s(chunks, self._recent.left(self.t))
            seconds *= self.slow
        else:
            self._stuck = not preempted
            if not decodes:
                return
            seconds = self._pace()[0]
        self._rows.append((self.t, 1, seconds, 0.0, decodes, self._budget - decodes - budget))
        self._row += 1
        self.t += seconds
        self._it += 1
        self._kv += decodes
        if work:
            if self._warms:
                self._recent = self._recent.after(sum(n for _, n in work), self.t)
            self._book_chunks(work)
        if decodes and ends[0][0] <= self._it:
            self._end_decodes()

    def _room(self) -> int:
        """Blocks that admission may use."""
        if self._ends or self._partial or self.reserved:
            return self.pool.available - self._reserve_blocks
        return self.pool.available

    def _admit(self, budget: int, work: Work) -> int:
        """Start sequences from the head of the queue; returns the budget that is left."""
        waiting, pool, block_tokens = self.waiting, self.pool, self._block_tokens
        while waiting and budget > 0 and len(self._ends) + len(self._partial) + len(self.reserved) < self._max_batch:
            sequence = waiting[0]
            hashes, hit, need = sequence.hashes, 0, -(-sequence.goal // block_tokens)
            if hashes:
                hit = pool.cached(hashes, sequence.matchable(block_tokens))
                need -= hit
            # The first comparison alone says that there is room; only when it fails is a closer look needed.
            if need > pool.fresh - self._reserve_blocks and need + pool.idle_among(hashes, hit) > self._room():
                break
            del waiting[0]
            self._start_prefill(sequence, hit, need)
            n = sequence.goal - sequence.computed
            if n > budget:
                n = budget
            work.append((sequence, n))
            budget -= n
        return budget

    def _start_prefill(self, sequence: Sequence, hit: int, need: int) -> None:
        block_tokens = self._block_tokens
        have = hit
        if sequence.hashes:
            sequence.full = sequence.full_hashes(block_tokens)
            sequence.named = list(sequence.hashes[:hit])
            self.pool.share(sequence.named)
            if sequence.imported:
                have = max(hit, min(sequence.imported // block_tokens, sequence.matchable(block_tokens)))
        if need <= self.pool.fresh:
            self.pool.fresh -= need
        else:
            self._take(need)
        sequence.held = hit + need
        sequence.published = hit
        sequence.computed = have * block_tokens
        self.waiting_tokens -= sequence.computed
        if not sequence.first_admitted:
            sequence.first_admitted = True
            sequence.cached_tokens = hit * block_tokens
            sequence.fetched_tokens = (have - hit) * block_tokens
            sequence.prefill_start_s = self.t
        self._admissions += 1
        sequence.order = self._admissions
        self._partial.append(sequence)

    def _book_chunks(self, work: Work) -> None:
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
        if self.tell and prefilled:
            self.outbox += [(self.t, PREFILLED, sequence) for sequence in prefilled]
        for sequence in prefilled:
            sequence.generated += 1
            if sequence.first_token_s is None:
                sequence.first_token_s = self.t
            else:
                self._further_token(sequence)
            self._partial.remove(sequence)
            if sequence.generated == sequence.output:
                self._finish(sequence)
            elif self._hand_off:
                self._stuck = False  # a place in the batch is free
            else:
                self._start_decode(sequence)

    def _further_token(self, sequence: Sequence) -> None:
        """Book the token that ends a recomputation: not a first token, but not put out by a decode either."""
        start, steps, base, growth, decoding, prefilled = self._rows[-1]
        self._rows[-1] = (start, steps, base, growth, decoding + 1, prefilled)
        sequence.spans += (Span(self.index, self._row - 1, self._row - 1),)

    def _publish(self, sequence: Sequence) -> list[int]:
        block_tokens, start = self._block_tokens, sequence.published
        upto = sequence.computed // block_tokens
        if upto > sequence.full:
            upto = sequence.full
        if upto <= start:
            return []
        sequence.published = upto
        new = self.pool.publish(sequence.hashes[start:upto])
        sequence.named += new
        return new
