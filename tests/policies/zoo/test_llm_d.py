"""llm-d's endpoint picker: the weighted sum by hand, each filter, the predicted latencies, and its books."""

from collections import Counter
from copy import deepcopy
from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, KVEvicted, KVStored, WorkerLost
from helpers.policies.zoo.llm_d import LLMD
from helpers.workload.request import Request
from helpers.workload.slo import SLO

# A token takes 10 ms, a step 100 ms more; a decode step 100 ms + 1 ms for each request.
PREDICTOR = CostPredictor(AffineCost(0.1, 0.01, 0.0, 1e-3, 0.0), 10_000)
ASKED = Request(9, 2.0, 1050, 10, tuple(range(11)))  # 10 full blocks of 100 tokens
LATENCY_ALONE = {"prefix_weight": 0.0, "kv_weight": 0.0, "queue_weight": 0.0, "latency_weight": 1.0}


class Dice:
    """Says what it was told to."""

    def __init__(self, *samples):
        self.samples = list(samples)

    def random(self):
        return self.samples.pop(0)


def picker(depths=(), **parameters):
    """A picker that knows so many blocks of ASKED's prompt on each worker."""
    one = LLMD(block_tokens=100, **parameters)
    for worker, depth in enumerate(depths):
        one.observe(KVStored(worker, tuple(range(depth))), 0.0)
    return one


def predicting(depths=(), slos=None, **parameters):
    return picker(depths, predictor=PREDICTOR, slos=slos or SLO(), **parameters)


def scores(one, views, asked=ASKED, rng=None):
    """The scores of each candidate by name."""
    found = {}
    for worker, name, value in one.route(asked, views, 0.0, rng or Random(0)).scores:
        found.setdefault(name, {})[worker] = value
    return found


# Free KV 0.2, 0.7, 0.9; waiting 4, 2, 0.
THREE = Snapshot(
    view(w, kv_used_blocks=used, waiting=waiting) for w, (used, waiting) in enumerate([(800, 4), (300, 2), (100, 0)])
)


def test_the_sum_by_hand():
    """Prefix 0.9, 0.5, 0 at weight 2; kv 0.2, 0.7, 0.9; queue 0, 0.5, 1."""
    found = scores(picker((9, 5), explain=True), THREE)
    assert found["prefix"] == {0: 0.9, 1: 0.5, 2: 0.0}
    assert found["kv"] == pytest.approx({0: 0.2, 1: 0.7, 2: 0.9})
    assert found["queue"] == {0: 0.0, 1: 0.5, 2: 1.0}
    assert found["score"] == pytest.approx({0: 1.8 + 0.2, 1: 1.0 + 0.7 + 0.5, 2: 0.9 + 1.0})


@pytest.mark.parametrize(
    ("parameters", "worker"),
    [
        ({}, 1),  # 2.0, 2.2, 1.9
        ({"prefix_weight": 3.0}, 0),  # 2.9, 2.7, 1.9
        ({"kv_weight": 2.0}, 1),  # 2.2, 2.9, 2.8
        ({"queue_weight": 2.0}, 2),  # 2.0, 2.7, 2.9
        ({"kv_weight": 0.0, "queue_weight": 0.0}, 0),
        # Load-aware at a threshold of 8: 0.25, 0.375, 0.5.
        ({"prefix_weight": 0.0, "kv_weight": 0.0, "queue_weight": 0.0, "load_aware_weight": 1.0}, 2),
        # 2.0 + 4 x 0.25, 2.2 + 4 x 0.375, 1.9 + 4 x 0.5
        ({"load_aware_weight": 4.0}, 2),
    ],
)
def test_the_highest_sum_wins(parameters, worker):
    one = picker((9, 5), load_aware_threshold=8, **parameters)
    assert one.route(ASKED, THREE, 0.0, Random(0)) == Decision(worker, worker)


def test_one_shared_block_is_a_tenth_of_this_prompt_or_everything():
    """Worker 0 has the block that all prompts open with: 0.1 of this one; scaled between the workers, 1."""
    views = Snapshot([view(0, waiting=1), view(1)])  # the queue says 0 and 1, the free KV is the same
    for relative, worker in ((False, 1), (True, 0)):
        one = picker((1,), prefix_relative=relative)
        assert one.route(ASKED, views, 0.0, Random(0)).prefill == worker


def test_ties_are_drawn_uniformly_and_only_ties():
    idle, one = Snapshot(view(w) for w in range(4)), picker()
    assert [one.route(ASKED, idle, 0.0, Dice(x)).prefill for x in (0.0, 0.3, 0.6, 0.99)] == [0, 1, 2, 3]
    assert picker((9, 5)).route(ASKED, THREE, 0.0, Dice()).prefill == 1
    nothing = picker(prefix_weight=0.0, kv_weight=0.0, queue_weight=0.0)
    assert nothing.route(ASKED, THREE, 0.0, Dice(0.5)).prefill == 1


