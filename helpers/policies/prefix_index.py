"""Which worker holds which prompt blocks, asked for all workers at once.

The index is inverted: each block maps to a bit mask of the workers that hold it (bit w stands for
worker w). Walking the chain of a prompt and intersecting the masks sorts a whole fleet by the
length of its match in as many steps as the match has blocks, however many workers there are.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from math import inf


class BlockIndex:
    """Block -> mask of the workers that hold it. A block that no worker holds has no entry."""

    __slots__ = ("masks",)

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}

    def __len__(self) -> int:
        """Distinct blocks held by at least one worker."""
        return len(self.masks)

    def store(self, worker: int, blocks: Iterable[int]) -> None:
        """Note that `worker` holds `blocks`; told twice is the same as told once."""
        masks, bit = self.masks, 1 << worker
        for block in blocks:
            mask = masks.get(block)
            # The first holder's mask is the shared `bit`: no new integer for each block.
            masks[block] = bit if mask is None else mask | bit

    def evict(self, worker: int, blocks: Iterable[int]) -> None:
        """Note that `worker` dropped `blocks`; blocks it was not known to hold are passed over."""
        masks, bit = self.masks, 1 << worker
        for block in blocks:
            mask = masks.get(block, 0)
            if mask == bit:
                del masks[block]
            elif mask & bit:
                masks[block] = mask ^ bit

    def drop(self, worker: int) -> None:
        """Forget everything `worker` holds. Looks at every entry: a worker is rarely lost."""
        bit = 1 << worker
        self.evict(worker, [block for block, mask in self.masks.items() if mask & bit])

    def depth(self, worker: int, blocks: Sequence[int]) -> int:
        """How many of the first `blocks`, without a gap, `worker` holds."""
        masks, bit = self.masks, 1 << worker
        depth = 0
        for block in blocks:
            if not masks.get(block, 0) & bit:
                break
            depth += 1
        return depth

    def groups(self, blocks: Sequence[int], live: int) -> list[tuple[int, int]]:
        """The workers of the mask `live` by the length of their match, as (depth, mask), shallow first.

        Each live worker is in exactly one group; empty groups are left out.
        """
        masks = self.masks
        found = []
        depth = 0
        for block in blocks:
            deeper = live & masks.get(block, 0)
            if deeper != live:
                found.append((depth, live ^ deeper))
                if not deeper:
                    return found
                live = deeper
            depth += 1
        found.append((depth, live))
        return found


class RecentBlocks(BlockIndex):
    """A guess at what each worker's cache holds, made from what was sent there.

    Keeps the blocks of each worker in order of last use, so that the longest unused can be
    forgotten. A prompt's last block counts as used before its first: a chain is forgotten from
    its end, and what is left of it is always a prefix.
    """

    __slots__ = ("_ends", "_held")

    def __init__(self) -> None:
        super().__init__()
        # worker -> block -> when its last use ends, in order of last use
        self._held: dict[int, OrderedDict[int, float]] = {}
        self._ends: deque[tuple[float, int, tuple[int, ...]]] = deque()

    def held(self, worker: int) -> tuple[int, ...]:
        """The blocks `worker` is believed to hold, next to be forgotten first."""
        return tuple(self._held.get(worker, ()))

    def use(self, worker: int, blocks: tuple[int, ...], capacity: int, end_s: float = inf) -> None:
        """A prompt of `blocks` went to `worker`, which keeps at most `capacity` blocks, these until `end_s`.

        Calls must come with non-decreasing `end_s`.
        """
        held = self._held.get(worker)
        if held is None:
            held = self._held[worker] = OrderedDict()
        new = []
        for block in reversed(blocks):
            if block in held:
                held.move_to_end(block)
            else:
                new.append(block)
            held[block] = end_s
        self.store(worker, new)
        over = len(held) - capacity
        if over > 0:
            self.evict(worker, [held.popitem(last=False)[0] for _ in range(over)])
        if end_s != inf:
            self._ends.append((end_s, worker, blocks))

    def expire(self, now: float) -> None:
        """Forget the blocks whose last use ended before `now`."""
        ends = self._ends
        while ends and ends[0][0] < now:
            end_s, worker, blocks = ends.popleft()
            held = self._held.get(worker, {})
            # A block used again since then has a later end and stays.
            old = [block for block in blocks if held.get(block) == end_s]
            for block in old:
                del held[block]
            self.evict(worker, old)

    def drop(self, worker: int) -> None:
        """Forget all of a worker that is gone."""
        self.evict(worker, self._held.pop(worker, ()))
