"""The admission that the `qos` part of `data/dynamo_config.yaml` describes: low priorities get less patience."""

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.admission.forecast import Forecast
from helpers.policies.admission.predicted import TPOT_LATE, late
from helpers.policies.routing import parameter
from helpers.policies.view import ACCEPT, Decision, Verdict, Views
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of

LOW_LATE = Verdict("reject", "low priority, predicted TTFT over the threshold")


@dataclass(frozen=True, slots=True)
class EarlyRejection(Forecast):
    """A request of low priority is rejected early; with `reject_on_slo_violation`, so is whoever would miss its SLO.

    reject when priority > `highest_kept` and TTFT > `low_priority_threshold_ms`
    reject when TTFT or TPOT > the bound of its class, if `reject_on_slo_violation`

    The predictions are those of `Forecast`, for the workers that the router chose. A *lower* number is a higher
    priority, as for requests everywhere; 0 is what requests have that say nothing.
    """

    name: ClassVar[str] = "early_rejection"
    slos: SLOs = field(default_factory=SLO)
    low_priority_threshold_ms: float = parameter(500.0, "predicted TTFT above which low priorities are rejected")
    highest_kept: int = parameter(0, "priorities above this number are low")
    reject_on_slo_violation: bool = parameter(True, "reject anybody who is predicted to miss his SLO")

    def __post_init__(self) -> None:
        Forecast.__post_init__(self)
        if not 0 < self.low_priority_threshold_ms < inf:
            given = self.low_priority_threshold_ms
            raise InputError(f"admission early_rejection: low_priority_threshold_ms is {given}; give a number above 0")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        low = request.priority > self.highest_kept
        slo = slo_of(request, self.slos) if self.reject_on_slo_violation else SLO()
        if low or slo.ttft_s is not None:
            ttft_s = self.ttft_s(request, views, decision)
            if low and 1e3 * ttft_s > self.low_priority_threshold_ms:
                return LOW_LATE._replace(retry_after_s=ttft_s - self.low_priority_threshold_ms / 1e3)
            if slo.ttft_s is not None and ttft_s > slo.ttft_s:
                return late(ttft_s, slo.ttft_s)
        if slo.tpot_s is not None and self.tpot_s(request, views, decision) > slo.tpot_s:
            return TPOT_LATE
        return ACCEPT
