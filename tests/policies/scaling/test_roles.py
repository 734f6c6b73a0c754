"""Roles change when that lowers the larger pressure, for long enough, and nobody is left without a pool."""

import pytest

from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.scaling.pools import pools_of
from helpers.policies.snapshot import FleetSnapshot, view

NOW = {"dwell_s": 0.0, "itl_s": 0.05}


def roles(predictor, tell, every_s=0.1, prompt=1000, **parameters):
    """A scaler that has seen 64 requests, ten a second unless told otherwise, up to time 0."""
    one = make("scaler", "roles", Facts(predictor=predictor), **NOW | parameters)
    tell(one, 64, every_s, prompt=prompt, start_s=-64 * every_s)
    return one


def fleet(prefill, kv, waiting=(), **more):
    views = [view(w, "prefill", waiting=len(waiting), waiting_tokens=sum(waiting)) for w in range(prefill)]
    views += [view(10 + w, "decode", running=10 - w, kv_tokens=one) for w, one in enumerate(kv)]
    return FleetSnapshot(views, **more)


def test_pressures_by_hand(predictor, tell):
    """Ten prompts of 0.11 s a second on two: 0.55 each. Nine waiting on each, 1.98 s in all over 30 s: + 0.033.

    Decode: 20,000 tokens each are 0.03 of 0.05 s, 0.6; the same on one worker 0.05 s, 1.0; 700 of 1,000 blocks: 0.7.
    """
    one = roles(predictor, tell)
    pools = pools_of(fleet(2, [20_000] * 2), [])
    assert one.prefill_pressure(pools["prefill"], one.recent.at(0.0), 2) == pytest.approx(0.55)
    assert one.prefill_pressure(pools["prefill"], one.recent.at(0.0), 1) == pytest.approx(1.1)
    busy = pools_of(fleet(2, [0], [1000] * 9), [])["prefill"]
    assert one.prefill_pressure(busy, one.recent.at(0.0), 2) == pytest.approx(0.55 + 1.98 / 30 / 2)
    assert one.decode_pressure(pools["decode"], 2) == pytest.approx(0.6)
    assert one.decode_pressure(pools["decode"], 1) == pytest.approx(1.0)
    full = pools_of(FleetSnapshot([view(1, "decode", running=1, kv_used_blocks=700)]), [])["decode"]
    assert one.decode_pressure(full, 1) == pytest.approx(0.7)
    assert one.decode_pressure(full, 2) == pytest.approx(0.35)


def test_a_decode_worker_helps_out_where_prefill_is_short(predictor, tell):
    """Prefill 1.1 on one worker, 0.55 on two; decode 0.4 on three (10,000 tokens each), 0.5 on two. Max 1.1 to 0.55.

    The decode worker with the fewest requests goes: 12 has 8, 10 has 10.
    """
    plan = roles(predictor, tell).scale(fleet(1, [10_000] * 3), 0.0)
    assert plan.role_changes == ((12, "prefill"),) and plan.workers == {}
    assert plan.reason == "pressure 1.10, 0.55 with one decode worker less"


def test_a_prefill_worker_helps_out_where_decode_is_short(predictor, tell):
    """Two requests a second: 0.11 on two, 0.22 on one. Decode 50,000 on one: 0.06 / 0.05 = 1.2; on two 0.7."""
    plan = roles(predictor, tell, every_s=0.5).scale(fleet(2, [50_000]), 0.0)
    assert plan.role_changes == ((1, "decode"),)  # the highest id among equals
    assert plan.reason == "pressure 1.20, 0.70 with one prefill worker less"


def test_nothing_moves_when_the_other_pool_would_be_worse_off(predictor, tell):
    """Prefill 1.1 would become 0.55, but decode 0.8 on two (30,000 each) 1.4 on one."""
    plan = roles(predictor, tell).scale(fleet(1, [30_000] * 2), 0.0)
    assert plan.role_changes == () and plan.reason == "pressure 1.10, 1.40 with a change"


def test_a_gain_below_the_hysteresis_is_none(predictor, tell):
    """Prefill 1.1 to 0.55; decode 0.8 on three (30,000 each) to 1.1 on two (45,000): 1.1 is not below 1.1.

    With 26,000: 0.72 to 0.98, a gain of 0.11 of 1.1.
    """
    assert roles(predictor, tell).scale(fleet(1, [30_000] * 3), 0.0).role_changes == ()
    assert roles(predictor, tell).scale(fleet(1, [26_000] * 3), 0.0).role_changes != ()
    assert roles(predictor, tell, hysteresis=0.2).scale(fleet(1, [26_000] * 3), 0.0).role_changes == ()


def test_a_change_waits_until_it_has_looked_better_for_long_enough(predictor, tell):
    one, short, fine = roles(predictor, tell, dwell_s=10.0), fleet(1, [10_000] * 3), fleet(2, [10_000] * 2)

    def changes(views, now):
        tell(one, 64, 0.1, start_s=now - 6.4)
        return bool(one.scale(views, now).role_changes)

    assert [changes(short, now) for now in (0.0, 5.0, 10.0)] == [False, False, True]
    assert [changes(short, 20.0), changes(fine, 25.0)] == [False, False]  # broken off
    assert [changes(short, now) for now in (30.0, 35.0, 40.0)] == [False, False, True]


def test_each_pool_keeps_a_worker(predictor, tell):
    assert roles(predictor, tell).scale(fleet(1, [1_000]), 0.0).role_changes == ()
    assert roles(predictor, tell, every_s=5.0).scale(fleet(1, [90_000]), 0.0).role_changes == ()


def test_one_change_at_a_time(predictor, tell):
    for way in ("starting", "leaving"):
        views = fleet(1, [10_000] * 3, **{way: [view(20, "decode")]})
        assert roles(predictor, tell).scale(views, 0.0).reason == "nothing is decided"


def test_a_fleet_of_mixed_workers_is_left_as_it_is(predictor, tell):
    assert roles(predictor, tell).scale(FleetSnapshot([view(0, waiting=50), view(1)]), 0.0).role_changes == ()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"hysteresis": 1.0}, "hysteresis 1.0 and dwell_s"),
        ({"dwell_s": -1.0}, "dwell_s -1.0"),
        ({"horizon_s": 0.0}, "horizon_s is 0.0; give a number above 0"),
        ({"period_s": 0.0}, "period_s is 0.0"),
    ],
)
def test_bad_parameters_are_one_sentence(predictor, parameters, says):
    with pytest.raises(InputError, match=says):
        make("scaler", "roles", Facts(predictor=predictor), **parameters)
