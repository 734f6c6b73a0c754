"""The block pool: nobody's block is given away, none is lost, and the cache forgets leaves before roots."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from helpers.errors import InputError
from helpers.scheduling.blocks import BlockPool, OutOfBlocks, blocks_for, chain_hash

BLOCKS = 12
SALTS = st.binary(max_size=4)
TOKENS = st.lists(st.integers(0, 130_000), min_size=1, max_size=4)


def chain(blocks, salt=b""):
    """The chained hashes of a prompt given as lists of tokens, block by block."""
    hashes, parent = [], 0
    for tokens in blocks:
        parent = chain_hash(parent, tokens, salt)
        hashes.append(parent)
    return hashes


# -- chained hashes


def shared_prefix(a, b):
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.fixture
def prompts_agree():
    def check(example, chain=chain):
        shared, left, right, salt, other = example
        a, b = shared + left, shared + right
        hashes = chain(a, salt), chain(b, salt)
        k = shared_prefix(a, b)
        assert [x == y for x, y in zip(*hashes, strict=False)] == [
            i < k for i in range(min(len(a), len(b)))
        ]  # equal exactly as far as the prompts are
        if salt != other:
            assert not set(hashes[0]) & set(chain(a, other))

    return check


PROMPT_PAIRS = st.tuples(*[st.lists(TOKENS, max_size=4)] * 3, SALTS, SALTS)


def test_hashes_are_equal_exactly_as_far_as_the_prompts_are(prompts_agree, holds):
    holds(prompts_agree, PROMPT_PAIRS)


def test_hashes_that_forget_what_came_before_are_caught(prompts_agree, refuted):
    def unchained(blocks, salt=b""):
        return [chain_hash(0, tokens, salt) for tokens in blocks]

    def unsalted(blocks, salt=b""):
        return chain(blocks)

    refuted(lambda example: prompts_agree(example, unchained), PROMPT_PAIRS)
    refuted(lambda example: prompts_agree(example, unsalted), PROMPT_PAIRS)


def test_the_bounds_between_tokens_count():
    assert chain_hash(0, [1, 23]) != chain_hash(0, [12, 3])
    assert chain_hash(0, [1], b"a") != chain_hash(0, [1], b"b")
    assert chain_hash(1, [1]) != chain_hash(0, [1]) != chain_hash(0, [1, 1])
    assert 0 <= chain_hash(2**64 - 1, [1]) < 2**64


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_a_partial_block_is_a_block(tokens, blocks):
    assert blocks_for(tokens, 16) == blocks


# -- the pool as a state machine


class Holder:
    """A user of blocks: what it asked for, and what it was given."""

    def __init__(self, hashes, ids, published):
        self.hashes, self.ids, self.published = hashes, ids, published


class PoolMachine(RuleBasedStateMachine):
    """Sequences of one pool that share, take, publish, grow and release in any order."""

    pool_class = BlockPool

    def __init__(self):
        super().__init__()
        self.pool = self.pool_class(BLOCKS)
        self.holders = []
        self.cached = set()  # every hash that was published and not evicted

    @rule(root=st.integers(0, 2), branch=st.integers(0, 1), blocks=st.integers(1, 5), share=st.booleans())
    def start(self, root, branch, blocks, share):
        hashes = [100 * root + k + (50 if branch and k > 1 else 0) for k in range(blocks)]
        hit = self.pool.cached(hashes, blocks - 1 if share else 0)
        assert all(self.pool.holds(h) for h in hashes[:hit])
        if blocks - hit + self.pool.idle_among(hashes, hit) > self.pool.available:
            return
        ids = self.pool.share(hashes, hit)
        taken = self.pool.take(blocks - hit)
        self._forget_evicted()
        in_use = {b for holder in self.holders for b in holder.ids} | set(ids)
        assert len(set(taken)) == len(taken) and not in_use & set(taken), "a block was handed out twice"
        self.holders.append(Holder(hashes, ids + taken, hit))

    def _forget_evicted(self):
        for h in self.pool.evicted:
            assert h in self.cached, "something was evicted that was not cached"
            self.cached.remove(h)
        self.pool.evicted.clear()

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0), upto=st.integers(1, 5))
    def publish(self, which, upto):
        holder = self.holders[which % len(self.holders)]
        part = slice(holder.published, max(holder.published, min(upto, len(holder.hashes))))
        new = self.pool.publish(holder.ids[part], holder.hashes[part])
        assert new == [h for h in holder.hashes[part] if h not in self.cached]
        self.cached.update(new)
        holder.published = part.stop

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0))
    def grow(self, which):
        if self.pool.available:
            self.holders[which % len(self.holders)].ids += self.pool.take(1)
            self._forget_evicted()

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0))
    def release(self, which):
        holder = self.holders.pop(which % len(self.holders))
        self.pool.release(holder.ids)

    @invariant()
    def users_are_counted(self):
        users = Counter(b for holder in self.holders for b in holder.ids)
        assert self.pool.users == [users[b] for b in range(BLOCKS)]

    @invariant()
    def blocks_are_conserved(self):
        pool = self.pool
        idle = pool.available - pool.fresh
        in_use = sum(n > 0 for n in pool.users)
        assert pool.used == in_use
        assert pool.fresh + idle + in_use == pool.total
        assert len({*pool._fresh, *pool._idle}) == pool.available, "a block is free twice"

    @invariant()
    def the_cache_holds_what_was_published(self):
        known = [100 * root + k for root in range(3) for k in (*range(5), *range(52, 55))]
        assert {h for h in known if self.pool.holds(h)} == self.cached


def play(pool_class, examples, phases=tuple(Phase)):
    machine = type("Machine", (PoolMachine,), {"pool_class": pool_class})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30, phases=phases, database=None)
    )


def test_no_block_is_lost_or_given_away_twice():
    play(BlockPool, 150)


class Leaks(BlockPool):
    """Forgets one of the blocks that come back."""

    def release(self, ids):
        super().release(ids)
        if len(self._fresh) > 3:
            self._fresh.pop()


class FreesTwice(BlockPool):
    """Puts a private block on the free list although somebody uses it."""

    def take(self, count):
        ids = super().take(count)
        if len(ids) > 3:
            self._fresh.append(ids[0])
        return ids


class TakesInUse(BlockPool):
    """Does not count the users of a shared block."""

    def share(self, hashes, count):
        ids = super().share(hashes, count)
        for b in ids[1:]:
            self.users[b] -= 1
        return ids


class RemembersEvicted(BlockPool):
    """Keeps the hash of a block that was handed out to somebody else."""

    def take(self, count):
        before = dict(self._id_of)
        ids = super().take(count)
        self._id_of.update({h: b for h, b in before.items() if h in self.evicted})
        return ids


@pytest.mark.parametrize("broken", [Leaks, FreesTwice, TakesInUse, RemembersEvicted])
def test_a_broken_pool_is_caught(broken):
    with pytest.raises(Exception):  # noqa: B017 (an assertion, a KeyError further on, or a group of both)
        play(broken, 300, (Phase.generate,))


# -- single rules


def cached_prompt(pool, hashes):
    """Take, publish and release a prompt: its blocks are idle afterwards."""
    ids = pool.take(len(hashes))
    pool.publish(ids, hashes)
    pool.release(ids)


class ReleasesRootFirst(BlockPool):
    def release(self, ids):
        super().release(list(reversed(ids)))


def eviction_order(pool):
    """Two prompts with a common root of two blocks, the second used last; then evict one block at a time."""
    cached_prompt(pool, [1, 2, 13, 14])
    hit = pool.cached([1, 2, 23, 24], 3)
    ids = pool.share([1, 2, 23, 24], hit) + pool.take(2)
    pool.publish(ids[hit:], [23, 24])
    pool.release(ids)
    held = pool.take(pool.fresh)
    for _ in range(6):
        held += pool.take(1)
    return pool.evicted


def test_the_deepest_blocks_are_evicted_before_the_shared_root():
    assert eviction_order(BlockPool(10)) == [14, 13, 24, 23, 2, 1]
    assert eviction_order(ReleasesRootFirst(10)) != [14, 13, 24, 23, 2, 1]  # control


def test_every_prefix_of_the_eviction_order_leaves_whole_chains():
    order = eviction_order(BlockPool(10))
    parents = {2: 1, 13: 2, 14: 13, 23: 2, 24: 23}
    gone = [set(order[:n]) for n in range(len(order) + 1)]
    assert all(child in g for g in gone for child, parent in parents.items() if parent in g)
    assert all(len(b) == len(a) + 1 for a, b in pairwise(gone))


def test_fresh_blocks_keep_their_order_from_one_sequence_to_the_next():
    """Who takes blocks that another gave back has them in that one's order, again and again."""
    pool = BlockPool(8)
    assert pool.take(3) == [0, 1, 2]
    pool.take(1)
    for _ in range(3):
        pool.release([0, 1, 2])
        assert pool.take(3) == [0, 1, 2]
    pool.release([0, 1, 2])
    assert (pool.take(2), pool.take(2), pool.take(3)) == ([0, 1], [2, 4], [5, 6, 7])


