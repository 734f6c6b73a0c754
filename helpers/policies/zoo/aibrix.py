"""AIBrix's prefix-cache router: the longest match, unless the worker that has it is busier than most.

vllm-project/aibrix, pkg/plugins/gateway/algorithms/prefix_cache.go and pkg/utils/prefixcacheindexer/hash.go,
read at commit e3e10f9e (2026-08-22).
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import sqrt
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.counting import CountingRouter
from helpers.policies.loads import bits
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, Views, WorkerLost
from helpers.workload.request import Request


class SharedBlocks(BlockIndex):
    """A guess at who holds which block, with one life for each block, whoever holds it.

    A block is forgotten for all of its workers at once: when nobody was sent it for `ttl_s`, or as the one
    that was sent longest ago, when there are more than `capacity`.
    """

    __slots__ = ("_used",)

    def __init__(self) -> None:
        super().__init__()
        self._used: OrderedDict[int, float] = OrderedDict()  # block -> its last use, in that order

    def use(self, worker: int, blocks: tuple[int, ...], capacity: int, now: float) -> None:
        """A prompt of `blocks` went to `worker`. Its first block is the first of them to be forgotten."""
        self.store(worker, blocks)
        used = self._used
        for block in blocks:
            used[block] = now
            used.move_to_end(block)
        for _ in range(len(used) - capacity):
            self.masks.pop(used.popitem(last=False)[0], None)

    def expire(self, before: float) -> None:
        """Forget the blocks whose last use was earlier than `before`."""
        used = self._used
        while used and next(iter(used.values())) < before:
            self.masks.pop(used.popitem(last=False)[0], None)


@dataclass(frozen=True, slots=True)
class AIBrix(CountingRouter):
    """The longest match among the workers that are not busier than most; without one, the fewest requests.

    requests_w = this front end's own requests under way on worker w
    match_w    = 100 * leading blocks that w is believed to hold // whole blocks of the prompt, in per cent
    1. if max - min of the requests > `imbalance_requests`: only the workers with the fewest requests are left
    2. of the workers left that match at all, those with requests <= mean + `deviations` * standard deviation (of the
       sample: over n - 1) of all live workers; of these the best match, then the fewest requests, then at random
    3. without such a worker the one with the fewest requests, at random among equals

    Belief comes from this router's own dispatches (`SharedBlocks`), not from KV events, which AIBrix can use too.
    Defaults are those of the source, 8 requests and 1 standard deviation; the manifests that AIBrix ships set 16
    and 2. It cuts prompts into blocks of 4 or 128 characters, here they are the workload's.
    """

    name: ClassVar[str] = "aibrix"
    block_tokens: int = 512
    imbalance_requests: int = parameter(8, "a larger max - min of the requests leaves only the least busy workers")
    deviations: float = parameter(1.0, "standard deviations above the mean that a matching worker may be busy")
    index_blocks: int = parameter(200_000, "blocks that the index keeps, for all workers together")
    ttl_s: float = parameter(1200.0, "seconds that an unused block is believed kept")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: SharedBlocks = field(default_factory=SharedBlocks, **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, imbalance_requests=self.imbalance_requests, deviations=self.deviations)
        if self.index_blocks < 1 or not self.ttl_s > 0 or self.block_tokens < 1:
            raise InputError(
                f"router {self.name}: index_blocks {self.index_blocks}, ttl_s {self.ttl_s}, block_tokens "
                f"{self.block_tokens}; give a number above 0 for each"
            )

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        live = self._live(views)
        self.index.expire(now - self.ttl_s)
        requests = {worker: self.own.load[worker] for worker in bits(live)}
        least, limit = min(requests.values()), self.limit(list(requests.values()))
        imbalanced = max(requests.values()) - least > self.imbalance_requests
        left = sum(1 << w for w, count in requests.items() if count == least) if imbalanced else live
        matches = self.matches(request, left)
        fits = [(-match, requests[w]) for w, match in matches.items() if requests[w] <= limit]
        if fits:
            best = min(fits)
            equal = [w for w, match in matches.items() if (-match, requests[w]) == best]
        else:
            equal = [w for w, count in requests.items() if count == least]
        equal.sort()
        decision = self.pairing(views, equal[int(rng.random() * len(equal))] if len(equal) > 1 else equal[0], now)
        if not self.explain:
            return decision
        seen = self.matches(request, live)
        terms = [(w, seen.get(w, 0), count, limit) for w, count in requests.items()]
        return explained(decision, ("match_percent", "requests", "limit_requests"), terms)

    def limit(self, requests: list[int]) -> float:
        """The most requests that a matching worker may have: mean + `deviations` standard deviations."""
        count = len(requests)
        mean = sum(requests) / count
        if count == 1:
            return mean
        return mean + self.deviations * sqrt(sum((one - mean) ** 2 for one in requests) / (count - 1))

    def matches(self, request: Request, workers: int) -> dict[int, int]:
        """Worker -> its match in per cent, for those of the mask `workers` that have one."""
        blocks = self._whole(request)
        groups = self.index.groups(blocks, workers)
        return {w: 100 * depth // len(blocks) for depth, mask in groups if depth for w in bits(mask)}

    def observe(self, event: Event, now: float) -> None:
        CountingRouter.observe(self, event, now)
        if type(event) is Dispatched:
            self.index.use(event.decision.prefill, self._whole(event.request), self.index_blocks, now)
        elif type(event) is WorkerLost:
            self.index.drop(event.worker)

    def _whole(self, request: Request) -> tuple[int, ...]:
        """The whole blocks of a prompt: the rest is not hashed."""
        return request.prefix_blocks[: request.prompt_tokens // self.block_tokens]
