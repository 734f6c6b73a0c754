"""Mooncake's Conductor: its formula by hand, against a scan written apart, and its two limits."""

from copy import deepcopy
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, KVEvicted, KVStored, WorkerLost
from helpers.policies.zoo.mooncake import Backlog, Mooncake
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

# A token takes 10 ms, a step 100 ms more; a copied token 1 ms, a copy 50 ms more; blocks of 100 tokens.
PREDICTOR = CostPredictor(AffineCost(0.1, 0.01, 0.0, 0.0, 0.0), 10_000, Link(0.05, 1e9), 1e6)
THREE = Snapshot(view(w) for w in range(3))
ASKED = Request(9, 2.0, 450, 10, (1, 2, 3, 4, 5))


def conductor(**parameters):
    return Mooncake(PREDICTOR, 100, **parameters)


def worked_example(**parameters):
    """Worker 0 has the whole prefix and a long queue, 1 has a block and is idle, 2 has two and a short queue."""
    one = conductor(**parameters)
    for worker, blocks in enumerate([(1, 2, 3, 4), (1,), (1, 2)]):
        one.observe(KVStored(worker, blocks), 0.0)
    one.observe(Dispatched(Request(0, 0.0, 500, 10), Decision(0, 0)), 0.0)  # 0.1 + 5.0 s from time 0
    one.observe(Dispatched(Request(1, 1.5, 100, 10), Decision(2, 2)), 1.5)  # 0.1 + 1.0 s from time 1.5
    return one


def terms(one, now=2.0):
    return {
        c.worker: (c.transfer_s, c.queue_s, c.prefill_s, c.source, c.cached_tokens)
        for c in one.choices(ASKED, THREE, now)
    }


def test_the_terms_by_hand():
    """At time 2 worker 0 has 5.1 - 2.0 s to go, worker 2 has 1.1 - 0.5 s. Prefill: 0.1 + 0.01 x tokens not cached."""
    local = terms(worked_example(fetch=False))
    assert local[0] == (0.0, pytest.approx(3.1), pytest.approx(0.6), None, 400)
    assert local[1] == (0.0, 0.0, pytest.approx(3.6), None, 100)
    assert local[2] == (0.0, pytest.approx(0.6), pytest.approx(2.6), None, 200)
    # Above a ratio of 2 only worker 1 copies (4 blocks against 1): the 300 tokens it lacks, 0.05 + 0.3 s.
    copied = terms(worked_example(balancing_threshold=2.0))
    assert copied[1] == (pytest.approx(0.35), 0.0, pytest.approx(0.6), 0, 400)
    assert copied[0] == local[0] and copied[2] == local[2]
    # Above a ratio of 1 worker 2 copies too.
    assert terms(worked_example())[2] == (pytest.approx(0.25), pytest.approx(0.6), pytest.approx(0.6), 0, 400)


@pytest.mark.parametrize(
    ("parameters", "decision"),
    [
        ({"fetch": False}, Decision(2, 2)),  # 3.7, 3.6, 3.2 s
        ({}, Decision(1, 1, 0, 400)),  # 3.7, 0.95, 1.45 s
        ({"balancing_threshold": 2.0}, Decision(1, 1, 0, 400)),  # 3.7, 0.95, 3.2 s
        ({"balancing_threshold": 4.0}, Decision(2, 2)),  # 4 / 1 is not above 4: as without copies
    ],
)
def test_the_worked_example_is_decided_by_the_least_sum(parameters, decision):
    assert worked_example(**parameters).route(ASKED, THREE, 2.0, Random(0)) == decision


def test_what_a_copy_saves_is_taken_off_the_backlog():
    one = worked_example()
    one.observe(Dispatched(ASKED, one.route(ASKED, THREE, 2.0, Random(0))), 2.0)
    assert one.backlog.queue_s(1, 2.0) == pytest.approx(0.6)
    local = worked_example()
    local.observe(Dispatched(ASKED, Decision(1, 1)), 2.0)
    assert local.backlog.queue_s(1, 2.0) == pytest.approx(3.6)


def test_later_the_queue_is_gone_and_the_prefix_decides():
    one = worked_example(fetch=False)
    one.observe(FirstToken(Request(0, 0.0, 500, 10), 0), 5.0)
    assert one.route(ASKED, THREE, 5.0, Random(0)).prefill == 0


def test_explained_scores_are_the_terms_and_change_nothing():
    spoken = worked_example(explain=True).route(ASKED, THREE, 2.0, Random(0))
    assert spoken._replace(scores=()) == worked_example().route(ASKED, THREE, 2.0, Random(0))
    found = {(worker, term): value for worker, term, value in spoken.scores}
    assert found[1, "ttft_s"] == pytest.approx(0.95) == min(v for (_, term), v in found.items() if term == "ttft_s")


