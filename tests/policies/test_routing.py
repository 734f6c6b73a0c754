"""The routers by load: where each sends, by its own rule."""

from collections import Counter
from hashlib import blake2b
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.workload.request import Request


def request(number, blocks=(0, 1), session=None, tenant="default"):
    return Request(number, number / 10, 512 * len(blocks) + 5, 20, tuple(blocks), session=session, tenant=tenant)


def counts(name, views, total, **parameters):
    one, rng = router(name, len(views.prefill), **parameters), Random(11)
    return Counter(one.route(request(n, session=n), views, 0.0, rng).prefill for n in range(total))


def chi_square(found, workers):
    """Pearson's statistic of the counts against equal shares."""
    expected = sum(found.values()) / len(workers)
    return sum((found[w] - expected) ** 2 / expected for w in workers)


# 99.99 % point of chi-square with 15 degrees of freedom.
CHI_SQUARE_15 = 44.26


@pytest.mark.parametrize("name", ["random", "static_shard", "power_of_two"])
def test_equal_workers_get_equal_shares(name):
    views = Snapshot(view(w) for w in range(16))
    assert chi_square(counts(name, views, 8000), range(16)) < CHI_SQUARE_15


def test_the_share_test_finds_ties_broken_by_the_lowest_id():
    # Power of two with the lower id among equals sends worker w the pairs in which it is the lower.
    rng = Random(11)
    found = Counter(min(rng.sample(range(16), 2)) for _ in range(8000))
    assert chi_square(found, range(16)) > CHI_SQUARE_15


def test_round_robin_takes_the_workers_in_turn():
    one, rng = router("round_robin", 3), Random(0)
    views = Snapshot(view(w) for w in (4, 7, 9))
    assert [one.route(request(n), views, 0.0, rng).prefill for n in range(7)] == [4, 7, 9, 4, 7, 9, 4]
    fewer = Snapshot(view(w) for w in (4, 9))
    after = [one.route(request(n), fewer, 0.0, rng).prefill for n in range(4)]
    assert sorted(after) == [4, 4, 9, 9] and after[0] != after[1]


def test_static_shard_follows_the_hash_of_the_session():
    views = Snapshot(view(w) for w in range(7))
    one = router("static_shard", 7)
    for session in range(50):
        expected = int.from_bytes(blake2b(f"session {session}".encode(), digest_size=8).digest(), "big") % 7
        chosen = {one.route(request(n, (0, n), session), views, 0.0, Random(n)).prefill for n in range(3)}
        assert chosen == {expected}


def test_static_shard_without_sessions_goes_by_tenant_and_leading_blocks():
    views = Snapshot(view(w) for w in range(16))

    def places(requests, **parameters):
        one = router("static_shard", 16, **parameters)
        return [one.route(r, views, 0.0, Random(0)).prefill for r in requests]

    same = [request(n, (0, 5, 100 + n)) for n in range(20)]
    users = [request(n, (0, 100 + n, 7)) for n in range(60)]
    tenants = [request(n, (0, 5), tenant=f"tenant {n}") for n in range(60)]
    alone = [request(n, ()) for n in range(60)]
    assert len(set(places(same))) == 1
    assert all(len(set(places(kind))) > 10 for kind in (users, tenants, alone))
    # A block that all prompts open with is no key: with it alone, everything goes to one worker.
    assert len(set(places(users, leading_blocks=1))) == 1


LOADS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12
)


def loaded(loads):
    return Snapshot(
        view(w, running=run, waiting=wait, waiting_tokens=100 * tokens, kv_tokens=500 * kv)
        for w, (run, wait, tokens, kv) in enumerate(loads)
    )


@given(loads=LOADS)
def test_least_requests_is_the_first_minimum(loads):
    requests = [run + wait for run, wait, _, _ in loads]
    chosen = router("least_requests", len(loads)).route(request(0), loaded(loads), 0.0, Random(0))
    assert chosen.prefill == requests.index(min(requests))


@given(loads=LOADS, weight=st.sampled_from([0.0, 0.1, 0.2, 1.0]))
def test_least_tokens_is_the_first_minimum(loads, weight):
    tokens = [100 * waiting + weight * (500 * kv) for _, _, waiting, kv in loads]
    one = router("least_tokens", len(loads), kv_weight=weight)
    assert one.route(request(0), loaded(loads), 0.0, Random(0)).prefill == tokens.index(min(tokens))


def test_each_least_router_minds_its_own_measure():
    views = Snapshot(
        [view(0, running=9, waiting=0, waiting_tokens=0), view(1, running=0, waiting=1, waiting_tokens=99)]
    )
    assert router("least_requests", 2).route(request(0), views, 0.0, Random(0)).prefill == 1
    assert router("least_tokens", 2).route(request(0), views, 0.0, Random(0)).prefill == 0
    views = Snapshot([view(0, waiting_tokens=100), view(1, kv_tokens=500)])
    assert router("least_tokens", 2, kv_weight=0.1).route(request(0), views, 0.0, Random(0)).prefill == 1
    assert router("least_tokens", 2, kv_weight=0.3).route(request(0), views, 0.0, Random(0)).prefill == 0


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), (3, 0, 7, 1, 5, 2, 6, 4)])
def test_power_of_two_spares_the_worst_worker_and_takes_the_best_most(order):
    found = counts("power_of_two", Snapshot(view(w, waiting=waiting) for w, waiting in enumerate(order)), 4000)
    by_rank = [found[list(order).index(rank)] for rank in range(8)]
    # The worker of rank k wins against the 7 - k with more: 2 (7 - k) of the 56 ordered pairs.
    expected = [4000 * 2 * (7 - rank) / 56 for rank in range(8)]

    def fits(shares):
        return all(abs(share - want) <= 5 * want**0.5 for share, want in zip(shares, expected, strict=True))

    assert fits(by_rank) and by_rank[7] == 0
    assert not fits(by_rank[1:] + by_rank[:1])


def test_power_of_two_takes_the_first_drawn_among_equals():
    views, one = Snapshot(view(w) for w in range(8)), router("power_of_two", 8)
    chosen = [one.route(request(0), views, 0.0, Random(seed)).prefill for seed in range(50)]
    assert chosen == [int(Random(seed).random() * 8) for seed in range(50)]
