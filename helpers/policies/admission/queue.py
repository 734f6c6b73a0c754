"""Whether a request is taken in at all."""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.routing import parameter
from helpers.policies.view import ACCEPT, Decision, Verdict, Views
from helpers.workload.request import Request


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
    router chose: when that view is old, more get through. The cap says nothing of how long the
    queue will last, so `retry_after_s` stays None. The default is set by hand.
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
