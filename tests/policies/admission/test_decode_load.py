"""Early rejection by decode load: now, at the end of the prefill, and after it. Loads by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Decision, Dispatched, Finished, FirstToken, Rejected, WorkerLost
from helpers.workload.request import Request
from helpers.workload.slo import SLO

# A step of n requests over k KV tokens takes 0.01 + 0.002 n + 1e-5 k seconds, a prompt of 100 tokens 0.11 s.
PAIR = Decision(0, 1)
ASKED = Request(9, 0.0, 100, 10)


def fleet(**decode):
    return Snapshot([view(0, "prefill"), view(1, "decode", **decode)])


def send(policy, views, request, now):
    """Ask about a request, expect a yes, and dispatch it."""
    assert policy.admit(request, views, PAIR, now, None) is ACCEPT
    policy.observe(Dispatched(request, PAIR), now)


@pytest.mark.parametrize(("running", "action"), [(13, "accept"), (14, "reject")])
def test_current_looks_at_the_decode_worker_as_it_is(policy, ask, running, action):
    # With the request 0.01 + 0.002 x 15 + 1e-5 x 1000 = 0.05 s for 14 others (900 KV tokens + 100), over 0.049.
    one = policy("predicted_load", SLO(tpot_s=0.049), mode="current", limit=1.0)
    verdict = ask(one, ASKED, fleet(running=running, kv_tokens=900), PAIR)
    assert verdict.action == action
    assert action == "accept" or verdict.reason == "decode load over its limit"


@pytest.mark.parametrize(("kv_tokens", "action"), [(39_900, "accept"), (39_901, "reject")])
def test_memory_counts_as_load_too(policy, ask, kv_tokens, action):
    # 1000 blocks of 100 tokens; with its prompt 40,000 of 100,000 tokens are 0.4.
    one = policy("predicted_load", SLO(), mode="current", limit=0.4)
    assert ask(one, ASKED, fleet(running=1, kv_tokens=kv_tokens), PAIR).action == action


def test_predicted_counts_who_comes_out_of_the_prefill_before(policy):
    """Current sees an empty decode worker; predicted sees those who are still in the prefill pool."""
    views, said = fleet(), {}
    for mode in ("current", "predicted"):
        one = policy("predicted_load", SLO(tpot_s=0.0205), mode=mode)
        for number in range(3):
            send(one, views, Request(number, 0.0, 100, 1000), 0.0)
        said[mode] = one.admit(ASKED, views, PAIR, 0.0, None)
    # At 0.11 s three others decode over 100 tokens each: with a fourth 0.01 + 0.002 x 4 + 1e-5 x 400 = 0.022 s.
    assert said["current"] is ACCEPT
    assert (said["predicted"].action, said["predicted"].reason) == ("reject", "predicted decode load over its limit")


def test_predicted_counts_three_and_not_four(policy):
    """Control of the above: of two others the step is 0.01 + 0.002 x 3 + 1e-5 x 300 = 0.019 s."""
    one, views = policy("predicted_load", SLO(tpot_s=0.0205)), fleet()
    for number in range(2):
        send(one, views, Request(number, 0.0, 100, 1000), 0.0)
    assert one.admit(ASKED, views, PAIR, 0.0, None) is ACCEPT


def test_predicted_leaves_out_who_will_have_finished(policy):
    """Current sees a full decode worker; predicted knows that it will be empty when the prefill ends."""
    busy = fleet(running=20, kv_tokens=2000)  # a step with the request: 0.01 + 0.042 + 0.021 = 0.073 s
    said = {}
    for mode in ("current", "predicted"):
        one = policy("predicted_load", SLO(tpot_s=0.03), mode=mode)
        for number in range(20):
            request = Request(number, 0.0, 100, 2)
            one.observe(Dispatched(request, PAIR), 0.0)
            one.observe(FirstToken(request, 0), 1.0)
        # The prefill ends at 1.10 + 0.11 s; their 2 tokens at 0.073 s each are out at 1.146 s.
        said[mode] = one.admit(ASKED, busy, PAIR, 1.1, None).action
    assert said == {"current": "reject", "predicted": "accept"}


def test_the_view_of_later_has_their_prompts_and_what_they_have_put_out(policy):
    one = policy("predicted_load", SLO())
    for number, (begin_s, prompt, output) in enumerate(
        [(1.0, 100, 50), (2.0, 300, 50), (1.0, 500, 10), (9.0, 700, 50)]
    ):
        request = Request(number, 0.0, prompt, output)
        one.observe(Dispatched(request, PAIR), 0.0)
        one.observe(FirstToken(request, 0), begin_s)
    # At 3 s and 0.1 s a token: 20 of 50 tokens, 10 of 50, ended after 10, not begun.
    then = one.view_at(view(1, "decode", running=77, kv_tokens=1), 1.5, 3.0, 0.1)
    assert (then.running, then.kv_tokens) == (2, pytest.approx(100 + 20 + 300 + 10))


@pytest.mark.parametrize(("now", "running"), [(1.9, 0), (2.0, 0), (2.1, 1), (2.9, 1)])
def test_who_has_outlived_the_guess_is_believed_to_have_as_much_again_to_go(policy, now, running):
    """A guess of 10 tokens at 0.1 s: believed to end at 2 s; still there then, at 1 s after the question."""
    one, request = policy("predicted_load", SLO(), guess_tokens=10), Request(0, 0.0, 100, 999)
    one.observe(Dispatched(request, PAIR), 0.0)
    one.observe(FirstToken(request, 0), 1.0)
    assert one.view_at(view(1, "decode"), now, 3.0, 0.1).running == running


def test_a_first_token_corrects_the_begin_and_an_end_removes(policy):
    one, views = policy("predicted_load", SLO()), fleet()
    request = Request(0, 0.0, 100, 50)
    send(one, views, request, 5.0)
    assert one.decodes[1][0].begins_s == pytest.approx(5.11)
    one.observe(FirstToken(request, 0), 7.5)
    assert one.decodes[1][0].begins_s == 7.5
    one.observe(Finished(request, 1), 8.0)
    assert one.decodes[1] == {}


@pytest.mark.parametrize("event", [Rejected(Request(0, 0.0, 100, 50), "late"), WorkerLost(1)])
def test_who_is_gone_does_not_count(policy, event):
    one = policy("predicted_load", SLO())
    send(one, fleet(), Request(0, 0.0, 100, 50), 0.0)
    one.observe(event, 1.0)
    assert one.decodes[1] == {}
    one.observe(FirstToken(Request(0, 0.0, 100, 50), 0), 2.0)  # of one that is not known: nothing to do
    assert one.decodes[1] == {}


def test_a_second_dispatch_moves_a_request(policy):
    one = policy("predicted_load", SLO())
    send(one, fleet(), Request(0, 0.0, 100, 50), 0.0)
    one.observe(Dispatched(Request(0, 0.0, 100, 50), Decision(0, 2)), 3.0)
    assert one.decodes[1] == {} and one.decodes[2][0].begins_s == 3.0


def test_late_says_nothing_until_the_prefill_has_ended(policy):
    full, empty = fleet(running=100), fleet()
    one = policy("predicted_load", SLO(tpot_s=0.05), mode="late", check_again=False)
    assert one.admit(ASKED, full, PAIR, 0.0, None) is ACCEPT
    assert one.admit_decode(ASKED, full, PAIR, 0.0, None).reason == "decode load over its limit after the prefill"
    assert one.admit_decode(ASKED, empty, PAIR, 0.0, None) is ACCEPT


@pytest.mark.parametrize("mode", ["current", "predicted"])
def test_the_others_ask_again_unless_told_not_to(policy, mode):
    full = fleet(running=100)
    again, not_again = (policy("predicted_load", SLO(tpot_s=0.05), mode=mode, check_again=c) for c in (True, False))
    assert again.admit_decode(ASKED, full, PAIR, 0.0, None).action == "reject"
    assert not_again.admit_decode(ASKED, full, PAIR, 0.0, None) is ACCEPT


@pytest.mark.parametrize("mode", ["late", "current", "predicted"])
def test_a_ttft_that_would_be_missed_is_no_question_of_the_mode(policy, ask, mode):
    for check, action in ((True, "reject"), (False, "accept")):
        one = policy("predicted_load", SLO(ttft_s=0.1), mode=mode, check_ttft=check)
        assert ask(one, ASKED, fleet(), PAIR).action == action


def test_a_wrong_guess_changes_what_is_predicted(policy):
    """The truth is 1000 tokens; whoever believes in 1 thinks that the decode worker will be empty."""
    said = {}
    for guess in (None, 1):
        one, views = policy("predicted_load", SLO(tpot_s=0.0205), guess_tokens=guess), fleet()
        for number in range(3):
            request = Request(number, 0.0, 100, 1000)
            one.observe(Dispatched(request, PAIR), 0.0)
            one.observe(FirstToken(request, 0), 0.1)
        said[guess] = one.admit(ASKED, views, PAIR, 0.2, None).action
    assert said == {None: "reject", 1: "accept"}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"mode": "later"}, "mode 'later' is unknown; use one of late, current, predicted"),
        ({"limit": 0.0}, "limit is 0.0; give a number above 0"),
        ({"guess_tokens": -1}, "a guess of -1 output tokens is none"),
        ({"guess_error": -0.1}, "the error of a guess is -0.1"),
        ({"mode": 1}, "mode is 1; give a word"),
    ],
)
def test_bad_parameters_are_one_sentence(policy, parameters, says):
    with pytest.raises(InputError, match=says):
        policy("predicted_load", **parameters)
