"""production-stack's two routers by cached prefix: the score by hand, the threshold, and the hot spot."""

from collections import Counter
from itertools import count
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, KVEvicted, KVStored, WorkerLost
from helpers.policies.zoo.production_stack import KVAware, LoadAware, Rates, owner
from helpers.workload.request import Request

BLOCKS = tuple(range(10))
ASKED = Request(999, 0.0, 1000, 10, BLOCKS)
NUMBERS = count()


def fleet(workers):
    return Snapshot(view(w) for w in range(workers))


def router(kind, stored=(), loads=(), block_tokens=100, **parameters):
    """A router that knows what the caches have `stored` (blocks a worker) and has `loads` requests under way."""
    one = kind(block_tokens, **parameters)
    for worker, blocks in enumerate(stored):
        one.observe(KVStored(worker, BLOCKS[:blocks]), 0.0)
    for worker, load in enumerate(loads):
        for _ in range(load):
            one.observe(Dispatched(Request(next(NUMBERS), 0.0, 50, 10), Decision(worker, worker)), 0.0)
    return one


def chosen(one, workers, asked=ASKED, now=1.0):
    return one.route(asked, fleet(workers), now, Random(0)).prefill


def test_the_score_of_loadaware_by_hand():
    """Matched 0.8, 0.2 and 0 of the prompt; loads 5, 2, 2: the mean is 3, the loads +2/3, -1/3 and -1/3 of it."""
    stored, loads = (8, 2, 0), (5, 2, 2)
    one = router(LoadAware, stored, loads, explain=True)
    found = {(w, term): value for w, term, value in one.route(ASKED, fleet(3), 1.0, Random(0)).scores}
    assert [found[w, "matched_share"] for w in range(3)] == [0.8, 0.2, 0.0]
    assert [found[w, "relative_load"] for w in range(3)] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert [found[w, "score"] for w in range(3)] == pytest.approx([0.8 - 2 / 3, 0.2 + 1 / 3, 1 / 3])
    assert chosen(one, 3) == 1
    assert chosen(router(LoadAware, stored, loads, beta=0.5), 3) == 0  # 0.8 - 0.33, 0.2 + 0.17, 0.17
    assert chosen(router(LoadAware, stored, loads, beta=0.0), 3) == 0
    # Worker 2 has nothing cached and wins when it alone is idle: 0.8 - 0.5, 0.2 - 0.5, 1.
    assert chosen(router(LoadAware, stored, (3, 3, 0)), 3) == 2


def test_below_a_mean_of_one_the_load_is_not_blown_up():
    """Loads 1 and 0: the mean is 0.5. Over max(1, mean) the scores are 1 - 0.5 and 0 + 0.5: equal, the lower id wins.

    Over the mean itself worker 0 would be at 1 - 1 and lose.
    """
    assert chosen(router(LoadAware, (10, 0), (1, 0)), 2) == 0
    assert chosen(router(LoadAware, (0, 10), (0, 1)), 2) == 0
    assert chosen(router(LoadAware, (0, 10), (1, 1)), 2) == 1


def test_no_more_than_the_whole_prompt_is_matched():
    short = Request(998, 0.0, 950, 10, BLOCKS)  # ten blocks of 100 tokens would be 1.05 of it
    one = router(LoadAware, (10, 9), explain=True)
    found = {(w, term): value for w, term, value in one.route(short, fleet(2), 1.0, Random(0)).scores}
    assert [found[w, "matched_share"] for w in range(2)] == [1.0, 900 / 950]


def test_loads_are_requests_under_way_not_requests_sent():
    one = LoadAware(100)
    for number in range(4):
        one.observe(Dispatched(Request(number, 0.0, 50, 10), Decision(0, 0)), 0.0)
        one.observe(Finished(Request(number, 0.0, 50, 10), 0), 0.5)
    one.observe(KVStored(0, BLOCKS[:1]), 0.5)
    assert chosen(one, 2) == 0


@pytest.mark.parametrize("kind", [LoadAware, KVAware])
def test_what_nobody_holds_goes_to_the_lowest_rate_within_the_window(kind):
    one = kind(100)
    for worker, at_s in ((0, 0.0), (0, 1.0), (1, 30.0), (2, 31.0), (2, 32.0), (1, 33.0)):
        sent = Request(next(NUMBERS), at_s, 50, 10)
        one.observe(Dispatched(sent, Decision(worker, worker)), at_s)
        one.observe(Finished(sent, worker), at_s)
    assert chosen(one, 3, now=40.0) == 0  # two each: the lowest id
    assert chosen(one, 4, now=40.0) == 3  # never asked
    one.observe(Dispatched(Request(next(NUMBERS), 59.0, 50, 10), Decision(0, 0)), 59.0)
    assert chosen(one, 3, now=60.0) == 1  # three, two, two: the request of time 0 is just within the window
    assert chosen(one, 3, now=60.5) == 0  # two each
    assert chosen(one, 3, now=94.0) == 1  # one, none, none


