"""llm-d's endpoint picker: filters, then a weighted sum of scorers, then the highest score.

Read in llm-d/llm-d-inference-scheduler at 520af478 (2026-05-17; READMEs of the plugins, deploy/config) and, for the
latency scorer's arithmetic, kubernetes-sigs/gateway-api-inference-extension,
pkg/epp/framework/plugins/scheduling/scorer/latency/plugin.go (9bef71e1).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from random import Random
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.ledger import Ledger, placed_on
from helpers.policies.loads import bits
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, explained, not_negative, parameter
from helpers.policies.view import (
    Decision,
    Dispatched,
    Event,
    Finished,
    KVEvicted,
    KVStored,
    Rejected,
    Views,
    WorkerLost,
    WorkerView,
)
from helpers.policies.zoo import llm_d_scores as scorers
from helpers.policies.zoo.pools import Pools
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of

Seen = dict[int, WorkerView]
Term = tuple[str, float, list[float]]  # the name of a scorer, its weight, the score of each candidate


@dataclass(frozen=True, slots=True)
class LLMD:
    """The highest sum of weight * score among the workers that the filters leave; ties drawn uniformly.

    Scorers, each from 0 to 1 (`helpers.policies.zoo.llm_d_scores`):
    prefix      cached leading blocks / full blocks of the prompt, from KV events. With `prefix_relative` scaled between
                the workers instead, as an earlier precise scorer did (8c16bcc5): then one block that every prompt
                opens with can score 1
    kv          1 - share of the KV blocks in use
    queue       (most - waiting) / (most - fewest)
    load_aware  0.5 * (1 - waiting / load_aware_threshold)
    token_load  1 - prompt tokens in flight / token_load_threshold
    no_hit_lru  for prompts that nobody has a block of: longest without such a prompt first; 0.5 for all others
    latency     predicted headroom: 0.8 TTFT + 0.2 TPOT, the least that still meets the SLO first

    Defaults: prefix 2, kv 1, queue 1 (deploy/config/epp-precise-prefix-cache-config.yaml), the rest off. In a split
    fleet either pool is chosen by the same weights, without kv unless it is set (pd-epp-config.yaml).

    Filters, all off by default, in this order, each of which gives way when it would leave nobody:
    saturation_filter  waiting < 5, KV in use < 0.8 and views not older than 0.2 s (the utilisation detector's filter)
    affinity_gate      only workers with 0.8 of the prompt cached; left open with probability 0.01, and when the best
                       of them is predicted to be more than 5 s slower to the first token than the best of the others
    with latency       only workers predicted to meet the SLO; with probability 0.01, only the others

    `{"prefix_weight": 0, "queue_weight": 0, "kv_weight": 0, "latency_weight": 1, "affinity_gate": True}` routes by
    predicted latency. Our `Predictor` stands in for its online-trained XGBoost models: it knows the cost of a step
    instead of learning it. Of a prefill worker only TTFT is predicted, of a decode worker only TPOT; a bound that the
    SLO does not have counts as 0 s, so that the fastest wins.

    Requests in flight count on both workers of a decision until they end. Not here: the picker that draws by score,
    the admitters (admission), deciding for each request whether to disaggregate, LoRA.
    """

    name: ClassVar[str] = "llm_d"
    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, Finished, Rejected, KVStored, KVEvicted, WorkerLost})
    predictor: CostPredictor | None = None
    slos: SLOs = field(default_factory=SLO)
    block_tokens: int = 512
    prefix_weight: float = parameter(2.0, "weight of the cached share of the prompt")
    kv_weight: float | None = parameter(None, "weight of free KV; none: 1, and 0 in a split fleet")
    queue_weight: float = parameter(1.0, "weight of the shortest queue")
    load_aware_weight: float = parameter(0.0, "weight of 0.5 (1 - waiting / load_aware_threshold)")
    token_load_weight: float = parameter(0.0, "weight of 1 - prompt tokens in flight / token_load_threshold")
    no_hit_lru_weight: float = parameter(0.0, "weight of the longest time without a prompt that nobody had cached")
    latency_weight: float = parameter(0.0, "weight of the predicted headroom; needs a predictor")
    prefix_relative: bool = parameter(False, "scale the prefix score between the workers, as an earlier version did")
    load_aware_threshold: int = parameter(128, "waiting requests that score 0")
    token_load_threshold: int = parameter(4_194_304, "prompt tokens in flight that score 0")
    saturation_filter: bool = parameter(False, "leave out saturated and stale workers, unless all are")
    max_waiting: int = parameter(5, "saturation: waiting requests")
    max_kv_share: float = parameter(0.8, "saturation: share of the KV blocks in use")
    max_age_s: float = parameter(0.2, "saturation: age of a view in seconds")
    affinity_gate: bool = parameter(False, "keep to workers that have the prompt cached; needs a predictor")
    affinity_threshold: float = parameter(0.8, "gate: cached share of the prompt")
    affinity_explore: float = parameter(0.01, "gate: probability of leaving it open")
    affinity_penalty_s: float = parameter(5.0, "gate: predicted seconds to the first token that open it; 0: never")
    ttft_weight: float = parameter(0.8, "latency: weight of the TTFT headroom")
    tpot_weight: float = parameter(0.2, "latency: weight of the TPOT headroom")
    most_headroom: bool = parameter(False, "latency: most headroom first, not least")
    latency_explore: float = parameter(0.01, "latency: probability of trying workers predicted to miss the SLO")
    explain: bool = parameter(False, "put the scores of each candidate in the decision")
    stored: BlockIndex = field(default_factory=BlockIndex, **STATE)
    in_flight: Ledger = field(default_factory=Ledger, **STATE)  # prompt tokens
    _cold: dict[int, None] = field(default_factory=dict, **STATE)  # worker, the longest without a cold prompt first
    _pools: Pools = field(default_factory=Pools, **STATE)

    def __post_init__(self) -> None:
        names = [one.name for one in fields(self) if one.name.endswith(("_weight", "_s", "_share"))]
        not_negative(self.name, **{name: getattr(self, name) for name in names if getattr(self, name) is not None})
        for name in ("affinity_threshold", "affinity_explore", "latency_explore"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"router llm_d: {name} is {getattr(self, name)}; give a number from 0 to 1")
        for name in ("block_tokens", "load_aware_threshold", "token_load_threshold", "max_waiting"):
            if getattr(self, name) < 1:
                raise InputError(f"router llm_d: {name} is {getattr(self, name)}; give 1 or more")
        if not self.ttft_weight + self.tpot_weight > 0:
            raise InputError("router llm_d: ttft_weight and tpot_weight are both 0; give one of them a weight")
        if (self.latency_weight or self.affinity_gate) and self.predictor is None:
            raise InputError("router llm_d predicts times; give it a predictor, such as Fleet(...).predictor()")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        pools = self._pools
        if pools.see(views):
            self.in_flight.grow(pools.size)
        worker, names, terms = self._choose(request, pools.prefill, pools.prefill_mask, views, rng)
        decode = worker
        if worker not in pools.mixed:
            decode, _, handed = self._choose(request, pools.decode, pools.decode_mask, views, rng)
            terms += handed
        decision = Decision(worker, decode)
        return explained(decision, names, terms) if self.explain else decision

    def _choose(
        self, request: Request, workers: tuple[int, ...], mask: int, views: Views, rng: Random
    ) -> tuple[int, list[str], list[tuple]]:
        """A worker of one pool; when they are wanted, the names of the scores and each candidate with its own."""
        seen = {worker: views[worker] for worker in workers}
        depths = self._depths(request, mask)
        headroom = self._headrooms(request, seen, depths)
        kept = self._healthy(seen) if self.saturation_filter else list(workers)
        if self.affinity_gate:
            kept = self._sticky(request, kept, depths, headroom, rng)
        if self.latency_weight:
            kept = self._tier(kept, headroom, rng)
        terms = self._terms(request, kept, seen, depths, headroom)
        totals = [sum(parts) for parts in zip(*([w * s for s in score] for _, w, score in terms), strict=True)]
        totals = totals or [0.0] * len(kept)
        best = max(totals)
        tied = [worker for worker, total in zip(kept, totals, strict=True) if total == best]
        chosen = tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]
        if not self.explain:
            return chosen, [], []
        names = [*(name for name, _, _ in terms), "score"]
        return chosen, names, list(zip(kept, *(score for _, _, score in terms), totals, strict=True))

    def _terms(
        self, request: Request, kept: list[int], seen: Seen, depths: dict[int, int], headroom: Callable
    ) -> list[Term]:
        """The scorers that have a weight, with the score of each candidate."""
        kv_weight = (0.0 if self._pools.split else 1.0) if self.kv_weight is None else self.kv_weight
        terms: list[Term] = []
        if self.prefix_weight:
            matched = [depths.get(worker, 0) for worker in kept]
            score = scorers.relative(matched) if self.prefix_relative else scorers.shares(matched, self._full(request))
            terms.append(("prefix", self.prefix_weight, score))
        if kv_weight:
            used = [1 - seen[worker].kv_used_blocks / seen[worker].kv_total_blocks for worker in kept]
            terms.append(("kv", kv_weight, used))
        if self.queue_weight or self.load_aware_weight:
            waiting = [seen[worker].waiting for worker in kept]
            if self.queue_weight:
                terms.append(("queue", self.queue_weight, scorers.queue(waiting)))
            if self.load_aware_weight:
                score = scorers.load_aware(waiting, self.load_aware_threshold)
                terms.append(("load_aware", self.load_aware_weight, score))
        if self.token_load_weight:
            tokens = [self.in_flight.amount[worker] for worker in kept]
            score = scorers.token_load(tokens, self.token_load_threshold)
            terms.append(("token_load", self.token_load_weight, score))
        if self.no_hit_lru_weight:
            score = [0.5] * len(kept) if depths else scorers.least_recently_cold(kept, list(self._cold))
            terms.append(("no_hit_lru", self.no_hit_lru_weight, score))
        if self.latency_weight:
            left = [headroom(worker) for worker in kept]
            score = scorers.latency(left, self.ttft_weight, self.tpot_weight, self.most_headroom)
            terms.append(("latency", self.latency_weight, score))
        return terms

    def _healthy(self, seen: Seen) -> list[int]:
        """The workers that are neither saturated nor stale, all when none is left."""
        kept = [
            worker
            for worker, view in seen.items()
            if view.age_s <= self.max_age_s
            and view.waiting < self.max_waiting
            and view.kv_used_blocks < self.max_kv_share * view.kv_total_blocks
        ]
        return kept or list(seen)

    def _sticky(
        self, request: Request, kept: list[int], depths: dict[int, int], headroom: Callable, rng: Random
    ) -> list[int]:
        """The workers that have most of the prompt cached, all when the gate is open or none has."""
        full = self._full(request)
        sticky = [w for w in kept if full and depths.get(w, 0) / full >= self.affinity_threshold]
        if not sticky or len(sticky) == len(kept) or rng.random() < self.affinity_explore:
            return kept
        if self.affinity_penalty_s:
            # The SLO is the same for all, so the difference of two headrooms is that of the predicted TTFTs.
            best = max(headroom(worker).ttft_s for worker in sticky)
            other = max(headroom(worker).ttft_s for worker in kept if worker not in sticky)
            if other - best > self.affinity_penalty_s:
                return kept
        return sticky

    def _tier(self, kept: list[int], headroom: Callable, rng: Random) -> list[int]:
        """The workers predicted to meet the SLO, now and then those that are not; all when they are all alike."""
        met = [worker for worker in kept if headroom(worker).met]
        if not met or len(met) == len(kept):
            return kept
        return [worker for worker in kept if worker not in met] if rng.random() < self.latency_explore else met

    def _headrooms(self, request: Request, seen: Seen, depths: dict[int, int]) -> Callable[[int], scorers.Headroom]:
        """The predicted headroom of a worker, computed when it is first asked for."""
        known: dict[int, scorers.Headroom] = {}

        def headroom(worker: int) -> scorers.Headroom:
            if worker not in known:
                known[worker] = self._predict(request, seen[worker], depths.get(worker, 0))
            return known[worker]

        return headroom

    def _predict(self, request: Request, view: WorkerView, depth: int) -> scorers.Headroom:
        slo, ttft_s, tpot_s = slo_of(request, self.slos), 0.0, 0.0
        if view.role != "decode":
            ttft_s = (slo.ttft_s or 0.0) - self.predictor.ttft_s(request, view, depth * self.block_tokens)
        if view.role != "prefill":
            tpot_s = (slo.tpot_s or 0.0) - self.predictor.tpot_s(request, view)
        return scorers.Headroom(ttft_s, tpot_s, self.in_flight.requests[view.worker])

    def _full(self, request: Request) -> int:
        """The full blocks of a prompt."""
        return min(request.prompt_tokens // self.block_tokens, len(request.prefix_blocks))

    def _depths(self, request: Request, live: int) -> dict[int, int]:
        """Cached leading blocks of the prompt by worker of the mask `live`; those without any are left out."""
        whole = request.prefix_blocks[: self._full(request)]
        return {worker: depth for depth, mask in self.stored.groups(whole, live) if depth for worker in bits(mask)}

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is KVStored:
            self.stored.store(event.worker, event.blocks)
        elif kind is KVEvicted:
            self.stored.evict(event.worker, event.blocks)
        elif kind is Dispatched:
            self._dispatched(event.request, event.decision)
        elif kind is Finished or kind is Rejected:
            self.in_flight.remove(event.request.id)
        elif kind is WorkerLost:
            self.in_flight.lost(event.worker)
            self.stored.drop(event.worker)
            self._cold.pop(event.worker, None)

    def _dispatched(self, request: Request, decision: Decision) -> None:
        workers = placed_on(decision.prefill, decision.decode)
        self.in_flight.add(request.id, workers, request.prompt_tokens)
        if self.no_hit_lru_weight and not self._depths(request, self._pools.prefill_mask):
            for worker in workers:
                self._cold.pop(worker, None)
                self._cold[worker] = None
