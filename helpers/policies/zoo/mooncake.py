"""Mooncake's Conductor: the worker with the least predicted time to first token, caches and copies counted in.

Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST'25, section 4 and Algorithm 1,
read in the authors' release (kvcache-ai/Mooncake, FAST25-release, at commit 3b5a5941).
"""

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar, NamedTuple

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.loads import bits
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, candidates, parameter
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


class Backlog:
    """The predicted prefill seconds that each worker still owes, in the order in which they were promised.

    A worker computes one prompt after the other, so that the first of them has been at work since
    the one before it ended; what it has done of its prediction is taken off, and no more than that.
    """

    __slots__ = ("_owed", "_since", "_where")

    def __init__(self) -> None:
        self._owed: dict[int, dict[int, float]] = {}  # worker -> request id -> predicted seconds
        self._since: dict[int, float] = {}  # worker -> when the first of them began
        self._where: dict[int, int] = {}

    def queue_s(self, worker: int, now: float) -> float:
        """Seconds until `worker` would start a prompt that comes now."""
        owed = self._owed.get(worker)
        if not owed:
            return 0.0
        seconds = sum(owed.values())
        return seconds - min(max(now - self._since[worker], 0.0), next(iter(owed.values())))

    def add(self, request: int, worker: int, seconds: float, now: float) -> None:
        """`worker` has been sent a request; a second dispatch replaces the first."""
        self.done(request, now)
        owed = self._owed.setdefault(worker, {})
        if not owed:
            self._since[worker] = now
        owed[request], self._where[request] = seconds, worker

    def done(self, request: int, now: float) -> None:
        """The prefill of a request has ended; unknown requests are passed over."""
        worker = self._where.pop(request, None)
        if worker is not None:
            del self._owed[worker][request]
            self._since[worker] = now

    def lost(self, worker: int) -> None:
        """`worker` is gone, and what it owed."""
        for request in self._owed.pop(worker, ()):
            del self._where[request]


