"""The books that routers keep of their own requests, against a recount from scratch, and the pools."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.policies.ledger import ActiveBlocks, Ledger, placed_on
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.zoo.pools import Pools


def history(seed, steps=80, workers=4):
    """Random adds (new ones, and some again), removals (some of nobody) and losses."""
    rng = Random(seed)
    for _ in range(steps):
        what, request, worker = rng.random(), rng.randrange(12), rng.randrange(workers)
        if what < 0.55:
            root = rng.randrange(3)
            blocks = tuple(10 * root + k for k in range(rng.randrange(5)))
            yield "add", request, (worker, rng.randrange(workers)), blocks, rng.randrange(4)
        elif what < 0.9:
            yield "remove", request, None, None, None
        else:
            yield "lost", worker, None, None, None


def check_ledger(make, seed):
    """Play a history; after each step the sums must be those of the requests that are left."""
    one, left = make(), {}
    one.grow(4)
    for what, who, workers, _, amount in history(seed):
        if what == "add":
            placed = placed_on(*workers)
            one.add(who, placed, amount)
            left[who] = dict.fromkeys(placed, amount)
        elif what == "remove":
            one.remove(who)
            left.pop(who, None)
        else:
            assert sorted(one.lost(who)) == sorted(r for r, on in left.items() if who in on)
            left = {r: {w: a for w, a in on.items() if w != who} for r, on in left.items()}
            left = {r: on for r, on in left.items() if on}
        for worker in range(4):
            assert one.amount[worker] == sum(on.get(worker, 0) for on in left.values())
            assert one.requests[worker] == sum(worker in on for on in left.values()) >= 0
        assert len(one) == len(left)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_ledger_adds_up(seed):
    check_ledger(Ledger, seed)


class ForgetsToReplace(Ledger):
    """A control: a request that is added again counts twice."""

    def add(self, request, workers, amount):
        self._placed.pop(request, None)
        Ledger.add(self, request, workers, amount)


def test_the_recount_finds_a_request_counted_twice():
    with pytest.raises(AssertionError):
        for seed in range(20):
            check_ledger(ForgetsToReplace, seed)


def check_active(make, seed):
    """Play a history; a worker holds the distinct blocks of its requests, and what they cannot share."""
    one, left = make(), {}
    one.grow(4)
    for what, who, workers, blocks, unnamed in history(seed):
        if what == "add":
            one.add(who, workers[0], blocks, unnamed)
            left[who] = workers[0], blocks, unnamed
        elif what == "remove":
            one.remove(who)
            left.pop(who, None)
        else:
            one.lost(who)
            left = {r: placed for r, placed in left.items() if placed[0] != who}
        for worker in range(4):
            mine = [placed for placed in left.values() if placed[0] == worker]
            named = {block for _, blocks, _ in mine for block in blocks}
            assert one.held[worker] == len(named) + sum(unnamed for *_, unnamed in mine) >= 0
            assert one.requests[worker] == len(mine)
            assert {b for b, mask in one.index.masks.items() if mask >> worker & 1} == named


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_blocks_are_held_until_their_last_user_leaves(seed):
    check_active(ActiveBlocks, seed)


class Unshared(ActiveBlocks):
    """A control: a block that two requests share counts for both."""

    def add(self, request, worker, blocks, unnamed):
        ActiveBlocks.add(self, request, worker, (), len(blocks) + unnamed)


def test_the_recount_finds_shared_blocks_counted_twice():
    with pytest.raises(AssertionError):
        for seed in range(20):
            check_active(Unshared, seed)


def test_the_pools_tell_who_takes_which_part():
    one = Pools()
    views = Snapshot([view(0, "prefill"), view(1, "decode"), view(2), view(5, "decode")])
    assert one.see(views) and not one.see(views)
    assert (one.prefill, one.decode, one.mixed) == ((0, 2), (1, 2, 5), {2})
    assert (one.prefill_mask, one.decode_mask, one.size, one.split) == (0b101, 0b100110, 6, True)
    assert one.see(Snapshot([view(1), view(3)]))
    assert (one.prefill, one.mixed, one.size, one.split) == ((1, 3), {1, 3}, 4, False)


def test_pools_that_change_in_place_are_looked_at_again():
    one, views = Pools(), Snapshot([view(0), view(1)])
    views.prefill = views.decode = [0, 1]
    assert one.see(views) and one.see(views)
    views.prefill.remove(0)
    assert one.see(views) and one.prefill == (1,)


@pytest.mark.parametrize(("role", "says"), [("prefill", "takes decodes"), ("decode", "takes prefills")])
def test_a_fleet_without_one_half_is_refused(role, says):
    with pytest.raises(InputError, match=says):
        Pools().see(Snapshot([view(0, role)]))
