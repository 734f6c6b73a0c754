"""Dynamo's KV router: prefill still to be computed and KV still to be held, in blocks, as one cost.

Read in ai-dynamo/dynamo: lib/kv-router/src/scheduling/selector/default.rs and .../mod.rs (commit 07a6c9ce),
docs/components/router/router-concepts.md (03037af0, the product), router-configuration.md (057096c3) and
router-disaggregated-serving.md (2e4735e3).
"""

from dataclasses import dataclass, field
from math import exp, inf
from random import Random
from sys import maxsize
from typing import ClassVar, NamedTuple

from helpers.errors import InputError
from helpers.policies.ledger import ActiveBlocks, Ledger
from helpers.policies.loads import bits
from helpers.policies.prefix_index import BlockIndex, RecentBlocks
from helpers.policies.routing import STATE, explained, not_negative, parameter
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
from helpers.policies.zoo.pools import Pools
from helpers.workload.request import Request

OWN_EVENTS = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})
ALL_EVENTS = OWN_EVENTS | {KVStored, KVEvicted}


SCORES = ("overlap_blocks", "prefill_blocks", "decode_blocks", "requests", "cost")


class Terms(NamedTuple):
    """The cost of one worker and what it is made of, in blocks; `overlap` and `requests` are counts."""

    worker: int
    overlap: int
    prefill: float
    decode: int
    requests: int
    cost: float


