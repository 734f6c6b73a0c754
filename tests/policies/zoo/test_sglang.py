"""SGLang's cache_aware: its two thresholds by hand, the miss that spirals, its tree and its counts."""

from collections import Counter
from copy import deepcopy
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, WorkerLost
from helpers.policies.zoo.sglang import SGLangCacheAware
from helpers.workload.request import Request

THREE = Snapshot(view(w) for w in range(3))
SPLIT = Snapshot([view(0, "prefill"), view(1, "prefill"), view(2, "decode"), view(3, "decode")])


def loaded(counts, **parameters):
    """A router with so many requests in flight on each worker, without hashes."""
    one = SGLangCacheAware(100, **parameters)
    for worker, count in enumerate(counts):
        for number in range(count):
            one.observe(Dispatched(Request(1000 * worker + number, 0.0, 50, 5), Decision(worker, worker)), 0.0)
    return one


def send(one, number, worker, blocks, tokens=None):
    asked = Request(number, 0.0, tokens or 100 * len(blocks), 5, tuple(blocks))
    one.observe(Dispatched(asked, Decision(worker, worker)), 0.0)
    return asked


def choose(one, asked, views=THREE):
    return one.route(asked, views, 0.0, Random(0)).prefill


@pytest.mark.parametrize(
    ("counts", "parameters", "uneven"),
    [
        ((64, 0, 0), {}, False),  # 64 is not above 64
        ((65, 0, 0), {}, True),
        ((100, 70, 36), {}, False),  # 64 apart
        ((300, 250, 210), {}, False),  # 90 apart, but 300 < 1.5 x 210
        ((320, 250, 210), {}, True),  # 320 > 315
        ((315, 250, 210), {}, False),  # 315 is not above 315
        ((6, 3, 2), {"balance_abs_threshold": 3, "balance_rel_threshold": 2.5}, True),  # 4 > 3 and 6 > 5
        ((6, 3, 3), {"balance_abs_threshold": 3, "balance_rel_threshold": 1.5}, False),  # 3 is not above 3
        ((6, 3, 2), {"balance_abs_threshold": 3, "balance_rel_threshold": 3.0}, False),  # 6 is not above 6
    ],
)
def test_uneven_needs_both_thresholds(counts, parameters, uneven):
    one = loaded(counts, **parameters)
    asked = Request(9, 0.0, 400, 5, (1, 2, 3, 4))
    one.tree.use(0, asked.prefix_blocks, 99)  # the fullest worker has the whole prompt
    assert choose(one, asked) == (counts.index(min(counts)) if uneven else 0)
    assert one.uneven() is uneven


@pytest.mark.parametrize(
    ("matched", "tokens", "parameters", "worker"),
    [
        (3, 1000, {}, 0),  # 300 of 1,000 is not above 0.3: the least loaded
        (4, 1000, {}, 2),
        (3, 999, {}, 2),  # 0.3003
        (4, 1000, {"cache_threshold": 0.4}, 0),
        (5, 1000, {"cache_threshold": 0.4}, 2),
        (0, 1000, {"cache_threshold": 0.0}, 0),
        (1, 1000, {"cache_threshold": 0.0}, 2),
    ],
)
def test_a_match_decides_above_its_threshold(matched, tokens, parameters, worker):
    one = loaded((1, 2, 3), **parameters)
    one.tree.use(2, tuple(range(matched)), 99)
    one.tree.use(1, tuple(range(min(matched, 1))), 99)  # a shorter match, or the same
    if matched == 1:
        worker = 1 if worker == 2 else worker  # the lowest id among equals
    assert choose(one, Request(9, 0.0, tokens, 5, tuple(range(10)))) == worker


def test_a_started_block_matches_the_same_prompt_and_no_more_than_its_tokens():
    one = SGLangCacheAware(100)
    send(one, 0, 1, (1, 2), tokens=130)
    assert one.matched(Request(1, 0.0, 130, 5, (1, 2)), 2) == 1.0
    assert choose(one, Request(1, 0.0, 130, 5, (1, 2))) == 1
    assert choose(one, Request(2, 0.0, 400, 5, (1, 9, 8, 7))) == 0  # a quarter


def test_below_the_absolute_threshold_a_match_is_followed_however_long_the_queue():
    one, decided = SGLangCacheAware(100), []
    for number in range(70):
        asked = Request(number, 0.0, 1000, 5, (*range(4), *range(100 * number + 4, 100 * number + 10)))
        decided.append(choose(one, asked))
        one.observe(Dispatched(asked, Decision(decided[-1], decided[-1])), 0.0)
    assert decided[:65] == [0] * 65  # worker 0 has 65 in flight, the others none
    assert decided[65] == 1  # 65 apart: uneven, and from here on the shortest queue


def test_a_miss_takes_the_least_loaded_and_always_the_first_of_an_idle_fleet():
    """The second is sglang issue 32983: one request at a time, and one worker gets them all."""
    assert choose(loaded((3, 1, 2)), Request(9, 0.0, 400, 5, (7,))) == 1
    one, found = SGLangCacheAware(100), Counter()
    for number in range(20):
        asked = Request(number, 0.0, 200, 5, (2 * number, 2 * number + 1))
        found[choose(one, asked)] += 1
        one.observe(Dispatched(asked, Decision(0, 0)), 0.0)
        one.observe(Finished(asked, 0), 0.0)
    assert found == {0: 20}


