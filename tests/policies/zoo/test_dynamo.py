"""Dynamo's KV router: both costs by hand, its softmax, its two ways to know the caches, and its books."""

from collections import Counter
from copy import deepcopy
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, KVEvicted, KVStored, WorkerLost
from helpers.policies.zoo.dynamo import Dynamo, DynamoLMetric, drawn, softmax
from helpers.workload.request import Request

THREE = Snapshot(view(w) for w in range(3))
SPLIT = Snapshot([view(0, "prefill"), view(1, "prefill"), view(2, "decode"), view(3, "decode")])
ASKED = Request(9, 2.0, 450, 10, (1, 2, 3, 4, 5))  # 4.5 blocks of 100 tokens: five with the started one, four full


class Dice:
    """Says what it was told to."""

    def __init__(self, *samples):
        self.samples = list(samples)

    def random(self):
        return self.samples.pop(0)


def worked_example(make=Dynamo, **parameters):
    """Worker 0 has the whole prefix cached, worker 1 one block of it, worker 2 two.

    In flight: A (300 tokens, two blocks of it cached) on worker 0; B (250 tokens, no hashes) on worker 1, past its
    first token; C (120 tokens) and D (180 tokens) on worker 2, which share one block.
    """
    one = make(100, **parameters)
    for worker, blocks in enumerate([(1, 2, 3, 4), (1,), (1, 2)]):
        one.observe(KVStored(worker, blocks), 0.0)
    a, b = Request(0, 0.0, 300, 5, (1, 2, 9)), Request(1, 0.0, 250, 5)
    c, d = Request(2, 0.0, 120, 5, (7, 8)), Request(3, 0.0, 180, 5, (7, 11))
    for request, worker in ((a, 0), (b, 1), (c, 2), (d, 2)):
        one.observe(Dispatched(request, Decision(worker, worker)), 0.0)
    one.observe(FirstToken(b, 1), 1.0)
    return one


def terms(one, asked=ASKED, views=THREE):
    one.route(asked, views, 2.0, Random(0))
    return {t.worker: (t.overlap, t.prefill, t.decode, t.requests, t.cost) for t in one.prefill_terms(asked)}


def test_the_linear_cost_by_hand():
    found = terms(worked_example())
    # Worker 0: 100 tokens of A to compute: 1.0 + 4.5 - 4 = 1.5. A holds 3 blocks, two of ASKED's among them: 3 + 3.
    assert found[0] == (4, 1.5, 6, 1, 7.5)
    # Worker 1: B is computed: 0 + 4.5 - 1 = 3.5. B holds 3 blocks (2.5, one started): 3 + 5.
    assert found[1] == (1, 3.5, 8, 1, 11.5)
    # Worker 2: 120 + 180 tokens: 3.0 + 4.5 - 2 = 5.5. C and D hold 7, 8 and 11: 3 + 5.
    assert found[2] == (2, 5.5, 8, 2, 13.5)


def test_the_linear_cost_with_other_weights_by_hand():
    """The least backlog is worker 1's, 0; the prompt has 5 blocks."""
    weights = {"overlap_credit": 0.5, "overlap_decay": 2.0, "prefill_load_scale": 3.0, "active_request_weight": 10.0}
    found = terms(worked_example(**weights))
    # Worker 0: decay 1 / (1 + 2 x 1.0/5) = 1/1.4, credit 0.5 x 4 / 1.4; 3 x (5.5 - 2/1.4) + 6 + 10
    assert found[0][4] == pytest.approx(3 * (5.5 - 2 / 1.4) + 16)  # 28.21
    # Worker 1: no excess, credit 0.5; 3 x (4.5 - 0.5) + 8 + 10
    assert found[1][4] == pytest.approx(30.0)
    # Worker 2: decay 1 / (1 + 2 x 3.0/5) = 1/2.2, credit 0.5 x 2 / 2.2; 3 x (7.5 - 1/2.2) + 8 + 2 x 10
    assert found[2][4] == pytest.approx(3 * (7.5 - 1 / 2.2) + 28)  # 49.14


def test_the_product_by_hand():
    found = terms(worked_example(DynamoLMetric))
    assert {w: t[4] for w, t in found.items()} == {0: 1.5 * 7, 1: 3.5 * 9, 2: 5.5 * 9}


