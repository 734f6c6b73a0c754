"""Admission by predicted TTFT and TPOT: each prediction by hand."""

import pytest

from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, KVEvicted, KVStored, WorkerLost
from helpers.workload.request import Request
from helpers.workload.slo import SLO

BLOCKS = (11, 12, 13)
ASKED = Request(0, 0.0, 250, 10, BLOCKS)  # prefill: steps of 100, 100 and 50 tokens, 3 x 0.01 + 0.25 = 0.28 s


@pytest.mark.parametrize(("bound_s", "action"), [(0.281, "accept"), (0.279, "reject")])
def test_on_an_idle_worker_the_prefill_alone_decides(policy, ask, bound_s, action):
    assert ask(policy("predicted_slo", SLO(ttft_s=bound_s)), ASKED, Snapshot([view(0)])).action == action


@pytest.mark.parametrize(("bound_s", "action"), [(0.501, "accept"), (0.499, "reject")])
def test_the_queue_comes_before_the_prefill(policy, ask, bound_s, action):
    # Two prompts of 100 tokens wait: 2 x 0.11 s; with the own prefill 0.22 + 0.28 = 0.50 s.
    views = Snapshot([view(0, "prefill", waiting=2, waiting_tokens=200), view(1, "decode")])
    verdict = ask(policy("predicted_slo", SLO(ttft_s=bound_s)), ASKED, views, Decision(0, 1))
    assert verdict.action == action
    assert action == "accept" or verdict.reason == "predicted TTFT over its SLO"


def test_who_is_late_may_come_again_when_so_much_less_waits(policy, ask):
    # 0.50 s as above, against bounds of 0.3 and of 1.5 x 0.2 = 0.3: 0.2 s too late. A TPOT says nothing of a wait.
    views = Snapshot([view(0, "prefill", waiting=2, waiting_tokens=200), view(1, "decode")])
    for one in (policy("predicted_slo", SLO(ttft_s=0.3)), policy("predicted_slo", SLO(ttft_s=0.2), slack=1.5)):
        assert ask(one, ASKED, views, Decision(0, 1)).retry_after_s == pytest.approx(0.2)
    assert ask(policy("predicted_slo", SLO(tpot_s=0.001)), ASKED, views, Decision(0, 1)).retry_after_s is None


@pytest.mark.parametrize(("bound_s", "action"), [(0.0326, "accept"), (0.0324, "reject")])
def test_tpot_is_a_decode_step_of_the_decode_worker_with_the_request(policy, ask, bound_s, action):
    # 5 requests decode, 0.01 + 5 x 0.002 = 0.02 s, over 1000 + 250 KV tokens, 0.0125 s: 0.0325 s.
    views = Snapshot([view(0, "prefill", running=50), view(1, "decode", running=4, kv_tokens=1000)])
    verdict = ask(policy("predicted_slo", SLO(tpot_s=bound_s)), ASKED, views, Decision(0, 1))
    assert verdict.action == action
    assert action == "accept" or verdict.reason == "predicted TPOT over its SLO"


def test_a_cached_prefix_is_not_computed_again(policy, ask):
    one = policy("predicted_slo", SLO(ttft_s=0.07))
    views = Snapshot([view(0), view(1)])
    assert ask(one, ASKED, views).action == "reject"
    one.observe(KVStored(0, BLOCKS[:2]), 0.0)
    assert ask(one, ASKED, views).action == "accept"  # 50 tokens are left: 0.01 + 0.05 = 0.06 s
    assert ask(one, ASKED, views, 1).action == "reject"  # the other worker has nothing
    one.observe(KVEvicted(0, BLOCKS[1:2]), 0.0)
    assert ask(one, ASKED, views).action == "reject"
    one.observe(KVStored(0, BLOCKS[:2]), 0.0)
    one.observe(WorkerLost(0), 0.0)
    assert ask(one, ASKED, views).action == "reject"


def test_without_kv_events_no_prefix_is_known(policy, ask):
    one = policy("predicted_slo", SLO(ttft_s=0.07), kv_events=False)
    assert one.observes == frozenset() and KVStored in policy("predicted_slo").observes
    one.observe(KVStored(0, BLOCKS), 0.0)
    assert ask(one, ASKED, Snapshot([view(0)])).action == "reject"