def test_the_backlog_takes_off_what_the_first_has_done_and_no_more():
    one = Backlog()
    assert one.queue_s(0, 5.0) == 0.0
    one.add(1, 0, 3.0, 10.0)
    one.add(2, 0, 4.0, 11.0)
    assert [one.queue_s(0, now) for now in (9.0, 10.0, 12.0, 50.0)] == pytest.approx([7.0, 7.0, 5.0, 4.0])
    one.done(1, 14.0)  # a second late: the other begins only now
    assert [one.queue_s(0, now) for now in (14.0, 15.0)] == pytest.approx([4.0, 3.0])
    one.add(2, 3, 1.0, 16.0)  # dispatched again, elsewhere
    assert one.queue_s(0, 16.0) == 0.0 and one.queue_s(3, 16.0) == 1.0
    one.done(99, 16.0)
    one.lost(3)
    one.done(2, 17.0)
    assert one.queue_s(3, 17.0) == 0.0


def test_a_request_that_never_tells_a_first_token_again_leaves_when_it_finishes():
    one = conductor()
    asked = Request(0, 0.0, 500, 10)
    one.observe(Dispatched(asked, Decision(1, 1)), 0.0)
    assert one.backlog.queue_s(1, 0.0) > 5
    one.observe(Finished(asked, 1), 1.0)
    assert one.backlog.queue_s(1, 1.0) == 0.0


def test_promised_blocks_count_where_they_were_sent_but_are_not_copied_from():
    for promise, expected in ((True, 400), (False, 0)):
        one = conductor(promise=promise)
        one.observe(Dispatched(ASKED, Decision(1, 1)), 0.0)
        found = {c.worker: (c.cached_tokens, c.source) for c in one.choices(ASKED, THREE, 0.0)}
        assert found == {0: (0, None), 1: (expected, None), 2: (0, None)}
    one.observe(KVStored(1, (1, 2, 3, 4)), 1.0)
    assert {c.source for c in one.choices(ASKED, THREE, 1.0) if c.worker != 1} == {1}


def test_a_partial_last_block_is_neither_matched_nor_promised():
    one = conductor()
    one.observe(Dispatched(ASKED, Decision(1, 1)), 0.0)
    assert 5 not in one.coming.masks and 4 in one.coming.masks
    whole = Request(8, 0.0, 400, 10, (1, 2, 3, 4))  # its last token is always computed: three blocks can match
    assert max(c.cached_tokens for c in one.choices(whole, THREE, 0.0)) == 300


def test_eviction_and_loss_are_forgotten():
    one = worked_example()
    one.observe(KVEvicted(0, (3, 4)), 1.0)
    assert {c.cached_tokens for c in one.choices(ASKED, THREE, 1.0)} == {200}
    one.observe(WorkerLost(0), 1.0)
    left = Snapshot([view(1), view(2)])
    assert {c.source for c in one.choices(ASKED, left, 1.0)} == {None, 2}
    assert one.backlog.queue_s(0, 1.0) == 0.0 and not any(mask & 1 for mask in one.index.masks.values())


def test_without_a_link_nothing_is_copied():
    alone = CostPredictor(PREDICTOR.cost, PREDICTOR.chunk_tokens)
    one = Mooncake(alone, 100)
    one.observe(KVStored(0, (1, 2, 3, 4)), 0.0)
    assert all(c.source is None and c.ttft_s < inf for c in one.choices(ASKED, THREE, 0.0))


