"""Admission made of one function: whoever it says yes to is accepted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.facts import Facts
from helpers.policies.known import HEARD, Known, WorkerFacts
from helpers.policies.routing import STATE
from helpers.policies.view import ACCEPT, Decision, Event, Verdict, Views
from helpers.workload.request import Request

Rule = Callable[[Request, WorkerFacts], bool]
TURNED_AWAY = Verdict("reject", "its rule said no")


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A request is accepted when `rule(request, worker)` is true of the prefill worker that the router chose.

    The rule must be a function of its two arguments alone, as a score is (`helpers.policies.scored`). Raises
    `InputError` for a block size below 1, and for an answer that is neither true nor false.
    """

    name: ClassVar[str] = "own_rule"
    observes: ClassVar[frozenset[type]] = HEARD
    rule: Rule
    block_tokens: int = 512
    known: Known = field(**STATE)

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise InputError(f"admission own_rule: block_tokens is {self.block_tokens}; give 1 or more")
        object.__setattr__(self, "known", Known(self.block_tokens))

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        answer = self.rule(request, self.known.of(request, views[decision.prefill]))
        if not isinstance(answer, bool):
            raise InputError(f"the rule says {answer!r} of request {request.id}; return True or False")
        return ACCEPT if answer else TURNED_AWAY

    def observe(self, event: Event, now: float) -> None:
        self.known.observe(event)


def by_rule(rule: Rule) -> Callable[[Facts], OwnRule]:
    """What `Experiment(admission=...)` takes: makes a fresh `OwnRule`, under the name of the function."""

    def make(facts: Facts) -> OwnRule:
        return OwnRule(rule, facts.block_tokens)

    make.__name__ = getattr(rule, "__name__", OwnRule.name)
    return make