def test_the_product_and_the_sum_can_disagree():
    """Worker 0: little to compute, much to hold. Sum: 1 + 13 against 8 + 5; product: 1 x 14 against 8 x 6."""
    decided = {}
    for make in (Dynamo, DynamoLMetric):
        one = make(100)
        one.observe(KVStored(0, (1, 2, 3)), 0.0)
        held = Request(0, 0.0, 900, 5)
        one.observe(Dispatched(held, Decision(0, 0)), 0.0)
        one.observe(FirstToken(held, 0), 0.0)
        queued = Request(1, 0.0, 400, 5, (1, 2, 3, 8))  # its blocks will be shared with ASKED's
        one.observe(Dispatched(queued, Decision(1, 1)), 0.0)
        asked = Request(2, 0.0, 400, 5, (1, 2, 3, 4))
        decided[make] = one.route(asked, Snapshot([view(0), view(1)]), 0.0, Random(0)).prefill
        found = {t.worker: (t.prefill, t.decode) for t in one.prefill_terms(asked)}
        assert found == {0: (1.0, 13), 1: (8.0, 5)}
    assert decided == {Dynamo: 1, DynamoLMetric: 0}


@pytest.mark.parametrize(
    ("parameters", "worker"),
    [
        ({}, 0),  # 7.5, 11.5, 13.5
        ({"overlap_credit": 0.0, "prefill_load_scale": 3.0}, 1),  # 16.5 + 6, 13.5 + 8, 22.5 + 8
        ({"prefill_load_scale": 0.0, "active_request_weight": 3.0}, 0),  # 6 + 3, 8 + 3, 8 + 6
    ],
)
def test_the_least_cost_wins(parameters, worker):
    assert worked_example(**parameters).route(ASKED, THREE, 2.0, Random(0)) == Decision(worker, worker)


def test_ties_are_drawn_uniformly():
    """Without credit, at a scale of 2: 11 + 6 = 17, 9 + 8 = 17, 15 + 8 = 23."""
    one = worked_example(overlap_credit=0.0, prefill_load_scale=2.0)
    assert [one.route(ASKED, THREE, 2.0, Dice(x)).prefill for x in (0.0, 0.49, 0.5, 0.99)] == [0, 0, 1, 1]
    found = Counter(one.route(ASKED, THREE, 2.0, rng).prefill for rng in [Random(4)] for _ in range(1000))
    assert set(found) == {0, 1} and 400 < found[0] < 600


def test_no_dice_are_thrown_for_a_single_least_cost():
    assert worked_example().route(ASKED, THREE, 2.0, Dice()).prefill == 0


def test_a_cached_prompt_costs_no_less_than_nothing():
    one = Dynamo(100)
    one.observe(KVStored(1, (1, 2, 3, 4, 5, 6)), 0.0)
    whole = Request(0, 0.0, 400, 5, (1, 2, 3, 4))
    assert terms(one, whole)[1][:2] == (4, 0.0)


def test_the_temperature_draws_by_cost():
    """Costs 7.5, 11.5, 13.5 scale to 0, 2/3, 1; at 0.5: 1, e^-1.333 = 0.2636, e^-2 = 0.1353, of 1.3989 in all."""
    assert softmax([7.5, 11.5, 13.5], 0.5) == pytest.approx([0.7148, 0.1884, 0.0967], abs=1e-4)
    one = worked_example(temperature=0.5)
    samples = [0.0, 0.714, 0.716, 0.902, 0.904, 0.999]
    assert [one.route(ASKED, THREE, 2.0, Dice(x)).prefill for x in samples] == [0, 0, 1, 1, 2, 2]


def test_the_softmax_knows_its_edges():
    assert softmax([3.0, 3.0], 0.1) == [0.5, 0.5]
    assert softmax([0.0, 1e300], 1e-3) == [1.0, 0.0]  # no overflow
    assert softmax([1.0, 3.0], 1.0) == softmax([10.0, 30.0], 1.0)  # only the order within the range counts
    assert drawn([0.1] * 10, 0.9999999999999999) == 9  # ten tenths add up to a little less
    assert drawn([0.5, 0.5], 0.5) == 1


