"""A router made of one function: the worker to which it gives the highest score."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.known import HEARD, Known, WorkerFacts
from helpers.policies.pairing import Pairing
from helpers.policies.routing import STATE, LiveMask, candidates
from helpers.policies.view import Decision, Event, Views
from helpers.workload.request import Request

Score = Callable[[Request, WorkerFacts], float]


@dataclass(frozen=True, slots=True)
class Scored:
    """The live prefill worker with the highest `score(request, worker)`; the lowest id among equals.

    `score` is asked for every live worker and sees one of them at a time, as `WorkerFacts`. It must be a function of
    its two arguments alone: no clock, no chance, nothing remembered. A prefill worker is paired as `Pairing` says.
    Raises `InputError` for a block size below 1, and for a score that is no number.
    """

    name: ClassVar[str] = "scored"
    observes: ClassVar[frozenset[type]] = HEARD
    score: Score
    block_tokens: int = 512
    explain: bool = False
    known: Known = field(**STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)
    _mask: LiveMask = field(default_factory=LiveMask, **STATE)

    def __post_init__(self) -> None:
        if self.block_tokens < 1:
            raise InputError(f"router scored: block_tokens is {self.block_tokens}; give 1 or more")
        object.__setattr__(self, "known", Known(self.block_tokens))

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        best, highest, scores = -1, None, []
        for facts in self.known.of_each(request, views, self._mask(candidates(views))):
            score = self.score(request, facts)
            if not isinstance(score, int | float) or isnan(score):
                raise InputError(f"the score of worker {facts.worker} is {score!r}; return a number")
            if highest is None or score > highest:
                best, highest = facts.worker, score
            if self.explain:
                scores.append((facts.worker, "score", score))
        decision = self.pairing(views, best, now)
        return decision._replace(scores=tuple(scores)) if self.explain else decision

    def observe(self, event: Event, now: float) -> None:
        self.known.observe(event)


def scored(score: Score, block_tokens: int = 512, explain: bool = False) -> Callable[[int], Scored]:
    """What `Experiment(router=...)` takes: makes a fresh `Scored` for a fleet, under the name of the function.

    `block_tokens` are those of the workload (`Workload.block_tokens`).
    """

    def make(workers: int) -> Scored:
        return Scored(score, block_tokens, explain)

    make.__name__ = getattr(score, "__name__", Scored.name)
    return make
