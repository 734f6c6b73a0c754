"""Routers that weigh the cached prefix of a request against the load of the worker that has it."""

from dataclasses import dataclass, field
from math import inf
from random import Random
from sys import maxsize
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.loads import OwnLoad, bits
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_index import BlockIndex, RecentBlocks
from helpers.policies.routing import KV_WEIGHT, STATE, LiveMask, candidates, not_negative, parameter
from helpers.policies.view import (
    Decision,
    Dispatched,
    Event,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Rejected,
    Views,
    WorkerLost,
)
from helpers.workload.request import Request

# The subclasses name `PrefixRouter` where one would write super(): a dataclass with slots is a new
# class, which the plain form does not find before Python 3.14.

OWN_EVENTS = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})

# Dispatches per live worker that count as recent.
RECENT_PER_WORKER = 16


@dataclass(frozen=True, slots=True)
class PrefixRouter:
    """The worker with the least `load_weight * load - overlap_weight * overlap`, in tokens.

    `overlap` is the leading part of the prompt that the worker is known (or believed) to have
    cached, `load` its `OwnLoad`. The prompt's own length is the same everywhere, so this is the
    order of `uncached prompt tokens + load`, the form of Dynamo's KV router. The lowest id among
    equals. `load_weight=0` is longest prefix alone, which sends everything that shares one first
    block to one worker. `recent_tokens` keeps that from happening to an idle fleet, where the load
    is 0 and a block that every prompt opens with would decide: each of the last 16 dispatches per
    live worker adds that much to the load of its worker.

    The choice equals that of a scan over all live workers (`scores` is that scan) but looks only
    at one worker for each length of match: the least loaded there.
    """

    name: ClassVar[str]
    observes: ClassVar[frozenset[type]]
    block_tokens: int = 512
    load_weight: float = parameter(1.0, "cost of a token of load; 0 ignores load")
    overlap_weight: float = parameter(1.0, "credit of a cached prompt token")
    kv_weight: float = parameter(KV_WEIGHT, "load of a prompt token of a running request")
    recent_tokens: int = parameter(128, "load of a recent dispatch, one of the last 16 per live worker")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    own: OwnLoad = field(default_factory=OwnLoad, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)
    _mask: LiveMask = field(default_factory=LiveMask, **STATE)

    def __post_init__(self) -> None:
        not_negative(
            self.name,
            load_weight=self.load_weight,
            overlap_weight=self.overlap_weight,
            kv_weight=self.kv_weight,
            recent_tokens=self.recent_tokens,
        )
        if self.block_tokens < 1:
            raise InputError(f"router {self.name}: block_tokens is {self.block_tokens}; give 1 or more")
        if 0 < self.load_weight < 1e-6:
            raise InputError(f"router {self.name}: load_weight is {self.load_weight}; give 0, or 1e-6 or more")

    def overlap(self, request: Request, depth: int) -> int:
        """Tokens of the first `depth` blocks of the prompt; its last token is always computed."""
        return min(depth * self.block_tokens, request.prompt_tokens - 1)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        decision = self.pairing(views, self.choose(request, self._live(views)), now)
        return decision._replace(scores=self.scores(request, views)) if self.explain else decision

    def choose(self, request: Request, live: int) -> int:
        """The worker of the mask `live` with the least cost; the lowest id among equals."""
        own, load_weight = self.own, self.load_weight
        load = own.load
        groups = self.index.groups(request.prefix_blocks, live)
        best_cost, best = inf, -1
        floor = load_weight * load[own.least(live)] if len(groups) > 1 else 0.0
        for depth, mask in reversed(groups):
            credit = self.overlap_weight * self.overlap(request, depth)
            if floor - credit > best_cost:
                break  # The groups still to come have less credit, and nobody has less load.
            low = mask & -mask
            # Without a load term all of a group cost the same, and the lowest id wins.
            worker = low.bit_length() - 1 if low == mask or not load_weight else own.least(mask)
            cost = load_weight * load[worker] - credit
            if cost < best_cost or (cost == best_cost and worker < best):
                best_cost, best = cost, worker
        return best

    def scores(self, request: Request, views: Views) -> tuple[tuple[int, str, float], ...]:
        """The terms of every live worker, by a plain scan: overlap and load in tokens, and the cost."""
        terms = []
        for worker in bits(self._live(views)):
            overlap = self.overlap(request, self.index.depth(worker, request.prefix_blocks))
            load = self.own.load[worker]
            cost = self.load_weight * load - self.overlap_weight * overlap
            terms += [(worker, "overlap_tokens", overlap), (worker, "load_tokens", load), (worker, "cost", cost)]
        return tuple(terms)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            request, decision = event.request, event.decision
            depth = self.index.depth(decision.prefill, request.prefix_blocks)
            self.own.dispatched(request.id, decision, request.prompt_tokens - self.overlap(request, depth))
            if self.recent_tokens:
                keep = RECENT_PER_WORKER * self._mask.mask.bit_count()
                self.own.remember(decision.prefill, self.recent_tokens, keep)
        elif kind is FirstToken:
            self.own.first_token(event.request.id, int(self.kv_weight * event.request.prompt_tokens))
        elif kind is Finished or kind is Rejected:
            self.own.finished(event.request.id)
        elif kind is WorkerLost:
            self.own.lost(event.worker)
            self.index.drop(event.worker)

    def _live(self, views: Views) -> int:
        """The mask of the live workers that take prefills."""
        live = self._mask(candidates(views))
        self.own.grow(live.bit_length())
        return live


