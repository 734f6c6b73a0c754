"""Continuous batching with chunked prefill in one token budget, preemption by recompute, priorities.

The rules, in the order in which a step applies them:

1. Every decoding sequence gets one token, in order of admission. A block that it needs and that
   nobody can give is taken from the running sequence of lowest priority that was admitted last
   (possibly itself): that one is preempted, goes back to the queue and is recomputed later.
2. Sequences in prefill get chunks from what is left of the budget, in order of admission.
3. Unless something was preempted, waiting sequences are admitted from the head of the queue
   (priority, then arrival) while budget, batch and blocks allow. Admission takes blocks for
   everything to be computed, less what the prefix cache holds; the head is never overtaken.

A driver calls `schedule`, runs the step, and calls `commit`.
"""

from bisect import insort
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from helpers.scheduling.blocks import BlockPool, blocks_for
from helpers.scheduling.limits import Limits
from helpers.scheduling.sequence import Sequence


@dataclass(slots=True)
class Step:
    """What to compute next: `chunks` of (sequence, new tokens) and one token of each of `decode`."""

    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    decode: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.decode)

    def kv_tokens(self) -> int:
        """Context tokens that the decodes attend to, the token being computed included."""
        return sum(s.computed + 1 for s in self.decode)


@dataclass(slots=True)
class Committed:
    """What a step brought: sequences whose prefill ended, sequences that are done, blocks now cached."""

    prefilled: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)


def queue_key(sequence: Sequence) -> tuple[int, int]:
    """The order of a waiting queue: priority, then arrival."""
    return sequence.priority, sequence.number


def victim_key(sequence: Sequence) -> tuple[int, int]:
    """The largest goes first when blocks are missing: the lowest priority, then the latest admission."""
    return sequence.priority, sequence.order