@pytest.mark.parametrize(("smallest_tree", "sent"), [(True, {1: 40}), (False, {0: 30, 1: 10})])
def test_the_death_spiral(smallest_tree, sent):
    """Worker 1 is stuck with 20 prompts, but its tree is small; worker 0 is idle and remembers 100 documents.

    Forty strangers come. By tree they all join the queue of worker 1; by load worker 0 first draws level at 20.
    """
    one = SGLangCacheAware(100, smallest_tree=smallest_tree)
    for number in range(100):
        one.observe(Finished(send(one, number, 0, range(1000 * number, 1000 * number + 10)), 0), 0.0)
    for number in range(100, 120):
        send(one, number, 1, (10**6 + number,))
    found = Counter()
    for number in range(200, 240):
        asked = Request(number, 0.0, 100, 5, (10**7 + number,))
        worker = choose(one, asked, Snapshot([view(0), view(1)]))
        one.observe(Dispatched(asked, Decision(worker, worker)), 0.0)
        found[worker] += 1
    assert found == sent


def test_a_tree_drops_what_was_used_longest_ago():
    """1,600 characters at 4 a token and 100 tokens a block are four blocks."""
    one = SGLangCacheAware(100, max_tree_chars=1600)
    send(one, 0, 0, (1, 2, 3))
    send(one, 1, 0, (7, 8))
    assert one.tree.size(0) == 4 and set(one.tree.held(0)) == {1, 2, 7, 8}
    assert SGLangCacheAware(100, max_tree_chars=1).max_tree_chars == 1
    tiny = SGLangCacheAware(100, max_tree_chars=1)
    send(tiny, 0, 0, (1, 2, 3))
    assert tiny.tree.held(0) == (1,)  # at least one block is kept


def test_requests_count_on_both_workers_until_they_end():
    one, asked = SGLangCacheAware(100), Request(0, 0.0, 100, 5, (1,))
    one.route(asked, SPLIT, 0.0, Random(0))
    one.observe(Dispatched(asked, Decision(0, 3)), 0.0)
    assert one.in_flight.requests == [1, 0, 0, 1]
    assert one.route(Request(1, 0.0, 100, 5, (9,)), SPLIT, 0.0, Random(0)) == Decision(1, 2)
    one.observe(Finished(asked, 3), 1.0)
    assert one.in_flight.requests == [0, 0, 0, 0]


def test_a_request_that_comes_back_counts_once_and_a_lost_worker_is_forgotten():
    one = SGLangCacheAware(100)
    asked = send(one, 0, 0, (1, 2))
    one.observe(WorkerLost(0), 0.0)
    assert one.in_flight.requests == [0] and one.tree.size(0) == 0
    left = Snapshot([view(1), view(2)])
    assert choose(one, asked, left) == 1
    for _ in range(2):
        one.observe(Dispatched(asked, Decision(1, 1)), 0.0)
    assert one.in_flight.requests[1] == 1
    for _ in range(2):
        one.observe(Finished(asked, 1), 0.0)
    assert one.in_flight.requests == [0, 0, 0]


def test_only_live_workers_count_for_unevenness():
    one = loaded((70, 1, 2))
    assert choose(one, Request(9, 0.0, 100, 5), Snapshot([view(0), view(1)])) == 1 and one.uneven()
    choose(one, Request(9, 0.0, 100, 5), Snapshot([view(1), view(2)]))
    assert not one.uneven()


def test_explained_scores_are_the_terms_and_change_nothing():
    spoken = loaded((1, 2, 0), explain=True)
    quiet = loaded((1, 2, 0))
    for one in (spoken, quiet):
        send(one, 50, 1, (1, 2, 3))
    asked = Request(9, 0.0, 400, 5, (1, 2, 3, 4))
    decision = spoken.route(asked, THREE, 0.0, Random(0))
    assert decision._replace(scores=()) == quiet.route(asked, THREE, 0.0, Random(0))
    terms = {}
    for worker, name, value in decision.scores:
        terms.setdefault(name, []).append((worker, value))
    assert terms == {
        "in_flight": [(0, 1), (1, 3), (2, 0)],
        "matched_share": [(0, 0.0), (1, 0.75), (2, 0.0)],
        "tree_blocks": [(0, 0), (1, 3), (2, 0)],
    }


def test_a_copy_made_halfway_goes_on_the_same():
    one = loaded((2, 0, 1), cache_threshold=0.1)
    other = deepcopy(one)

    def go_on(router):
        chosen = []
        for number in range(5000, 5040):
            asked = Request(number, 0.0, 400, 5, (number % 5, number % 3 + 10 * (number % 5), number, number + 1))
            chosen.append(router.route(asked, THREE, 0.0, Random(0)))
            router.observe(Dispatched(asked, chosen[-1]), 0.0)
        return chosen

    assert go_on(one) == go_on(other) != go_on(SGLangCacheAware(100, cache_threshold=0.1))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"balance_abs_threshold": -1}, "balance_abs_threshold is -1; give"),
        ({"cache_threshold": -0.1}, "cache_threshold is -0.1; give"),
        ({"max_tree_chars": 0}, "max_tree_chars is 0; give 1 or more"),
        ({"smallest_tree": 1}, "smallest_tree is 1; give true or false"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, says):
    with pytest.raises(InputError, match=says):
        router("sglang_cache_aware", 4, **parameters)
