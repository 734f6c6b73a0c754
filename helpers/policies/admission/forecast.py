"""What admission knows of the caches, and what it expects of a request on the workers that the router chose."""

from dataclasses import dataclass, field
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, parameter
from helpers.policies.view import Decision, Event, KVEvicted, KVStored, Views, WorkerLost
from helpers.workload.request import Request

CACHE_EVENTS = frozenset({KVStored, KVEvicted, WorkerLost})

# Subclasses name their base where one would write super(), see `helpers.policies.prefix_routing`.


@dataclass(frozen=True, slots=True)
class CacheAware:
    """A policy that may know the prefix caches from KV events, besides what it `hears` of requests."""

    hears: ClassVar[frozenset[type]] = frozenset()
    block_tokens: int = 512
    kv_events: bool = parameter(True, "know the prefix caches from KV events; false: count prompts as uncached")
    caches: BlockIndex = field(default_factory=BlockIndex, **STATE)

    @property
    def observes(self) -> frozenset[type]:
        """The events that it wants to be told."""
        return self.hears | CACHE_EVENTS if self.kv_events else self.hears

    def observe(self, event: Event, now: float) -> None:
        """Take in what a cache stored or evicted, or that it is gone; other events are passed over."""
        kind = type(event)
        if kind is KVStored:
            self.caches.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self.caches.evict(event.worker, event.blocks)
        elif kind is WorkerLost:
            self.caches.drop(event.worker)

    def cached_tokens(self, request: Request, worker: int) -> int:
        """The leading prompt tokens that `worker` has: whole blocks, and never the one with the last token."""
        if not self.kv_events:
            return 0
        whole = (request.prompt_tokens - 1) // self.block_tokens
        return self.caches.depth(worker, request.prefix_blocks[:whole]) * self.block_tokens


@dataclass(frozen=True, slots=True)
class Forecast(CacheAware):
    """A policy that predicts the latencies of a request under a decision, through the predictor.

    TTFT = copy of a prefix, if the decision has one + queue + prefill of the uncached prompt, on the prefill worker
    TPOT = a decode-only step of the decode worker with the request added

    The TPOT knows nothing of prefills in the same steps: on a mixed worker under a steady stream of prompts
    tokens come several times slower. Raises `InputError` without a predictor.
    """

    name: ClassVar[str]
    predictor: CostPredictor | None = None

    def __post_init__(self) -> None:
        if self.predictor is None:
            raise InputError(
                f"admission {self.name} predicts times; give it a predictor, such as Fleet(...).predictor()"
            )

    def ttft_s(self, request: Request, views: Views, decision: Decision) -> float:
        """Seconds from now to the first token."""
        worker, source = decision.prefill, decision.kv_source
        own = self.cached_tokens(request, worker)
        copied = max(0, decision.fetch_tokens - own) if source is not None else 0
        transfer_s = self.predictor.transfer_s(request, source, worker, copied) if copied else 0.0
        return transfer_s + self.predictor.ttft_s(request, views[worker], own + copied)

    def tpot_s(self, request: Request, views: Views, decision: Decision) -> float:
        """Seconds between two tokens, once the request decodes."""
        return self.predictor.tpot_s(request, views[decision.decode])