def test_tokens_in_flight_count_until_the_end():
    one = picker(prefix_weight=0.0, kv_weight=0.0, queue_weight=0.0, token_load_weight=1.0, token_load_threshold=1000)
    idle = Snapshot(view(w) for w in range(2))
    one.route(ASKED, idle, 0.0, Dice(0.0))
    sent = Request(0, 0.0, 250, 5)
    one.observe(Dispatched(sent, Decision(0, 0)), 0.0)
    object.__setattr__(one, "explain", True)
    assert scores(one, idle)["token_load"] == {0: 0.75, 1: 1.0}
    one.observe(Finished(sent, 0), 1.0)
    assert scores(one, idle)["token_load"] == {0: 1.0, 1: 1.0}


def test_prompts_that_nobody_knows_go_round():
    one, idle = picker(no_hit_lru_weight=1.0), Snapshot(view(w) for w in range(3))
    found = []
    for number in range(6):
        asked = Request(number, 0.0, 200, 5, (100 + 2 * number, 101 + 2 * number))
        found.append(one.route(asked, idle, 0.0, Dice()).prefill)
        one.observe(Dispatched(asked, Decision(found[-1], found[-1])), 0.0)
    assert found == [0, 1, 2, 0, 1, 2]
    one.observe(KVStored(2, (100,)), 0.0)
    known = Request(9, 0.0, 200, 5, (100, 999))
    assert scores(picker_like(one), idle, known)["no_hit_lru"] == {0: 0.5, 1: 0.5, 2: 0.5}
    one.observe(Dispatched(known, Decision(1, 1)), 0.0)  # not cold: the order stays
    assert list(one._cold) == [0, 1, 2]


def picker_like(one):
    """A copy that explains itself."""
    other = deepcopy(one)
    object.__setattr__(other, "explain", True)
    return other


def healthy(**state):
    """The workers that the saturation filter leaves of one in `state` and one at its limits."""
    views = Snapshot([view(0, **state), view(1, waiting=4, kv_used_blocks=799, age_s=0.2)])
    return set(scores(picker(saturation_filter=True, explain=True), views)["score"])


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ({}, {0, 1}),
        ({"waiting": 5}, {1}),
        ({"kv_used_blocks": 800}, {1}),
        ({"age_s": 0.201}, {1}),
    ],
)
def test_saturated_and_stale_workers_are_left_out(state, kept):
    assert healthy(**state) == kept


def test_when_all_are_saturated_all_are_kept():
    views = Snapshot([view(0, waiting=9), view(1, waiting=7), view(2, age_s=9.0)])
    found = scores(picker(saturation_filter=True, explain=True), views)["queue"]
    assert found == pytest.approx({0: 0.0, 1: 2 / 9, 2: 1.0})  # fail-open
    wider = picker(saturation_filter=True, max_waiting=8, explain=True)
    assert set(scores(wider, views)["queue"]) == {1}


def test_the_gate_keeps_to_workers_with_most_of_the_prompt():
    idle = Snapshot(view(w) for w in range(3))
    assert set(scores(predicting((8, 7), affinity_gate=True, explain=True), idle, rng=Dice(0.5))["score"]) == {0}
    lower = predicting((8, 7), affinity_gate=True, affinity_threshold=0.7, explain=True)
    assert set(scores(lower, idle, rng=Dice(0.5))["score"]) == {0, 1}
    none = predicting((7, 7), affinity_gate=True, explain=True)
    assert set(scores(none, idle, rng=Dice(0.5))["score"]) == {0, 1, 2}


@pytest.mark.parametrize(("sample", "kept"), [(0.0099, {0, 1}), (0.01, {0})])
def test_the_gate_is_left_open_now_and_then(sample, kept):
    idle = Snapshot(view(w) for w in range(2))
    found = scores(predicting((8,), affinity_gate=True, explain=True), idle, rng=Dice(sample, 0.5))
    assert set(found["score"]) == kept


@pytest.mark.parametrize(
    ("waiting_tokens", "parameters", "kept"),
    [
        # Cached: 0.1 + 2.5 s for the last 250 tokens, and the queue's 0.1 + 0.01 x tokens; uncached 0.1 + 10.5 s.
        (1280, {}, {0}),  # 12.9 + 2.6 against 10.6: 4.9 s slower
        (1300, {}, {0, 1}),  # 13.1 + 2.6: 5.1 s slower
        (1300, {"affinity_penalty_s": 5.2}, {0}),
        (10_000, {"affinity_penalty_s": 0.0}, {0}),  # 0: never
    ],
)
def test_the_gate_opens_when_affinity_costs_too_much(waiting_tokens, parameters, kept):
    views = Snapshot([view(0, waiting=1, waiting_tokens=waiting_tokens), view(1)])
    one = predicting((8,), affinity_gate=True, explain=True, **parameters)
    assert set(scores(one, views, rng=Dice(0.5, 0.5))["score"]) == kept


