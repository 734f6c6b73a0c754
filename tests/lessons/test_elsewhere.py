"""An experiment on every hardware of the switch: the same fleet elsewhere, at rates that ask the same of it."""

from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.hardware import gpu
from helpers.lessons import elsewhere
from helpers.models import model
from helpers.roofline.bounds import Shape, step_bound
from helpers.serving.fleet import Fleet
from helpers.widgets.hardware import choices
from helpers.workload.request import Request, Workload

SLOW = AffineCost(0.001, 1e-3, 0.0, 0.0, 0.0)  # a millisecond a prompt token, one a step
FAST = replace(SLOW, overhead_s=0.00025, per_prefill_token_s=0.25e-3)
TWO = Workload("two", (Request(0, 0.0, 99, 1), Request(1, 1.0, 299, 1)))


def test_a_fleet_is_the_same_but_for_its_hardware_and_the_pages_own_is_left_out():
    found = elsewhere.fleets(Fleet(workers=3, max_batch=17))
    assert list(found) == [one.key for one in choices() if one.gpu and one.key != "h100"]
    assert {(one.workers, one.max_batch) for one in found.values()} == {(3, 17)}
    assert found["h200"].hardware == "h200" and found["h200"].cost is None
    measured = found["measured_h100_80gb_hbm3"]
    assert measured.hardware == "h100" and measured.cost.kind == "fitted"


def test_service_times_are_those_of_the_fleet():
    # 0.1 s and 0.3 s: a step of a millisecond, and a millisecond a token.
    assert elsewhere.service_on(Fleet(cost=SLOW), TWO).prefill_s == pytest.approx((0.1, 0.3))


def test_rates_follow_the_speed_of_a_prefill():
    slow, fast = Fleet(cost=SLOW), Fleet(cost=FAST)
    assert elsewhere.at_its_speed((1.5, 2.0), fast, slow, TWO) == [6.0, 8.0]
    assert elsewhere.at_its_speed((1.5, 2.0), slow, fast, TWO) == [0.38, 0.5]  # 0.375, of two digits
    assert elsewhere.at_its_speed((1.5, 2.0), slow, slow, TWO) == [1.5, 2.0]


@pytest.fixture
def one_other(monkeypatch):
    """One other hardware, four times as fast."""
    monkeypatch.setattr(elsewhere, "fleets", lambda fleet: {"other": replace(fleet, cost=FAST)})


def test_a_workload_is_served_by_each_router_on_the_other_hardware(one_other):
    found = elsewhere.served(TWO, Fleet(workers=1, cost=SLOW), iter(("round_robin", "random")))
    assert list(found) == ["other"] and list(found["other"]) == ["round_robin", "random"]
    ttft_s = [t.first_token_s - t.arrival_s for t in found["other"]["random"].timelines]
    assert ttft_s == pytest.approx([0.025, 0.075])  # a quarter of 0.1 and of 0.3


def test_waits_are_held_against_the_service_times_of_that_hardware(one_other):
    ((waits, bound),) = elsewhere.waited(TWO, Fleet(workers=2, cost=SLOW), (4.0,), TWO).values()
    # S = 0.05 s, c2 = 0.25, half of 4 requests/s on each of two: load 0.1, wait 0.1/0.9 * 0.625 * 0.05 s.
    assert bound == [pytest.approx(0.1 / 0.9 * 0.625 * 0.05)] and len(waits) == 1


def test_a_sweep_is_at_the_speed_of_that_hardware(one_other):
    found = elsewhere.swept(TWO, Fleet(workers=1, cost=SLOW), ("random",), (1.0, 2.0))
    assert list(found["other"]["random"]) == [4.0, 8.0]


def test_steps_are_bounded_on_each_part_by_its_own_roofs():
    shape, served = Shape("decode", 32, 1024), model("llama-3.1-8b")
    found = elsewhere.bounded(served, {"decode": shape})
    assert list(found) == ["h100", "h200", "b200"]
    for key, (part, steps) in found.items():
        assert part == gpu(key) and steps == {"decode": step_bound(gpu(key), served, shape)}
    seconds = [steps["decode"].seconds for _, steps in found.values()]
    assert seconds == sorted(seconds, reverse=True) and len(set(seconds)) == 3
