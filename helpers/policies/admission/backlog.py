"""The prompts that were sent to the workers and have no first token yet, and the gate that closes on them."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.policies.admission.forecast import CacheAware
from helpers.policies.ledger import Ledger
from helpers.policies.routing import STATE
from helpers.policies.view import (
    ACCEPT,
    Decision,
    Dispatched,
    Event,
    Finished,
    FirstToken,
    Rejected,
    Verdict,
    Views,
    WorkerLost,
)
from helpers.workload.request import Request

BUSY = Verdict("queue", "every worker has prompt tokens enough")


@dataclass(frozen=True, slots=True)
class PromptGate(CacheAware):
    """A policy that holds requests while every live prefill worker has more than `limit_tokens` prompt tokens.

    The uncached prompt tokens count from a request's dispatch to its first token, whole: a front end hears
    of both, and not of the chunks between them. Kept from its own dispatches, no view is read; with several
    front ends each counts its own.
    """

    queues: ClassVar[bool] = True
    head_of_line: ClassVar[bool] = True
    hears: ClassVar[frozenset[type]] = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})
    token_budget: int = 2048
    prompts: Ledger = field(default_factory=Ledger, **STATE)

    @property
    def limit_tokens(self) -> float:
        """The prompt tokens over which a worker is busy."""
        raise NotImplementedError

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        return BUSY if self.busy(views) else ACCEPT

    def busy(self, views: Views) -> bool:
        """Whether all live prefill workers are over the limit; the first that is not ends the search."""
        limit, prompts = self.limit_tokens, self.prompts
        prompts.grow(views.prefill[-1] + 1)
        return all(prompts.amount[worker] > limit for worker in views.prefill)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            request, worker = event.request, event.decision.prefill
            self.prompts.add(request.id, (worker,), request.prompt_tokens - self.cached_tokens(request, worker))
        elif kind is FirstToken or kind is Finished or kind is Rejected:
            self.prompts.remove(event.request.id)
        else:
            if kind is WorkerLost:
                self.prompts.lost(event.worker)
            CacheAware.observe(self, event, now)