def test_rates_never_fall_below_zero():
    one = Rates()
    one.add(1, 0.0)
    for now in (10.0, 100.0, 200.0):
        one.least([0, 1], now, 60.0)
    assert one.count == {1: 0}


def test_a_session_keeps_its_worker_and_only_the_lost_workers_sessions_move():
    before = {session: owner(session, range(5)) for session in range(400)}
    after = {session: owner(session, [0, 1, 3, 4]) for session in range(400)}
    assert all(after[s] == w for s, w in before.items() if w != 2)
    assert min(Counter(before.values()).values()) > 50 and min(Counter(after.values()).values()) > 60
    for kind in (LoadAware, KVAware):
        one = kind(100)
        for session in range(20):
            asked = Request(next(NUMBERS), 0.0, 1000, 10, (100 + session,), session=session)
            assert chosen(one, 5, asked) == before[session]


def test_kvaware_allows_what_the_first_holder_lacks_up_to_the_threshold():
    """Worker 1 has 1,000 tokens, worker 2 all but the rest of 3,000 or 3,001; worker 0 has been sent nothing yet."""
    blocks = tuple(range(7))
    one = router(KVAware, (0, 2, 6), block_tokens=500)
    assert chosen(one, 3, Request(1, 0.0, 3000, 10, blocks)) == 1  # lacks 2,000, although worker 2 has more
    assert chosen(one, 3, Request(2, 0.0, 3001, 10, blocks)) == 0  # lacks 2,001: by rate
    assert (
        chosen(router(KVAware, (0, 2, 6), block_tokens=500, threshold_tokens=0), 3, Request(1, 0, 3000, 9, blocks)) == 0
    )
    # A prompt shorter than the threshold goes to whoever has its first block.
    assert chosen(one, 3, Request(3, 0.0, 1800, 10, (0, 90, 91, 92))) == 1
    assert chosen(one, 3, Request(4, 0.0, 1800, 10, (80, 90, 91, 92))) == 0
    spoken = router(KVAware, (0, 2, 6), block_tokens=500, explain=True)
    scores = spoken.route(Request(1, 0.0, 3000, 10, blocks), fleet(3), 1.0, Random(0)).scores
    assert scores == ((0, "matched_tokens", 0), (1, "matched_tokens", 1000), (2, "matched_tokens", 3000))


def shares(one, requests=60):
    """Where prompts go that share their first 800 tokens, none of which ends; the caches store what they are sent."""
    found = Counter()
    for number in range(requests):
        asked = Request(number, number / 10, 1000, 10, (*BLOCKS[:8], 100 + number, 200 + number))
        decision = one.route(asked, fleet(4), number / 10, Random(0))
        found[decision.prefill] += 1
        one.observe(Dispatched(asked, decision), number / 10)
        one.observe(KVStored(decision.prefill, asked.prefix_blocks), number / 10)
    return found


def test_kvaware_sends_a_shared_prefix_to_one_worker_and_loadaware_does_not():
    assert shares(KVAware(100)) == {0: 60}
    spread = shares(LoadAware(100))
    assert len(spread) == 4 and max(spread.values()) < 25
    assert shares(LoadAware(100, beta=0.0)) == {0: 60}  # the load term is what spreads


@pytest.mark.parametrize("kind", [LoadAware, KVAware])
def test_evictions_and_losses_are_forgotten(kind):
    asked = Request(1, 0.0, 300, 10, BLOCKS[:3])
    one = router(kind, (0, 3))
    assert chosen(one, 2, asked) == 1
    one.observe(KVEvicted(1, BLOCKS[:1]), 1.0)
    assert chosen(one, 2, asked) == 0
    one = router(kind, (0, 3))
    one.observe(WorkerLost(1), 1.0)
    assert chosen(one, 2, asked) == 0 and not one.index.masks


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [(LoadAware, {"beta": -1.0}), (KVAware, {"threshold_tokens": -1}), (KVAware, {"window_s": -1.0})],
)
def test_bad_parameters_are_one_sentence(kind, parameters):
    with pytest.raises(InputError, match=f"router production_stack.*{next(iter(parameters))} is -1"):
        kind(**parameters)
