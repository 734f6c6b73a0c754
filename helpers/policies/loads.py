"""The load of each worker as a router counts it, with the least loaded of any group found fast."""

from collections import deque

from helpers.policies.view import Decision


def bits(mask: int) -> list[int]:
    """The workers of a bit mask (bit w stands for worker w), ascending."""
    workers = []
    while mask:
        low = mask & -mask
        workers.append(low.bit_length() - 1)
        mask ^= low
    return workers


class WorkerLoads:
    """Non-negative integer loads of workers, bit-sliced.

    `_clear[j]` is the mask of the workers whose load has bit j clear. The least loaded worker of
    a group is found from the highest bit down: as long as some of the group have the bit clear,
    only those remain. That takes one `&` a bit whatever the size of the group, so a thousand
    workers cost as little as ten, and no order has to be kept. `load[w]` is worker w's load.
    """

    __slots__ = ("_bit", "_clear", "load")

    def __init__(self, workers: int = 0) -> None:
        self.load: list[int] = []
        self._bit: list[int] = []
        self._clear: list[int] = []
        self.grow(workers)

    def grow(self, workers: int) -> None:
        """Make room for the workers 0 … workers-1; new ones have load 0."""
        for worker in range(len(self.load), workers):
            self.load.append(0)
            self._bit.append(1 << worker)
            for j in range(len(self._clear)):
                self._clear[j] |= 1 << worker

    def add(self, worker: int, amount: int) -> None:
        """Change a worker's load by `amount`; raises `ValueError` when it would fall below zero."""
        before = self.load[worker]
        after = before + amount
        if after < 0:
            raise ValueError(f"the load of worker {worker} would be {after}")
        self.load[worker] = after
        clear, bit = self._clear, self._bit[worker]
        while after >> len(clear):
            clear.append((1 << len(self.load)) - 1)
        changed = before ^ after
        while changed:
            j = changed.bit_length() - 1
            clear[j] ^= bit
            changed ^= 1 << j

    def least(self, mask: int) -> int:
        """The least loaded worker of `mask` (not empty); the lowest id among equals."""
        for clear in reversed(self._clear):
            lower = mask & clear
            if lower:
                mask = lower
        return (mask & -mask).bit_length() - 1


class OwnLoad(WorkerLoads):
    """The load of each worker in tokens, from a router's own dispatches; no view is read.

    A request counts with the prompt tokens expected to be computed until its first token is out,
    then with its running load on its decode worker until it finishes. Apart from that, each of
    the most recent dispatches counts for as long as it is recent.
    """

    __slots__ = ("_placed", "_recent")

    def __init__(self) -> None:
        super().__init__()
        # request id -> (worker, tokens counted there, decode worker)
        self._placed: dict[int, tuple[int, int, int]] = {}
        self._recent: deque[tuple[int, int]] = deque()

    @property
    def requests(self) -> int:
        """Requests dispatched and not finished."""
        return len(self._placed)

    def dispatched(self, request: int, decision: Decision, tokens: int) -> None:
        """A request left with `tokens` prompt tokens to compute; a second dispatch replaces the first."""
        self.finished(request)
        self._place(request, decision.prefill, tokens, decision.decode)

    def first_token(self, request: int, tokens: int) -> None:
        """The prefill of a request is done; from now on it counts `tokens` on its decode worker."""
        decode = self.finished(request)
        if decode is not None:
            self._place(request, decode, tokens, decode)

    def finished(self, request: int) -> int | None:
        """A request counts no more; returns its decode worker, None for a request not known."""
        placed = self._placed.pop(request, None)
        if placed is None:
            return None
        self.add(placed[0], -placed[1])
        return placed[2]

    def remember(self, worker: int, tokens: int, keep: int) -> None:
        """Count `tokens` on `worker` for a dispatch, as long as it is among the last `keep` ones."""
        self._recent.append((worker, tokens))
        self.grow(worker + 1)
        self.add(worker, tokens)
        while len(self._recent) > keep:
            old, counted = self._recent.popleft()
            self.add(old, -counted)

    def lost(self, worker: int) -> None:
        """`worker` is gone, and what was counted on it."""
        for request in [request for request, placed in self._placed.items() if placed[0] == worker]:
            self.finished(request)
        self._recent = deque(entry for entry in self._recent if entry[0] != worker)
        self.grow(worker + 1)
        self.add(worker, -self.load[worker])

    def _place(self, request: int, worker: int, tokens: int, decode: int) -> None:
        self._placed[request] = worker, tokens, decode
        self.grow(worker + 1)
        self.add(worker, tokens)
