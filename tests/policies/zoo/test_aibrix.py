"""AIBrix's prefix-cache: its three rules by hand at their thresholds, its index, and its ties."""

from collections import Counter
from itertools import count
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, WorkerLost
from helpers.policies.zoo.aibrix import AIBrix, SharedBlocks
from helpers.workload.request import Request

BLOCKS = (1, 2, 3, 4, 5, 6)
# Five whole blocks of 100 tokens and a half: the sixth hash stands for the part, which is never matched.
ASKED = Request(999, 0.0, 550, 10, BLOCKS)
NUMBERS = count()


def fleet(workers):
    return Snapshot(view(w) for w in range(workers))


def aibrix(requests, held=(), **parameters):
    """A router that has `requests` under way on the workers and has sent `held` = (worker, blocks) before."""
    one = AIBrix(100, **parameters)
    for worker, blocks in held:
        sent = Request(next(NUMBERS), 0.0, 100 * len(blocks), 10, blocks)
        one.observe(Dispatched(sent, Decision(worker, worker)), 0.0)
        one.observe(Finished(sent, worker), 0.0)
    for worker, under_way in enumerate(requests):
        for _ in range(under_way):
            one.observe(Dispatched(Request(next(NUMBERS), 0.0, 50, 10), Decision(worker, worker)), 0.0)
    return one


def chosen(one, workers, asked=ASKED, now=1.0, seed=0):
    return one.route(asked, fleet(workers), now, Random(seed)).prefill


# Worker 0 has four of the five blocks, 80 %; worker 1 has one, 20 %; worker 2 none.
HELD = ((0, BLOCKS[:4]), (1, BLOCKS[:1]))


def test_the_best_match_wins_up_to_mean_and_sample_deviation():
    # 6, 2, 4: mean 4, deviation sqrt((4 + 4 + 0) / 2) = 2: the limit is 6 and worker 0 is on it.
    # The deviation over n, sqrt(8 / 3) = 1.63, would make it 5.63 and keep worker 0 out.
    one = aibrix((6, 2, 4), HELD)
    assert one.limit([6, 2, 4]) == 6.0
    assert chosen(one, 3) == 0
    # 7, 2, 3: mean 4, deviation sqrt((9 + 4 + 1) / 2) = 2.65: 7 is above 6.65, the next best match is worker 1's.
    assert chosen(aibrix((7, 2, 3), HELD), 3) == 1
    # Two deviations: 4 + 5.29.
    assert chosen(aibrix((7, 2, 3), HELD, deviations=2.0), 3) == 0
    # Nobody else matches: the fewest requests.
    assert chosen(aibrix((7, 2, 3), HELD[:1]), 3) == 1


def test_one_worker_alone_has_no_deviation():
    assert AIBrix(100).limit([5]) == 5
    assert chosen(aibrix((5,), HELD[:1]), 1) == 0


def test_more_than_eight_apart_only_the_least_busy_are_left():
    # 8, 8, 8, 0, 8: eight apart is even. mean 6.4, deviation sqrt((4 x 1.6^2 + 6.4^2) / 4) = 3.58: 8 is below 9.98.
    assert chosen(aibrix((8, 8, 8, 0, 8), HELD), 5) == 0
    # Nine apart is not, whatever worker 0 has.
    assert chosen(aibrix((9, 9, 9, 0, 9), HELD), 5) == 3
    assert chosen(aibrix((9, 9, 9, 0, 9), HELD, imbalance_requests=9), 5) == 0
    # Among the least busy the match still decides: workers 1 and 2 have the fewest, worker 1 the block.
    assert chosen(aibrix((9, 0, 0), HELD), 3) == 1


def test_equal_matches_go_to_fewer_requests_and_then_by_chance():
    both = ((0, BLOCKS[:3]), (1, BLOCKS[:3]), (2, BLOCKS[:3]))
    assert chosen(aibrix((3, 2, 3), both), 3) == 1
    equal = aibrix((2, 2, 2), both)
    picks = [chosen(equal, 3, seed=seed) for seed in range(60)]
    assert picks == [int(Random(seed).random() * 3) for seed in range(60)]
    assert min(Counter(picks).values()) > 8
    # The fall-back too: nobody has anything, workers 0 and 2 are idle.
    assert {chosen(aibrix((0, 1, 0)), 3, seed=seed) for seed in range(20)} == {0, 2}


