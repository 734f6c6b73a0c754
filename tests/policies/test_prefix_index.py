"""The inverted index and the loads, each against a plain model that looks at every worker."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.policies.loads import WorkerLoads, bits
from helpers.policies.prefix_index import BlockIndex, RecentBlocks

WORKERS = 5
BLOCKS = st.lists(st.integers(0, 7), max_size=6, unique=True).map(tuple)
CHANGES = st.lists(st.tuples(st.sampled_from(["store", "evict", "drop"]), st.integers(0, WORKERS - 1), BLOCKS))


def mismatches(index, changes, prompts):
    """Where `index` and plain sets per worker disagree, after the same changes."""
    held = [set() for _ in range(WORKERS)]
    for what, worker, blocks in changes:
        if what == "drop":
            index.drop(worker)
            held[worker].clear()
        elif what == "store":
            index.store(worker, blocks)
            held[worker].update(blocks)
        else:
            index.evict(worker, blocks)
            held[worker].difference_update(blocks)
    wrong = []
    if set(index.masks) != set().union(*held):
        wrong.append("entries")
    for prompt in prompts:
        depths = []
        for worker in range(WORKERS):
            missing = [i for i, block in enumerate(prompt) if block not in held[worker]]
            depths.append(missing[0] if missing else len(prompt))
        live = 0b11011
        groups = index.groups(prompt, live)
        found = {worker: depth for depth, mask in groups for worker in bits(mask)}
        if found != {worker: depths[worker] for worker in bits(live)}:
            wrong.append(f"groups of {prompt}")
        if [depth for depth, _ in groups] != sorted({depths[worker] for worker in bits(live)}):
            wrong.append(f"order of the groups of {prompt}")
        if [index.depth(worker, prompt) for worker in range(WORKERS)] != depths:
            wrong.append(f"depths of {prompt}")
    return wrong


@given(changes=CHANGES, prompts=st.lists(BLOCKS, max_size=5))
def test_the_index_agrees_with_sets(changes, prompts):
    assert mismatches(BlockIndex(), changes, prompts) == []


class Forgetful(BlockIndex):
    """A control: loses every eviction of more than one block."""

    def evict(self, worker, blocks):
        if len(blocks) == 1:
            super().evict(worker, blocks)


class OffByOne(BlockIndex):
    """A control: each match one block too long."""

    def groups(self, blocks, live):
        return [(depth + 1, mask) for depth, mask in super().groups(blocks, live)]


@pytest.mark.parametrize("broken", [Forgetful, OffByOne])
def test_the_index_check_finds_a_broken_index(broken):
    changes = [("store", 0, (1, 2, 3)), ("store", 1, (1, 2)), ("evict", 0, (2, 3))]
    assert mismatches(broken(), changes, [(1, 2, 3)])
    assert mismatches(BlockIndex(), changes, [(1, 2, 3)]) == []


@given(changes=CHANGES)
def test_no_entry_outlives_its_last_holder(changes):
    index = BlockIndex()
    for what, worker, blocks in changes:
        if what == "store":
            index.store(worker, blocks)
    assert len(index) == len({block for what, _, blocks in changes if what == "store" for block in blocks})
    for worker in range(WORKERS):
        index.drop(worker)
    assert len(index) == 0


class ListCache:
    """The model of `RecentBlocks`: a list of (block, end) for each worker, oldest use first."""

    def __init__(self):
        self.lists = {}

    def use(self, worker, blocks, capacity, end_s):
        old = [entry for entry in self.lists.get(worker, []) if entry[0] not in blocks]
        used = [(block, end_s) for block in reversed(blocks)]
        self.lists[worker] = (old + used)[-capacity:]

    def expire(self, now):
        for worker, entries in self.lists.items():
            self.lists[worker] = [entry for entry in entries if entry[1] >= now]

    def held(self, worker):
        return tuple(block for block, _ in self.lists.get(worker, []))


def chain(rng):
    """A prompt from a small tree: block k of two prompts is equal only if all before it are."""
    length, blocks, block = rng.randrange(1, 7), [], 0
    for _ in range(length):
        blocks.append(block)
        block = 3 * block + 1 + rng.randrange(3)
    return tuple(blocks)


def recent_mismatches(recent, seed, capacity, ttl_s):
    """Where `recent` and the list model disagree on a random history."""
    rng, model, wrong, now = Random(seed), ListCache(), [], 0.0
    for _ in range(80):
        now += rng.choice([0.0, 0.5, 2.0])
        recent.expire(now)
        model.expire(now)
        worker, blocks, end_s = rng.randrange(3), chain(rng), now + ttl_s
        recent.use(worker, blocks, capacity, end_s)
        model.use(worker, blocks, capacity, end_s)
        for each in range(3):
            held = recent.held(each)
            if held != model.held(each):
                wrong.append("what is held")
            if [recent.depth(each, (block,)) for block in range(1100)] != [block in held for block in range(1100)]:
                wrong.append("what the index says")
            # A block whose predecessor is gone could never be matched again.
            if any(block and (block - 1) // 3 not in held for block in held):
                wrong.append("a chain with a hole")
    if len(recent) != len({block for each in range(3) for block in recent.held(each)}):
        wrong.append("entries without a holder")
    return wrong


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    capacity=st.sampled_from([1, 3, 10, 10**9]),
    ttl_s=st.sampled_from([0.5, 4.0, float("inf")]),
)
def test_recent_blocks_agree_with_a_list(seed, capacity, ttl_s):
    assert recent_mismatches(RecentBlocks(), seed, capacity, ttl_s) == []


class RootFirst(RecentBlocks):
    """A control: uses a prompt's blocks front to back, so that roots are forgotten before leaves."""

    def use(self, worker, blocks, capacity, end_s=float("inf")):
        super().use(worker, blocks[::-1], capacity, end_s)