def test_fresh_blocks_keep_their_order_when_cached_ones_follow():
    pool = BlockPool(4)
    cached = pool.take(1)
    pool.publish(cached, [7])
    pool.release(cached)
    assert pool.take(4) == [1, 2, 3, 0]


def test_fresh_blocks_go_before_cached_ones():
    pool = BlockPool(4)
    cached_prompt(pool, [7, 8])
    pool.take(2)
    assert pool.evicted == [] and pool.cached([7, 8], 2) == 2
    pool.take(1)
    assert pool.evicted == [8] and pool.cached([7, 8], 2) == 1


def test_using_a_block_again_makes_it_the_last_to_go():
    pool = BlockPool(3)
    for h in (1, 2, 3):
        cached_prompt(pool, [h])
    pool.release(pool.share([1], 1))
    pool.take(2)
    assert pool.evicted == [2, 3]


def test_the_match_stops_at_the_first_gap_and_at_the_limit():
    pool = BlockPool(6)
    ids = pool.take(4)
    pool.publish([ids[0], ids[1], ids[3]], [1, 2, 4])
    assert [pool.cached([1, 2, 3, 4], limit) for limit in range(5)] == [0, 1, 2, 2, 2]


def test_more_than_there_is_is_refused_and_nothing_changes():
    pool = BlockPool(3)
    pool.take(1)
    with pytest.raises(OutOfBlocks, match="3 blocks asked for, 2 of 3 available"):
        pool.take(3)
    assert (pool.available, pool.used) == (2, 1)
    assert pool.take(0) == []


def test_a_block_cannot_be_released_twice():
    pool = BlockPool(2)
    ids = pool.take(1)
    pool.release(ids)
    with pytest.raises(RuntimeError, match="released more often than it was used"):
        pool.release(ids)


def test_an_empty_pool_is_refused():
    with pytest.raises(InputError, match="a KV pool of 0 blocks holds nothing"):
        BlockPool(0)
