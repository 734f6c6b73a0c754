"""The router that `data/dynamo_config.yaml` describes: a score of three weights, and short prompts kept off the pool.

The weights and thresholds come from a published example of such a file, where no program reads them; what each
means here is this course's reading, stated below.
"""

from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar, NamedTuple

from helpers.errors import InputError
from helpers.policies.hotspot import avoid_hot_spot
from helpers.policies.loads import bits
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, LiveMask, candidates, not_negative, parameter
from helpers.policies.view import Decision, Event, KVEvicted, KVStored, Views, WorkerLost, WorkerView
from helpers.workload.request import Request


class Terms(NamedTuple):
    """What one worker scores with: the points, the cached share that counts, requests waiting and running."""

    points: float
    hit: float
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """The worker with the most points, one formula for every role; the lowest id among equals:

        points = prefix_cache_weight x hit - queue_length_weight x waiting - decode_load_weight x running

    `hit` is the share (0 to 1) of the prompt that the worker has cached, by KV events; a share below
    `min_cache_hit_ratio` counts as 0, so that a block which every prompt opens with decides nothing. `waiting` and
    `running` are requests on the worker, running in prefill or decode; those on their way to decode there, which no
    report shows (`pairing.on_the_way`), run already. So a weight is points for a whole
    cached prompt, or for one request, and a ratio of two weights is a rate of exchange: at 10, 1.5 and 0.5 a
    whole cached prompt is worth 6 2/3 waiting requests, a waiting request three running ones.

    1. Where the decode workers are apart: among those on which at most `prompt_length_threshold` tokens of the prompt
       are uncached, the one with the most points prefills *and* decodes. Shipping the KV of so short a
       prompt is not worth it (conditional disaggregation). A threshold of 0 turns this off, as the last token of a
       prompt is always computed.
    2. Otherwise the prefill worker with the most points prefills. A mixed worker decodes too; else the decode worker
       with the most points *without the prefix term* does, for all of the KV is handed over to it anyway.

    With `enable_hotspot_prevention` a choice whose load (waiting + running) is above `hotspot_factor` x the mean of
    those allowed + `hotspot_slack` gives way to the least loaded of them. Without `reuse_prefix` every prompt
    counts as uncached.
    """

    name: ClassVar[str] = "split_policy"
    observes: ClassVar[frozenset[type]] = frozenset({KVStored, KVEvicted, WorkerLost})
    block_tokens: int = 512
    prompt_length_threshold: int = parameter(256, "uncached tokens up to which a decode worker prefills; 0: never")
    prefix_cache_weight: float = parameter(10.0, "points for a wholly cached prompt")
    queue_length_weight: float = parameter(1.5, "points off for each waiting request")
    decode_load_weight: float = parameter(0.5, "points off for each running request")
    enable_hotspot_prevention: bool = parameter(True, "move on what would go to a worker far above the mean load")
    reuse_prefix: bool = parameter(True, "let cached prefixes count")
    min_cache_hit_ratio: float = parameter(0.75, "share of a prompt below which its cached part earns no points")
    hotspot_factor: float = parameter(2.0, "load that is a hot spot, times the mean")
    hotspot_slack: float = parameter(2.0, "requests above that which are no hot spot yet")
    explain: bool = parameter(False, "put the terms of each worker looked at in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)  # for what is on the way; the choice is its own
    _prefilling: LiveMask = field(default_factory=LiveMask, **STATE)
    _decoding: LiveMask = field(default_factory=LiveMask, **STATE)

    def __post_init__(self) -> None:
        not_negative(
            self.name,
            prompt_length_threshold=self.prompt_length_threshold,
            prefix_cache_weight=self.prefix_cache_weight,
            queue_length_weight=self.queue_length_weight,
            decode_load_weight=self.decode_load_weight,
            hotspot_slack=self.hotspot_slack,
        )
        if not 0 <= self.min_cache_hit_ratio <= 1:
            raise InputError(
                f"router split_policy: min_cache_hit_ratio is {self.min_cache_hit_ratio}; give a share from 0 to 1"
            )
        if not 1 <= self.hotspot_factor < inf:
            raise InputError(f"router split_policy: hotspot_factor is {self.hotspot_factor}; give 1 or more")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        takes_prefill = self._prefilling(candidates(views))
        takes_decode = self._decoding(views.decode)
        apart = takes_decode & ~takes_prefill
        if apart and self.prompt_length_threshold:
            cached = self.cached_tokens(request, apart)
            least = request.prompt_tokens - self.prompt_length_threshold
            short = [worker for worker in cached if cached[worker] >= least]
            if short:
                found = {worker: self.terms(request, views[worker], cached[worker], now) for worker in short}
                return self._decision(self._best(found), None, found)
        cached = self.cached_tokens(request, takes_prefill)
        found = {worker: self.terms(request, views[worker], cached[worker], now) for worker in views.prefill}
        first = self._best(found)
        if takes_decode >> first & 1:
            return self._decision(first, None, found)
        if not takes_decode:
            raise InputError("no live worker takes decodes; give the fleet a mixed or a decode worker")
        takers = {worker: self.terms(request, views[worker], 0, now) for worker in views.decode}
        return self._decision(first, self._best(takers), takers | found)

    def cached_tokens(self, request: Request, live: int) -> dict[int, int]:
        """Leading tokens of the prompt that each worker of the mask `live` has cached, the last one left out."""
        if not self.reuse_prefix:
            return dict.fromkeys(bits(live), 0)
        most, block_tokens = request.prompt_tokens - 1, self.block_tokens
        groups = self.index.groups(request.prefix_blocks, live)
        return {worker: min(depth * block_tokens, most) for depth, mask in groups for worker in bits(mask)}

    def terms(self, request: Request, view: WorkerView, cached_tokens: int, now: float) -> Terms:
        """What the worker of a view scores with for a request of whose prompt it has `cached_tokens` cached."""
        hit = cached_tokens / request.prompt_tokens
        if hit < self.min_cache_hit_ratio:
            hit = 0.0
        on_the_way = self.pairing.on_the_way
        running = view.running + (on_the_way.to(view, now)[0] if on_the_way else 0)
        load = self.queue_length_weight * view.waiting + self.decode_load_weight * running
        return Terms(self.prefix_cache_weight * hit - load, hit, view.waiting, running)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is KVStored:
            self.index.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self.index.evict(event.worker, event.blocks)
        elif kind is WorkerLost:
            self.index.drop(event.worker)

    def _decision(self, prefill: int, decode: int | None, found: dict[int, Terms]) -> Decision:
        last = prefill if decode is None else decode
        return Decision(prefill, last, scores=_scores(found) if self.explain else ())

    def _best(self, found: dict[int, Terms]) -> int:
        """The worker with the most points, the lowest id among equals, unless it is a hot spot."""
        best, (_, _, waiting, running) = max(found.items(), key=lambda item: (item[1][0], -item[0]))
        if not self.enable_hotspot_prevention or waiting + running <= self.hotspot_slack:
            return best  # whatever the mean is, so small a load is no hot spot
        loads = {worker: one.waiting + one.running for worker, one in found.items()}
        return avoid_hot_spot(best, tuple(loads), loads.__getitem__, self.hotspot_factor, self.hotspot_slack)


def _scores(found: dict[int, Terms]) -> tuple[tuple[int, str, float], ...]:
    return tuple((worker, name, value) for worker, one in found.items() for name, value in one._asdict().items())
