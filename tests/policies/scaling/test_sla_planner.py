"""The planner: up when all are late, down when the others can bear it, a floor under the demand."""

import pytest

from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.scaling.pools import Pool
from helpers.policies.scaling.sla_planner import fitted
from helpers.policies.snapshot import FleetSnapshot, view

LOAD_ONLY = {"throughput_s": 0.0, "ttft_s": 0.5, "itl_s": 0.03}


def planner(predictor, tell, **parameters):
    """A planner that has seen ten requests of 1,000 tokens in and 100 out, one a second."""
    one = make("scaler", "sla_planner", Facts(predictor=predictor), **LOAD_ONLY | parameters)
    tell(one)
    return one


def split(prefill, decode):
    views = [view(w, "prefill", waiting=len(t), waiting_tokens=sum(t)) for w, t in enumerate(prefill)]
    views += [view(10 + w, "decode", running=10, kv_tokens=kv, kv_used_blocks=kv // 50) for w, kv in enumerate(decode)]
    return FleetSnapshot(views)


IDLE = [[]]


def decodes(one, *kv):
    return one.scale(split(IDLE, kv), 10.0).workers["decode"]


def test_up_when_every_worker_is_over_the_itl(predictor, tell):
    """ITL = 0.01 + 1e-6 KV: 0.031 s at 21,000 tokens, 0.030 s at 20,000, which is not over."""
    one = planner(predictor, tell)
    assert decodes(one, 21_000, 22_000) == 3
    assert decodes(one, 20_000, 22_000) == 2
    plan = one.scale(split(IDLE, [21_000] * 2), 10.0)
    assert plan.reason == "decode: all over the ITL" and plan.workers["prefill"] == 1


def test_up_when_every_worker_is_over_the_ttft(predictor, tell):
    """Own 0.11 s; a queue of 4 x 1,000 tokens takes 0.44 s, in all 0.55 s; of 3, 0.44 s."""
    one = planner(predictor, tell)
    full, fair = [1000] * 4, [1000] * 3
    assert one.scale(split([full, full], [10_000]), 10.0).workers["prefill"] == 3
    assert one.scale(split([full, fair], [10_000]), 10.0).workers["prefill"] == 2


def test_down_without_a_look_at_the_survivors(predictor, tell):
    """0.8 x 0.03 = 0.024 s: at 13,900 tokens the ITL is 0.0239 s on both, and one goes."""
    one = planner(predictor, tell, consolidation=False)
    assert decodes(one, 13_900, 13_900) == 1
    assert decodes(one, 13_900, 14_000) == 2


def test_down_when_the_survivors_can_bear_it(predictor, tell):
    """Of two, one takes twice the load: 6,900 tokens become 13,800, and 0.0238 s; 7,000 become 14,000.

    Of three, each takes 3/2 of it.
    """
    one = planner(predictor, tell)
    assert decodes(one, 6_900, 6_900) == 1
    assert decodes(one, 7_000, 7_000) == 2
    assert decodes(one, 9_300, 9_300, 9_300) == 2  # 13,950
    assert decodes(one, 9_400, 9_400, 9_400) == 3  # 14,100


def test_down_only_when_the_memory_suffices(predictor, tell):
    """KV of 501 of 1,000 blocks each does not fit into one worker, however fast it is; 500 does."""
    one = planner(predictor, tell, itl_s=10.0)
    for used, left in ((501, 2), (500, 1)):
        views = [view(0, "prefill"), *(view(w, "decode", running=1, kv_used_blocks=used) for w in (1, 2))]
        assert one.scale(FleetSnapshot(views), 10.0).workers["decode"] == left


def test_only_the_queue_grows_with_fewer_workers(predictor, tell):
    """One prompt waits on each of two, 0.11 s; with two each 0.22 s. 0.8 x (0.5 - 0.11) = 0.312 s: one can go.

    Two on each make 0.44 s. Without the look at the survivors 0.22 + 0.11 < 0.8 x 0.5 is enough.
    """
    for waiting, careful, careless in (([1000], 1, 1), ([1000] * 2, 2, 1), ([1000] * 3, 2, 2)):
        for consolidation, left in ((True, careful), (False, careless)):
            one = planner(predictor, tell, consolidation=consolidation)
            assert one.scale(split([waiting] * 2, [10_000]), 10.0).workers["prefill"] == left, (waiting, consolidation)


def sizes_under_constant_load(one, kv_tokens, ticks=12):
    """The size of a decode pool that shares `kv_tokens` evenly, when each plan is carried out before the next."""
    size, seen = 2, []
    for tick in range(ticks):
        views = split(IDLE, [kv_tokens // size] * size)
        size = one.scale(views, 10.0 + 5.0 * tick).workers["decode"]
        seen.append(size)
    return seen


def test_constant_load_oscillates_without_the_look_at_the_survivors(predictor, tell):
    """26,000 tokens: on two 0.023 s, under 0.024; on one 0.036 s, over 0.03. Neither size satisfies."""
    assert sizes_under_constant_load(planner(predictor, tell, consolidation=False), 26_000) == [1, 2] * 6
    assert sizes_under_constant_load(planner(predictor, tell), 26_000) == [2] * 12
    assert sizes_under_constant_load(planner(predictor, tell), 13_000) == [1] * 12  # it does shrink where it can
    assert sizes_under_constant_load(planner(predictor, tell), 80_000)[-1] == 4  # and grow: 27,000, 20,000, not over


def test_one_change_at_a_time(predictor, tell):
    one, late = planner(predictor, tell), [view(0, "prefill"), view(1, "decode", running=9, kv_tokens=30_000)]
    assert one.scale(FleetSnapshot(late), 10.0).workers["decode"] == 2
    for way in ("starting", "leaving"):
        plan = one.scale(FleetSnapshot(late, **{way: [view(2, "decode")]}), 10.0)
        assert (plan.workers, plan.reason) == ({}, "a change is under way")


def test_nothing_is_decided_before_there_is_traffic(predictor, tell):
    one = make("scaler", "sla_planner", Facts(predictor=predictor), **LOAD_ONLY)
    assert decodes(one, 30_000) == 1
    tell(one)
    assert decodes(one, 30_000) == 2  # a control


def test_a_prompt_that_alone_is_late_does_not_grow_the_fleet_for_ever(predictor, tell):
    """Prompts of 6,000 tokens take 0.63 s: more workers help only where something waits longer than the bound."""
    one = make("scaler", "sla_planner", Facts(predictor=predictor), **LOAD_ONLY)
    tell(one, prompt=6000)
    assert one.scale(split([[], []], [10_000]), 10.0).workers["prefill"] == 2
    assert one.scale(split([[6000], [6000]], [10_000]), 10.0).workers["prefill"] == 3
    alone = planner(predictor, tell, itl_s=0.011)  # a step with one context of 1,050 tokens takes 0.01105 s
    assert decodes(alone, 30_000) == 1


def test_a_mixed_worker_is_judged_by_both(predictor, tell):
    """Prefills of 0.11 s, one a second, on two workers: a share of 0.055 each.

    KV 18,000: 0.028 / 0.945 = 0.0296 s, not over; 19,000: 0.029 / 0.945 = 0.0307 s, over. And a queue on both.
    """
    one = planner(predictor, tell)

    def size(kv, waiting=()):
        views = [view(w, running=9, kv_tokens=kv, waiting=len(waiting), waiting_tokens=sum(waiting)) for w in range(2)]
        return one.scale(FleetSnapshot(views), 10.0).workers["mixed"]

    assert (size(18_000), size(19_000), size(18_000, [1000] * 4)) == (2, 3, 3)
    assert (size(5_000), size(5_000, [1000] * 2)) == (1, 2)


def test_the_floor_is_demand_over_capacity(predictor, tell):
    """Own 0.11 s and TTFT 0.5 s: u = 0.78 / 0.89, 7.967 prefills a second. ITL 0.0301 s, contexts of 1,050 tokens:

    19 at once take 0.02995 s a step, so 19 / (100 x 0.02995) = 6.344 a second. 1,800 requests in 180 s are 10 a
    second: two of each. At 180 s only: before, one of each is enough.
    """
    one = make("scaler", "sla_planner", Facts(predictor=predictor), ttft_s=0.5, itl_s=0.0301)
    tell(one, 1800, 0.1)
    demand = one.recent.at(180.0)
    assert one.capacity_per_s("prefill", demand) == pytest.approx(0.78 / 0.89 / 0.11)
    assert one.capacity_per_s("decode", demand) == pytest.approx(19 / (100 * 0.02995))
    calm = split([[], []], [5_000, 5_000])
    assert one.scale(calm, 175.0).workers == {"prefill": 1, "decode": 1}
    assert one.scale(calm, 180.0).workers == {"prefill": 2, "decode": 2}
    assert one.floors == {"prefill": 2, "decode": 2}
    plan = one.scale(split([[]], [5_000]), 185.0)
    assert plan.workers == {"prefill": 2, "decode": 2}
    assert plan.reason == "prefill: 2 at least for the demand; decode: 2 at least for the demand"
    assert one.scale(calm, 360.0).workers == {"prefill": 1, "decode": 1}  # a window in which nothing was asked


def test_a_mixed_floor_takes_both_parts_of_a_request(predictor, tell):
    """Own 0.11 s and d(b) = 0.01 + 0.00105 b: rate(b) = 1 / (0.215 + 1/b). ITL 0.05 s holds to b = 21:

    rate(21) = 3.808, u = 0.4189, 0.03205 > 0.05 (1 - u) = 0.02906: too much; b = 17: rate 3.652, u = 0.4017,
    0.02785 <= 0.02991; b = 18: 3.696, 0.4066, 0.0289 <= 0.02967; b = 19: 3.736, 0.411, 0.02995 > 0.02945.
    """
    one = make("scaler", "sla_planner", Facts(predictor=predictor), ttft_s=0.5, itl_s=0.05)
    tell(one, 1800, 0.1)
    assert one.capacity_per_s("mixed", one.recent.at(180.0)) == pytest.approx(1 / (0.215 + 1 / 18))
    views = FleetSnapshot([view(0)])
    assert one.scale(views, 180.0).workers == {"mixed": 3}  # 10 / 3.696 = 2.7


def test_demand_alone_sets_the_size(predictor, tell):
    one = make("scaler", "sla_planner", Facts(predictor=predictor), ttft_s=0.5, itl_s=0.0301, load_mode=False)
    tell(one, 1800, 0.1)
    busy = split([[1000] * 9] * 3, [5_000])
    assert one.scale(busy, 175.0).workers == {"prefill": 3, "decode": 1}
    assert one.scale(busy, 180.0).workers == {"prefill": 2, "decode": 2}


def test_a_pool_that_was_lost_is_wanted_back(predictor, tell):
    one = planner(predictor, tell)
    assert one.scale(split(IDLE, [5_000]), 10.0).workers == {"prefill": 1, "decode": 1}
    assert one.scale(split(IDLE, []), 15.0).workers == {"prefill": 1, "decode": 1}
    assert planner(predictor, tell).scale(split(IDLE, []), 15.0).workers == {"prefill": 1}  # a control: never seen


def test_the_limit_of_the_fleet_holds(predictor, tell):
    one = planner(predictor, tell, max_workers=4)
    late = split([[1000] * 9] * 2, [30_000] * 2)
    assert sum(one.scale(late, 10.0).workers.values()) == 4
    assert sum(planner(predictor, tell, max_workers=6).scale(late, 10.0).workers.values()) == 6


def test_what_does_not_fit_is_cut_from_the_largest_gain():
    pools = {role: Pool(role, tuple(view(w) for w in range(n)), 0, 0) for role, n in (("prefill", 2), ("decode", 2))}
    assert fitted({"prefill": 5, "decode": 3}, pools, 8) == {"prefill": 5, "decode": 3}
    assert fitted({"prefill": 5, "decode": 3}, pools, 6) == {"prefill": 3, "decode": 3}
    assert fitted({"prefill": 2, "decode": 2}, pools, 3) == {"prefill": 1, "decode": 2}
    assert fitted({"prefill": 2, "decode": 2}, pools, 1) == {"prefill": 1, "decode": 1}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"sensitivity": 1.5}, "sensitivity is 1.5; give a share above 0, at most 1"),
        ({"itl_s": 0.0}, "itl_s is 0.0; give a number above 0"),
        ({"min_workers": 0}, "0 to 8 any workers"),
        ({"windows": 0}, "windows is 0; give 1 or more"),
        ({"period_s": -1.0}, "period_s is -1.0"),
        ({"throughput_s": 0.0, "load_mode": False}, "throughput_s is 0.0 with load_mode False"),
    ],
)
def test_bad_parameters_are_one_sentence(predictor, parameters, says):
    with pytest.raises(InputError, match=says):
        make("scaler", "sla_planner", Facts(predictor=predictor), **parameters)


def test_it_needs_a_predictor():
    with pytest.raises(InputError, match="give it a predictor"):
        make("scaler", "sla_planner")
