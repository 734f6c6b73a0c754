"""Routers that look at load alone, or at nothing.

Each chooses the worker of the prefill by its own rule among `views.prefill`. The worker of the
decode follows one rule shared by all (`helpers.policies.pairing`), so that two routers differ in one thing only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from random import Random
from typing import Any, ClassVar

from helpers.errors import InputError
from helpers.policies.pairing import FIXED, Pairing
from helpers.policies.view import Decision, Event, Views, WorkerView
from helpers.workload.request import Request

# Set by hand, with this arithmetic behind it: a KV token of a running request is read once in each
# of its remaining steps, a waiting token is computed once. For Llama-3.1-8B on an H100 and 150 steps
# to go, 131,072 B / 3.35 TB/s x 150 = 6 us against 2 x 8.03e9 FLOP / (half of 989 TFLOP/s) = 32 us:
# 0.18, of which a step that also prefills hides a part behind its computation.
KV_WEIGHT = 0.1


def parameter(default: object, meaning: str) -> Any:
    """A dataclass field that the registry shows: a parameter of a policy, with what it means."""
    return field(default=default, metadata={"meaning": meaning})


# How a dataclass marks what a policy learns as it runs, which is not a parameter.
STATE = {"init": False, "repr": False, "compare": False}


def candidates(views: Views) -> tuple:
    """The live workers that take prefills; raises `InputError` when there is none."""
    prefill = views.prefill
    if not prefill:
        raise InputError("no live worker takes prefills; give the fleet a mixed or a prefill worker")
    return prefill


def explained(decision: Decision, names: Sequence[str], terms: Iterable[tuple]) -> Decision:
    """The decision with its scores: of each (worker, value, …) in `terms`, a score of each name."""
    scores = ((worker, *one) for worker, *values in terms for one in zip(names, values, strict=True))
    return decision._replace(scores=tuple(scores))


class LiveMask:
    """Workers as a bit mask (bit w stands for worker w), made anew only when they are others than last time."""

    __slots__ = ("_workers", "mask")

    def __init__(self) -> None:
        self._workers: tuple | range = ()
        self.mask = 0

    def __call__(self, workers: Sequence[int]) -> int:
        if workers is not self._workers:
            kept = workers if isinstance(workers, FIXED) else tuple(workers)
            if kept != self._workers:
                self.mask = sum(1 << worker for worker in set(kept))
            self._workers = kept
        return self.mask


def not_negative(router: str, **parameters: float) -> None:
    """Raise `InputError` for the first parameter below zero, infinite or not a number."""
    for name, value in parameters.items():
        if not 0 <= value < inf:
            raise InputError(f"router {router}: {name} is {value}; give a number of 0 or more")


@dataclass(frozen=True, slots=True)
class LoadRouter:
    """What the routers of this module share: they need no events, and they pair by `Pairing`."""

    observes: ClassVar[frozenset[type]] = frozenset()
    pairing: Pairing = field(default_factory=Pairing, **STATE)

    def observe(self, event: Event, now: float) -> None:
        """Nothing to learn from events."""


@dataclass(frozen=True, slots=True)
class RandomRouter(LoadRouter):
    """A live worker drawn uniformly."""

    name: ClassVar[str] = "random"

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        workers = candidates(views)
        return self.pairing(views, workers[int(rng.random() * len(workers))], now)


@dataclass(frozen=True, slots=True)
class RoundRobin(LoadRouter):
    """The live workers in turn. The turn is taken when a request is routed, dispatched or not."""

    name: ClassVar[str] = "round_robin"
    _turn: list[int] = field(default_factory=lambda: [0], **STATE)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        workers = candidates(views)
        turn = self._turn[0] % len(workers)
        self._turn[0] = turn + 1
        return self.pairing(views, workers[turn], now)


@dataclass(frozen=True, slots=True)
class StaticShard(LoadRouter):
    """The same worker for the same key, by hash: affinity without any state.

    The key is the session; without one, the tenant and the block at position `leading_blocks`
    (the hash of the prompt's first `leading_blocks` blocks, as hashes are chained; of a shorter
    prompt, all of it); without blocks, the request id. With `leading_blocks=1` all requests that
    open with one shared system prompt go to one worker. The worker is the hash modulo the number
    of live workers, so losing a worker moves most keys.
    """

    name: ClassVar[str] = "static_shard"
    leading_blocks: int = parameter(2, "leading prompt blocks that make the key")

    def __post_init__(self) -> None:
        if self.leading_blocks < 1:
            raise InputError(f"router static_shard: leading_blocks is {self.leading_blocks}; give 1 or more")

    def key(self, request: Request) -> str:
        """What the worker is chosen by."""
        if request.session is not None:
            return f"session {request.session}"
        blocks = request.prefix_blocks
        if blocks:
            return f"{request.tenant} {blocks[min(self.leading_blocks, len(blocks)) - 1]}"
        return f"id {request.id}"

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        workers = candidates(views)
        digest = blake2b(self.key(request).encode(), digest_size=8).digest()
        return self.pairing(views, workers[int.from_bytes(digest, "big") % len(workers)], now)


@dataclass(frozen=True, slots=True)
class Least(LoadRouter):
    """The worker with the least of something, looking at each; the lowest id among equals."""

    explain: bool = parameter(False, "put the term of each candidate in the decision")
    term: ClassVar[str]

    def load(self, view: WorkerView) -> float:
        """What the chosen worker has the least of."""
        raise NotImplementedError

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        load = self.load
        loads = [(load(views[worker]), worker) for worker in candidates(views)]
        decision = self.pairing(views, min(loads)[1], now)
        if self.explain:
            decision = decision._replace(scores=tuple((worker, self.term, value) for value, worker in loads))
        return decision


@dataclass(frozen=True, slots=True)
class LeastRequests(Least):
    """The worker with the fewest requests, waiting or running."""

    name: ClassVar[str] = "least_requests"
    term: ClassVar[str] = "requests"

    def load(self, view: WorkerView) -> float:
        return view.running + view.waiting


@dataclass(frozen=True, slots=True)
class LeastTokens(Least):
    """The worker with the least work in tokens: `waiting_tokens + kv_weight * kv_tokens`.

    `kv_weight` says how many prompt tokens still to be computed a context token of a running
    request is worth: 0 balances prefill alone, 1 counts both alike.
    """

    name: ClassVar[str] = "least_tokens"
    term: ClassVar[str] = "load_tokens"
    kv_weight: float = parameter(KV_WEIGHT, "prompt tokens a running KV token is worth")

    def __post_init__(self) -> None:
        not_negative(self.name, kv_weight=self.kv_weight)

    def load(self, view: WorkerView) -> float:
        return view.waiting_tokens + self.kv_weight * view.kv_tokens


@dataclass(frozen=True, slots=True)
class PowerOfTwo(LoadRouter):
    """Of two different workers drawn uniformly, the one with fewer requests.

    Among equals the first drawn: were it the lowest id, views that all say the same (an idle
    fleet, or stale news) would send more to the low ids. Mitzenmacher, "The power of two choices
    in randomized load balancing", IEEE TPDS 12(10), 2001.
    """

    name: ClassVar[str] = "power_of_two"
    explain: bool = parameter(False, "put the requests of both candidates in the decision")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        workers = candidates(views)
        first = int(rng.random() * len(workers))
        if len(workers) == 1:
            return self.pairing(views, workers[first], now)
        second = int(rng.random() * (len(workers) - 1))
        second += second >= first
        one, other = views[workers[first]], views[workers[second]]
        loads = one.running + one.waiting, other.running + other.waiting
        decision = self.pairing(views, workers[second if loads[1] < loads[0] else first], now)
        if self.explain:
            scores = (workers[first], "requests", loads[0]), (workers[second], "requests", loads[1])
            decision = decision._replace(scores=scores)
        return decision