@dataclass(frozen=True, slots=True)
class KVRouter:
    """What both costs share: prefill and decode blocks of each worker, and the choice by them.

    credit  = overlap_credit * decay * overlap
    decay   = 1 / (1 + overlap_decay * (active - least active) / request)
    prefill = max(active + prompt - credit, 0)
    decode  = held + new

    in blocks: `active` prompt tokens sent to the worker and not computed yet (uncached ones, until the first token)
    over the block size, `least active` the smallest of them, `prompt` the prompt tokens over the block size,
    `request` the blocks of the prompt (a started one counts), `overlap` those of its full blocks that are cached
    on the worker, `held` the distinct blocks of requests in flight there (prompts only, as there by default), `new`
    the prompt's blocks that are not among them.

    The least cost wins, ties drawn uniformly. A `temperature` above 0 draws with probabilities proportional to
    exp(-(cost - least) / (largest - least) / temperature).

    With `kv_events` caches are known from events, and `predicted_ttl_s` (5 s is suggested) adds a side index of what
    was sent where, so that siblings in a burst find each other before the first event; the longer match counts.
    Without, a prompt's blocks are believed cached where it was sent for `ttl_s` seconds after their last use.

    Split fleets: a prefill worker is charged with no decode blocks, and a decode worker is chosen by load alone
    (`overlap_credit` 0, no prefill term, no sharing of blocks assumed). There, a second router chooses it when the
    prefill has ended; here a decision names both workers, so a request counts on its decode worker from the start.

    Not here: the credits of host and disk caches (0.75 and 0.25 a block) and of a shared cache, because our workers
    have no such tiers and a parameter that acts on nothing would mislead; taints, pins and session affinity; the
    queue in front of the router, which is an admission policy. A block is one of the workload's hashed blocks
    (512 tokens in the Mooncake traces), larger than an engine's 16 to 64.
    """

    name: ClassVar[str]
    block_tokens: int = 512
    overlap_credit: float = parameter(1.0, "prefill blocks that a cached block of the prompt saves, 0 to 1")
    overlap_decay: float = parameter(0.0, "halves the credit at an excess prefill backlog of 1/this requests; 0: never")
    temperature: float = parameter(0.0, "softmax temperature over costs scaled to 0 … 1; 0: the least cost")
    kv_events: bool = parameter(True, "know the caches from KV events; false: guess from own dispatches")
    ttl_s: float = parameter(120.0, "without KV events: seconds a block is believed cached after its last use")
    predicted_ttl_s: float | None = parameter(
        None, "with KV events: seconds a dispatched prompt counts as cached before the event; none: not at all"
    )
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    stored: BlockIndex = field(default_factory=BlockIndex, **STATE)
    predicted: RecentBlocks = field(default_factory=RecentBlocks, **STATE)
    prefills: Ledger = field(default_factory=Ledger, **STATE)  # uncached prompt tokens until the first token
    active: ActiveBlocks = field(default_factory=ActiveBlocks, **STATE)
    _pools: Pools = field(default_factory=Pools, **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, overlap_decay=self.overlap_decay, temperature=self.temperature)
        if not 0 <= self.overlap_credit <= 1:
            raise InputError(f"router {self.name}: overlap_credit is {self.overlap_credit}; give a number from 0 to 1")
        for name in ("ttl_s", "predicted_ttl_s"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < inf:
                raise InputError(f"router {self.name}: {name} is {seconds}; give a finite number of seconds above 0")
        if self.block_tokens < 1:
            raise InputError(f"router {self.name}: block_tokens is {self.block_tokens}; give 1 or more")

    @property
    def observes(self) -> frozenset[type]:
        """Without KV events nobody has to send any."""
        return ALL_EVENTS if self.kv_events else OWN_EVENTS

    def cost(self, prefill: float, decode: int, requests: int) -> float:
        """The cost of a worker that takes prefills, from its terms in blocks and its active requests."""
        raise NotImplementedError

    def decode_cost(self, decode: int, requests: int) -> float:
        """The cost of a decode worker."""
        return decode

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        pools = self._pools
        if pools.see(views):
            self.prefills.grow(pools.size)
            self.active.grow(pools.size)
        self.predicted.expire(now)
        terms = self.prefill_terms(request)
        worker = decode = pick(terms, self.temperature, rng).worker
        if worker not in pools.mixed:
            handed = self.decode_terms(request)
            decode = pick(handed, self.temperature, rng).worker
            terms += handed
        decision = Decision(worker, decode)
        return explained(decision, SCORES, terms) if self.explain else decision

    def prefill_terms(self, request: Request) -> list[Terms]:
        """The terms of every live worker that takes prefills."""
        pools, active, waiting = self._pools, self.active, self.prefills.amount
        size, blocks = self.block_tokens, request.prefix_blocks
        overlaps, shared = self._overlaps(request), _depths(active.index, blocks, pools.prefill_mask)
        prompt, count = request.prompt_tokens / size, self._blocks(request)
        least = min([waiting[w] for w in pools.prefill]) if self.overlap_decay else 0
        found = []
        for w in pools.prefill:
            overlap, tokens = overlaps.get(w, 0), waiting[w]
            credit = self.overlap_credit * overlap
            if self.overlap_decay and overlap:
                credit /= 1 + self.overlap_decay * (tokens - least) / size / count
            prefill = max(tokens / size + prompt - credit, 0.0)
            if w in pools.mixed:
                decode, requests = active.held[w] + count - shared.get(w, 0), active.requests[w]
            else:
                decode, requests = 0, self.prefills.requests[w]
            found.append(Terms(w, overlap, prefill, decode, requests, self.cost(prefill, decode, requests)))
        return found

    def decode_terms(self, request: Request) -> list[Terms]:
        """The terms of every live worker that takes decodes."""
        active, count = self.active, self._blocks(request)
        found = []
        for w in self._pools.decode:
            decode, requests = active.held[w] + count, active.requests[w]
            found.append(Terms(w, 0, 0.0, decode, requests, self.decode_cost(decode, requests)))
        return found

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is KVStored:
            self.stored.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self.stored.evict(event.worker, event.blocks)
        elif kind is Dispatched:
            self._dispatched(event.request, event.decision, now)
        elif kind is FirstToken:
            self.prefills.remove(event.request.id)
        elif kind is Finished or kind is Rejected:
            self.prefills.remove(event.request.id)
            self.active.remove(event.request.id)
        elif kind is WorkerLost:
            for request in self.prefills.lost(event.worker):
                self.active.remove(request)  # it comes back, and may go elsewhere
            self.active.lost(event.worker)
            self.stored.drop(event.worker)
            self.predicted.drop(event.worker)

    def _dispatched(self, request: Request, decision: Decision, now: float) -> None:
        worker, whole = decision.prefill, self._whole(request)
        depth = max(self.stored.depth(worker, whole), self.predicted.depth(worker, whole))
        self.prefills.add(request.id, (worker,), request.prompt_tokens - depth * self.block_tokens)
        # What a hand-off brings is not known to be shared.
        blocks = request.prefix_blocks if worker == decision.decode else ()
        self.active.add(request.id, decision.decode, blocks, self._blocks(request) - len(blocks))
        ttl_s = self.predicted_ttl_s if self.kv_events else self.ttl_s
        if ttl_s is not None:
            self.predicted.use(worker, whole, maxsize, now + ttl_s)

    def _blocks(self, request: Request) -> int:
        """The blocks of a prompt, a started one counted."""
        return -(-request.prompt_tokens // self.block_tokens)

    def _whole(self, request: Request) -> tuple[int, ...]:
        """The blocks of a prompt that a cache can hold: the full ones."""
        return request.prefix_blocks[: request.prompt_tokens // self.block_tokens]

    def _overlaps(self, request: Request) -> dict[int, int]:
        """Cached leading blocks of the prompt by worker; workers without any are left out."""
        whole, live = self._whole(request), self._pools.prefill_mask
        found = _depths(self.stored, whole, live)
        if self.predicted.masks:
            for worker, depth in _depths(self.predicted, whole, live).items():
                found[worker] = max(depth, found.get(worker, 0))
        return found


@dataclass(frozen=True, slots=True)
class Dynamo(KVRouter):
    """prefill_load_scale * prefill + decode + active_request_weight * requests, terms as in `KVRouter`.

    `requests` are those in flight on the worker (on a prefill worker: until their first token).
    """

    name: ClassVar[str] = "dynamo"
    prefill_load_scale: float = parameter(1.0, "cost of a block of prefill, in blocks of decode")
    active_request_weight: float = parameter(0.0, "cost of a request in flight, in blocks of decode")

    def __post_init__(self) -> None:
        KVRouter.__post_init__(self)
        scales = {"prefill_load_scale": self.prefill_load_scale, "active_request_weight": self.active_request_weight}
        not_negative(self.name, **scales)

    def cost(self, prefill: float, decode: int, requests: int) -> float:
        return self.prefill_load_scale * prefill + decode + self.active_request_weight * requests

    def decode_cost(self, decode: int, requests: int) -> float:
        return decode + self.active_request_weight * requests


@dataclass(frozen=True, slots=True)
class DynamoLMetric(KVRouter):
    """prefill * (decode + 1), terms as in `KVRouter`: `router_selection_policy=lmetric`, after the Blitz router.

    A product has no weights to set. Where a worker decodes alone the prefill term is 0 for all and the
    product says nothing; it is then chosen by its decode blocks.
    """

    name: ClassVar[str] = "dynamo_lmetric"

    def cost(self, prefill: float, decode: int, requests: int) -> float:
        return prefill * (decode + 1)


def pick(terms: list[Terms], temperature: float, rng: Random) -> Terms:
    """The least cost (one of the least, drawn uniformly), or at a temperature above 0 a draw by cost."""
    costs = [one.cost for one in terms]
    least = min(costs)
    if temperature:
        return terms[drawn(softmax(costs, temperature), rng.random())]
    if costs.count(least) == 1:
        return terms[costs.index(least)]
    tied = [one for one in terms if one.cost == least]
    return tied[int(rng.random() * len(tied))]


def softmax(costs: list[float], temperature: float) -> list[float]:
    """Probabilities proportional to exp(-scaled / temperature), costs scaled to 0 … 1; all equal when the costs are."""
    least, largest = min(costs), max(costs)
    if least == largest:
        return [1 / len(costs)] * len(costs)
    weights = [exp(-(cost - least) / ((largest - least) * temperature)) for cost in costs]
    total = sum(weights)
    return [weight / total for weight in weights]


def drawn(shares: list[float], sample: float) -> int:
    """The position whose share of 0 … 1 holds `sample`."""
    reached = 0.0
    for position, share in enumerate(shares):
        reached += share
        if sample < reached:
            return position
    return len(shares) - 1  # the shares add up to a little less than 1


def _depths(index: BlockIndex, blocks: tuple[int, ...], live: int) -> dict[int, int]:
    """Leading blocks that each worker of the mask `live` holds, those with none left out."""
    return {worker: depth for depth, mask in index.groups(blocks, live) if depth for worker in bits(mask)}
