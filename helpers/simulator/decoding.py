"""The decoding half of a fast worker: whole runs of decode steps in closed form.

Between events the decoding sequences of a worker do not change, so that step k of such a run takes
`first + k * growth` seconds and n steps take `n * first + growth * n (n-1) / 2`. A sequence takes a
block as it grows at iterations that are known when its decode starts.
"""

from bisect import insort
from heapq import heapify, heappop, heappush, heapreplace
from math import sqrt

from helpers.cost.warm import Recent, WarmCost
from helpers.metrics.timeline import Span, StepLog
from helpers.scheduling.blocks import blocks_for
from helpers.scheduling.scheduler import queue_key, victim_key
from helpers.scheduling.sequence import Sequence
from helpers.simulator.memory import BlockCount
from helpers.simulator.spec import WorkerSpec

new_tuple = tuple.__new__  # half the time of a named tuple's own constructor
PREFILLED, FINISHED, STORED, EVICTED = range(4)


class DecodeRuns:
    """The state of a worker, and how its decoding sequences advance, grow, end and are preempted.

    `t` is the time at which the next step can start. Decoding sequences are filed in `_ends` under
    the iteration after their last token, and in `_grow` under the iteration that needs one more
    block of theirs. `outbox` collects (time, kind, what) for the cluster when `tell` is set, cache
    events only when `tell_cache` is set too; `done` receives each sequence that has finished.
    """

    __slots__ = (
        "_admissions",
        "_block_tokens",
        "_budget",
        "_ends",
        "_grow",
        "_hand_off",
        "_it",
        "_kv",
        "_max_batch",
        "_partial",
        "_rates",
        "_recent",
        "_reserve_blocks",
        "_row",
        "_rows",
        "_step_s",
        "_stuck",
        "_tight",
        "_warms",
        "done",
        "index",
        "log",
        "outbox",
        "pool",
        "reserved",
        "slow",
        "spec",
        "t",
        "tell",
        "tell_cache",
        "waiting",
        "waiting_tokens",
    )

    def __init__(self, index: int, spec: WorkerSpec, done: list, tell: bool = False, tell_cache: bool = False) -> None:
        limits = spec.limits
        self.index, self.spec, self.done = index, spec, done
        self.tell, self.tell_cache = tell, tell_cache
        self.t = 0.0
        self.slow = 1.0
        self.log = StepLog()
        self._rows = self.log.pending
        self._row = 0  # rows so far
        self.outbox: list[tuple] = []
        self.pool = BlockCount(limits.kv_blocks)
        self.waiting: list[Sequence] = []
        self.reserved: list[Sequence] = []
        self.waiting_tokens = 0
        self._hand_off = spec.role == "prefill"
        self._step_s = spec.cost.step
        self._warms = isinstance(spec.cost, WarmCost)
        self._recent = Recent()  # prompt tokens; only a cost that warms asks for them
        self._rates: dict[int, tuple[float, float]] = {}
        self._budget, self._max_batch = limits.token_budget, limits.max_batch
        self._block_tokens, self._reserve_blocks = limits.block_tokens, limits.reserve_blocks
        self._it = 0  # steps so far
        self._kv = 0  # context tokens that the next step's decodes attend to
        self._partial: list[Sequence] = []  # in prefill, in order of admission
        self._ends: list[tuple[int, int, Sequence]] = []  # heap of (iteration, order, sequence)
        self._grow: list[tuple[int, int, Sequence]] = []  # heap of (iteration, order, sequence)
        self._stuck = False  # the head of the queue does not fit until something changes
        self._tight = False  # growth must be booked as it happens
        self._admissions = 0

    @property
    def sequences(self) -> list[Sequence]:
        """Everything that is on the worker and has not finished."""
        return [*self.waiting, *self.reserved, *self._partial, *(s for _, _, s in self._ends)]

    def fork(self) -> "DecodeRuns":
        """A worker in the same state, with sequences and blocks of its own: what is done to it stays there.

        Its log is empty, and it tells nobody anything.
        """
        twin = object.__new__(type(self))
        for name in DecodeRuns.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.tell = twin.tell_cache = False
        twin.outbox, twin.done, twin.log, twin.pool = [], [], StepLog(), self.pool.copy()
        twin._rows = twin.log.pending
        twins: dict[int, Sequence] = {}

        def own(sequence: Sequence) -> Sequence:
            if sequence.number not in twins:
                twins[sequence.number] = sequence.copy()
            return twins[sequence.number]

        for name in ("waiting", "reserved", "_partial"):
            setattr(twin, name, [own(s) for s in getattr(self, name)])
        for name in ("_ends", "_grow"):
            setattr(twin, name, [(at, order, own(s)) for at, order, s in getattr(self, name)])
        return twin

    # -- runs

    def _pace(self) -> tuple[float, float]:
        """Seconds of the next decode step, and by how much each further one is longer."""
        decodes = len(self._ends)
        try:
            base, slope = self._rates[decodes]
        except KeyError:
            base, slope = self._rates[decodes] = self.spec.cost.decode(decodes)
        return (base + slope * self._kv) * self.slow, slope * decodes * self.slow

    def _run_length(self) -> int:
        """Steps until a sequence ends or a block may be missing; 0 when that is the next step.

        While fresh blocks abound, growth is not booked as it happens but when the next prefill looks
        at the blocks: where nothing is evicted the order does not matter. `_tight` says that it does.
        """
        it, grow = self._it, self._grow
        n = self._ends[0][0] - it
        self._tight = False
        if grow:
            reach = it + n - grow[0][0]
            if reach > 0 and len(grow) * (reach // self._block_tokens + 1) > self.pool.fresh:
                self.settle()
                self._tight = True
                free = self.pool.fresh if self.tell_cache else self.pool.available
                if grow and grow[0][0] < it + n and len(grow) * (n // self._block_tokens + 1) > free:
                    return grow[0][0] - it
        return n

    def _run(self, n: int, until: float) -> None:
        """Book `n` decode steps, or only those that start before `until`."""
        first, growth = self._pace()
        t = self.t
        end = t + (n * first + growth * (n * (n - 1) // 2))
        if end > until:
            n, end = steps_before(until, t, first, growth, n)
        ends = self._ends
        decodes = len(ends)
        self._rows.append((t, n, first, growth, decodes, 0))
        self._row += 1
        self.t = end
        self._it = it = self._it + n
        self._kv += n * decodes
        if self._tight:
            self.settle()
        if ends[0][0] <= it:
            self._end_decodes()

    def settle(self) -> None:
        """Book the blocks of all growth so far."""
        if self._grow and self._grow[0][0] < self._it:
            self._grow_by_count(self._it)

    def _grow_by_count(self, it: int) -> None:
        """Take the blocks of all growth before iteration `it`; the caller saw that they are there."""
        grow, block_tokens, count = self._grow, self._block_tokens, 0
        while grow and grow[0][0] < it:
            at, order, sequence = grow[0]
            at += block_tokens
            if at < sequence.finish_it:
                heapreplace(grow, (at, order, sequence))
            else:
                heappop(grow)
            count += 1
        if count <= self.pool.fresh:
            self.pool.fresh -= count
        else:
            self._take(count)

    def _end_decodes(self) -> None:
        """Let the sequences go whose last token is out."""
        ends, it, last = self._ends, self._it, self._row - 1
        while ends and ends[0][0] <= it:
            sequence = heappop(ends)[2]
            output = sequence.generated = sequence.output
            context = sequence.prompt + output
            self._kv -= context
            sequence.computed = context - 1
            sequence.spans += (new_tuple(Span, (self.index, sequence.row, last)),)
            self._finish(sequence)

    # -- a sequence's way through decode

    def _start_decode(self, sequence: Sequence) -> None:
        it, computed, order = self._it, sequence.computed, sequence.order
        sequence.row = self._row
        sequence.finish_it = end = it + sequence.output - sequence.generated
        heappush(self._ends, (end, order, sequence))
        self._kv += computed + 1
        at = it + sequence.held * self._block_tokens - computed
        if at < end:
            heappush(self._grow, (at, order, sequence))

    def _leave_decode(self, sequence: Sequence) -> None:
        """Note what the sequence has, and take its context (not its blocks) out of the account."""
        generated = sequence.output - sequence.finish_it + self._it
        sequence.computed += generated - sequence.generated
        sequence.generated = generated
        self._kv -= sequence.computed + 1
        if sequence.row < self._row:
            sequence.spans += (Span(self.index, sequence.row, self._row - 1),)

    def _finish(self, sequence: Sequence) -> None:
        held = -(-sequence.computed // self._block_tokens)
        if sequence.named:
            self.pool.release(held, sequence.named)
        else:
            self.pool.fresh += held
        sequence.finished_s = self.t
        sequence.status = "finished"
        self._stuck = False
        self.done.append(sequence)
        if self.tell:
            self.outbox.append((self.t, FINISHED, sequence))

    # -- blocks

    def _take(self, count: int) -> None:
        pool = self.pool
        pool.take(count)
        if pool.evicted:
            if self.tell_cache:
                self.outbox.append((self.t, EVICTED, tuple(pool.evicted)))
            pool.evicted.clear()

    def _grow_or_preempt(self) -> bool:
        """The growth of the next step, sequence by sequence; True when something was preempted."""
        grow, needers = self._grow, []
        reach = self._it - grow[0][0]
        if len(grow) * (reach // self._block_tokens + 1) <= self.pool.fresh:
            self._grow_by_count(self._it + 1)
            return False
        self.settle()
        while grow and grow[0][0] <= self._it:
            needers.append(heappop(grow))
        needers.sort(key=lambda entry: entry[1])
        granted: set[int] = set()
        out: set[int] = set()
        for at, order, sequence in needers:
            if sequence.number not in out and self._find_block(sequence, granted, out):
                self._take(1)
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
            victim = max([*decoding, *self._partial], key=victim_key)
            self._preempt(victim, victim.number in granted)
            out.add(victim.number)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence, granted: bool) -> None:
        held = victim.held
        if victim in self._partial:
            self._partial.remove(victim)
            self.waiting_tokens += victim.computed - victim.goal
        else:
            self._leave_decode(victim)
            held = max(held, blocks_for(victim.computed + granted, self._block_tokens))
            self._ends = [entry for entry in self._ends if entry[2] is not victim]
            heapify(self._ends)
        self.pool.release(held, victim.named)
        victim.restart()
        victim.preemptions += 1
        self.waiting_tokens += victim.goal
        insort(self.waiting, victim, key=queue_key)
        self._stuck = False


def steps_before(until: float, t: float, first: float, growth: float, most: int) -> tuple[int, float]:
    """The fewest steps (at most `most`) from `t` whose end is not before `until`, and that end.

    A division guesses, or a square root where steps grow much; the sum that books the steps decides.
    """
    n = int((until - t) / first) + 1
    if growth * n * n > first:
        b = first - growth / 2
        n = int((sqrt(b * b + 2 * growth * (until - t)) - b) / growth) + 1
    if n > most:
        n = most
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