def test_the_predicted_headroom_by_hand():
    """TTFT: the queue (0.1 + 10 ms a token), and 0.1 + 10.5 s less what is cached. TPOT: 0.1 s + 1 ms a request."""
    views = Snapshot([view(0, running=4), view(1, waiting=1, waiting_tokens=300), view(2)])
    one = predicting((0, 5), SLO(ttft_s=12.0, tpot_s=0.11), **LATENCY_ALONE)
    one.route(ASKED, views, 0.0, Dice(0.5, 0.5))
    headroom = one._headrooms(ASKED, {w: views[w] for w in range(3)}, {1: 5})
    # Decodes share the step of a prefill: worker 0 takes 4 ms longer.
    assert headroom(0)[:2] == pytest.approx((12 - 10.604, 0.11 - 0.105))
    assert headroom(1)[:2] == pytest.approx((12 - 3.1 - 5.6, 0.11 - 0.101))
    assert headroom(2)[:2] == pytest.approx((12 - 10.6, 0.11 - 0.101))


def test_latency_prefers_the_worker_that_just_meets_the_slo_or_the_freest():
    """TTFT headrooms of 1.396, 3.3, 1.4 s as above; TPOT 5, 9, 9 ms."""
    views = Snapshot([view(0, running=4), view(1, waiting=1, waiting_tokens=300), view(2)])
    for most, worker in ((False, 0), (True, 1)):
        one = predicting((0, 5), SLO(ttft_s=12.0, tpot_s=0.11), most_headroom=most, **LATENCY_ALONE)
        assert one.route(ASKED, views, 0.0, Dice()).prefill == worker


def test_without_an_slo_the_fastest_wins():
    views = Snapshot([view(0, running=4), view(1, waiting=1, waiting_tokens=300), view(2)])
    assert predicting((0, 5), **LATENCY_ALONE).route(ASKED, views, 0.0, Dice()).prefill == 1


@pytest.mark.parametrize(("sample", "worker"), [(0.0099, 1), (0.01, 0)])
def test_workers_that_miss_the_slo_are_tried_now_and_then(sample, worker):
    views = Snapshot([view(0), view(1, waiting=1, waiting_tokens=5000)])
    one = predicting(slos=SLO(ttft_s=12.0), **LATENCY_ALONE)
    # Without a TPOT bound the headroom is negative everywhere, so there is one tier and no dice.
    assert one.route(ASKED, views, 0.0, Dice()).prefill == 0
    bounded = predicting(slos=SLO(ttft_s=12.0, tpot_s=1.0), **LATENCY_ALONE)
    assert bounded.route(ASKED, views, 0.0, Dice(sample)).prefill == worker


def test_the_slo_is_that_of_the_class():
    views = Snapshot([view(0, waiting=1, waiting_tokens=100), view(1)])
    slos = {"standard": SLO(ttft_s=20.0, tpot_s=1.0), "rush": SLO(ttft_s=11.0, tpot_s=1.0)}
    one = predicting(slos=slos, **LATENCY_ALONE)
    assert one.route(ASKED, views, 0.0, Dice()).prefill == 0  # 1.1 + 10.6 s is enough for it, and packs tighter
    rush = Request(10, 0.0, 1050, 5, slo_class="rush")
    assert one.route(rush, views, 0.0, Dice(0.5)).prefill == 1
    with pytest.raises(InputError, match="'slow', which has no SLO"):
        one.route(Request(11, 0.0, 1050, 5, slo_class="slow"), views, 0.0, Dice(0.5))


SPLIT = (view(0, "prefill", waiting=2), view(1, "prefill"), view(2, "decode", waiting=1), view(3, "decode"))


def test_either_half_of_a_split_fleet_is_chosen_by_the_same_weights_without_kv():
    views = Snapshot([*SPLIT[:3], view(3, "decode", kv_used_blocks=900)])
    found = scores(picker((9,), explain=True), views)
    assert set(found) == {"prefix", "queue", "score"}
    assert found["score"] == {0: 1.8, 1: 1.0, 2: 0.0, 3: 1.0}
    assert picker((9,)).route(ASKED, views, 0.0, Dice()) == Decision(0, 3)
    asked_for = picker((9,), kv_weight=2.0)
    assert asked_for.route(ASKED, views, 0.0, Dice()) == Decision(0, 2)  # 2 x 1.0 against 1.0 + 2 x 0.1