@pytest.mark.parametrize(("parameters", "believed"), [({}, [8000, 8000]), ({"predicted_ttl_s": 5.0}, [2000, 2000])])
def test_siblings_of_a_burst_find_each_other_only_with_predictions(parameters, believed):
    """Two problems of 20 blocks, four samples each, at once, before any event. Blind, all eight count as uncached."""
    one, views = Dynamo(100, **parameters), Snapshot([view(0), view(1)])
    for number in range(8):
        asked = Request(number, 0.0, 2000, 5, tuple(range(100 * (number % 2), 100 * (number % 2) + 20)))
        decision = Decision(number % 2, number % 2) if number < 2 else one.route(asked, views, 0.0, Random(number))
        one.observe(Dispatched(asked, decision), 0.0)
    assert one.active.requests == [4, 4] and one.prefills.amount == believed


def test_predictions_last_as_long_as_set_and_the_longer_match_counts():
    one = Dynamo(100, predicted_ttl_s=3.0)
    one.observe(KVStored(0, (1,)), 0.0)
    one.observe(KVStored(1, (1, 2)), 0.0)
    one.observe(Dispatched(Request(0, 0.0, 310, 5, (1, 2, 3, 6)), Decision(0, 0)), 10.0)
    for now, expected in ((10.0, [3, 2, 0]), (13.0, [3, 2, 0]), (13.1, [1, 2, 0])):
        one.route(ASKED, THREE, now, Random(0))
        assert [t.overlap for t in one.prefill_terms(ASKED)] == expected


def test_without_events_a_prompt_is_believed_cached_for_the_ttl():
    one = Dynamo(100, kv_events=False)
    assert KVStored not in one.observes and KVStored in Dynamo(100).observes
    one.observe(Dispatched(Request(0, 0.0, 450, 5, (1, 2, 3, 4, 77)), Decision(2, 2)), 0.0)
    for now, overlap in ((0.0, 4), (120.0, 4), (120.1, 0)):
        one.route(ASKED, THREE, now, Random(0))
        assert one.prefill_terms(ASKED)[2].overlap == overlap  # the started fifth block is nobody's
    assert one.prefills.amount == [0, 0, 450]  # nothing was cached when it was sent
    one.observe(Dispatched(Request(1, 0.0, 450, 5, (1, 2, 3, 4, 78)), Decision(2, 2)), 121.0)
    one.observe(Dispatched(Request(2, 0.0, 450, 5, (1, 2, 3, 4, 79)), Decision(2, 2)), 122.0)
    assert one.prefills.amount == [0, 0, 450 + 450 + 50]


def test_evicted_blocks_are_no_credit():
    one = worked_example()
    one.observe(KVEvicted(0, (3, 4)), 1.5)
    assert terms(one)[0][:2] == (2, 1.0 + 4.5 - 2)


def test_a_split_fleet_charges_each_half_with_its_own():
    """Prefill: what is to be computed. Decode: the blocks held; the shared prefix counts twice there."""
    one = Dynamo(100, active_request_weight=0.25)
    one.observe(KVStored(1, (1, 2)), 0.0)
    for number, decision in enumerate([Decision(0, 2), Decision(0, 2), Decision(1, 3)]):
        one.observe(Dispatched(Request(number, 0.0, 200, 5, (1, 2)), decision), 0.0)
    assert one.route(ASKED, SPLIT, 0.0, Random(0)) == Decision(1, 3)
    # Worker 0: two prompts of 200 tokens, nothing cached: 4.0 + 4.5, and two requests at 0.25. Worker 1: both cached.
    assert [(t.prefill, t.decode, t.cost) for t in one.prefill_terms(ASKED)] == [(8.5, 0, 9.0), (2.5, 0, 2.75)]
    # Worker 2: two requests of two blocks each, not shared, and ASKED's five: 4 + 5 + 0.5; worker 3: 2 + 5 + 0.25.
    assert [t.cost for t in one.decode_terms(ASKED)] == [9.5, 7.25]


def test_the_halves_of_a_split_empty_at_the_first_token_and_at_the_end():
    one, asked = Dynamo(100), Request(0, 0.0, 200, 5, (1, 2))
    one.route(ASKED, SPLIT, 0.0, Random(0))
    one.observe(Dispatched(asked, Decision(0, 2)), 0.0)
    assert (one.prefills.amount, one.active.held) == ([200, 0, 0, 0], [0, 0, 2, 0])
    one.observe(FirstToken(asked, 0), 1.0)
    assert (one.prefills.amount, one.active.held) == ([0] * 4, [0, 0, 2, 0])
    one.observe(Finished(asked, 2), 2.0)
    assert one.active.held == one.active.requests == [0] * 4