class Immortal(RecentBlocks):
    """A control: nothing expires."""

    def expire(self, now):
        pass


@pytest.mark.parametrize("broken", [RootFirst, Immortal])
def test_the_recency_check_finds_a_broken_cache(broken):
    assert recent_mismatches(broken(), seed=1, capacity=8, ttl_s=2.0)
    assert recent_mismatches(RecentBlocks(), seed=1, capacity=8, ttl_s=2.0) == []


def test_dropping_a_worker_forgets_its_blocks_alone():
    recent = RecentBlocks()
    recent.use(0, (1, 2), 10)
    recent.use(1, (1, 3), 10, 5.0)
    recent.drop(1)
    assert recent.held(1) == () and recent.held(0) == (2, 1) and set(recent.masks) == {1, 2}
    recent.use(1, (1,), 10, 9.0)
    recent.expire(6.0)  # The end of the dropped use must not take the new one with it.
    assert recent.depth(1, (1,)) == 1


def load_mismatches(loads, steps):
    """Groups for which `loads` names another worker than a scan does."""
    plain = [0] * 12
    wrong = []
    for worker, amount, mask in steps:
        amount = max(amount, -plain[worker])
        loads.add(worker, amount)
        plain[worker] += amount
        least = min((plain[w], w) for w in bits(mask))[1]
        if loads.load != plain or loads.least(mask) != least:
            wrong.append((worker, amount, mask))
    return wrong


STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.one_of(st.integers(-9, 9), st.integers(-(10**6), 10**6)), st.integers(1, 4095))
)


@given(steps=STEPS)
def test_the_least_loaded_is_that_of_a_scan(steps):
    assert load_mismatches(WorkerLoads(12), steps) == []


class Blind(WorkerLoads):
    """A control: overlooks the lowest bit of each load."""

    def least(self, mask):
        self._clear[:1] = [(1 << len(self.load)) - 1]
        return super().least(mask)


def test_the_load_check_finds_a_blind_search():
    steps = [(0, 3, 1), (1, 2, 3), (2, 2, 7)]
    assert load_mismatches(Blind(12), steps)
    assert load_mismatches(WorkerLoads(12), steps) == []


def test_loads_grow_with_the_fleet_and_never_fall_below_zero():
    loads = WorkerLoads(2)
    loads.add(0, 5)
    loads.add(1, 6)
    loads.grow(1025)
    assert loads.least(0b11) == 0 and loads.least((1 << 1025) - 1) == 2 and loads.least(0b10 | 1 << 1024) == 1024
    with pytest.raises(ValueError, match="worker 0"):
        loads.add(0, -6)
    assert loads.load[0] == 5
