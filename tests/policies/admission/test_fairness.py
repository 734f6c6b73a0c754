"""The virtual token counter, by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Arrived, Decision, Dispatched, Finished, FirstToken, Rejected
from helpers.workload.request import Request

IDLE = Snapshot([view(0)])


def request(number, tenant="ann", prompt=100, output=30):
    return Request(number, 0.0, prompt, output, tenant=tenant)


def arrive(policy, one):
    policy.observe(Arrived(one), 0.0)
    return one


def send(policy, one):
    policy.observe(Dispatched(one, Decision(0, 0)), 0.0)
    return one


def test_input_is_charged_at_the_dispatch_and_output_at_the_end(policy):
    one = policy("fair")
    sent = send(one, arrive(one, request(0)))
    assert one.counters == {"ann": 100}
    one.observe(FirstToken(sent, 0), 1.0)
    assert one.counters == {"ann": 100}
    one.observe(Finished(sent, 0), 2.0)
    assert one.counters == {"ann": 100 + 2 * 30}


def test_a_guess_is_charged_in_advance_and_corrected(policy):
    one = policy("fair", guess_tokens=50)
    sent = send(one, arrive(one, request(0)))
    assert one.counters == {"ann": 100 + 2 * 50}
    one.observe(Finished(sent, 0), 2.0)
    assert one.counters == {"ann": 100 + 2 * 30}
    exact = policy("fair", guess_tokens=None, input_weight=3.0, output_weight=5.0)
    send(exact, arrive(exact, request(0)))
    assert exact.counters == {"ann": 3 * 100 + 5 * 30}


def test_a_request_that_is_sent_twice_is_charged_once(policy):
    one = policy("fair")
    sent = arrive(one, request(0))
    send(one, sent)
    send(one, sent)
    one.observe(Finished(sent, 0), 2.0)
    assert one.counters == {"ann": 160}


def test_what_was_turned_away_is_not_charged(policy):
    one = policy("fair", guess_tokens=50)
    one.observe(Rejected(arrive(one, request(0)), "too long"), 1.0)
    assert one.counters == {"ann": 0}
    sent = send(one, arrive(one, request(1)))
    one.observe(Rejected(sent, "its worker is gone"), 1.0)
    assert one.counters == {"ann": 100}  # the prompt went out, the guess is taken back


def test_a_tenant_who_comes_back_is_lifted_to_the_least_who_waits(policy):
    one = policy("fair")
    first = [request(0, "ann", 500), request(1, "bob", 300), request(2, "cid", 900)]
    for waiting in first:
        arrive(one, waiting)
    for waiting in first:
        send(one, waiting)
    assert one.counters == {"ann": 500, "bob": 300, "cid": 900}
    for number, tenant in ((3, "ann"), (4, "cid")):  # both lifted to at least the 900 of cid, who was sent last
        arrive(one, request(number, tenant))
    assert one.counters == {"ann": 900, "bob": 300, "cid": 900}
    arrive(one, request(5, "bob"))
    assert one.counters["bob"] == 900
    arrive(one, request(6, "bob"))  # who waits already is not lifted again
    one.counters["ann"] = one.counters["cid"] = 2000.0
    arrive(one, request(7, "bob"))
    assert one.counters["bob"] == 900
    arrive(one, request(8, "new"))  # bob has the least of those who wait
    assert one.counters["new"] == 900


def test_nobody_is_lowered(policy):
    one = policy("fair")
    send(one, arrive(one, request(0, "ann", 500)))
    send(one, arrive(one, request(1, "bob", 100)))  # lifted to 500, then charged
    assert one.counters == {"ann": 500, "bob": 600}
    arrive(one, request(2, "ann"))
    arrive(one, request(3, "bob"))
    assert one.counters == {"ann": 600, "bob": 600}


def test_without_the_lift_an_absent_tenant_would_shut_out_the_others(policy):
    """Control of the lift: the counter it would have kept is far below that of who worked on."""
    one = policy("fair")
    for number in range(10):
        send(one, arrive(one, request(number, "ann", 1000)))
    arrive(one, request(10, "ann"))
    arrive(one, request(11, "bob"))
    assert one.lane_rank("bob", 0.0) == one.lane_rank("ann", 0.0) == 10_000


def test_the_gate_closes_over_two_budgets_of_prompts(policy, ask):
    one = policy("fair")  # a budget is 100 tokens
    send(one, arrive(one, request(0, prompt=200)))
    assert ask(one, request(1), IDLE) is ACCEPT  # 200 tokens are not more than 2 x 100
    send(one, arrive(one, request(2, prompt=1)))
    verdict = ask(one, request(1), IDLE)
    assert (verdict.action, verdict.reason) == ("queue", "every worker has prompt tokens enough")
    assert ask(one, request(1), Snapshot([view(0), view(1)])) is ACCEPT  # one worker that is free is enough
    one.observe(FirstToken(request(2), 0), 1.0)
    assert ask(one, request(1), IDLE) is ACCEPT


@pytest.mark.parametrize("name", ["prompt_steps", "input_weight", "output_weight"])
def test_bad_parameters_are_one_sentence(policy, name):
    with pytest.raises(InputError, match=f"admission fair: {name} is -1.0; give a number of 0 or more"):
        policy("fair", **{name: -1.0})
