"""The prefix routers: they do not collapse, forget what is gone, and do not scan the fleet."""

from collections import Counter
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.loads import OwnLoad, WorkerLoads
from helpers.policies.prefix_routing import PrefixApprox, PrefixExact
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, KVStored, WorkerLost
from helpers.workload.request import Request


def serve(one, workers, requests, concurrent):
    """Requests by worker when at most `concurrent` of them are in flight; caches keep everything."""
    views, rng, running, found = Snapshot(view(w) for w in range(workers)), Random(0), [], Counter()
    for asked in requests:
        if len(running) >= concurrent:
            done, where = running.pop(0)
            one.observe(FirstToken(done, where.prefill), 0.0)
            if KVStored in one.observes:
                one.observe(KVStored(where.prefill, done.prefix_blocks), 0.0)
            one.observe(Finished(done, where.decode), 0.0)
        decision = one.route(asked, views, 0.0, rng)
        one.observe(Dispatched(asked, decision), 0.0)
        found[decision.prefill] += 1
        running.append((asked, decision))
    return found


def shared_root(count, blocks=8):
    """Prompts that share their first block and nothing else, as those of the Mooncake conversation hour do."""
    return [Request(n, 0.0, 512 * blocks, 50, (0, *range(100 * n + 1, 100 * n + blocks))) for n in range(count)]


def unevenness(found, workers):
    """The largest share over the mean: 1 when even, the number of workers when one gets all."""
    return max(found.values()) * workers / sum(found.values())


@pytest.mark.parametrize("make", [PrefixApprox, PrefixExact])
@pytest.mark.parametrize("concurrent", [1, 32])
def test_longest_prefix_alone_collapses_and_the_default_does_not(make, concurrent):
    requests = shared_root(400)
    collapsed = serve(make(load_weight=0), 8, requests, concurrent)
    even = serve(make(), 8, requests, concurrent)
    assert unevenness(collapsed, 8) == 8
    assert unevenness(even, 8) < 1.25


@pytest.mark.parametrize("make", [PrefixApprox, PrefixExact])
def test_one_request_at_a_time_collapses_without_recent_dispatches(make):
    """With nothing in flight the load is 0, and the block that all share would decide alone."""
    assert unevenness(serve(make(recent_tokens=0), 8, shared_root(200), 1), 8) == 8


@pytest.mark.parametrize("make", [PrefixApprox, PrefixExact])
def test_a_conversation_returns_to_its_worker_until_that_is_overloaded(make):
    one, views, rng = make(), Snapshot(view(w) for w in range(4)), Random(0)
    history = (0, *range(50, 70))
    first = Request(0, 0.0, 512 * 21, 50, history)
    one.observe(Dispatched(first, Decision(2, 2)), 0.0)
    one.observe(FirstToken(first, 2), 0.0)
    if make is PrefixExact:
        one.observe(KVStored(2, history), 0.0)
    one.observe(Finished(first, 2), 0.0)
    follow_up = Request(1, 9.0, 512 * 22, 50, (*history, 70))
    assert one.route(follow_up, views, 9.0, rng).prefill == 2
    stranger = Request(2, 9.0, 512 * 22, 50, tuple(range(900, 922)))
    assert one.route(stranger, views, 9.0, rng).prefill != 2
    # Twenty-one blocks of credit are worth as many blocks of load.
    busy = Request(3, 9.0, 512 * 21 + 200, 50, ())
    one.observe(Dispatched(busy, Decision(2, 2)), 9.0)
    assert one.route(follow_up, views, 9.0, rng).prefill == 0


