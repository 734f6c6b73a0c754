"""SGLang's gateway, policy `cache_aware`: affinity by a threshold, unless requests in flight are too uneven.

Read in sgl-project/sglang: sgl-model-gateway/src/policies/cache_aware.rs (commit 053b63ff) and tree.rs (03744dbe).
The older rule for a miss, the smallest tree: PR 2114; why it went: PRs 14305 and 14650.
"""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.ledger import Ledger, placed_on
from helpers.policies.prefix_index import RecentBlocks
from helpers.policies.routing import STATE, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, Finished, Rejected, Views, WorkerLost
from helpers.policies.zoo.pools import Pools
from helpers.workload.request import Request

# What the gateway itself has to assume where it needs tokens: it matches the characters of the text.
CHARS_PER_TOKEN = 4


class PromptTree(RecentBlocks):
    """The prompts sent to each worker, by blocks: the longest unused are dropped from a tree that grows too large."""

    __slots__ = ()

    def size(self, worker: int) -> int:
        """Blocks in the tree of a worker."""
        return len(self._held.get(worker, ()))


@dataclass(frozen=True, slots=True)
class SGLangCacheAware:
    """Shortest queue when uneven, else the best match, else the least loaded worker.

    uneven:  most - fewest > balance_abs_threshold  and  most > balance_rel_threshold * fewest
    matched: tokens of the longest match in any worker's tree / prompt tokens > cache_threshold

    in requests of its own in flight, which count on both workers of a decision until they end. Uneven: the worker
    with the fewest. Else matched: the worker with the longest match. Else: the worker with the fewest, or with
    `smallest_tree` the one whose tree is smallest, whatever waits there. That is how it was until 2025-12, and kept
    as a counter-example: a worker stuck on long unshared prompts has a small tree and draws the next ones too, the
    "death spiral" of PR 14305. The lowest id among equals, everywhere (there, among holders of the longest match,
    the one that the tree names first).

    With fewer than `balance_abs_threshold` requests in flight on every worker nothing is ever uneven, and a match
    above the threshold is followed however long the queue. Defaults: 64, 1.5, 0.3.

    There, a radix tree of characters; here, of the workload's blocks, so that a match ends at a block's end. A tree
    holds at most `max_tree_chars` characters (2^26) at 4 characters a token; there it is cut to that every 120 s,
    here at once. As there, the tree knows nothing of what the engine has evicted.

    In a split fleet the prefill worker is chosen so, and the decode worker is the one with the fewest in flight (the
    gateway has a policy for each pool). Not here: retries, circuit breakers and the queue of the gateway.
    """

    name: ClassVar[str] = "sglang_cache_aware"
    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, Finished, Rejected, WorkerLost})
    block_tokens: int = 512
    balance_abs_threshold: int = parameter(64, "uneven: most and fewest requests in flight further apart than this")
    balance_rel_threshold: float = parameter(1.5, "uneven: and the most above this times the fewest")
    cache_threshold: float = parameter(0.3, "share of the prompt that must be matched for the match to decide")
    max_tree_chars: int = parameter(2**26, "characters of prompts remembered for each worker")
    smallest_tree: bool = parameter(False, "on a miss take the smallest tree, not the fewest requests (before 2025-12)")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    tree: PromptTree = field(default_factory=PromptTree, **STATE)
    in_flight: Ledger = field(default_factory=Ledger, **STATE)
    _pools: Pools = field(default_factory=Pools, **STATE)

    def __post_init__(self) -> None:
        not_negative(
            self.name,
            balance_abs_threshold=self.balance_abs_threshold,
            balance_rel_threshold=self.balance_rel_threshold,
            cache_threshold=self.cache_threshold,
        )
        for name in ("block_tokens", "max_tree_chars"):
            if getattr(self, name) < 1:
                raise InputError(f"router {self.name}: {name} is {getattr(self, name)}; give 1 or more")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        pools = self._pools
        if pools.see(views):
            self.in_flight.grow(pools.size)
        worker = self.choose(request)
        decode = worker if worker in pools.mixed else self._fewest(pools.decode)
        decision = Decision(worker, decode)
        if self.explain:
            decision = explained(decision, ("in_flight", "matched_share", "tree_blocks"), self.terms(request))
        return decision

    def choose(self, request: Request) -> int:
        """The worker of the prefill."""
        workers = self._pools.prefill
        if self.uneven():
            return self._fewest(workers)
        depth, mask = self.tree.groups(request.prefix_blocks, self._pools.prefill_mask)[-1]
        if self.matched(request, depth) > self.cache_threshold:
            return (mask & -mask).bit_length() - 1
        if self.smallest_tree:
            return min((self.tree.size(worker), worker) for worker in workers)[1]
        return self._fewest(workers)

    def uneven(self) -> bool:
        """Whether the requests in flight on the workers that prefill are too far apart for affinity."""
        requests = self.in_flight.requests
        counts = [requests[worker] for worker in self._pools.prefill]
        most, fewest = max(counts), min(counts)
        return most - fewest > self.balance_abs_threshold and most > self.balance_rel_threshold * fewest

    def matched(self, request: Request, depth: int) -> float:
        """The share of the prompt in its first `depth` blocks."""
        return min(depth * self.block_tokens, request.prompt_tokens) / request.prompt_tokens

    def terms(self, request: Request) -> list[tuple[int, int, float, int]]:
        """Every worker that prefills, its requests in flight, matched share of the prompt and blocks in its tree."""
        tree, requests, blocks = self.tree, self.in_flight.requests, request.prefix_blocks
        return [
            (worker, requests[worker], self.matched(request, tree.depth(worker, blocks)), tree.size(worker))
            for worker in self._pools.prefill
        ]

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            request, decision = event.request, event.decision
            self.in_flight.add(request.id, placed_on(decision.prefill, decision.decode), 0)
            capacity = max(1, self.max_tree_chars // (CHARS_PER_TOKEN * self.block_tokens))
            self.tree.use(decision.prefill, request.prefix_blocks, capacity)
        elif kind is Finished or kind is Rejected:
            self.in_flight.remove(event.request.id)
        elif kind is WorkerLost:
            self.in_flight.lost(event.worker)
            self.tree.drop(event.worker)

    def _fewest(self, workers: tuple[int, ...]) -> int:
        """The worker with the fewest requests in flight."""
        requests = self.in_flight.requests
        return min([(requests[worker], worker) for worker in workers])[1]