def test_of_a_half_only_its_own_latency_is_predicted():
    one = predicting(slos=SLO(ttft_s=12.0, tpot_s=0.11), **LATENCY_ALONE)
    views = Snapshot([*SPLIT[:2], view(2, "decode", running=5), view(3, "decode", running=20)])
    one.route(ASKED, views, 0.0, Dice(0.5, 0.5, 0.5))
    headroom = one._headrooms(ASKED, {w: views[w] for w in range(4)}, {})
    assert headroom(1)[:2] == pytest.approx((1.4, 0.0))
    assert headroom(2)[:2] == pytest.approx((0.0, 0.11 - 0.106))
    assert one.route(ASKED, views, 0.0, Dice(0.5, 0.5, 0.5)).decode == 2  # the other misses


def test_requests_count_on_both_workers_until_they_end_and_once():
    one, asked = picker(), Request(0, 0.0, 300, 5)
    one.route(ASKED, Snapshot(SPLIT), 0.0, Random(0))
    for decision in (Decision(0, 2), Decision(1, 3)):
        one.observe(Dispatched(asked, decision), 0.0)
    assert (one.in_flight.amount, one.in_flight.requests) == ([0, 300, 0, 300], [0, 1, 0, 1])
    for _ in range(2):
        one.observe(Finished(asked, 3), 1.0)
    assert one.in_flight.requests == [0] * 4


def test_evicted_blocks_and_lost_workers_are_forgotten():
    one = picker((9, 9), no_hit_lru_weight=1.0, explain=True)
    one.observe(KVEvicted(0, (4, 5)), 0.0)
    assert scores(one, THREE)["prefix"] == {0: 0.4, 1: 0.9, 2: 0.0}
    sent = Request(0, 0.0, 300, 5)
    one.observe(Dispatched(sent, Decision(1, 1)), 0.0)
    one.observe(WorkerLost(1), 0.0)
    assert one.in_flight.requests[1] == 0 and list(one._cold) == []
    left = Snapshot([THREE[0], THREE[2]])
    assert scores(one, left)["prefix"] == {0: 0.4, 2: 0.0}
    assert not any(mask & 2 for mask in one.stored.masks.values())


def test_a_started_block_is_no_part_of_the_share():
    one = picker((11,), explain=True)
    assert scores(one, THREE)["prefix"][0] == 1.0
    assert scores(one, THREE, Request(1, 0.0, 90, 5, (0,)))["prefix"][0] == 0.0
    assert scores(one, THREE, Request(1, 0.0, 900, 5))["prefix"][0] == 0.0


def test_explained_decisions_are_the_same():
    for seed in range(5):
        spoken, quiet = (picker((9, 5), explain=e).route(ASKED, THREE, 0.0, Random(seed)) for e in (True, False))
        assert spoken._replace(scores=()) == quiet


def test_a_copy_made_halfway_goes_on_the_same():
    one = picker((3, 1), no_hit_lru_weight=0.5, token_load_weight=1.0, token_load_threshold=5000)
    other = deepcopy(one)

    def go_on(router):
        rng, chosen = Random(3), []
        for number in range(40):
            asked = Request(number, 0.0, 450, 5, (0, 1 + number % 3, number + 50, number + 100))
            chosen.append(router.route(asked, Snapshot(view(w) for w in range(3)), 2.0, rng))
            router.observe(Dispatched(asked, chosen[-1]), 2.0)
        return chosen

    assert go_on(one) == go_on(other)
    assert len(Counter(decision.prefill for decision in go_on(other))) == 3


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"prefix_weight": -1.0}, "router llm_d: prefix_weight is -1.0; give a number of 0 or more"),
        ({"kv_weight": -1.0}, "kv_weight is -1.0; give"),
        ({"affinity_threshold": 1.1}, "affinity_threshold is 1.1; give a number from 0 to 1"),
        ({"latency_explore": -0.1}, "latency_explore is -0.1; give a number from 0 to 1"),
        ({"max_age_s": -0.1}, "max_age_s is -0.1; give"),
        ({"load_aware_threshold": 0}, "load_aware_threshold is 0; give 1 or more"),
        ({"ttft_weight": 0.0, "tpot_weight": 0.0}, "ttft_weight and tpot_weight are both 0"),
        ({"latency_weight": 1.0}, "router llm_d predicts times; give it a predictor"),
        ({"affinity_gate": True}, "router llm_d predicts times; give it a predictor"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, says):
    with pytest.raises(InputError, match=says):
        make("router", "llm_d", Facts(), **parameters)


def test_the_predictor_and_the_slo_come_with_the_facts():
    one = make("router", "llm_d", Facts(predictor=PREDICTOR, slos=SLO(ttft_s=3.0)), latency_weight=1.0)
    assert one.predictor is PREDICTOR and one.slos == SLO(ttft_s=3.0)
