"""The oracle: what one request more would cost on each worker, known by trying it out.

It sees what no policy sees: every worker as it is, its caches, and the output lengths. A worker is copied, the
copy is given the request and run to its end, and so is a copy without it. Nothing else arrives in either: what
the choice means for requests to come (a prefix that stays cached, a worker kept free) is not counted, and a router
that thinks of those can do better than this one. It is a reference, not a bound.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from math import inf
from random import Random
from sys import maxsize
from typing import ClassVar, NamedTuple

from helpers.errors import InputError
from helpers.metrics.goodput import meets
from helpers.policies.entry import Entry
from helpers.policies.routing import STATE, candidates, parameter
from helpers.policies.view import Decision, Event, Views
from helpers.scheduling.sequence import Sequence
from helpers.simulator.ranks import NEVER
from helpers.simulator.record import timeline_of
from helpers.simulator.worker import FastWorker
from helpers.workload.request import Request
from helpers.workload.slo import SLOs, slo_of

OBJECTIVES = ("e2e_s", "ttft_s", "missed")
LAST = maxsize  # the number of a sequence that came after every other


class Ending(NamedTuple):
    """When the first and the last token of a request are out, in seconds, and whether it meets its SLO."""

    first_token_s: float
    finished_s: float
    met: bool


Endings = dict[int, Ending]  # by request id


class Marginal(NamedTuple):
    """What a request costs on a worker: its own part, and what it adds for the requests that are already there.

    `e2e_s` and `ttft_s` are seconds, summed over these requests and counted from the decision. `missed` counts
    those that miss their SLO with it, less those that miss it anyway. All infinite where the request cannot run.
    """

    e2e_s: float
    ttft_s: float
    missed: float


NOWHERE = Marginal(inf, inf, inf)


def endings(worker: FastWorker, slos: SLOs) -> Endings:
    """How everything that is on a worker would end if nothing else arrived; the worker stays as it is."""
    return _run(worker.fork(), slos)


def endings_with(worker: FastWorker, sequence: Sequence, now: float, slos: SLOs) -> Endings:
    """The same with `sequence` given to the worker at `now`; the sequence stays as it is, too."""
    trial = worker.fork()
    trial.submit(sequence.copy(), now)
    return _run(trial, slos)


def _run(twin: FastWorker, slos: SLOs) -> Endings:
    if twin.spec.role != "mixed":
        raise InputError("the oracle follows a request to its end on one worker; give it a fleet of mixed workers")
    twin.advance(NEVER)
    found = {}
    for s in twin.done:
        timeline = timeline_of(s)
        found[timeline.id] = Ending(s.first_token_s, s.finished_s, meets(timeline, slo_of(timeline, slos)))
    return found


def marginal(before: Endings, after: Endings, request: Request, now: float) -> Marginal:
    """The cost of `request` at `now`, from the endings without it and with it."""
    mine = after.get(request.id)
    if mine is None:
        return NOWHERE
    e2e_s, ttft_s, missed = mine.finished_s - now, mine.first_token_s - now, not mine.met
    for number, ending in after.items():
        if ending is not mine:
            without = before[number]
            e2e_s += ending.finished_s - without.finished_s
            ttft_s += ending.first_token_s - without.first_token_s
            missed += without.met - ending.met
    return Marginal(e2e_s, ttft_s, missed)


def choices(workers: Seq[FastWorker], ids: Seq[int], sequence: Sequence, now: float, slos: SLOs) -> dict[int, Marginal]:
    """The marginal cost of a sequence at `now` on each of the workers that `ids` names.

    Raises `InputError` for a worker that does not do both prefill and decode.
    """
    found = {}
    for w in ids:
        before, after = endings(workers[w], slos), endings_with(workers[w], sequence, now, slos)
        found[w] = marginal(before, after, sequence.request, now)
    return found


@dataclass(frozen=True, slots=True)
class Oracle:
    """A router that sends each request where its marginal cost is least; the lowest id among equals.

    Of workers where equally many miss their SLO, the objective `missed` takes the one with the least E2E. For
    simulations only: it needs the workers themselves. Raises `InputError` for an unknown objective.
    """

    name: ClassVar[str] = "oracle"
    observes: ClassVar[frozenset[type]] = frozenset()
    slos: SLOs
    objective: str = parameter("missed", "what is least: e2e_s, ttft_s, or the number of SLOs missed")
    _known: dict[int, tuple[float, Endings]] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"router oracle: objective is {self.objective!r}; use one of {', '.join(OBJECTIVES)}")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        sequence = Sequence(request, LAST, now)
        found = []
        for w in candidates(views):
            worker = views.workers[w]
            after = endings_with(worker, sequence, now, self.slos)
            cost = marginal(self._before(worker), after, request, now)
            found.append((getattr(cost, self.objective), cost.e2e_s, w, after))
        _, _, best, after = min(found, key=lambda one: one[:3])
        self._known[best] = views.workers[best].slow, after
        return Decision(best, best)

    def _before(self, worker: FastWorker) -> Endings:
        """The endings without the request: as foreseen at the last dispatch there, when nothing has come between."""
        slow, known = self._known.get(worker.index, (0.0, {}))
        if slow != worker.slow or not all(s.request.id in known for s in worker.sequences):
            known = endings(worker, self.slos)
            self._known[worker.index] = worker.slow, known
        return known

    def observe(self, event: Event, now: float) -> None:
        """Nothing to learn: it looks at the workers."""


ENTRY = Entry(Oracle, "the least marginal cost, known by trying out every worker", "textbook: a greedy oracle")
