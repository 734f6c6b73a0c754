"""AIBrix's prefix-cache-preble: long matches go where the prefix is, all else to the least predicted recent work.

vllm-project/aibrix, pkg/plugins/gateway/algorithms/prefix_cache_preble.go and pkg/utils/prefixcacheindexer/tree.go,
read at commit e3e10f9e (2026-08-22), after Srivatsa et al., "Preble", arXiv 2407.00023.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.counting import CountingRouter
from helpers.policies.loads import bits
from helpers.policies.routing import STATE, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, Views, WorkerLost
from helpers.policies.zoo.radix import Node, RadixTree
from helpers.workload.request import Request

TTL_S = 300.0  # after its last use a node is forgotten
UTILISATION = 0.9


def a6000_s(tokens: int, context: int) -> float:
    """Seconds that AIBrix takes a prefill of `tokens` at the end of `context` to need: Mistral 7B on an A6000."""
    if tokens >= 384:
        linear_ms = 0.10842571 * tokens + 4.209777054806409
    elif tokens >= 192:
        linear_ms = -118 + 1.25 * tokens - 2.56e-3 * tokens**2
    else:
        linear_ms = 22.0
    attention_ms = 0.32 if context <= 1024 else 1.86e-4 * context + 0.159
    if context > 1024 and tokens <= 1024:
        attention_ms /= 2
    square_ms = -7.37 + 3.86e-3 * tokens + 2.16e-6 * tokens**2 if tokens >= 4096 else 0.0
    return (linear_ms + attention_ms + square_ms) / 1000 / UTILISATION


def v100_s(tokens: int, context: int) -> float:
    """The same on a V100: every constant of the source is 2.5 times that of the A6000, one of them rounded."""
    return 2.5 * a6000_s(tokens, context)


GPUS: dict[str, Callable[[int, int], float]] = {"v100": v100_s, "a6000": a6000_s}


class Recent:
    """The prompts of the last minutes by the node that they end in, and what each worker is charged for them."""

    __slots__ = ("_charged", "_prompts", "_sums")

    def __init__(self) -> None:
        self._prompts: deque[tuple[float, Node, int, int]] = deque()  # time, node, shared tokens, prompt tokens
        self._sums: dict[Node, list[int]] = {}  # node -> prompts, shared tokens, prompt tokens
        self._charged: dict[int, dict[Node, float]] = {}  # worker -> node -> seconds

    def load(self, worker: int) -> int:
        """Recent prompts that end in nodes which the worker has been sent."""
        return sum(self._sums[node][0] for node in self._charged.get(worker, ()))

    def cost_s(self, worker: int) -> float:
        """Seconds that the worker is charged."""
        return sum(self._charged.get(worker, {}).values())

    def add(self, node: Node, now: float) -> None:
        """A prompt that ends in `node` was sent."""
        shared, prompt = node.context - node.tokens, node.context
        self._prompts.append((now, node, shared, prompt))
        sums = self._sums.setdefault(node, [0, 0, 0])
        self._sums[node] = [sums[0] + 1, sums[1] + shared, sums[2] + prompt]

    def expire(self, until: float, cost: Callable[[Node, list[int]], float]) -> None:
        """Forget the prompts of the time up to `until`."""
        while self._prompts and self._prompts[0][0] <= until:
            _, node, shared, prompt = self._prompts.popleft()
            sums = self._sums[node]
            self._sums[node] = [sums[0] - 1, sums[1] - shared, sums[2] - prompt]
            self.charge(node, cost)

    def charge(self, node: Node, cost: Callable[[Node, list[int]], float]) -> None:
        """Charge the workers of a node anew, or nothing when no recent prompt ends there."""
        sums = self._sums.get(node)
        if sums is None:
            return
        seconds = cost(node, sums)
        for worker in bits(node.workers):
            charged = self._charged.setdefault(worker, {})
            if sums[0]:
                charged[node] = seconds
            else:
                charged.pop(node, None)
        if not sums[0]:
            del self._sums[node]

    def lost(self, worker: int) -> None:
        """A worker is gone."""
        self._charged.pop(worker, None)


@dataclass(frozen=True, slots=True)
class Preble(CountingRouter):
    """Where more than `match_share` of the prompt was sent before: the least load there; else the least cost.

    Prompts are kept in a radix tree, for 5 minutes after their last use; a node belongs to the workers that were sent
    a prompt through it. When max - min of the requests under way is above `imbalance_requests`, only the least busy
    workers are left. Equals go to the lowest id.
    match: of the deepest node on the prompt's path that belongs to a worker left, the worker with the least load =
    prompts of the last `window_s` that end in any of its nodes
    cost = sum over the nodes of the worker in which a prompt of the last `window_s` ends, of
    miss * prompts * prefill_s(own tokens, context) + `decode_tokens` * `s_per_token`,
    with miss = 1 - tokens above the node / tokens to its end, summed over these prompts

    As in AIBrix the prefill is that of Mistral 7B on a `gpu` which by default is a V100, whatever serves;
    `gpu=predictor` takes the fleet's own times. The source means `s_per_token` to be each worker's median, but never
    measures it, so that its default of 0.15 s is always in force; it also charges every worker of a node for all of
    its prompts. When AIBrix forgets a node it takes the node's workers off those above it too; here they stay.
    """

    name: ClassVar[str] = "aibrix_preble"
    predictor: CostPredictor | None = None
    block_tokens: int = 512
    match_share: float = parameter(0.5, "share of the prompt that must have been sent before for the match to decide")
    imbalance_requests: int = parameter(8, "a larger max - min of the requests leaves only the least busy workers")
    window_s: float = parameter(180.0, "seconds of the past that are charged")
    decode_tokens: int = parameter(45, "tokens that a prompt is taken to generate")
    s_per_token: float = parameter(0.15, "seconds that a generated token is taken to need")
    gpu: str = parameter("v100", "v100, a6000 or predictor: where the prefill times come from")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    tree: RadixTree = field(default=None, **STATE)
    recent: Recent = field(default_factory=Recent, **STATE)

    def __post_init__(self) -> None:
        if self.gpu not in (*GPUS, "predictor"):
            raise InputError(f"router {self.name}: gpu {self.gpu!r} is unknown; use v100, a6000 or predictor")
        if self.gpu == "predictor" and self.predictor is None:
            raise InputError(f"router {self.name} has no predictor; give it one, or gpu=v100")
        if self.block_tokens < 1 or not 0 < self.window_s <= TTL_S:
            raise InputError(
                f"router {self.name}: block_tokens {self.block_tokens}, window_s {self.window_s}; "
                f"give blocks of 1 token or more, and more than 0 and at most {TTL_S:g} s"
            )
        numbers = {"match_share": self.match_share, "imbalance_requests": self.imbalance_requests}
        not_negative(self.name, decode_tokens=self.decode_tokens, s_per_token=self.s_per_token, **numbers)
        object.__setattr__(self, "tree", RadixTree(self.block_tokens))

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        left, recent = self.least_busy(self._live(views)), self.recent
        recent.expire(now - self.window_s, self.node_cost_s)
        self.tree.expire(now - TTL_S)
        node, matched = self.tree.match(chain(request))
        share = min(matched * self.block_tokens, request.prompt_tokens) / request.prompt_tokens
        holders = 0
        if share > self.match_share:
            holders = next((one.workers & left for one in node.path() if one.workers & left), 0)
        chosen = min(bits(holders), key=recent.load) if holders else min(bits(left), key=recent.cost_s)
        decision = self.pairing(views, chosen, now)
        if not self.explain:
            return decision
        terms = [(w, share, holders >> w & 1, recent.load(w), recent.cost_s(w)) for w in bits(left)]
        return explained(decision, ("matched_share", "has_the_match", "load", "cost_s"), terms)

    def least_busy(self, live: int) -> int:
        """The workers of the mask `live`, or when they are too uneven those with the fewest requests under way."""
        requests = {worker: self.own.load[worker] for worker in bits(live)}
        least = min(requests.values())
        if max(requests.values()) - least <= self.imbalance_requests:
            return live
        return sum(1 << worker for worker, count in requests.items() if count == least)

    def node_cost_s(self, node: Node, sums: list[int]) -> float:
        """What each worker of a node is charged: `sums` are prompts, tokens above the node, tokens to its end."""
        prompts, shared, whole = sums
        if not prompts:
            return 0.0
        if self.gpu == "predictor":
            prefill_s = self.predictor.prefill_s(node.context, node.context - node.tokens)
        else:
            prefill_s = GPUS[self.gpu](node.tokens, node.context)
        return (1 - shared / whole) * prompts * prefill_s + self.decode_tokens * self.s_per_token

    def observe(self, event: Event, now: float) -> None:
        CountingRouter.observe(self, event, now)
        if type(event) is Dispatched:
            self._sent(event.request, event.decision.prefill, now)
        elif type(event) is WorkerLost:
            self.tree.drop(event.worker)
            self.recent.lost(event.worker)

    def _sent(self, request: Request, worker: int, now: float) -> None:
        leaf, split = self.tree.insert(chain(request), request.prompt_tokens, now)
        self.recent.add(leaf, now)
        if split is not None:
            self.recent.charge(split, self.node_cost_s)
        for node in leaf.path():
            if node is leaf or not node.workers >> worker & 1:
                node.workers |= 1 << worker
                self.recent.charge(node, self.node_cost_s)


def chain(request: Request) -> tuple:
    """The blocks of a prompt; a prompt without hashes is one block that nobody shares."""
    return request.prefix_blocks or (("request", request.id),)
