"""`early_rejection`, by hand: a predictor that says what the test wants, priorities, bounds equal to the prediction."""

from dataclasses import dataclass
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.admission.early_rejection import EarlyRejection
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, KVStored
from helpers.workload.request import Request
from helpers.workload.slo import SLO


@dataclass(frozen=True)
class Oracle:
    """Predicts 1 ms for each uncached prompt token, and a TPOT of 40 ms."""

    def ttft_s(self, request, view, cached_tokens=0):
        return (request.prompt_tokens - cached_tokens) / 1000

    def tpot_s(self, request, view):
        return 0.04


def verdict(prompt_tokens: int, priority: int = 0, one: EarlyRejection | None = None, **parameters) -> str:
    """What becomes of a request, `accept` or the reason; the promise is 2 s and 50 ms."""
    slos = parameters.pop("slos", SLO(ttft_s=2.0, tpot_s=0.05))
    policy = one or EarlyRejection(predictor=Oracle(), slos=slos, block_tokens=100, **parameters)
    request = Request(0, 0.0, prompt_tokens, 10, tuple(range(prompt_tokens // 100)), priority=priority)
    said = policy.admit(request, Snapshot([view(0)]), Decision(0, 0), 0.0, Random(0))
    return said.reason or said.action


def test_a_low_priority_has_less_patience():
    assert verdict(500, priority=1) == "accept"  # 0.5 s is not above 500 ms
    assert verdict(501, priority=1) == "low priority, predicted TTFT over the threshold"
    assert verdict(501, priority=0) == "accept"
    assert verdict(501, priority=1, low_priority_threshold_ms=600.0) == "accept"
    assert verdict(501, priority=1, highest_kept=1) == "accept"


def test_anybody_who_would_miss_his_slo():
    assert verdict(2000) == "accept"  # 2 s is the bound
    assert verdict(2001) == "predicted TTFT over its SLO"
    assert verdict(100, slos=SLO(tpot_s=0.03)) == "predicted TPOT over its SLO"
    assert verdict(2001, reject_on_slo_violation=False) == "accept"
    assert verdict(100, slos=SLO(tpot_s=0.03), reject_on_slo_violation=False) == "accept"
    assert verdict(2001, slos=SLO()) == "accept"  # without a promise nothing is broken


def test_who_is_late_may_come_again_when_so_much_less_waits():
    """2.75 s are 0.75 s over the promise, and 2.25 s over the patience with a low priority."""
    one = EarlyRejection(predictor=Oracle(), slos=SLO(ttft_s=2.0), block_tokens=100)
    for priority, after_s in ((0, 0.75), (1, 2.25)):
        asked = Request(0, 0.0, 2750, 10, (), priority=priority)
        said = one.admit(asked, Snapshot([view(0)]), Decision(0, 0), 0.0, Random(0))
        assert said.retry_after_s == pytest.approx(after_s)


def test_low_priorities_are_rejected_without_any_promise():
    assert verdict(501, priority=1, slos=SLO(), reject_on_slo_violation=False).startswith("low priority")


def test_the_promise_is_that_of_the_class():
    slos = {"standard": SLO(ttft_s=0.1)}
    assert verdict(200, slos=slos) == "predicted TTFT over its SLO"
    assert verdict(100, slos=slos) == "accept"


def test_what_is_cached_need_not_be_computed():
    one = EarlyRejection(predictor=Oracle(), slos=SLO(ttft_s=2.0), block_tokens=100)
    assert verdict(2100, one=one) == "predicted TTFT over its SLO"
    one.observe(KVStored(0, (0, 1)), 0.0)
    assert verdict(2100, one=one) == "accept"


def test_bad_parameters_are_refused():
    for threshold in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="low_priority_threshold_ms is"):
            EarlyRejection(predictor=Oracle(), low_priority_threshold_ms=threshold)
    with pytest.raises(InputError, match="give it a predictor"):
        EarlyRejection()