@dataclass(frozen=True, slots=True)
class PrefixApprox(PrefixRouter):
    """Overlap guessed from the router's own dispatches: needs no news from the caches.

    A worker is believed to hold the blocks last sent to it, `capacity_blocks` of them (None: as
    many as the worker's view says it has), each for `ttl_s` seconds after its last use (None: for
    ever).
    """

    name: ClassVar[str] = "prefix_approx"
    observes: ClassVar[frozenset[type]] = OWN_EVENTS
    capacity_blocks: int | None = parameter(None, "blocks a worker is believed to keep; none: its KV capacity")
    ttl_s: float | None = parameter(None, "seconds an unused block is believed kept; none: no limit")
    index: RecentBlocks = field(default_factory=RecentBlocks, **STATE)
    _capacity: dict[int, int] = field(default_factory=dict, **STATE)

    def __post_init__(self) -> None:
        PrefixRouter.__post_init__(self)
        if self.capacity_blocks is not None and self.capacity_blocks < 1:
            raise InputError(f"router prefix_approx: capacity_blocks is {self.capacity_blocks}; give 1 or more")
        if self.ttl_s is not None and not self.ttl_s > 0:
            raise InputError(f"router prefix_approx: ttl_s is {self.ttl_s}; give a number above 0")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        self.index.expire(now)
        decision = PrefixRouter.route(self, request, views, now, rng)
        worker = decision.prefill
        if worker not in self._capacity:
            given = self.capacity_blocks
            self._capacity[worker] = views[worker].kv_total_blocks if given is None else given
        return decision

    def observe(self, event: Event, now: float) -> None:
        PrefixRouter.observe(self, event, now)
        if type(event) is Dispatched:
            blocks, worker = event.request.prefix_blocks, event.decision.prefill
            capacity = self._capacity.get(worker, maxsize)
            self.index.use(worker, blocks, capacity, inf if self.ttl_s is None else now + self.ttl_s)
        elif type(event) is WorkerLost:
            self._capacity.pop(event.worker, None)


@dataclass(frozen=True, slots=True)
class PrefixExact(PrefixRouter):
    """Overlap from what the workers' caches say they stored and evicted (KV events)."""

    name: ClassVar[str] = "prefix_exact"
    observes: ClassVar[frozenset[type]] = OWN_EVENTS | {KVStored, KVEvicted}

    def observe(self, event: Event, now: float) -> None:
        if type(event) is KVStored:
            self.index.store(event.worker, event.blocks)
        elif type(event) is KVEvicted:
            self.index.evict(event.worker, event.blocks)
        else:
            PrefixRouter.observe(self, event, now)