def test_the_product_chooses_a_decode_worker_by_what_it_holds():
    one = DynamoLMetric(100)
    one.observe(Dispatched(Request(0, 0.0, 200, 5), Decision(0, 2)), 0.0)
    assert {one.route(ASKED, SPLIT, 0.0, Random(s)).decode for s in range(10)} == {3}


def test_a_request_that_comes_back_counts_once():
    one, asked = Dynamo(100), Request(0, 0.0, 200, 5, (1, 2))
    for worker in (0, 1, 1):
        one.observe(Dispatched(asked, Decision(worker, worker)), 0.0)
    assert (one.prefills.amount, one.active.held, one.active.requests) == ([0, 200], [0, 2], [0, 1])
    for _ in range(2):
        one.observe(Finished(asked, 1), 1.0)
    assert (one.prefills.amount, one.active.held, one.active.requests) == ([0, 0], [0, 0], [0, 0])


def test_a_lost_worker_leaves_nothing_behind_and_others_keep_theirs():
    one = worked_example(predicted_ttl_s=50.0)
    before = terms(one)
    one.observe(WorkerLost(0), 2.0)
    assert (one.prefills.amount[0], one.active.held[0], one.active.requests[0]) == (0, 0, 0)
    assert not any(mask & 1 for index in (one.stored, one.predicted, one.active.index) for mask in index.masks.values())
    left = Snapshot([view(1), view(2)])
    assert terms(one, views=left) == {worker: before[worker] for worker in (1, 2)}


def test_a_lost_prefill_worker_frees_what_its_requests_held_elsewhere_until_they_are_computed():
    one = Dynamo(100)
    waiting, decoding = Request(0, 0.0, 200, 5), Request(1, 0.0, 300, 5)
    for request in (waiting, decoding):
        one.observe(Dispatched(request, Decision(0, 2)), 0.0)
    one.observe(FirstToken(decoding, 0), 1.0)
    one.observe(WorkerLost(0), 2.0)
    assert one.active.held == [0, 0, 3]  # the one that decodes goes on; the other comes back to the router
    assert one.prefills.requests == [0]


def test_explained_scores_are_the_terms_and_change_nothing():
    spoken = worked_example(explain=True).route(ASKED, THREE, 2.0, Random(0))
    assert spoken._replace(scores=()) == worked_example().route(ASKED, THREE, 2.0, Random(0))
    found = {(worker, term): value for worker, term, value in spoken.scores}
    assert found[2, "overlap_blocks"] == 2 and found[2, "prefill_blocks"] == 5.5 and found[2, "cost"] == 13.5
    split = Dynamo(100, explain=True).route(ASKED, SPLIT, 0.0, Random(0))
    assert {worker for worker, *_ in split.scores} == {0, 1, 2, 3}


def test_a_copy_made_halfway_goes_on_the_same():
    one = worked_example(temperature=1.0)
    other = deepcopy(one)

    def go_on(router):
        rng, chosen = Random(3), []
        for number in range(20, 60):
            asked = Request(number, 0.0, 450, 5, (1, 2, number, number + 100, number + 200))
            chosen.append(router.route(asked, THREE, 2.0, rng))
            router.observe(Dispatched(asked, chosen[-1]), 2.0)
        return chosen

    assert go_on(one) == go_on(other) != go_on(Dynamo(100, temperature=1.0))


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("dynamo", {"overlap_credit": 1.5}, "overlap_credit is 1.5; give a number from 0 to 1"),
        ("dynamo", {"temperature": -1.0}, "router dynamo: temperature is -1.0; give"),
        ("dynamo", {"prefill_load_scale": -1}, "prefill_load_scale is -1; give"),
        ("dynamo", {"predicted_ttl_s": 0}, "predicted_ttl_s is 0; give a finite number of seconds above 0"),
        ("dynamo_lmetric", {"prefill_load_scale": 2.0}, "parameter 'prefill_load_scale' is unknown"),
        ("dynamo_lmetric", {"overlap_decay": -0.5}, "router dynamo_lmetric: overlap_decay is -0.5; give"),
    ],
)
def test_bad_parameters_are_one_sentence(name, parameters, says):
    with pytest.raises(InputError, match=says):
        router(name, 4, **parameters)
