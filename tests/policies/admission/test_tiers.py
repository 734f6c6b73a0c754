"""Tiers with a reserve, and deadlines: shares and ends by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Arrived, Decision, Dispatched, Finished, Rejected
from helpers.workload.request import Request

IDLE = Snapshot([view(0)])


def request(number, priority=0, prompt=90, output=10, **more):
    return Request(number, 0.0, prompt, output, priority=priority, **more)


def send(policy, one):
    policy.observe(Dispatched(one, Decision(0, 0)), 0.0)


@pytest.mark.parametrize(
    ("in_flight", "accepted"),
    # A capacity of 1000 tokens and a reserve of 0.3 a tier: shares of 1000, 700, 400, 100 and 0 tokens; the
    # request weighs 90 + 10 = 100, so a tier gets in up to 900, 600, 300 and 0 tokens in flight.
    [(1, [0, 1, 2]), (300, [0, 1, 2]), (301, [0, 1]), (600, [0, 1]), (601, [0]), (900, [0]), (901, [])],
)
def test_each_tier_fills_the_fleet_up_to_its_share(policy, ask, in_flight, accepted):
    one = policy("priority_tiers", reserve=0.3)
    send(one, request(99, prompt=in_flight - 1, output=1))
    said = {p: ask(one, request(p, priority=p), IDLE) for p in range(5)}
    assert [p for p, verdict in said.items() if verdict is ACCEPT] == accepted
    assert {v.reason for v in said.values() if v is not ACCEPT} <= {"the share of its tier is used up"}


def test_without_a_reserve_all_tiers_are_alike(policy, ask):
    one = policy("priority_tiers", reserve=0.0)
    send(one, request(99, prompt=899, output=1))
    assert [ask(one, request(p, priority=p), IDLE) for p in range(5)] == [ACCEPT] * 5


def test_priorities_above_the_highest_have_no_more_than_all(policy, ask):
    one = policy("priority_tiers", reserve=0.3)
    send(one, request(99, prompt=900, output=1))
    assert ask(one, request(0, priority=-5), IDLE).action == "reject"


def test_what_has_left_is_free_again(policy, ask):
    one = policy("priority_tiers", reserve=0.3)
    first, second = request(98, prompt=500), request(99, prompt=400)
    send(one, first)
    send(one, second)
    assert one.in_flight.total == 510 + 410
    assert ask(one, request(0), IDLE).action == "reject"
    one.observe(Finished(first, 0), 1.0)
    assert one.in_flight.total == 410 and ask(one, request(0), IDLE) is ACCEPT
    one.observe(Rejected(second, "why ever"), 1.0)
    assert one.in_flight.total == 0


def test_a_second_dispatch_counts_once(policy):
    one = policy("priority_tiers")
    send(one, request(1))
    send(one, request(1))
    assert one.in_flight.total == 100


def test_the_capacity_is_that_of_the_live_decode_workers(policy, ask):
    one = policy("priority_tiers")
    send(one, request(99, prompt=1849, output=1))
    two = Snapshot([view(0), view(1)])
    assert ask(one, request(0), two) is ACCEPT and ask(one, request(0), IDLE).action == "reject"
    assert ask(policy("priority_tiers", capacity_tokens=50), request(0), two) is ACCEPT  # nothing is in flight


def test_the_guess_of_the_output_weighs(policy, ask):
    one = policy("priority_tiers", guess_tokens=500)
    send(one, request(99, output=1))  # 90 + 500
    assert one.in_flight.total == 590
    assert ask(one, request(0), IDLE).action == "reject"  # 590 + 590 of 1000


def test_an_idle_fleet_takes_anybody(policy, ask):
    assert ask(policy("priority_tiers", reserve=1.0), request(0, priority=3, prompt=5000), IDLE) is ACCEPT


def test_hold_holds_in_order_of_priority(policy, ask):
    one, rejecting = policy("priority_tiers", hold=True), policy("priority_tiers")
    send(one, request(99, prompt=999))
    assert ask(one, request(0), IDLE).action == "queue"
    assert (one.queues, rejecting.queues) == (True, False)
    assert one.rank(request(0, priority=2), 5.0) > one.rank(request(1, priority=1), 9.0)


# A prompt of 90 tokens takes 0.1 s. Alone, a token takes 0.01 + 0.002 + 1e-5 x 90 = 0.0129 s, and 10 tokens
# 9 of those: the end is at 0.1 + 0.1161 = 0.2161 s.


@pytest.mark.parametrize(("deadline_s", "action"), [(0.217, "accept"), (0.215, "reject"), (None, "accept")])
def test_a_deadline_that_cannot_be_met_is_refused(policy, ask, deadline_s, action):
    verdict = ask(policy("priority_tiers"), request(0, deadline_s=deadline_s), IDLE)
    assert verdict.action == action
    assert action == "accept" or verdict.reason == "predicted to miss its deadline"


def test_the_wait_at_the_front_end_counts_against_the_deadline(policy, ask):
    one, late = policy("priority_tiers", hold=True), request(0, deadline_s=0.5)
    one.observe(Arrived(late), 10.0)
    assert ask(one, late, IDLE, now=10.28) is ACCEPT  # 0.28 + 0.2161 = 0.4961 s
    assert ask(one, late, IDLE, now=10.29).action == "reject"  # 0.5061 s


def test_a_deadline_goes_before_the_share(policy, ask):
    one = policy("priority_tiers", hold=True)
    send(one, request(99, prompt=999))
    assert ask(one, request(0, deadline_s=0.1), IDLE).reason == "predicted to miss its deadline"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"reserve": 1.5}, "reserve is 1.5; give a share from 0 to 1"),
        ({"reserve": -0.1}, "reserve is -0.1"),
        ({"capacity_tokens": 0}, "capacity_tokens is 0; give 1 or more"),
        ({"guess_tokens": -1}, "a guess of -1"),
    ],
)
def test_bad_parameters_are_one_sentence(policy, parameters, says):
    with pytest.raises(InputError, match=says):
        policy("priority_tiers", **parameters)
