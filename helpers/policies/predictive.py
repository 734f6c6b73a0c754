"""The worker with the least predicted TTFT, from its view and its cached prefix; on request TPOT counts too."""

from collections import deque
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import ClassVar, NamedTuple

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.loads import bits
from helpers.policies.pairing import Pairing
from helpers.policies.prefix_index import BlockIndex
from helpers.policies.routing import STATE, LiveMask, candidates, explained, not_negative, parameter
from helpers.policies.view import Decision, Dispatched, Event, KVEvicted, KVStored, Views, WorkerLost, WorkerView
from helpers.workload.request import Request
from helpers.workload.slo import SLO, SLOs, slo_of


class Unseen:
    """What this router has sent to each worker that a view of it is too old to show."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[int, deque[tuple[float, int]]] = {}  # worker -> (time, tokens), oldest first

    def add(self, worker: int, tokens: int, now: float) -> None:
        """A request with `tokens` of work for `worker` was sent."""
        self._sent.setdefault(worker, deque()).append((now, tokens))

    def since(self, worker: int, time: float) -> tuple[int, int]:
        """(requests, tokens) sent to `worker` after `time`. What is older is forgotten: no view goes back in time."""
        sent = self._sent.get(worker)
        if not sent:
            return 0, 0
        while sent and sent[0][0] <= time:
            sent.popleft()
        return len(sent), sum(tokens for _, tokens in sent)

    def lost(self, worker: int) -> None:
        """`worker` is gone, and what was sent there."""
        self._sent.pop(worker, None)


class Prediction(NamedTuple):
    """The terms of one worker, in seconds; the least score wins, then the lowest id."""

    score_s: float
    worker: int
    ttft_s: float
    tpot_excess_s: float


@dataclass(frozen=True, slots=True)
class PredictedTTFT:
    """argmin over the prefill workers of TTFT + `tpot_weight` * max(0, TPOT - SLO), the lowest id among equals.

    TTFT = queue + prefill of what is not cached, by the predictor, from the worker's view and the prefix that KV
    events say it holds; TPOT = a decode step with the request, on the worker that would decode it. A class without
    a TPOT SLO has no excess. `tpot_weight` counts tokens: at the expected output length the score is seconds of the
    whole response, at 0 it is TTFT alone.

    A mixed worker decodes what it prefills. After a prefill worker, the decode worker is the one with the least
    transfer + TPOT, which is the time from the first token to the second, the lowest id among equals.

    With `own_dispatches` a view is corrected for what this router has sent since it was taken: prompt tokens that
    were not cached are added to `waiting_tokens`, the request to `waiting`. What has been computed since is not taken
    off; a view of this moment (age 0) needs no correction. On a split fleet the prompts on their way to a decode
    worker (`pairing.on_the_way`), which no view of it shows however new, are added to its `kv_tokens` and `running`.
    Several front ends each know only their own.
    """

    name: ClassVar[str] = "predicted_ttft"
    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, KVStored, KVEvicted, WorkerLost})
    predictor: CostPredictor
    slos: SLOs = field(default_factory=SLO)
    block_tokens: int = 512
    tpot_weight: float = parameter(0.0, "output tokens whose predicted excess over the TPOT SLO counts as TTFT")
    own_dispatches: bool = parameter(True, "add to a view what was sent there since it was taken")
    explain: bool = parameter(False, "put the terms of each worker in the decision")
    index: BlockIndex = field(default_factory=BlockIndex, **STATE)
    prefills: Unseen = field(default_factory=Unseen, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)  # for what is on the way; the choice is its own
    _mask: LiveMask = field(default_factory=LiveMask, **STATE)

    def __post_init__(self) -> None:
        if self.predictor is None:
            raise InputError(f"router {self.name} predicts times; give it a predictor, such as Fleet(...).predictor()")
        not_negative(self.name, tpot_weight=self.tpot_weight)
        if self.block_tokens < 1:
            raise InputError(f"router {self.name}: block_tokens is {self.block_tokens}; give 1 or more")

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        found = self.predictions(request, views, now, self.explain)
        best = min(found).worker
        # A mixed worker takes both parts, and so is among those that decode.
        decision = Decision(best, best if best in views.decode else self.decode_worker(request, views, best, now))
        if not self.explain:
            return decision
        terms = [
            (one.worker, one.ttft_s, one.tpot_excess_s, one.score_s)
            for one in sorted(found, key=lambda one: one.worker)
        ]
        return explained(decision, ("ttft_s", "tpot_excess_s", "score_s"), terms)

    def predictions(self, request: Request, views: Views, now: float, whole: bool = True) -> list[Prediction]:
        """The terms of every live prefill worker; unless `whole`, without those whose queue alone is too long."""
        found, best_s = [], inf
        for queue_s, _, view, cached in sorted(self.queues(request, views, now)):
            if queue_s > best_s and not whole:
                break
            ttft_s = queue_s + self.predictor.service_s(request, view, cached)
            excess_s = self.excess_s(request, views, view, now) if self.tpot_weight else 0.0
            found.append(Prediction(ttft_s + self.tpot_weight * excess_s, view.worker, ttft_s, excess_s))
            best_s = min(best_s, found[-1].score_s)
        return found

    def queues(self, request: Request, views: Views, now: float) -> list[tuple[float, int, WorkerView, int]]:
        """(queue in seconds, worker, its view, cached tokens) of every live prefill worker."""
        live = self._mask(candidates(views))
        if not views.decode:
            raise InputError("no live worker takes decodes; give the fleet a mixed or a decode worker")
        queue_s, found = self.predictor.queue_s, []
        for depth, mask in self.index.groups(request.prefix_blocks, live):
            cached = self.cached(request, depth)
            for worker in bits(mask):
                view = self.seen(views[worker], now)
                found.append((queue_s(view), worker, view, cached))
        return found

    def excess_s(self, request: Request, views: Views, view: WorkerView, now: float) -> float:
        """Predicted TPOT above its SLO where the request would decode, 0 without one."""
        bound_s = slo_of(request, self.slos).tpot_s
        if bound_s is None:
            return 0.0
        if view.role != "mixed":
            view = self.seen(views[self.decode_worker(request, views, view.worker, now)], now)
        return max(0.0, self.predictor.tpot_s(request, view) - bound_s)

    def decode_worker(self, request: Request, views: Views, prefill: int, now: float) -> int:
        """The worker that decodes what `prefill` computes."""
        second_s = []
        for worker in views.decode:
            tpot_s = self.predictor.tpot_s(request, self.seen(views[worker], now))
            second_s.append((self.predictor.transfer_s(request, prefill, worker) + tpot_s, worker))
        return min(second_s)[1]

    def seen(self, view: WorkerView, now: float) -> WorkerView:
        """The view of a worker with what was sent there since it was taken."""
        if not self.own_dispatches:
            return view
        taken_s = now - view.age_s
        waiting, waiting_tokens = self.prefills.since(view.worker, taken_s)
        on_the_way = self.pairing.on_the_way
        running, kv_tokens = on_the_way.to(view, now) if on_the_way else (0, 0)
        if not waiting and not running:
            return view
        return view._replace(
            waiting=view.waiting + waiting,
            waiting_tokens=view.waiting_tokens + waiting_tokens,
            running=view.running + running,
            kv_tokens=view.kv_tokens + kv_tokens,
        )

    def cached(self, request: Request, depth: int) -> int:
        """Tokens of the first `depth` blocks of the prompt; its last token is always computed."""
        return min(depth * self.block_tokens, request.prompt_tokens - 1)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is KVStored:
            self.index.store(event.worker, event.blocks)
        elif kind is Dispatched:
            if self.own_dispatches:
                self._sent(event.request, event.decision, now)
        elif kind is KVEvicted:
            self.index.evict(event.worker, event.blocks)
        elif kind is WorkerLost:
            self.index.drop(event.worker)
            self.prefills.lost(event.worker)

    def _sent(self, request: Request, decision: Decision, now: float) -> None:
        depth = self.index.depth(decision.prefill, request.prefix_blocks)
        self.prefills.add(decision.prefill, request.prompt_tokens - self.cached(request, depth), now)
