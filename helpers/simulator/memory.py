"""The KV blocks of a fast worker, counted: only blocks with shareable content have a name.

The rules are those of `helpers.scheduling.blocks.BlockPool`. There, as in an engine, each block
has an id. Here a block without a hash is one of a number, which is all that time depends on.
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockCount:
    """`total` blocks: some fresh, some idle in the prefix cache, the rest in use.

    `evicted` collects the hashes that were dropped, for the owner to clear.
    """

    __slots__ = ("_idle", "_users", "evicted", "fresh", "total")

    def __init__(self, total: int) -> None:
        self.total = self.fresh = total
        self.evicted: list[int] = []
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached blocks without a user, the oldest first
        self._users: dict[int, int] = {}  # hash -> users, for every cached block

    def copy(self) -> "BlockCount":
        """The same blocks in the same order, to be changed apart."""
        twin = BlockCount(self.total)
        twin.fresh, twin._idle, twin._users = self.fresh, self._idle.copy(), self._users.copy()
        return twin

    @property
    def available(self) -> int:
        """Blocks that `take` can hand out now."""
        return self.fresh + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks with at least one user."""
        return self.total - self.fresh - len(self._idle)

    def cached(self, hashes: Sequence[int], limit: int) -> int:
        """How many of the first `limit` hashes are in the cache without a gap."""
        users, n = self._users, 0
        for h in hashes:
            if n == limit or h not in users:
                break
            n += 1
        return n

    def idle_among(self, hashes: Sequence[int], count: int) -> int:
        """How many of the first `count` (cached) hashes are idle."""
        users = self._users
        return sum([not users[h] for h in hashes[:count]])

    def share(self, hashes: Sequence[int]) -> None:
        """Become a user of cached blocks."""
        users, idle = self._users, self._idle
        for h in hashes:
            n = users[h]
            if not n:
                del idle[h]
            users[h] = n + 1

    def take(self, count: int) -> None:
        """Take blocks without a name; the caller knows that they are available."""
        self.fresh -= count
        if self.fresh < 0:
            users, popitem, evicted = self._users, self._idle.popitem, self.evicted
            for _ in range(-self.fresh):
                h = popitem(last=False)[0]
                del users[h]
                evicted.append(h)
            self.fresh = 0

    def publish(self, hashes: Sequence[int]) -> list[int]:
        """Name blocks that were taken; returns the hashes that were new, the others stay without a name."""
        users = self._users
        new = [h for h in hashes if h not in users]
        for h in new:
            users[h] = 1
        return new

    def release(self, count: int, hashes: Sequence[int]) -> None:
        """Stop using `count` blocks, of which `hashes` (in chain order) have a name; the last one goes first."""
        users, idle = self._users, self._idle
        for h in reversed(hashes):
            n = users[h] - 1
            users[h] = n
            if not n:
                idle[h] = None
        self.fresh += count - len(hashes)
