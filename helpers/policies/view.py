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
class Dispatched:
    """A request was sent to the workers of its decision."""

    request: Request
    decision: Decision


@dataclass(slots=True)
class FirstToken:
    """The first token of a request is out; `worker` is the one that prefilled it."""

    request: Request
    worker: int


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
    """A worker is gone, its cache with it; its requests come back to the router."""

    worker: int


Event = Dispatched | FirstToken | Finished | KVStored | KVEvicted | WorkerLost


class Predictor(Protocol):
    """Predicted latencies of a request on a worker, given a view; handed to policies by the backend."""

    def prefill_s(self, prompt_tokens: int, cached_tokens: int = 0) -> float: ...

    def ttft_s(self, request: Request, view: WorkerView, cached_tokens: int = 0) -> float: ...

    def tpot_s(self, request: Request, view: WorkerView) -> float: ...

    def transfer_s(self, request: Request, source: int, target: int) -> float: ...


class Router(Protocol):
    """Chooses the workers of a request. `observes` names the event classes it wants to be told.

    The same state and arguments give the same answer. Randomness comes from `rng` alone.
    """

    name: str
    observes: frozenset[type]

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision: ...

    def observe(self, event: Event, now: float) -> None: ...


class Admission(Protocol):
    """Accepts, holds or rejects a request whose decision is known but not yet carried out."""

    name: str

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict: ...


class Plan(NamedTuple):
    """Worker counts wanted per role, and why."""

    workers: dict[str, int]
    reason: str = ""


class Scaler(Protocol):
    """Chooses how many workers each role should have."""

    name: str

    def scale(self, views: Views, now: float) -> Plan: ...
