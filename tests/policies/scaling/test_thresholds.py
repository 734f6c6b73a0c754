"""Thresholds: any signal up, all signals down, bounds, cooldown."""

import pytest

from helpers.errors import InputError
from helpers.policies.registry import make
from helpers.policies.snapshot import FleetSnapshot, view


def thresholds(**parameters):
    return make("scaler", "thresholds", **{"mixed_min": 1, "mixed_max": 8, "cooldown_s": 60.0} | parameters)


def mixed(count, waiting=0, kv=0, **more):
    return FleetSnapshot([view(w, waiting=waiting, kv_used_blocks=kv) for w in range(count)], **more)


def test_any_signal_is_enough_to_grow():
    assert thresholds().scale(mixed(2, waiting=8), 0.0).workers == {"mixed": 3}
    plan = thresholds().scale(mixed(2, kv=750), 0.0)
    assert plan.workers == {"mixed": 3} and plan.reason == "mixed: KV in use 0.75 >= 0.75"
    assert thresholds().scale(mixed(2, waiting=7, kv=740), 0.0).workers == {"mixed": 2}


def test_all_signals_are_needed_to_shrink():
    assert thresholds().scale(mixed(2, waiting=2, kv=300), 0.0).workers == {"mixed": 1}
    assert thresholds().scale(mixed(2, waiting=3, kv=300), 0.0).workers == {"mixed": 2}
    assert thresholds().scale(mixed(2, waiting=2, kv=301), 0.0).workers == {"mixed": 2}


def test_what_counts_is_the_mean_of_the_workers_that_take_requests():
    some = [view(0, waiting=16), view(1, waiting=0), view(2, waiting=8)]
    assert thresholds().scale(FleetSnapshot(some), 0.0).workers == {"mixed": 4}  # (16 + 0 + 8) / 3 = 8
    leaving = FleetSnapshot(some[:2], leaving=[view(2, waiting=100)])
    assert thresholds().scale(leaving, 0.0).workers == {"mixed": 3}  # (16 + 0) / 2 = 8, and two are there


def test_who_is_starting_is_counted_and_not_asked():
    fleet = mixed(2, waiting=8, starting=[view(2), view(3)])
    assert thresholds().scale(fleet, 0.0).workers == {"mixed": 5}
    assert thresholds(mixed_max=4).scale(fleet, 0.0).workers == {"mixed": 4}


def test_bounds_hold_at_once_and_a_cooldown_does_not_delay_them():
    one = thresholds(mixed_min=2)
    assert one.scale(mixed(3), 0.0).workers == {"mixed": 2}
    plan = one.scale(mixed(1), 15.0)  # one was lost
    assert plan.workers == {"mixed": 2} and plan.reason == "mixed: 2 to 8"


def test_a_pool_that_was_lost_is_wanted_back():
    one = thresholds(**SMALL)
    one.scale(split([{}], [{}]), 0.0)
    assert one.scale(split([{}], []), 15.0).workers == {"prefill": 1, "decode": 1}
    assert thresholds(**SMALL).scale(split([{}], []), 15.0).workers == {"prefill": 1}  # a control: never seen


def test_a_pool_is_left_alone_after_a_change():
    one, full = thresholds(cooldown_s=60.0), {"waiting": 9}
    sizes = [one.scale(mixed(2, **full), now).workers["mixed"] for now in (0.0, 15.0, 45.0, 60.0)]
    assert sizes == [3, 2, 2, 3]
    eager = thresholds(cooldown_s=0.0)  # a control
    assert [eager.scale(mixed(2, **full), now).workers["mixed"] for now in (0.0, 15.0)] == [3, 3]


def split(prefill, decode, busy_s=None):
    views = [view(w, "prefill", **state) for w, state in enumerate(prefill)]
    views += [view(len(prefill) + w, "decode", **state) for w, state in enumerate(decode)]
    return FleetSnapshot(views, busy_s=busy_s)


SMALL = {"prefill_min": 1, "decode_min": 1, "cooldown_s": 0.0}


def test_pools_are_judged_by_their_own_signals():
    """Waiting 8 is much on a prefill worker and little on a decode worker, whose limit is 16."""
    one = thresholds(**SMALL)
    plan = one.scale(split([{"waiting": 8}], [{"waiting": 8}] * 2), 0.0)
    assert plan.workers == {"prefill": 2, "decode": 2}
    plan = one.scale(split([{"waiting": 5}], [{"waiting": 16}] * 2), 0.0)
    assert plan.workers == {"prefill": 1, "decode": 3}
    assert one.scale(split([{}], [{"kv_used_blocks": 760}] * 2), 0.0).workers["decode"] == 3
    assert one.scale(split([{}], [{"kv_used_blocks": 290, "waiting": 4}] * 2), 0.0).workers["decode"] == 1


def test_utilisation_is_that_since_the_last_look():
    """Workers 0 and 1 spent 13 and 12 of 15 s in steps: 0.83. In the next 15 s 3 and 6: 0.3."""
    one, state = thresholds(**SMALL), [{}, {}]
    assert one.scale(split(state, [{}]), 0.0).workers["prefill"] == 2  # not known yet: neither up nor down
    plan = one.scale(split(state, [{}], {0: 13.0, 1: 12.0}), 15.0)
    assert plan.workers["prefill"] == 3 and "prefill: utilisation 0.83 >= 0.8" in plan.reason
    assert one.scale(split(state, [{}], {0: 16.0, 1: 18.0}), 30.0).workers["prefill"] == 1
    idle = thresholds(**SMALL)  # a control: busy, but not since the last look
    idle.scale(split(state, [{}], {0: 13.0, 1: 12.0}), 15.0)
    assert idle.scale(split(state, [{}], {0: 13.0, 1: 12.0}), 30.0).workers["prefill"] == 1


def test_the_defaults_are_those_of_the_configuration():
    plan = make("scaler", "thresholds").scale(split([{"waiting": 4}] * 2, [{"kv_used_blocks": 500}] * 2), 0.0)
    assert plan.workers == {"prefill": 4, "decode": 8}
    assert plan.reason == "prefill: 4 to 12; decode: 8 to 24"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"mixed_min": 0}, "scaler thresholds: 0 to 8 mixed workers; give 1 or more, in this order"),
        ({"decode_min": 25}, "25 to 24 decode workers"),
        ({"kv_up": 0.2}, "kv down at 0.3 and up at 0.2; give 0 or more, down below up"),
        ({"utilisation_down": -0.1}, "utilisation down at -0.1"),
        ({"cooldown_s": -1.0}, "cooldown_s is -1.0"),
        ({"period_s": 0.0}, "period_s is 0.0; give a number of seconds above 0"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, says):
    with pytest.raises(InputError, match=says):
        make("scaler", "thresholds", **parameters)