class Choice(NamedTuple):
    """The terms of one worker, in seconds, and where its prefix comes from; the least TTFT, then worker, wins."""

    ttft_s: float
    worker: int
    queue_s: float
    prefill_s: float
    transfer_s: float
    source: int | None
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Mooncake:
    """argmin over the prefill workers of T_transfer + T_queue + T_prefill(prompt, prefix), lowest id among equals.

    own  = leading blocks of the prompt cached on the worker; best = the most on any live worker
    prefix = best when `fetch` and best / own > `balancing_threshold` (own = 0 counts as infinite), else own
    T_transfer = latency + (best - own) tokens * KV bytes / link rate when the prefix is fetched, else 0
    T_queue = the predicted prefills of the requests sent there, less what the first has done of its own
    T_prefill = the steps that compute the prompt after its prefix, from the predictor

    Without a link nothing is fetched.

    As in Algorithm 1, a copy is taken on the ratio alone, not because it is predicted to be faster than
    computing: on a slow link that costs. `fetch=False` is the paper's local cache-aware scheduling, True
    its global one. Caches are known from KV events. With `promise`, the blocks of a prompt count as
    cached on its worker from the dispatch on, as Conductor updates the cache when it assigns; a copy is
    only ever taken from blocks that are there. The paper sets the threshold by hand and does not say to what.

    Lines 17 to 20 of the algorithm are elsewhere: the decode worker is chosen by `Pairing`, by load with
    what was assigned and has not arrived yet (the paper says: by load), and rejecting what would miss its
    SLO is an admission policy. Several front ends each know only the backlog of their own requests.
    T_prefill knows nothing of decodes on a mixed worker.
    """

    name: ClassVar[str] = "mooncake"
    observes: ClassVar[frozenset[type]] = frozenset(
        {Dispatched, FirstToken, Finished, Rejected, KVStored, KVEvicted, WorkerLost}
    )
    predictor: CostPredictor
    block_tokens: int = 512
    fetch: bool = parameter(True, "copy a longer prefix from another worker's cache; false: local caches only")
    balancing_threshold: float = parameter(1.0, "copy when the best prefix is more than this times the worker's own")
    promise: bool = parameter(True, "count a prompt's blocks as cached on its worker from the dispatch on")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    coming: BlockIndex = field(default_factory=BlockIndex, **STATE)  # what `index` holds, and what was promised
    backlog: Backlog = field(default_factory=Backlog, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)

    def __post_init__(self) -> None:
        if self.predictor is None:
            raise InputError("router mooncake predicts times; give it a predictor, such as Fleet(...).predictor()")
        if not self.balancing_threshold >= 1:
            raise InputError(
                f"router mooncake: balancing_threshold is {self.balancing_threshold}; give 1 or more "
                "(below 1 it would copy prefixes that the worker has)"
            )
        if self.block_tokens < 1:
            raise InputError(f"router mooncake: block_tokens is {self.block_tokens}; give 1 or more")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        choices = self.choices(request, views, now)
        best = min(choices)
        decision = self.pairing(views, best.worker, now)
        if best.source is not None:
            decision = decision._replace(kv_source=best.source, fetch_tokens=best.cached_tokens)
        if self.explain:
            decision = decision._replace(scores=tuple(term for choice in choices for term in _terms(choice)))
        return decision

    def choices(self, request: Request, views: Views, now: float) -> list[Choice]:
        """The terms of every live prefill worker."""
        live = 0
        for worker in candidates(views):
            live |= 1 << worker
        own_index = self.coming if self.promise else self.index
        source, best = self._best(request, live) if self.fetch and self.predictor.link else (None, 0)
        prefill_s, found = self.predictor.prefill_s, []
        for depth, mask in own_index.groups(self._whole(request), live):
            fetched = source is not None and best > depth and self._pays(best, depth)
            cached = (best if fetched else depth) * self.block_tokens
            computed_s = prefill_s(request.prompt_tokens, cached)
            for worker in bits(mask):
                queue_s, transfer_s = self.backlog.queue_s(worker, now), 0.0
                if fetched:  # never from the worker itself: what it has is not less than the best
                    transfer_s = self.predictor.transfer_s(request, source, worker, cached - depth * self.block_tokens)
                ttft_s = transfer_s + queue_s + computed_s
                copied_from = source if fetched else None
                found.append(Choice(ttft_s, worker, queue_s, computed_s, transfer_s, copied_from, cached))
        return found

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            self._dispatched(event.request, event.decision, now)
        elif kind is FirstToken or kind is Finished or kind is Rejected:
            self.backlog.done(event.request.id, now)
        elif kind is KVStored:
            self.index.store(event.worker, event.blocks)
            self.coming.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self.index.evict(event.worker, event.blocks)
            self.coming.evict(event.worker, event.blocks)
        elif kind is WorkerLost:
            self.backlog.lost(event.worker)
            self.index.drop(event.worker)
            self.coming.drop(event.worker)

    def _dispatched(self, request: Request, decision: Decision, now: float) -> None:
        worker, whole = decision.prefill, self._whole(request)
        own = (self.coming if self.promise else self.index).depth(worker, whole) * self.block_tokens
        seconds = self.predictor.prefill_s(request.prompt_tokens, max(own, decision.fetch_tokens))
        self.backlog.add(request.id, worker, seconds, now)
        if self.promise:
            self.coming.store(worker, request.prefix_blocks[: request.prompt_tokens // self.block_tokens])

    def _whole(self, request: Request) -> tuple[int, ...]:
        """The blocks of a prompt that can be found in a cache: full ones, and never the one with the last token."""
        return request.prefix_blocks[: (request.prompt_tokens - 1) // self.block_tokens]

    def _best(self, request: Request, live: int) -> tuple[int | None, int]:
        """A worker (the lowest id) with the longest cached prefix of the prompt, and its length in blocks."""
        depth, mask = self.index.groups(self._whole(request), live)[-1]
        return ((mask & -mask).bit_length() - 1, depth) if depth else (None, 0)

    def _pays(self, best: int, own: int) -> bool:
        """Whether the ratio of the prefixes is past the threshold."""
        return (best / own if own else inf) > self.balancing_threshold


def _terms(choice: Choice) -> list[tuple[int, str, float]]:
    names = ("transfer_s", "queue_s", "prefill_s", "ttft_s")
    return [(choice.worker, name, getattr(choice, name)) for name in names]
