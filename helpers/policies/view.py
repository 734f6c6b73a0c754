"""What a policy may see and say: views of workers, decisions, verdicts, events, and the interfaces.

`WorkerView` and `Decision` are named tuples, and the events are dataclasses that are not frozen:
they are made several times per request, and frozen dataclasses cost five times as much to make.
Nobody changes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from helpers.workload.request import Request


class WorkerView(NamedTuple):
    """The state of one worker as a policy knows it, `age_s` seconds old.

    `waiting_tokens` counts prompt tokens that are still to be computed (queued or half done);
    `kv_tokens` counts context tokens of the running requests.
    """

    worker: int
    role: str
    age_s: float
    running: int
    waiting: int
    waiting_tokens: int
    kv_tokens: int
    kv_used_blocks: int
    kv_total_blocks: int

    @property
    def requests(self) -> int:
        """Requests on the worker, waiting or running."""
        return self.running + self.waiting


class Views(Protocol):
    """The workers of a fleet, made on demand: with a thousand workers a policy looks at few.

    `prefill` and `decode` are the ids of the live workers that may take that part of a request,
    in new tuples when the fleet changes; a `mixed` worker is in both. `views[w]` is worker w's view.
    """

    prefill: Sequence[int]
    decode: Sequence[int]

    def __getitem__(self, worker: int) -> WorkerView: ...


class Decision(NamedTuple):
    """Where a request goes: prefill and decode worker (equal on a mixed worker).

    `kv_source` names a worker from whose cache `fetch_tokens` prompt tokens are copied first.
    `scores` holds (worker, term, value) of the candidates when the router was asked to explain.
    """

    prefill: int
    decode: int
    kv_source: int | None = None
    fetch_tokens: int = 0
    scores: tuple[tuple[int, str, float], ...] = ()


class Verdict(NamedTuple):
    """What admission says: `accept`, `queue` (hold at the front end) or `reject`, and why."""

    action: str
    reason: str = ""
    retry_after_s: float | None = None


ACCEPT = Verdict("accept")


@dataclass(slots=True)
class Arrived:
    """A request has come to the front end; nothing is decided yet."""

    request: Request


@dataclass(slots=True)
class Rejected:
    """A request that had arrived was turned away, by admission or because no worker can serve it.

    That may be after its dispatch: at the end of its prefill, when its client has left, or when it has failed for good.
    """

    request: Request
    reason: str


@dataclass(slots=True)
class Dispatched:
    """A request was sent to the workers of its decision."""

    request: Request
    decision: Decision


@dataclass(slots=True)
class FirstToken:
    """The first token of a request is out; `worker` is the one that prefilled it.

    `cached_tokens` of its prompt were found in a cache, as engines report with the answer.
    """

    request: Request
    worker: int
    cached_tokens: int = 0


@dataclass(slots=True)
class HandedOver:
    """The KV of a split request came to its decode `worker` at `at_s`; reports made from then on count it there."""

    request: Request
    worker: int
    at_s: float


@dataclass(slots=True)
class Finished:
    """The last token of a request is out; `worker` is the one that decoded it."""

    request: Request
    worker: int


@dataclass(slots=True)
class KVStored:
    """A worker now holds these prompt blocks (in chain order) in its prefix cache."""

    worker: int
    blocks: tuple[int, ...]


@dataclass(slots=True)
class KVEvicted:
    """A worker dropped these blocks from its prefix cache."""

    worker: int
    blocks: tuple[int, ...]


@dataclass(slots=True)
class WorkerLost:
    """A worker takes no more requests, and its cache is of no use any more. Its id never comes back.

    It failed, then its requests come back to the router; or it was told to go and finishes what it has,
    then `FirstToken` and `Finished` of requests sent there still come.
    """

    worker: int


Event = Arrived | Rejected | Dispatched | FirstToken | HandedOver | Finished | KVStored | KVEvicted | WorkerLost


class Predictor(Protocol):
    """Predicted latencies of a request on a worker, given a view; handed to policies by the backend."""

    def prefill_s(self, prompt_tokens: int, cached_tokens: int = 0) -> float: ...

    def ttft_s(self, request: Request, view: WorkerView, cached_tokens: int = 0) -> float: ...

    def tpot_s(self, request: Request, view: WorkerView) -> float: ...

    def transfer_s(self, request: Request, source: int, target: int) -> float: ...


class Router(Protocol):
    """Chooses the workers of a request. `observes` names the event classes it wants to be told.

    The same state and arguments give the same answer. Randomness comes from `rng` alone. A router may
    have a `pairing` (`helpers.policies.pairing`), which is told of events by itself on a split fleet.
    """

    name: str
    observes: frozenset[type]

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision: ...

    def observe(self, event: Event, now: float) -> None: ...


class Admission(Protocol):
    """Accepts, holds or rejects a request whose decision is known but not yet carried out.

    A reason is a short phrase without figures, so that rejections can be counted by it. What else a
    policy may have, and how it is used:

    `observes`, `observe(event, now)`: as a router's. With several front ends each has its own policy,
    which hears of the requests of that front end (and of all caches and losses), while the views show
    the load that all of them cause.

    `queues = True`: it may say `queue`. Who is held is asked again, in arrival order, when a first or
    last token is out, a sample of telemetry is taken, a worker is lost or a started one is up; a request
    held to the end of the run is rejected. The wait counts in its TTFT.

    `head_of_line = True`: a `queue` holds for everybody behind as well, so that they need not be asked,
    and who arrives joins the line. That is right for a cap on the fleet, and wrong for one on the
    worker that the router chose: there the next in line may go elsewhere. Without it everybody is
    asked every time, which is quadratic in the length of the line.

    `rank(request, now)`: whoever is held is asked in ascending order of this, taken when it is held.

    `lane(request)` and `lane_rank(lane, now)`: of the first of each lane, the one whose lane ranks
    least at that moment is asked, as with tenants of which the least served has its turn.

    `admit_decode(request, views, decision, now, rng)`: asked when the prefill of a split request has
    ended, before its KV is handed over; the work is wasted unless it says `accept`.
    """

    name: str

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict: ...


class FleetViews(Views, Protocol):
    """What a scaler sees: besides the workers that take requests, those that do not yet, or no longer.

    `starting` will take requests once they are up; `leaving` finish what they have. Their views show
    the role that they will have, or had. A worker that changes its role leaves under its id and starts
    under a new one.
    """

    starting: Sequence[int]
    leaving: Sequence[int]

    def busy_s(self, worker: int) -> float:
        """Seconds that the worker has spent in steps since it started, up to now."""
        ...


class Plan(NamedTuple):
    """What a scaler wants: how many workers of each role, starting ones included, and why.

    A role that is not named keeps its number. `role_changes` holds (worker, new role) of workers that
    are to change; `workers` counts them under their new role.
    """

    workers: dict[str, int]
    reason: str = ""
    role_changes: tuple[tuple[int, str], ...] = ()


class Scaler(Protocol):
    """Chooses how many workers each role should have; asked every `period_s` seconds.

    `observes` names the event classes that it wants to be told, of all front ends.
    """

    name: str
    period_s: float
    observes: frozenset[type]

    def scale(self, views: FleetViews, now: float) -> Plan: ...

    def observe(self, event: Event, now: float) -> None: ...
