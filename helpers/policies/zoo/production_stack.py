"""vLLM production-stack's routers by cached prefix: weighed against load, or the first holder whatever its load.

vllm-project/production-stack, src/vllm_router/routers/routing_logic.py, read at commit a6c01db0 (2026-08-05), and
`loadaware` in pull request 1035 (merged 2026-08). The cache is known from LMCache's controller, here from KV events.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import ClassVar

from helpers.policies.counting import COUNTED, CountingRouter
from helpers.policies.loads import bits
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, LiveMask, candidates, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, KVEvicted, KVStored, Views, WorkerLost
from helpers.workload.request import Request


class Rates:
    """Requests sent to each worker within the last `window_s` seconds."""

    __slots__ = ("_sent", "count")

    def __init__(self) -> None:
        self.count: dict[int, int] = {}
        self._sent: deque[tuple[float, int]] = deque()

    def add(self, worker: int, now: float) -> None:
        """A request was sent to `worker`."""
        self._sent.append((now, worker))
        self.count[worker] = self.count.get(worker, 0) + 1

    def least(self, workers: Iterable[int], now: float, window_s: float) -> int:
        """The worker that was sent the fewest requests; the first named among equals."""
        sent, count = self._sent, self.count
        while sent and sent[0][0] < now - window_s:
            count[sent.popleft()[1]] -= 1
        return min(workers, key=lambda worker: count.get(worker, 0))


def owner(session: int, workers: Iterable[int]) -> int:
    """The worker of a session: the one with the highest hash with it, so that a lost worker moves only its own."""
    return max(workers, key=lambda worker: blake2b(f"{session} {worker}".encode(), digest_size=8).digest())


def no_prefix(request: Request, workers: Iterable[int], rates: Rates, now: float, window_s: float) -> int:
    """Where both routers send what no cache has: the session's worker, else the lowest rate of requests."""
    return rates.least(workers, now, window_s) if request.session is None else owner(request.session, workers)


@dataclass(frozen=True, slots=True)
class LoadAware(CountingRouter):
    """argmax of matched / prompt - `beta` * (load - mean) / max(1, mean), the lowest id among equals.

    matched = leading tokens of the prompt that the worker has cached, at most all of them; load = this front end's
    own requests under way there; mean = that of all live workers. Both terms have no unit: with beta = 1 a worker
    with twice the mean load is docked one whole prompt of cache. Without any holder of the prompt's first block the
    request goes by session or by rate (`no_prefix`), with the router's window of 60 s. Every holder is known, as with
    LMCache's pull request 4471; before that its controller named one.
    """

    name: ClassVar[str] = "production_stack"
    observes: ClassVar[frozenset[type]] = COUNTED | {KVStored, KVEvicted}
    block_tokens: int = 512
    beta: float = parameter(1.0, "whole prompts of cache that a load of twice the mean is worth")
    window_s: float = parameter(60.0, "seconds over which the rate of requests to a worker is taken")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    rates: Rates = field(default_factory=Rates, **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, beta=self.beta, window_s=self.window_s)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        live = self._live(views)
        groups = self.index.groups(request.prefix_blocks, live)
        terms = self.terms(request, groups)
        if groups[-1][0]:
            best = min((-score, worker) for worker, score, *_ in terms)[1]
        else:
            best = no_prefix(request, candidates(views), self.rates, now, self.window_s)
        decision = self.pairing(views, best, now)
        return explained(decision, ("score", "matched_share", "relative_load"), terms) if self.explain else decision

    def terms(self, request: Request, groups: list[tuple[int, int]]) -> list[tuple[int, float, float, float]]:
        """(worker, score, matched share, relative load) of each worker of the `groups` of equal match."""
        load, prompt = self.own.load, request.prompt_tokens
        matched = [(w, min(depth * self.block_tokens, prompt) / prompt) for depth, mask in groups for w in bits(mask)]
        mean = sum(load[w] for w, _ in matched) / len(matched)
        scale, found = max(1.0, mean), []
        for worker, share in matched:
            relative = (load[worker] - mean) / scale
            found.append((worker, share - self.beta * relative, share, relative))
        return found

    def observe(self, event: Event, now: float) -> None:
        learn(self.index, self.rates, event, now)
        CountingRouter.observe(self, event, now)


@dataclass(frozen=True, slots=True)
class KVAware:
    """The first holder of the prompt's beginning, however busy, if it lacks no more than `threshold_tokens` of it.

    The first holder is the one that the controller names first, here the lowest id that has the prompt's first block:
    not the one with the longest match. When it lacks more, or when there is none, the request goes by session or by
    rate (`no_prefix`). A counter-example: where prompts share all but their last 2,000 tokens, one worker gets all.
    """

    name: ClassVar[str] = "production_stack_kvaware"
    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, KVStored, KVEvicted, WorkerLost})
    block_tokens: int = 512
    threshold_tokens: int = parameter(2000, "prompt tokens that the first holder may lack")
    window_s: float = parameter(60.0, "seconds over which the rate of requests to a worker is taken")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    rates: Rates = field(default_factory=Rates, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)
    _mask: LiveMask = field(default_factory=LiveMask, **STATE)

    def __post_init__(self) -> None:
        not_negative(self.name, threshold_tokens=self.threshold_tokens, window_s=self.window_s)

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        workers, blocks = candidates(views), request.prefix_blocks
        holders = self._mask(workers) & self.index.masks.get(blocks[0], 0) if blocks else 0
        chosen = (holders & -holders).bit_length() - 1
        if not holders or self.matched(request, chosen) < request.prompt_tokens - self.threshold_tokens:
            chosen = no_prefix(request, workers, self.rates, now, self.window_s)
        decision = self.pairing(views, chosen, now)
        if not self.explain:
            return decision
        return explained(decision, ("matched_tokens",), [(w, self.matched(request, w)) for w in workers])

    def matched(self, request: Request, worker: int) -> int:
        """Leading tokens of the prompt that `worker` has cached."""
        return min(self.index.depth(worker, request.prefix_blocks) * self.block_tokens, request.prompt_tokens)

    def observe(self, event: Event, now: float) -> None:
        learn(self.index, self.rates, event, now)


def learn(index: BlockIndex, rates: Rates, event: Event, now: float) -> None:
    """Take in what an event says of the caches and of the rates."""
    kind = type(event)
    if kind is KVStored:
        index.store(event.worker, event.blocks)
    elif kind is KVEvicted:
        index.evict(event.worker, event.blocks)
    elif kind is Dispatched:
        rates.add(event.decision.prefill, now)
    elif kind is WorkerLost:
        index.drop(event.worker)
