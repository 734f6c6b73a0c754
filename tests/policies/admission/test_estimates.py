"""Service measured without the queue, and the estimate that excites itself: worked by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.admission.estimates import ServiceEstimate
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Decision, Dispatched, Finished, FirstToken, KVStored, Rejected, WorkerLost
from helpers.workload.request import Request
from helpers.workload.slo import SLO

IDLE = Snapshot([view(0)])


# -- the estimate


def test_the_queue_is_not_in_the_estimate():
    """Four prompts of 100 tokens sent at once, done every 0.2 s: 0.002 s a token, though the last took 0.8 s."""
    estimate = ServiceEstimate()
    for number in range(4):
        estimate.dispatched(number, 100, 10.0)
    for number in range(4):
        estimate.first_token(number, 0, 10.2 + 0.2 * number, keep=0.95)
        assert estimate.per_token_s == pytest.approx(0.002)


def test_with_the_queue_the_estimate_is_two_and_a_half_times_as_large():
    """Control: without the clock of the worker the four took 0.2, 0.4, 0.6 and 0.8 s, 2.0 s for 400 tokens."""
    estimate = ServiceEstimate()
    for number in range(4):
        estimate.dispatched(number, 100, 10.0)
    for number in range(4):
        estimate._last_s.clear()
        estimate.first_token(number, 0, 10.2 + 0.2 * number, keep=1.0)
    assert estimate.per_token_s == pytest.approx(2.0 / 400)


def test_an_idle_time_is_no_service():
    estimate = ServiceEstimate()
    for number, at in enumerate((0.0, 100.0)):
        estimate.dispatched(number, 100, at)
        estimate.first_token(number, 0, at + 0.3, keep=0.95)
    assert estimate.per_token_s == pytest.approx(0.003)


def test_prompts_that_share_a_step_are_right_together():
    """100 and 300 tokens in one step of 0.8 s: the first is booked with all of it, the second with none."""
    estimate = ServiceEstimate()
    estimate.dispatched(0, 100, 0.0)
    estimate.dispatched(1, 300, 0.0)
    estimate.first_token(0, 0, 0.8, keep=1.0)
    estimate.first_token(1, 0, 0.8, keep=1.0)
    assert estimate.per_token_s == pytest.approx(0.8 / 400)


def test_workers_have_clocks_of_their_own():
    estimate = ServiceEstimate()
    estimate.dispatched(0, 100, 0.0)
    estimate.dispatched(1, 100, 0.0)
    estimate.first_token(0, 0, 0.2, keep=1.0)
    estimate.first_token(1, 1, 0.3, keep=1.0)  # not 0.1 s after the first
    assert estimate.per_token_s == pytest.approx(0.5 / 200)


def test_the_old_is_forgotten():
    estimate = ServiceEstimate()
    estimate.dispatched(0, 100, 0.0)
    estimate.first_token(0, 0, 0.1, keep=0.5)
    estimate.dispatched(1, 100, 1.0)
    estimate.first_token(1, 0, 1.3, keep=0.5)
    assert estimate.per_token_s == pytest.approx((0.5 * 0.1 + 0.3) / (0.5 * 100 + 100))


def test_what_is_not_known_only_sets_the_clock():
    estimate = ServiceEstimate()
    estimate.dispatched(0, 100, 0.0)
    estimate.forget(0)
    estimate.first_token(0, 0, 5.0, keep=1.0)
    assert estimate.per_token_s is None
    estimate.dispatched(1, 100, 4.0)
    estimate.first_token(1, 0, 5.1, keep=1.0)  # since 5.0 s, not since 4.0 s
    assert estimate.per_token_s == pytest.approx(0.001)


# -- measured_slo


def send(policy, number, tokens, now, blocks=()):
    one = Request(number, 0.0, tokens, 10, blocks)
    policy.observe(Dispatched(one, Decision(0, 0)), now)
    return one


def test_measured_slo_multiplies_the_tokens_in_flight_by_the_measured_rate(policy, ask):
    one = policy("measured_slo", SLO(ttft_s=1.0))
    assert ask(one, Request(9, 0.0, 10**6, 1), IDLE) is ACCEPT  # nothing is measured yet
    one.observe(FirstToken(send(one, 0, 100, 0.0), 0), 0.2)  # 0.002 s a token: 500 tokens in a second
    send(one, 1, 300, 0.2)
    assert ask(one, Request(9, 0.0, 199, 1), IDLE) is ACCEPT
    verdict = ask(one, Request(9, 0.0, 201, 1), IDLE)
    assert (verdict.action, verdict.reason) == ("reject", "predicted TTFT over its SLO")
    assert ask(one, Request(9, 0.0, 201, 1), Snapshot([view(0), view(1)]), 1) is ACCEPT
    assert ask(policy("measured_slo"), Request(9, 0.0, 201, 1), IDLE) is ACCEPT  # no bound


def test_measured_slo_counts_uncached_tokens(policy, ask):
    one = policy("measured_slo", SLO(ttft_s=1.0))
    one.observe(KVStored(0, (1, 2)), 0.0)
    one.observe(FirstToken(send(one, 0, 300, 0.0, (1, 2, 3)), 0), 0.2)  # 100 tokens in 0.2 s
    assert one.estimate.per_token_s == pytest.approx(0.002)
    assert ask(one, Request(9, 0.0, 600, 1, (1, 2, 7)), IDLE) is ACCEPT  # 400 x 0.002 s
    assert ask(one, Request(9, 0.0, 600, 1, (7, 8, 9)), IDLE).action == "reject"


@pytest.mark.parametrize("kind", [Finished, Rejected, WorkerLost])
def test_what_is_gone_is_not_in_flight(policy, kind):
    one = policy("measured_slo")
    sent = send(one, 0, 100, 0.0)
    one.observe(WorkerLost(0) if kind is WorkerLost else kind(sent, 0), 1.0)
    assert one.prompts.amount == [0]
    one.observe(FirstToken(sent, 0), 2.0)
    assert one.estimate.per_token_s is None


# -- self_exciting


def test_the_mean_grows_tenfold_in_four_completions_although_service_is_constant(policy, ask):
    """Four requests wait each time: the estimate is 5 means, and 0.8 + 0.2 x 5 = 1.8 of the mean the next mean."""
    one, views = policy("self_exciting"), Snapshot([view(0, waiting=4)])
    means = []
    for number in range(4):
        request = Request(number, 0.0, 100, 10)
        assert ask(one, request, views) is ACCEPT
        one.observe(FirstToken(request, 0), number * 0.05)  # the service takes what it always took
        means.append(one.mean_s)
    assert means == pytest.approx([0.05 * 1.8, 0.05 * 3.24, 0.05 * 5.832, 0.05 * 10.4976])


def test_the_mean_pins_at_its_cap(policy, ask):
    """From 0.05 s, 1.8 ** 9 x 0.05 = 9.9 s; from there the estimate is 10 s and the mean creeps up to it."""
    one, views = policy("self_exciting"), Snapshot([view(0, waiting=4)])
    for number in range(60):
        request = Request(number, 0.0, 100, 10)
        ask(one, request, views)
        one.observe(FirstToken(request, 0), 0.0)
    assert 9.99 < one.mean_s <= 10.0


def test_an_excited_mean_turns_away_from_an_idle_fleet(policy, ask):
    """Those with a wide bound excite it; from then on an idle worker, which takes 0.05 s, is too slow for 0.5 s."""
    one = policy("self_exciting", {"patient": SLO(ttft_s=30.0), "quick": SLO(ttft_s=0.5)})
    quick = Request(99, 0.0, 100, 10, slo_class="quick")
    assert ask(one, quick, IDLE) is ACCEPT
    for number in range(4):
        request = Request(number, 0.0, 100, 10, slo_class="patient")
        assert ask(one, request, Snapshot([view(0, waiting=4)])) is ACCEPT
        one.observe(FirstToken(request, 0), 0.0)
    assert ask(one, quick, IDLE).action == "reject"  # 0.525 s
    for number in range(50):  # nor does anything bring the mean down again
        request = Request(number, 0.0, 100, 10, slo_class="patient")
        assert ask(one, request, IDLE) is ACCEPT
        one.observe(FirstToken(request, 0), 0.0)
    assert one.mean_s == pytest.approx(0.05 * 10.4976)
    assert ask(one, quick, IDLE).action == "reject"


def test_without_a_queue_it_is_no_counter_example(policy, ask):
    """Control: an estimate without a queue in it leaves the mean where it is."""
    one = policy("self_exciting")
    for number in range(20):
        request = Request(number, 0.0, 100, 10)
        ask(one, request, IDLE)
        one.observe(FirstToken(request, 0), 0.0)
    assert one.mean_s == pytest.approx(0.05)


def test_with_the_same_history_measured_slo_keeps_its_head(policy, ask):
    """Five in flight all the time, one done every 0.05 s: 0.0005 s a token, whatever the queue."""
    one = policy("measured_slo", SLO(ttft_s=2.0))
    requests = [send(one, number, 100, 0.0) for number in range(5)]
    for number in range(5, 40):
        one.observe(FirstToken(requests[number - 5], 0), 0.05 * (number - 4))
        requests.append(send(one, number, 100, 0.05 * (number - 4)))
    assert one.estimate.per_token_s == pytest.approx(0.0005)
    assert ask(one, Request(99, 0.0, 100, 10), IDLE) is ACCEPT  # 600 tokens: 0.3 s


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("measured_slo", {"slack": 0.0}, "slack is 0.0; give a number above 0"),
        ("measured_slo", {"keep": 1.0}, "keep is 1.0; give a share from 0 to below 1"),
        ("self_exciting", {"start_s": 0.0}, "start_s is 0.0; give seconds above 0, up to cap_s"),
        ("self_exciting", {"start_s": 11.0}, "start_s is 11.0"),
        ("self_exciting", {"weight": 1.5}, "weight is 1.5; give a share from 0 to 1"),
    ],
)
def test_bad_parameters_are_one_sentence(policy, name, parameters, says):
    with pytest.raises(InputError, match=says):
        policy(name, **parameters)