def test_the_last_token_of_a_cached_prompt_is_computed(policy, ask):
    whole = Request(0, 0.0, 200, 10, BLOCKS[:2])
    one = policy("predicted_slo", SLO(ttft_s=0.1))
    one.observe(KVStored(0, BLOCKS[:2]), 0.0)
    assert ask(one, whole, Snapshot([view(0)])).action == "reject"  # 100 tokens are computed: 0.11 s


@pytest.mark.parametrize(("bound_s", "action"), [(0.361, "accept"), (0.359, "reject")])
def test_a_copied_prefix_costs_its_transfer(policy, ask, bound_s, action):
    # 200 tokens of 1 kB over 1 MB/s with 0.1 s latency: 0.3 s; the 50 that are left: 0.06 s.
    one = policy("predicted_slo", SLO(ttft_s=bound_s))
    decision = Decision(0, 0, kv_source=1, fetch_tokens=200)
    assert ask(one, ASKED, Snapshot([view(0), view(1)]), decision).action == action


def test_slack_multiplies_the_bounds(policy, ask):
    views = Snapshot([view(0)])  # 0.28 s against bounds of 0.2 x 1.5 = 0.3 and 0.2 x 1.3 = 0.26
    assert ask(policy("predicted_slo", SLO(ttft_s=0.2), slack=1.5), ASKED, views).action == "accept"
    assert ask(policy("predicted_slo", SLO(ttft_s=0.2), slack=1.3), ASKED, views).action == "reject"
    with pytest.raises(InputError, match="admission predicted_slo: slack is 0; give a number above 0"):
        policy("predicted_slo", slack=0)


def test_each_class_is_held_to_its_own_slo_and_none_to_what_is_not_set(policy, ask):
    one = policy("predicted_slo", {"quick": SLO(ttft_s=0.1), "patient": SLO(ttft_s=1.0), "free": SLO(e2e_s=1e-3)})
    said = [
        ask(one, Request(0, 0.0, 250, 10, slo_class=c), Snapshot([view(0)])).action
        for c in ("quick", "patient", "free")
    ]
    assert said == ["reject", "accept", "accept"]


def test_it_needs_a_predictor():
    with pytest.raises(InputError, match="admission predicted_slo predicts times; give it a predictor"):
        make("admission", "predicted_slo", Facts())


# -- llm-d's variant

BUSY = {"running": 9, "kv_used_blocks": 500, "waiting": 9, "waiting_tokens": 900}


def test_anywhere_accepts_when_another_worker_would_do(policy, ask):
    views = Snapshot([view(0, **BUSY), view(1, running=1, kv_used_blocks=500)])
    assert ask(policy("predicted_slo", SLO(ttft_s=0.5)), ASKED, views).action == "reject"
    assert ask(policy("predicted_slo", SLO(ttft_s=0.5), anywhere=True), ASKED, views).action == "accept"
    full = Snapshot([view(0, **BUSY), view(1, **BUSY)])
    assert ask(policy("predicted_slo", SLO(ttft_s=0.5), anywhere=True), ASKED, full).action == "reject"


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ({}, "accept"),  # idle
        ({"running": 1, "kv_used_blocks": 19}, "accept"),  # below 2 % of 1000 blocks
        ({"running": 1, "kv_used_blocks": 20}, "reject"),
    ],
)
def test_anywhere_accepts_on_an_idle_worker_whatever_is_predicted(policy, ask, state, action):
    one = policy("predicted_slo", SLO(ttft_s=1e-6), anywhere=True)
    assert ask(one, ASKED, Snapshot([view(0, **BUSY), view(1, **state)])).action == action


def test_anywhere_keeps_the_decode_worker_of_a_split(policy, ask):
    one = policy("predicted_slo", SLO(ttft_s=0.5, tpot_s=0.02), anywhere=True)
    slow = {"running": 100, "kv_used_blocks": 500}  # 0.01 + 101 x 0.002 = 0.212 s a step
    prefills = [view(0, "prefill", **BUSY), view(1, "prefill", running=1, kv_used_blocks=500)]
    for decode, action in ((view(2, "decode", **slow), "reject"), (view(2, "decode"), "accept")):
        assert ask(one, ASKED, Snapshot([*prefills, decode]), Decision(0, 2)).action == action


def test_who_may_not_be_shed_is_not_asked(policy, ask):
    one = policy("predicted_slo", SLO(ttft_s=1e-6), sheddable_above=0)
    for priority, action in ((-1, "accept"), (0, "accept"), (1, "reject")):
        assert ask(one, Request(0, 0.0, 250, 10, priority=priority), Snapshot([view(0)])).action == action
