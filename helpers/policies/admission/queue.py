"""Admission by what waits on the worker that the router chose: requests, or prompt tokens."""

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import ACCEPT, Decision, Verdict, Views
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of


@dataclass(frozen=True, slots=True)
class AcceptAll:
    """Every request is accepted."""

    name: ClassVar[str] = "none"

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        return ACCEPT


@dataclass(frozen=True, slots=True)
class QueueCap:
    """A request is rejected when its prefill worker already has `max_waiting` requests waiting.

    As vLLM's `--max-num-queued-reqs`, but at the front end, on the view of the worker that the
    router chose: when that view is old, more get through. vLLM's counts the running requests too;
    this one leaves them to the batch limit. The cap says nothing of how long the queue will last, so
    `retry_after_s` stays None. The default is set by hand.
    """

    name: ClassVar[str] = "queue_cap"
    max_waiting: int = parameter(64, "requests waiting on the chosen worker at which the next is rejected")

    def __post_init__(self) -> None:
        if self.max_waiting < 1:
            raise InputError(f"admission queue_cap: max_waiting is {self.max_waiting}; give 1 or more")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        waiting = views[decision.prefill].waiting
        if waiting < self.max_waiting:
            return ACCEPT
        return Verdict(
            "reject", f"worker {decision.prefill} has {waiting} requests waiting, the cap is {self.max_waiting}"
        )


@dataclass(frozen=True, slots=True)
class TokenCap:
    """A request is rejected when the prompt tokens that wait on its prefill worker have reached a cap.

    cap           = max_tokens; without one, TTFT bound of the request's class x prefill rate
    prefill rate  = token_budget / seconds of a step that computes a whole budget, context empty
    retry_after_s = (tokens waiting - cap + 1) / prefill rate

    The meaning and the rule of thumb of vLLM's `--max-num-queued-tokens` (PR 49445, merged 2026-07; off by
    default), with one difference: there a prompt counts whole until its first token, here what is left
    of it. The request's own prompt is in neither, so that an idle worker takes any. A request whose class
    has no TTFT bound is accepted. With `max_tokens` and no predictor there is no `retry_after_s`.
    """

    name: ClassVar[str] = "token_cap"
    slos: SLOs = field(default_factory=SLO)
    token_budget: int = 2048
    predictor: CostPredictor | None = None
    max_tokens: int | None = parameter(None, "tokens at which the next is rejected; none: TTFT bound x prefill rate")
    _rate: dict[str, float] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InputError(f"admission token_cap: max_tokens is {self.max_tokens}; give 1 or more")
        if self.max_tokens is None and self.predictor is None:
            raise InputError("admission token_cap has no predictor to derive its cap from; give it max_tokens")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        cap = self.cap(request)
        waiting = views[decision.prefill].waiting_tokens
        if waiting < cap:
            return ACCEPT
        retry_after_s = None if self.predictor is None else (waiting - cap + 1) / self.prefill_rate()
        return Verdict("reject", "its worker has prompt tokens enough", retry_after_s)

    def cap(self, request: Request) -> float:
        """The waiting prompt tokens at which the request is rejected."""
        if self.max_tokens is not None:
            return self.max_tokens
        bound_s = slo_of(request, self.slos).ttft_s
        return inf if bound_s is None else bound_s * self.prefill_rate()

    def prefill_rate(self) -> float:
        """Prompt tokens a second of a worker that does nothing else."""
        if not self._rate:
            self._rate["tokens_per_s"] = self.token_budget / self.predictor.prefill_s(self.token_budget)
        return self._rate["tokens_per_s"]
