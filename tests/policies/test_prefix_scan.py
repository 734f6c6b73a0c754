"""The choice of a prefix router, found by its index, is that of a scan over all workers."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.policies.prefix_routing import PrefixApprox, PrefixExact
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Dispatched, Finished, FirstToken, KVEvicted, KVStored, WorkerLost
from helpers.workload.request import Request

# Few tokens a block and few lengths, so that equal costs are common.
BLOCK_TOKENS = 4


def chain(rng):
    """A prompt from a small tree: the first block is common, each block has two successors."""
    blocks, block = [], 0
    for _ in range(rng.randrange(7)):
        blocks.append(block)
        block = 2 * block + 1 + rng.randrange(2)
    return tuple(blocks)


class Scan:
    """The model: what was stored and dispatched in plain lists, each choice by looking at every worker."""

    def __init__(self, like):
        self.like = like
        self.held = {}  # worker -> [(block, end)], oldest use first
        self.placed = {}  # request -> [worker, tokens, decode worker]
        self.recent = []

    def overlap(self, request, worker):
        held, depth = {block for block, _ in self.held.get(worker, [])}, 0
        while depth < len(request.prefix_blocks) and request.prefix_blocks[depth] in held:
            depth += 1
        return min(depth * BLOCK_TOKENS, request.prompt_tokens - 1)

    def load(self, worker):
        placed = sum(tokens for where, tokens, _ in self.placed.values() if where == worker)
        return placed + self.like.recent_tokens * self.recent.count(worker)

    def choose(self, request, live):
        def cost(worker):
            return self.like.load_weight * self.load(worker) - self.like.overlap_weight * self.overlap(request, worker)

        return min((cost(worker), worker) for worker in live)[1]

    def dispatched(self, request, decision, live, end_s):
        worker = decision.prefill
        tokens = request.prompt_tokens - self.overlap(request, worker)
        self.placed[request.id] = [worker, tokens, decision.decode]
        self.recent = [*self.recent, worker][-16 * len(live) :]
        if isinstance(self.like, PrefixApprox):
            old = [entry for entry in self.held.get(worker, []) if entry[0] not in request.prefix_blocks]
            used = [(block, end_s) for block in reversed(request.prefix_blocks)]
            self.held[worker] = (old + used)[-self.like.capacity_blocks :]

    def stored(self, worker, blocks):
        self.held.setdefault(worker, []).extend((block, float("inf")) for block in blocks)

    def evicted(self, worker, blocks):
        self.held[worker] = [entry for entry in self.held.get(worker, []) if entry[0] not in blocks]

    def expire(self, now):
        for worker, entries in self.held.items():
            self.held[worker] = [entry for entry in entries if entry[1] >= now]

    def lost(self, worker):
        self.held.pop(worker, None)
        self.placed = {r: placed for r, placed in self.placed.items() if placed[0] != worker}
        self.recent = [where for where in self.recent if where != worker]


def episode(one, seed, fleet, steps=60):
    """Where the router `one` chooses otherwise than a scan would, while a worker goes and comes back."""
    rng, model, differences, now = Random(seed), Scan(one), [], 0.0
    views = Snapshot(view(worker, role) for worker, role in fleet)
    prefilling, running = [], []

    def tell(event):
        if type(event) in one.observes:
            one.observe(event, now)

    for number in range(steps):
        now += rng.choice([0.0, 1.0])
        blocks = chain(rng)
        asked = Request(number, now, max(1, len(blocks) * BLOCK_TOKENS - rng.randrange(3) + 1), 5, blocks)
        decision = one.route(asked, views, now, rng)
        if isinstance(one, PrefixApprox):
            model.expire(now)
        expected = model.choose(asked, views.prefill)
        if decision.prefill != expected:
            differences.append((number, decision.prefill, expected))
        if rng.random() < 0.9:  # The rest are rejected by admission.
            tell(Dispatched(asked, decision))
            ttl_s = getattr(one, "ttl_s", None)
            model.dispatched(asked, decision, views.prefill, now + ttl_s if ttl_s else float("inf"))
            prefilling.append((asked, decision))
        if prefilling and rng.random() < 0.8:
            done, where = prefilling.pop(rng.randrange(len(prefilling)))
            tell(FirstToken(done, where.prefill))
            if done.id in model.placed:
                model.placed[done.id][:2] = where.decode, int(one.kv_weight * done.prompt_tokens)
            if isinstance(one, PrefixExact):
                new = tuple(b for b in done.prefix_blocks if b not in {h for h, _ in model.held.get(where.prefill, [])})
                tell(KVStored(where.prefill, new))
                model.stored(where.prefill, new)
            running.append((done, where))
        if running and rng.random() < 0.7:
            done, where = running.pop(0)
            tell(Finished(done, where.decode))
            model.placed.pop(done.id, None)
        if isinstance(one, PrefixExact) and rng.random() < 0.5:
            worker = rng.choice(views.prefill)
            blocks = tuple(b for b, _ in model.held.get(worker, []) if rng.random() < 0.5)
            tell(KVEvicted(worker, blocks))
            model.evicted(worker, blocks)
        if number == steps // 2:
            gone = rng.choice([worker for worker, _ in fleet])
            left = Snapshot(view(worker, role) for worker, role in fleet if worker != gone)
            if left.prefill and left.decode:
                views = left
                tell(WorkerLost(gone))
                model.lost(gone)
                prefilling = [(r, d) for r, d in prefilling if gone not in d[:2]]
                running = [(r, d) for r, d in running if gone not in d[:2]]
        if number == 3 * steps // 4:  # It is started again, with an empty cache.
            views = Snapshot(view(worker, role) for worker, role in fleet)
    return differences


FLEETS = (
    [(w, "mixed") for w in range(5)],
    [(w, "mixed") for w in (1, 3, 40, 41, 90)],
    [(0, "prefill"), (1, "decode"), (2, "prefill"), (3, "prefill"), (4, "decode")],
    [(0, "mixed"), (1, "prefill"), (2, "decode"), (3, "mixed")],
)
WEIGHTS = st.fixed_dictionaries(
    {
        "load_weight": st.sampled_from([0.0, 0.3, 1.0, 4.0]),
        "overlap_weight": st.sampled_from([0.0, 0.7, 1.0, 5.0]),
        "kv_weight": st.sampled_from([0.0, 0.1, 1.0]),
        "recent_tokens": st.sampled_from([0, 1, 3]),
    }
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), fleet=st.sampled_from(FLEETS), weights=WEIGHTS)
def test_prefix_exact_chooses_as_a_scan(seed, fleet, weights):
    assert episode(PrefixExact(block_tokens=BLOCK_TOKENS, **weights), seed, fleet) == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    fleet=st.sampled_from(FLEETS),
    weights=WEIGHTS,
    capacity=st.sampled_from([1, 5, 1000]),
    ttl_s=st.sampled_from([None, 3.0]),
)
def test_prefix_approx_chooses_as_a_scan(seed, fleet, weights, capacity, ttl_s):
    one = PrefixApprox(block_tokens=BLOCK_TOKENS, capacity_blocks=capacity, ttl_s=ttl_s, **weights)
    assert episode(one, seed, fleet) == []


class DropsEvictions(PrefixExact):
    """A control: a stale index."""

    def observe(self, event, now):
        if type(event) is not KVEvicted:
            PrefixExact.observe(self, event, now)


class ForgetsFinished(PrefixExact):
    """A control: requests that have left keep counting."""

    def observe(self, event, now):
        if type(event) is not Finished:
            PrefixExact.observe(self, event, now)


class KeepsTheDead(PrefixExact):
    """A control: a lost worker comes back with what it had."""

    def observe(self, event, now):
        if type(event) is not WorkerLost:
            PrefixExact.observe(self, event, now)


class ShallowestGroup(PrefixExact):
    """A control: looks at the workers with the longest match alone."""

    def choose(self, request, live):
        _, mask = self.index.groups(request.prefix_blocks, live)[-1]
        return self.own.least(mask)


class NeverExpires(PrefixApprox):
    """A control: believes for ever."""

    def route(self, request, views, now, rng):
        return PrefixApprox.route(self, request, views, float("-inf"), rng)


@pytest.mark.parametrize(
    "broken", [DropsEvictions, ForgetsFinished, KeepsTheDead, ShallowestGroup, NeverExpires], ids=lambda c: c.__name__
)
def test_the_scan_check_finds_a_broken_router(broken):
    extra = {"capacity_blocks": 5, "ttl_s": 3.0} if broken is NeverExpires else {}
    make = broken.__bases__[0]
    found = whole = 0
    for seed in range(20):
        weights = {"block_tokens": BLOCK_TOKENS, "recent_tokens": 3, **extra}
        found += bool(episode(broken(**weights), seed, FLEETS[0]))
        whole += bool(episode(make(**weights), seed, FLEETS[0]))
    assert found > 0 and whole == 0
