"""KV blocks: reference counts, a prefix cache keyed by chained hashes, reuse in LRU order."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from helpers.errors import InputError


class OutOfBlocks(Exception):
    """More blocks were asked for than are free or evictable: the caller did not look at `available`."""


def chain_hash(parent: int, tokens: Sequence[int], salt: bytes = b"") -> int:
    """The 64-bit hash of a block that follows `parent` (0 for the first), for one tenant's `salt`.

    Chained, so that two blocks are equal only when everything before them is equal too.
    """
    h = blake2b(salt + parent.to_bytes(8, "little"), digest_size=8)
    h.update(b",".join(str(t).encode() for t in tokens))
    return int.from_bytes(h.digest(), "little")


def blocks_for(tokens: int, block_tokens: int) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // block_tokens)


class BlockPool:
    """`total` blocks with ids 0 … total-1.

    A block is *fresh* (no content worth keeping), *in use* (one or more users) or *idle* (no
    user, but its content is in the prefix cache). `take` hands out fresh blocks first and then
    evicts idle ones, the least recently used first; a sequence gives its blocks back last
    block first, so that of one prompt the deepest blocks are evicted before the shared root.
    Whoever is given the fresh blocks of another has them in the same order, from the lowest id
    up at first: what lies side by side stays so, and can be copied as one.
    """

    __slots__ = ("_fresh", "_hash_of", "_id_of", "_idle", "evicted", "total", "users")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise InputError(f"a KV pool of {total} blocks holds nothing; give it memory for at least one block")
        self.total = total
        self.users = [0] * total
        self.evicted: list[int] = []  # hashes dropped since the owner last cleared the list
        self._fresh = list(range(total - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._id_of: dict[int, int] = {}  # hash -> block id, for every cached block
        self._hash_of: list[int | None] = [None] * total

    @property
    def available(self) -> int:
        """Blocks that `take` can hand out now."""
        return len(self._fresh) + len(self._idle)

    @property
    def fresh(self) -> int:
        """Blocks that `take` can hand out without evicting anything."""
        return len(self._fresh)

    @property
    def used(self) -> int:
        """Blocks with at least one user."""
        return self.total - len(self._fresh) - len(self._idle)

    def cached(self, hashes: Sequence[int], limit: int) -> int:
        """How many of the first `limit` hashes are in the cache without a gap."""
        id_of = self._id_of
        n = 0
        for h in hashes[:limit] if limit < len(hashes) else hashes:
            if h not in id_of:
                break
            n += 1
        return n

    def holds(self, block_hash: int) -> bool:
        """Whether the block is in the prefix cache, in use or idle."""
        return block_hash in self._id_of

    def idle_among(self, hashes: Sequence[int], count: int) -> int:
        """How many of the first `count` (cached) hashes are idle: sharing them shrinks `available`."""
        id_of, users = self._id_of, self.users
        return sum(1 for h in hashes[:count] if not users[id_of[h]])

    def share(self, hashes: Sequence[int], count: int) -> list[int]:
        """Become a user of the first `count` cached blocks; returns their ids."""
        id_of, users, idle = self._id_of, self.users, self._idle
        ids = [id_of[h] for h in hashes[:count]]
        for b in ids:
            if not users[b]:
                del idle[b]
            users[b] += 1
        return ids

    def take(self, count: int) -> list[int]:
        """`count` blocks for one new user, evicting idle ones where needed; raises `OutOfBlocks`."""
        if count <= 0:
            return []
        fresh = self._fresh
        if count <= len(fresh):
            ids = fresh[: -count - 1 : -1]  # the last one to be given back first
            del fresh[-count:]
        else:
            if count > self.available:
                raise OutOfBlocks(f"{count} blocks asked for, {self.available} of {self.total} available")
            ids = fresh[::-1]
            fresh.clear()
            idle, hash_of, id_of, evicted = self._idle, self._hash_of, self._id_of, self.evicted
            for _ in range(count - len(ids)):
                b, _ = idle.popitem(last=False)
                h = hash_of[b]
                hash_of[b] = None
                del id_of[h]
                evicted.append(h)
                ids.append(b)
        users = self.users
        for b in ids:
            users[b] = 1
        return ids

    def publish(self, ids: Sequence[int], hashes: Sequence[int]) -> list[int]:
        """Enter full blocks into the prefix cache; returns the hashes that were new.

        A hash that another block already stands for stays with that block, and this one stays private.
        """
        id_of, hash_of = self._id_of, self._hash_of
        new = []
        for b, h in zip(ids, hashes, strict=True):
            if h not in id_of and hash_of[b] is None:
                id_of[h] = b
                hash_of[b] = h
                new.append(h)
        return new

    def release(self, ids: Sequence[int]) -> None:
        """Stop using blocks, the last first; a block without users becomes idle (cached) or fresh."""
        users, hash_of, idle, fresh = self.users, self._hash_of, self._idle, self._fresh
        for b in reversed(ids):
            left = users[b] - 1
            if left < 0:
                raise RuntimeError(f"block {b} was released more often than it was used")
            users[b] = left
            if not left:
                if hash_of[b] is None:
                    fresh.append(b)
                else:
                    idle[b] = None