def history(one, seed, workers=4, steps=60):
    """Random dispatches, first tokens, stores and evictions; the decisions on the way."""
    rng, views, now, decisions, running = Random(seed), Snapshot(view(w) for w in range(workers)), 0.0, [], []
    for number in range(steps):
        now += rng.random()
        root = rng.randrange(3)
        blocks = tuple(100 * root + k for k in range(1 + rng.randrange(8)))
        asked = Request(number, now, max(1, 100 * len(blocks) - rng.randrange(100)), 5, blocks)
        decision = one.route(asked, views, now, Random(0))
        decisions.append((decision, scan(one, asked, range(workers), now)))
        one.observe(Dispatched(asked, decision), now)
        running.append((asked, decision))
        if rng.random() < 0.6:
            done, where = running.pop(rng.randrange(len(running)))
            one.observe(KVStored(where.prefill, done.prefix_blocks[: done.prompt_tokens // 100]), now)
            one.observe(FirstToken(done, where.prefill), now)
        if rng.random() < 0.2:
            one.observe(KVEvicted(rng.randrange(workers), (100 * root + 2, 100 * root + 3)), now)
    return decisions


def scan(one, asked, workers, now):
    """Algorithm 1, lines 2 to 16, one worker after the other: the decisions with the least TTFT, rounding apart."""
    blocks = asked.prefix_blocks[: (asked.prompt_tokens - 1) // 100]
    stored = [one.index.depth(w, blocks) for w in workers]
    known = [one.coming.depth(w, blocks) for w in workers] if one.promise else stored
    best, found = max(stored), []
    for w in workers:
        fetched = one.fetch and best > known[w] and best > one.balancing_threshold * max(known[w], 1e-9)
        prefix = best if fetched else known[w]
        transfer = 0.05 + 1e-3 * 100 * (best - known[w]) if fetched else 0.0
        ttft = transfer + one.backlog.queue_s(w, now) + 0.1 + 0.01 * (asked.prompt_tokens - 100 * prefix)
        found.append((ttft, Decision(w, w, *((stored.index(best), 100 * best) if fetched else ()))))
    return [decision for ttft, decision in found if ttft < min(found)[0] + 1e-9]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**9), threshold=st.sampled_from([1.0, 1.5, 3.0]), fetch=st.booleans(), promise=st.booleans()
)
def test_the_choice_is_that_of_the_algorithm_worker_by_worker(seed, threshold, fetch, promise):
    one = conductor(fetch=fetch, balancing_threshold=threshold, promise=promise)
    for decision, scanned in history(one, seed):
        assert decision in scanned


class NoQueue(Backlog):
    """A control: a Conductor that believes every worker idle."""

    def queue_s(self, worker, now):
        return 0.0


def test_the_scan_finds_a_conductor_that_ignores_the_queue():
    one = conductor()
    blind = deepcopy(one)
    object.__setattr__(blind, "backlog", NoQueue())
    views, asked = Snapshot(view(w) for w in range(3)), Request(0, 0.0, 500, 10)
    for router in (one, blind):
        router.observe(Dispatched(asked, Decision(0, 0)), 0.0)
    honest = scan(one, ASKED, range(3), 0.0)
    assert one.route(ASKED, views, 0.0, Random(0)) in honest
    assert blind.route(ASKED, views, 0.0, Random(0)) not in honest


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_without_fetch_no_source_is_ever_named_and_an_infinite_threshold_is_the_same(seed):
    local = [decision for decision, _ in history(conductor(fetch=False), seed)]
    assert all(decision.kv_source is None and not decision.fetch_tokens for decision in local)
    assert local == [decision for decision, _ in history(conductor(balancing_threshold=inf), seed)]


def test_the_limits_are_no_accident_some_histories_do_fetch():
    copied = [decision for decision, _ in history(conductor(), 1) if decision.kv_source is not None]
    assert copied and all(decision.kv_source != decision.prefill for decision in copied)


def test_a_copy_made_halfway_goes_on_the_same():
    one = worked_example()
    other = deepcopy(one)
    assert history(one, 5) == history(other, 5) != history(conductor(), 5)


class Counting(AffineCost):
    """Counts the steps it is asked for."""

    asked = 0

    def step(self, chunks, decodes, kv_tokens):
        Counting.asked += 1
        return AffineCost.step(self, chunks, decodes, kv_tokens)


def test_a_decision_predicts_one_prefill_for_each_length_of_match_not_for_each_worker():
    one = Mooncake(CostPredictor(Counting(0.1, 0.01, 0.0, 0.0, 0.0), 10_000, Link(0.05, 1e9), 1e6), 100)
    one.observe(KVStored(3, (1, 2)), 0.0)
    Counting.asked = 0
    one.route(ASKED, Snapshot(view(w) for w in range(64)), 0.0, Random(0))
    assert Counting.asked == 2


def test_in_the_simulator_copies_arrive_and_shorten_the_prefill():
    """A burst on one prompt: the other prefill worker copies its prefix instead of computing it."""
    blocks = tuple(range(20))
    burst = tuple(Request(n, 60.0, 512 * 20 + 400, 5, (*blocks, 100 + n)) for n in range(1, 5))
    workload = Workload("burst", (Request(0, 0.0, 512 * 20, 5, blocks), *burst))
    fleet = Fleet("llama-3.1-8b", "h100", 4, "2P2D")
    found = {}
    for fetch in (True, False):
        run = Experiment(workload, fleet, "mooncake", router_parameters={"fetch": fetch}).run()
        last = run.timelines[1:]
        found[fetch] = {t.prefill_worker for t in last}, sum(t.fetched_tokens for t in last), last
    assert found[True][:2] == ({0, 1}, 512 * 20)
    assert found[False][1] == 0
    assert max(t.first_token_s for t in found[True][2]) < max(t.first_token_s for t in found[False][2])
