"""Caps on what waits, and shedding by chance: each formula by hand."""

from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import ACCEPT, Decision
from helpers.workload.request import Request
from helpers.workload.slo import SLO

ASKED = Request(0, 0.0, 50, 10)


# -- token_cap
# A whole budget of 100 tokens takes 0.01 + 100 x 0.001 = 0.11 s, so the prefill rate is 100 / 0.11 = 909.09 tokens/s;
# a TTFT bound of 0.5 s allows 0.5 x 909.09 = 454.5 waiting tokens.


@pytest.mark.parametrize(("waiting_tokens", "action"), [(0, "accept"), (454, "accept"), (455, "reject")])
def test_the_token_cap_is_the_ttft_bound_times_the_prefill_rate(policy, ask, waiting_tokens, action):
    views = Snapshot([view(0, waiting=9, waiting_tokens=waiting_tokens)])
    assert ask(policy("token_cap", SLO(ttft_s=0.5)), ASKED, views).action == action


def test_the_token_cap_says_when_to_come_back(policy, ask):
    verdict = ask(policy("token_cap", SLO(ttft_s=0.5)), ASKED, Snapshot([view(0, waiting_tokens=1000)]))
    # 1000 - 454.5 + 1 = 546.5 tokens over, at 909.09 tokens/s: 0.601 s
    assert verdict.retry_after_s == pytest.approx((1000 - 0.5 * 100 / 0.11 + 1) * 0.11 / 100)
    assert verdict.retry_after_s == pytest.approx(0.601, abs=1e-3)
    assert verdict.reason == "its worker has prompt tokens enough"


def test_each_class_has_the_cap_of_its_own_bound(policy, ask):
    one = policy("token_cap", {"quick": SLO(ttft_s=0.1), "slow": SLO(ttft_s=1.0), "batch": SLO(tpot_s=1.0)})
    views = Snapshot([view(0, waiting_tokens=500)])  # between 0.1 x 909 and 1.0 x 909
    said = [ask(one, Request(0, 0.0, 50, 10, slo_class=c), views).action for c in ("quick", "slow", "batch")]
    assert said == ["reject", "accept", "accept"]


@pytest.mark.parametrize(("waiting_tokens", "action"), [(299, "accept"), (300, "reject")])
def test_a_token_cap_that_is_given_holds(policy, ask, waiting_tokens, action):
    one = policy("token_cap", SLO(ttft_s=1e-6), max_tokens=300)  # the bound would reject both
    assert ask(one, ASKED, Snapshot([view(0, waiting_tokens=waiting_tokens)])).action == action


def test_the_token_cap_looks_at_the_prefill_worker_of_the_decision(policy, ask):
    one = policy("token_cap", max_tokens=300)
    views = Snapshot([view(0, "prefill", waiting_tokens=300), view(1, "prefill"), view(2, "decode")])
    assert ask(one, ASKED, views, Decision(0, 2)).action == "reject"
    assert ask(one, ASKED, views, Decision(1, 2)).action == "accept"


def test_a_token_cap_without_a_predictor_does_not_guess(ask):
    with pytest.raises(InputError, match="has no predictor to derive its cap from; give it max_tokens"):
        make("admission", "token_cap", Facts())
    verdict = ask(make("admission", "token_cap", Facts(), max_tokens=5), ASKED, Snapshot([view(0, waiting_tokens=9)]))
    assert (verdict.action, verdict.retry_after_s) == ("reject", None)


def test_a_token_cap_below_one_is_refused(policy):
    with pytest.raises(InputError, match="admission token_cap: max_tokens is 0; give 1 or more"):
        policy("token_cap", max_tokens=0)


# -- probabilistic


def test_saturation_is_the_mean_of_the_fuller_of_queue_and_memory(policy):
    views = Snapshot(
        [
            view(0, waiting=2, kv_used_blocks=100),  # max(2 / 5, 0.1 / 0.8) = 0.4
            view(1, waiting=1, kv_used_blocks=480),  # max(1 / 5, 0.48 / 0.8) = 0.6
            view(2, waiting=10, kv_used_blocks=0),  # max(10 / 5, 0) = 2
        ]
    )
    assert policy("probabilistic").saturation(views) == pytest.approx((0.4 + 0.6 + 2) / 3)


def test_saturation_counts_a_split_fleet_once(policy):
    views = Snapshot([view(0, "prefill", waiting=5), view(1, "decode", kv_used_blocks=400), view(2, "mixed")])
    assert policy("probabilistic").saturation(views) == pytest.approx((1 + 0.5 + 0) / 3)


def test_all_is_shed_from_a_saturation_of_0_320_on(policy):
    """300 x s ** 5 = 1 at s = (1 / 300) ** 0.2 = exp(-5.7038 / 5) = exp(-1.14076) = 0.3196, and not at 0.34."""
    p = policy("probabilistic").probability
    assert p(0.3196) == pytest.approx(1, abs=1e-3)
    assert p(0.31) == pytest.approx(300 * 0.00286292, rel=1e-5)  # 0.31 ** 5 = 0.0028629...
    assert p(0.31) < 0.86 < p(0.3196) and p(0.32) == 1.0 and p(0.34) == 1.0
    assert p(0.2) == pytest.approx(300 * 0.00032)  # 9.6 %, not the 1 % of llm-d's documentation
    assert p(0.0) == 0.0


class Always:
    """A generator that always draws the same."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_only_what_may_be_shed_is_shed_and_only_by_chance(policy, ask):
    one = policy("probabilistic")
    views = Snapshot([view(0, waiting=1)])  # saturation 0.2, p = 0.096
    low, high = Request(0, 0.0, 50, 10, priority=1), Request(1, 0.0, 50, 10, priority=0)
    assert ask(one, low, views, rng=Always(0.0959)).action == "reject"
    assert ask(one, low, views, rng=Always(0.0961)).action == "accept"
    assert ask(one, high, views, rng=Always(0.0)).action == "accept"
    assert ask(policy("probabilistic", sheddable_above=-1), high, views, rng=Always(0.0)).action == "reject"


def test_a_full_fleet_sheds_everything_and_an_idle_one_nothing(policy, ask):
    one, low, rng = policy("probabilistic"), Request(0, 0.0, 50, 10, priority=5), Random(1)
    full, idle = Snapshot([view(0, waiting=50)]), Snapshot([view(0)])
    assert {ask(one, low, full, rng=rng).action for _ in range(50)} == {"reject"}
    assert {ask(one, low, idle, rng=rng) for _ in range(50)} == {ACCEPT}


@pytest.mark.parametrize("name", ["queue_depth", "kv_use", "power", "gain"])
def test_a_parameter_of_shedding_is_above_zero(policy, name):
    with pytest.raises(InputError, match=f"admission probabilistic: {name} is 0.0; give a number above 0"):
        policy("probabilistic", **{name: 0.0})