class Scheduler:
    """The queue, the running set and the blocks of one worker.

    With `hand_off` (a prefill-only worker) a sequence leaves the running set when its prefill
    ends, but keeps its blocks until `release` says that they were copied.
    """

    def __init__(self, limits: Limits, hand_off: bool = False) -> None:
        self.limits = limits
        self.hand_off = hand_off
        self.pool = BlockPool(limits.kv_blocks)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []  # in order of admission
        self.reserved: list[Sequence] = []  # blocks taken, KV still on its way from another worker
        self._admissions = 0

    # -- coming and going

    def fits(self, sequence: Sequence) -> bool:
        """Whether the sequence could ever finish here, alone on the worker."""
        return sequence.blocks_at_most(self.limits.block_tokens) <= self.limits.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence for prefill."""
        insort(self.waiting, sequence, key=queue_key)

    def has_room(self, sequence: Sequence) -> bool:
        """Whether `reserve` can be called for a sequence whose KV is on another worker."""
        need = blocks_for(sequence.computed, self.limits.block_tokens)
        return len(self.running) + len(self.reserved) < self.limits.max_batch and need <= self._room()

    def reserve(self, sequence: Sequence) -> None:
        """Take blocks for a sequence whose KV will arrive from another worker."""
        need = blocks_for(sequence.computed, self.limits.block_tokens)
        sequence.blocks = self.pool.take(need)
        sequence.published = need  # private here: only prefills enter the prefix cache
        self.reserved.append(sequence)

    def join(self, sequence: Sequence) -> None:
        """The KV of a reserved sequence has arrived: it decodes from the next step on."""
        self.reserved.remove(sequence)
        self._run(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget a sequence that nobody waits for any more; nothing happens when it has left already.

        Only between steps: a step that was scheduled must be committed first.
        """
        for sequences in (self.running, self.waiting, self.reserved):
            if sequence in sequences:
                sequences.remove(sequence)
                self.pool.release(sequence.blocks)
                sequence.blocks = []

    def release(self, blocks: Seq[int]) -> None:
        """Give back blocks that were kept for a hand-off."""
        self.pool.release(blocks)

    def _run(self, sequence: Sequence) -> None:
        self._admissions += 1
        sequence.order = self._admissions
        self.running.append(sequence)

    def _room(self) -> int:
        """Blocks that admission may use."""
        busy = self.running or self.reserved
        return self.pool.available - (self.limits.reserve_blocks if busy else 0)

    # -- a step

    def schedule(self) -> Step:
        """Decide the next step. Empty when nothing can run."""
        step = Step()
        self._grow_decodes(step)
        budget = self.limits.token_budget - len(step.decode)
        for sequence in self.running:
            if sequence.computed < sequence.goal and budget > 0:
                n = min(sequence.goal - sequence.computed, budget)
                step.chunks.append((sequence, n))
                budget -= n
        if not step.preempted:
            self._admit(step, budget)
        return step

    def _grow_decodes(self, step: Step) -> None:
        block_tokens, pool = self.limits.block_tokens, self.pool
        out = set()
        for sequence in list(self.running):
            if sequence.computed < sequence.goal or sequence.number in out:
                continue
            if sequence.computed >= len(sequence.blocks) * block_tokens:
                while not pool.available:
                    victim = max(self.running, key=victim_key)
                    self._preempt(victim, step)
                    out.add(victim.number)
                    if victim is sequence:
                        break
                if sequence.number in out:
                    continue
                sequence.blocks.extend(pool.take(1))
            step.decode.append(sequence)
        if out:
            step.decode = [s for s in step.decode if s.number not in out]

    def _preempt(self, victim: Sequence, step: Step) -> None:
        self.running.remove(victim)
        self.pool.release(victim.blocks)
        victim.restart()
        victim.preemptions += 1
        step.preempted.append(victim)
        self.add(victim)

    def _admit(self, step: Step, budget: int) -> None:
        limits, pool = self.limits, self.pool
        while self.waiting and budget > 0 and len(self.running) + len(self.reserved) < limits.max_batch:
            sequence = self.waiting[0]
            hit = pool.cached(sequence.hashes, sequence.matchable(limits.block_tokens))
            need = blocks_for(sequence.goal, limits.block_tokens) - hit
            if need + pool.idle_among(sequence.hashes, hit) > self._room():
                break
            del self.waiting[0]
            self._start(sequence, hit, need)
            n = min(sequence.goal - sequence.computed, budget)
            step.chunks.append((sequence, n))
            budget -= n

    def _start(self, sequence: Sequence, hit: int, need: int) -> None:
        block_tokens, pool = self.limits.block_tokens, self.pool
        sequence.blocks = pool.share(sequence.hashes, hit) + pool.take(need)
        imported = min(sequence.imported // block_tokens, sequence.matchable(block_tokens))
        have = max(hit, imported)
        sequence.published = hit
        sequence.computed = have * block_tokens
        if not sequence.first_admitted:
            sequence.first_admitted = True
            sequence.cached_tokens = hit * block_tokens
            sequence.fetched_tokens = (have - hit) * block_tokens
        self._run(sequence)

    def commit(self, step: Step) -> Committed:
        """Book a step that has run: chunks first, then decodes, each in order of admission."""
        done = Committed()
        for sequence, n in step.chunks:
            sequence.computed += n
            sequence.prefilled_tokens += n
            self._publish(sequence, done)
            if sequence.computed == sequence.goal:
                sequence.generated += 1
                done.prefilled.append(sequence)
                if sequence.generated == sequence.output:
                    self._finish(sequence, done)
                elif self.hand_off:
                    self.running.remove(sequence)
        for sequence in step.decode:
            sequence.computed += 1
            sequence.generated += 1
            if sequence.generated == sequence.output:
                self._finish(sequence, done)
        return done

    def _publish(self, sequence: Sequence, done: Committed) -> None:
        block_tokens = self.limits.block_tokens
        upto = min(sequence.computed // block_tokens, sequence.full_hashes(block_tokens))
        if upto > sequence.published:
            part = slice(sequence.published, upto)
            done.stored.extend(self.pool.publish(sequence.blocks[part], sequence.hashes[part]))
            sequence.published = upto

    def _finish(self, sequence: Sequence, done: Committed) -> None:
        self.running.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        done.finished.append(sequence)

    # -- what can be seen from outside

    def waiting_tokens(self) -> int:
        """Tokens that are still to be prefilled, queued or half done."""
        return sum(s.goal - s.computed for s in (*self.waiting, *self.running) if s.computed < s.goal)

    def drain(self) -> list[Sequence]:
        """Forget everything (the worker is lost); returns its sequences in order of arrival."""
        lost = sorted([*self.running, *self.reserved, *self.waiting], key=lambda s: s.number)
        self.running, self.reserved, self.waiting = [], [], []
        self.pool = BlockPool(self.limits.kv_blocks)
        return lost
