"""What one front end knows of a worker: the last report, the cache, and what it has sent there itself."""

from typing import NamedTuple

from helpers.policies.loads import OwnLoad, bits
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.view import (
    Dispatched,
    Event,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Rejected,
    Views,
    WorkerLost,
    WorkerView,
)
from helpers.workload.request import Request

# The events that `Known` learns from.
HEARD = frozenset({Dispatched, FirstToken, Finished, Rejected, KVStored, KVEvicted, WorkerLost})


class WorkerFacts(NamedTuple):
    """A worker as a request finds it: the fields of `WorkerView`, `age_s` seconds old, and three that never are.

    `cached_tokens` leading tokens of this request's prompt are in the worker's cache, as its KV events say.
    `sent_tokens` prompt tokens, those thought to be cached left out, were sent there by this front end and have not
    led to a first token yet; `sent_requests` were sent there and have not finished. What other front ends send is in
    the report only.
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
    cached_tokens: int
    sent_tokens: int
    sent_requests: int


class Known:
    """What one front end has learnt from the events of caches and of its own requests; a hash is of `block_tokens`."""

    __slots__ = ("_block_tokens", "_index", "_requests", "_tokens")

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._index = BlockIndex()
        self._tokens, self._requests = OwnLoad(), OwnLoad()

    def of(self, request: Request, view: WorkerView) -> WorkerFacts:
        """The facts of one worker for a request."""
        return self._facts(view, self._cached(request, self._index.depth(view.worker, request.prefix_blocks)))

    def of_each(self, request: Request, views: Views, live: int) -> list[WorkerFacts]:
        """The facts of the workers of the mask `live`, in ascending order; every one of their views is read."""
        found = []
        for depth, mask in self._index.groups(request.prefix_blocks, live):
            cached = self._cached(request, depth)
            found += [self._facts(views[worker], cached) for worker in bits(mask)]
        found.sort()  # by worker, which comes first
        return found

    def _cached(self, request: Request, depth: int) -> int:
        # The last token of a prompt is always computed.
        return min(depth * self._block_tokens, request.prompt_tokens - 1)

    def _facts(self, view: WorkerView, cached: int) -> WorkerFacts:
        worker = view.worker
        self._tokens.grow(worker + 1)
        self._requests.grow(worker + 1)
        return WorkerFacts(*view, cached, self._tokens.load[worker], self._requests.load[worker])

    def observe(self, event: Event) -> None:
        """Take in what has happened; events of other kinds are passed over."""
        kind = type(event)
        if kind is KVStored:
            self._index.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self._index.evict(event.worker, event.blocks)
        elif kind is Dispatched:
            request, decision = event.request, event.decision
            cached = self._cached(request, self._index.depth(decision.prefill, request.prefix_blocks))
            self._tokens.dispatched(request.id, decision, request.prompt_tokens - cached)
            self._requests.dispatched(request.id, decision, 1)
        elif kind is FirstToken:
            self._tokens.finished(event.request.id)
            self._requests.first_token(event.request.id, 1)
        elif kind is Finished or kind is Rejected:
            self._tokens.finished(event.request.id)
            self._requests.finished(event.request.id)
        elif kind is WorkerLost:
            self._tokens.lost(event.worker)
            self._requests.lost(event.worker)
            self._index.drop(event.worker)