@pytest.mark.parametrize("make", [PrefixApprox, PrefixExact])
def test_a_lost_worker_leaves_nothing_behind(make):
    one, views = make(), Snapshot(view(w) for w in range(3))
    for number in range(6):
        asked = Request(number, 0.0, 2000, 5, (0, number + 1))
        decision = one.route(asked, views, 0.0, Random(0))
        one.observe(Dispatched(asked, decision), 0.0)
        if make is PrefixExact:
            one.observe(KVStored(decision.prefill, asked.prefix_blocks), 0.0)
    assert len(one.index) == 7 and all(one.own.load[:3]) and one.own.requests == 6
    for worker in range(3):
        one.observe(WorkerLost(worker), 0.0)
        assert one.own.load[worker] == 0
        assert one.index.depth(worker, (0,)) == 0
    assert len(one.index) == 0 and one.own.requests == 0


def test_a_request_that_comes_back_counts_once():
    one = PrefixExact(recent_tokens=0)
    asked = Request(0, 0.0, 1000, 5)
    for decision in (Decision(0, 0), Decision(1, 1)):
        one.observe(Dispatched(asked, decision), 0.0)
    assert one.own.load == [0, 1000]
    one.observe(FirstToken(asked, 1), 0.0)
    assert one.own.load == [0, 100]
    for _ in range(2):
        one.observe(Finished(asked, 1), 0.0)
    assert one.own.load == [0, 0]


def test_the_load_moves_to_the_decode_worker():
    one = PrefixExact(recent_tokens=0, kv_weight=0.5)
    asked = Request(0, 0.0, 1000, 5)
    one.observe(Dispatched(asked, Decision(0, 2)), 0.0)
    one.observe(FirstToken(asked, 0), 0.0)
    assert one.own.load == [0, 0, 500]


def test_the_capacity_is_that_of_the_worker_unless_set():
    asked = Request(0, 0.0, 512 * 5, 5, (0, 1, 2, 3, 4))
    views = Snapshot([view(0, kv_total_blocks=3)])
    for parameters, kept in (({}, 3), ({"capacity_blocks": 2}, 2), ({"capacity_blocks": 9}, 5)):
        one = PrefixApprox(**parameters)
        decision = one.route(asked, views, 0.0, Random(0))
        one.observe(Dispatched(asked, decision), 0.0)
        assert one.index.depth(0, asked.prefix_blocks) == kept


class CountingLoads(OwnLoad):
    """Loads that count how often the least loaded of a group was asked for."""

    __slots__ = ("asked",)

    def least(self, mask):
        self.asked = getattr(self, "asked", 0) + 1
        return WorkerLoads.least(self, mask)


def test_a_thousand_workers_are_not_scanned():
    one = PrefixExact()
    object.__setattr__(one, "own", CountingLoads())
    views, rng, levels = Snapshot(view(w) for w in range(1024)), Random(4), 0
    for number in range(300):
        blocks = (0, 1 + rng.randrange(3), 10 + rng.randrange(30), 1000 + number)
        asked = Request(number, 0.0, 2048, 5, blocks)
        levels += 1 + len(one.index.groups(blocks, (1 << 1024) - 1))
        decision = one.route(asked, views, 0.0, rng)
        one.observe(Dispatched(asked, decision), 0.0)
        one.observe(KVStored(decision.prefill, blocks), 0.0)
    assert 300 <= one.own.asked <= levels < 300 * 6


@pytest.mark.parametrize(
    ("make", "parameters", "names"),
    [
        (PrefixExact, {"load_weight": -1.0}, "load_weight"),
        (PrefixExact, {"load_weight": 1e-9}, "load_weight"),
        (PrefixExact, {"overlap_weight": float("nan")}, "overlap_weight"),
        (PrefixExact, {"kv_weight": float("inf")}, "kv_weight"),
        (PrefixExact, {"recent_tokens": -1}, "recent_tokens"),
        (PrefixExact, {"block_tokens": 0}, "block_tokens"),
        (PrefixApprox, {"capacity_blocks": 0}, "capacity_blocks"),
        (PrefixApprox, {"ttl_s": 0.0}, "ttl_s"),
    ],
)
def test_bad_parameters_are_named(make, parameters, names):
    with pytest.raises(InputError, match=f"router {make.name}: {names} is .*; give"):
        make(**parameters)