def test_matches_are_whole_per_cents():
    """Four and three of 250 blocks are both 1 %, so that the requests decide; five are 2 %."""
    blocks = tuple(range(250))
    asked = Request(998, 0.0, 25_000, 10, blocks)
    assert chosen(aibrix((3, 2), ((0, blocks[:4]), (1, blocks[:3]))), 2, asked) == 1
    assert chosen(aibrix((3, 2), ((0, blocks[:5]), (1, blocks[:3]))), 2, asked) == 0


def test_a_partial_block_is_neither_sent_nor_matched():
    one = aibrix((0, 0), [(0, BLOCKS)])
    assert one.matches(ASKED, 0b11) == {0: 100}  # five of five; the part is not counted
    one = AIBrix(100)
    one.observe(Dispatched(ASKED, Decision(1, 1)), 0.0)
    assert 6 not in one.index.masks and 5 in one.index.masks
    short = Request(997, 0.0, 60, 10, (1,))
    assert one.matches(short, 0b11) == {}
    assert chosen(one, 2, short) == 0  # no block, no match: the fewest requests


def test_explained_scores_are_the_terms_and_change_nothing():
    silent, spoken = (aibrix((7, 2, 3), HELD, explain=flag) for flag in (False, True))
    decision = spoken.route(ASKED, fleet(3), 1.0, Random(0))
    assert decision._replace(scores=()) == silent.route(ASKED, fleet(3), 1.0, Random(0))
    found = {(worker, term): value for worker, term, value in decision.scores}
    assert [found[w, "match_percent"] for w in range(3)] == [80, 20, 0]
    assert [found[w, "requests"] for w in range(3)] == [7, 2, 3]
    assert found[0, "limit_requests"] == pytest.approx(4 + 7**0.5)


def test_a_block_is_forgotten_for_everybody_when_nobody_is_sent_it():
    one = SharedBlocks()
    one.use(0, (1, 2), 10, now=0.0)
    one.use(1, (1,), 10, now=5.0)
    one.expire(before=5.0)
    assert one.masks == {1: 0b11}  # worker 0 keeps block 1, because worker 1 was sent it
    one.expire(before=5.1)
    assert one.masks == {} and not one._used


def test_beyond_the_capacity_the_block_sent_longest_ago_goes_first_blocks_first():
    one = SharedBlocks()
    one.use(0, (1, 2), 3, now=0.0)
    one.use(1, (3,), 3, now=1.0)
    one.use(0, (4,), 3, now=2.0)
    assert set(one.masks) == {2, 3, 4}  # block 1, the beginning of its chain, went before block 2
    one.use(1, (2, 5), 3, now=3.0)
    assert set(one.masks) == {2, 4, 5}


def test_the_router_forgets_after_the_ttl_and_with_a_lost_worker():
    one = aibrix((0, 0), [(1, BLOCKS[:5])])
    assert chosen(one, 2, now=1200.0) == 1
    assert one.matches(ASKED, 0b11) == {1: 100}
    chosen(one, 2, now=1200.1)
    assert one.matches(ASKED, 0b11) == {}
    one = aibrix((1, 0, 0), [(1, BLOCKS[:5]), (0, BLOCKS[:2])])
    one.observe(WorkerLost(1), 1.0)
    assert one.matches(ASKED, 0b111) == {0: 40}
    assert one.route(ASKED, Snapshot([view(0), view(2)]), 1.0, Random(0)).prefill == 0


@pytest.mark.parametrize(
    "parameters", [{"imbalance_requests": -1}, {"deviations": -0.5}, {"index_blocks": 0}, {"ttl_s": 0.0}]
)
def test_bad_parameters_are_one_sentence(parameters):
    with pytest.raises(InputError, match=f"router aibrix: .*{next(iter(parameters))}"):
        AIBrix(**parameters)
