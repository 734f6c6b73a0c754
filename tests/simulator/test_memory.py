"""The counted blocks of the fast worker against the pool with ids: the same operations, the same account."""

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from helpers.cost.iteration import AffineCost
from helpers.scheduling.blocks import BlockPool
from helpers.scheduling.limits import Limits
from helpers.simulator.memory import BlockCount
from helpers.workload.request import Request

BLOCKS = 12
KNOWN = [100 * root + k for root in range(3) for k in (*range(5), *range(52, 55))]


class Holder:
    """One sequence, as each of the two accounts for it."""

    def __init__(self, hashes, ids, named):
        self.hashes, self.ids, self.named = hashes, ids, named
        self.published = len(named)


class BothPools(RuleBasedStateMachine):
    """Drives a `BlockPool` and a count of blocks with the operations of a worker."""

    count_class = BlockCount

    def __init__(self):
        super().__init__()
        self.pool, self.count = BlockPool(BLOCKS), self.count_class(BLOCKS)
        self.holders = []
        self.evicted = [], []

    @rule(root=st.integers(0, 2), branch=st.booleans(), blocks=st.integers(1, 5), extra=st.integers(0, 2))
    def admit(self, root, branch, blocks, extra):
        pool, count = self.pool, self.count
        hashes = tuple(100 * root + k + (50 if branch and k > 1 else 0) for k in range(blocks))
        hit = pool.cached(hashes, blocks - 1)
        assert count.cached(hashes, blocks - 1) == hit
        idle = pool.idle_among(hashes, hit)
        assert count.idle_among(hashes, hit) == idle
        need = blocks - hit + extra
        if need + idle <= pool.available:
            ids = pool.share(hashes, hit) + pool.take(need)
            count.share(hashes[:hit])
            count.take(need)
            self.holders.append(Holder(hashes, ids, list(hashes[:hit])))

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0), upto=st.integers(1, 5))
    def publish(self, which, upto):
        holder = self.holders[which % len(self.holders)]
        part = slice(holder.published, max(holder.published, min(upto, len(holder.hashes))))
        new = self.pool.publish(holder.ids[part], holder.hashes[part])
        assert self.count.publish(holder.hashes[part]) == new
        holder.named += new
        holder.published = part.stop

    @precondition(lambda self: self.holders and self.pool.available)
    @rule(which=st.integers(0))
    def grow(self, which):
        self.holders[which % len(self.holders)].ids += self.pool.take(1)
        self.count.take(1)

    @precondition(lambda self: self.holders)
    @rule(which=st.integers(0))
    def release(self, which):
        holder = self.holders.pop(which % len(self.holders))
        self.pool.release(holder.ids)
        self.count.release(len(holder.ids), holder.named)

    @invariant()
    def the_accounts_agree(self):
        pool, count = self.pool, self.count
        assert (count.available, count.fresh, count.used) == (pool.available, pool.fresh, pool.used)
        assert count.evicted == pool.evicted  # the order too: it is what a router with KV events is told
        assert [count.cached((h,), 1) for h in KNOWN] == [pool.cached((h,), 1) for h in KNOWN]
        assert count.fresh >= 0 and count.fresh + count.used <= count.total == BLOCKS


def play(count_class, examples, phases=tuple(Phase)):
    machine = type("Machine", (BothPools,), {"count_class": count_class})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30, phases=phases, database=None)
    )


def test_the_count_agrees_with_the_pool_after_every_operation():
    play(BlockCount, 200)


class OffByOne(BlockCount):
    """Evicts one block fewer than it must."""

    def take(self, count):
        super().take(count if self.fresh >= count or not self.fresh else count - 1)


class RootFirst(BlockCount):
    """Gives a prompt back root first, so that the root is evicted before the leaves."""

    def release(self, count, hashes):
        super().release(count, list(reversed(hashes)))


class NamesTwice(BlockCount):
    """Says that every published hash is new, although another block stands for it."""

    def publish(self, hashes):
        super().publish(hashes)
        return list(hashes)


class NotRefreshed(BlockCount):
    """Leaves a block in the idle list although it is used again."""

    def share(self, hashes):
        for h in hashes:
            self._users[h] += 1


@pytest.mark.parametrize("broken", [OffByOne, RootFirst, NamesTwice, NotRefreshed])
def test_a_wrong_count_is_caught(broken):
    with pytest.raises(Exception):  # noqa: B017 (an assertion, a KeyError further on, or a group of both)
        play(broken, 400, (Phase.generate,))


@pytest.mark.parametrize("stepwise", [False, True])
def test_the_last_growth_of_all_can_be_booked_late(serve, stepwise):
    """Five blocks of 16 tokens. After the prefill, two requests of 10 tokens and one of 4 hold a block each.

    The two need a second block after 6 more tokens, and end after 22, when that one is full (10 + 22 = 32 tokens). The
    third ends after 8 tokens, in between, and leaves 3 blocks. Then nothing grows any more, and nobody waits.
    """
    requests = [Request(0, 0.0, 10, 23), Request(1, 0.0, 10, 23), Request(2, 0.0, 4, 9)]
    cost = AffineCost(1.0, 0.0, 0.0, 0.0, 0.0)
    log = serve(requests, limits=Limits(5, 16, 64, 8, 0.0), cost=cost, stepwise=stepwise)
    assert [t.finished_s for t in log.timelines] == [23.0, 23.0, 9.0]
    assert [t.preemptions for t in log.timelines] == [0, 0, 0]
