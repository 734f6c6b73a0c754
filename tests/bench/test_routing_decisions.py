"""The routing benchmark: its workload is what it says, and it notices a router that wavers. Nothing is timed."""

from dataclasses import dataclass, field
from random import Random

import pytest

from helpers.bench.routing_decisions import CacheStandIn, conversation_like, decisions_per_second, record
from helpers.errors import InputError
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_routing import PrefixExact
from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import KVEvicted, KVStored


def test_the_workload_is_like_the_conversation_hour():
    requests = conversation_like(10_000)
    blocks = [r.prefix_blocks for r in requests]
    seen = sum(map(len, blocks)) - len({block for chain in blocks for block in chain})
    assert {chain[0] for chain in blocks} == {0}
    assert 22 < sum(map(len, blocks)) / len(blocks) < 27
    assert 0.33 < seen / sum(map(len, blocks)) < 0.40
    assert max(map(len, blocks)) > 200
    assert all(
        (len(chain) - 1) * 512 < r.prompt_tokens <= len(chain) * 512 for chain, r in zip(blocks, requests, strict=True)
    )
    assert requests == conversation_like(10_000) != conversation_like(10_000, seed=1)


def test_the_stand_in_cache_tells_what_it_holds():
    cache, held, rng = CacheStandIn(30), set(), Random(0)
    for asked in conversation_like(300):
        for event in cache.use(0, asked.prefix_blocks[: rng.randrange(1, 20)]):
            if isinstance(event, KVStored):
                assert not held & set(event.blocks)
                held |= set(event.blocks)
            else:
                assert isinstance(event, KVEvicted) and set(event.blocks) <= held
                held -= set(event.blocks)
    assert len(held) == 30


@pytest.mark.parametrize("name", ["prefix_exact", "prefix_approx", "power_of_two"])
def test_the_rate_counts_what_was_routed(name):
    rate = decisions_per_second(name, 8, conversation_like(500), capacity_blocks=200)
    assert (rate.router, rate.workers, rate.decisions) == (name, 8, 500)
    assert rate.per_s == rate.decisions / rate.wall_s > 0
    assert (rate.events > 1000) == name.startswith("prefix")


def test_the_recorded_index_holds_what_the_caches_hold():
    one = PrefixExact()
    views = Snapshot(view(w) for w in range(4))
    _, log = record(one, conversation_like(400), views, 0, 100)
    held = {w: set() for w in range(4)}
    for event in (event for events in log for event in events):
        if isinstance(event, KVStored):
            held[event.worker] |= set(event.blocks)
        elif isinstance(event, KVEvicted):
            held[event.worker] -= set(event.blocks)
    assert all(len(blocks) == 100 for blocks in held.values())
    assert set(one.index.masks) == set().union(*held.values())


@dataclass
class Wavering:
    """A control: decides by a clock of its own."""

    name: str = "wavering"
    observes: frozenset = frozenset()
    dice: Random = field(default_factory=Random)

    def route(self, request, views, now, rng):
        return Pairing()(views, self.dice.choice(views.prefill), now)

    def observe(self, event, now):
        pass


def test_a_router_that_wavers_is_refused():
    with pytest.raises(RuntimeError, match="decided otherwise"):
        decisions_per_second("wavering", 8, conversation_like(50), make=lambda name, workers: Wavering())


def test_no_requests_are_refused():
    with pytest.raises(InputError, match="no requests"):
        decisions_per_second("random", 8, [], make=router)
