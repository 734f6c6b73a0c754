"""Admission by prediction: a request that would miss its SLO is not begun."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.forecast import Forecast
from helpers.policies.routing import parameter
from helpers.policies.view import ACCEPT, Decision, Verdict, Views
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of

TTFT_LATE = Verdict("reject", "predicted TTFT over its SLO")
TPOT_LATE = Verdict("reject", "predicted TPOT over its SLO")
IDLE_KV = 0.02  # llm-d: a worker below this share of its KV counts as idle


def late(ttft_s: float, bound_s: float) -> Verdict:
    """The rejection of a request whose TTFT would be over its bound. What it is over by is when to come again: so much
    less would wait by then, if nobody else came."""
    return TTFT_LATE._replace(retry_after_s=ttft_s - bound_s)


@dataclass(frozen=True, slots=True)
class PredictedSLO(Forecast):
    """A request is rejected when its predicted TTFT or TPOT is over the SLO of its class.

    reject when TTFT > slack x TTFT bound, or TPOT > slack x TPOT bound, on the workers of its decision

    Lines 18 to 20 of Mooncake's Algorithm 1 (Qin et al., FAST'25), which answers HTTP 429; the predictions
    are those of `Forecast`. Bounds that are not set are not checked, and neither is E2E.

    With `anywhere` it is llm-d's latency-SLO admitter (its documentation of 2026-07): a request gets in
    when some live worker is predicted to meet its SLO, or is idle, or uses less than 2 % of its KV, although
    the router may have chosen another; llm-d asks only those that may be shed, here priorities above
    `sheddable_above`. That looks at every worker.
    """

    name: ClassVar[str] = "predicted_slo"
    slos: SLOs = field(default_factory=SLO)
    slack: float = parameter(1.0, "reject when a prediction is over this times its bound")
    anywhere: bool = parameter(False, "accept when any worker would do; false: the chosen one must")
    sheddable_above: int | None = parameter(None, "only priorities above this are rejected; none: all may be")

    def __post_init__(self) -> None:
        Forecast.__post_init__(self)
        if not self.slack > 0:
            raise InputError(f"admission predicted_slo: slack is {self.slack}; give a number above 0")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        if self.sheddable_above is not None and request.priority <= self.sheddable_above:
            return ACCEPT
        slo = slo_of(request, self.slos)
        verdict = self.judge(request, views, decision, slo)
        if verdict is ACCEPT or not self.anywhere:
            return verdict
        would_do = any(self._would_do(request, views, decision, worker, slo) for worker in views.prefill)
        return ACCEPT if would_do else verdict

    def judge(self, request: Request, views: Views, decision: Decision, slo: SLO) -> Verdict:
        """What the predictions under a decision say."""
        if slo.ttft_s is not None:
            ttft_s, bound_s = self.ttft_s(request, views, decision), self.slack * slo.ttft_s
            if ttft_s > bound_s:
                return late(ttft_s, bound_s)
        if slo.tpot_s is not None and self.tpot_s(request, views, decision) > self.slack * slo.tpot_s:
            return TPOT_LATE
        return ACCEPT

    def _would_do(self, request: Request, views: Views, decision: Decision, worker: int, slo: SLO) -> bool:
        """Whether the prefill could go to `worker`; a mixed one decodes too, else the decision's does."""
        view = views[worker]
        if not view.requests or view.kv_used_blocks < IDLE_KV * view.kv_total_blocks:
            return True
        decode = worker if view.role == "mixed" else decision.decode
        return self.judge(request, views, Decision(worker, decode), slo) is ACCEPT
