"""What a worker can take under a service level agreement (SLA), and what it is predicted to do now.

All from the predictor of a step (`helpers.cost.predictor`), where Dynamo's planner fits regressions of
the same quantities: queued prompt tokens to TTFT, KV tokens to ITL.
"""

from dataclasses import dataclass
from math import ceil, inf

from helpers.cost.predictor import CostPredictor
from helpers.policies.scaling.demand import Demand
from helpers.policies.view import WorkerView


@dataclass(frozen=True, slots=True)
class Latency:
    """What is predicted for the next request on a worker: its own prefill, the queue before it, and the ITL there."""

    own_s: float
    queue_s: float
    itl_s: float

    @property
    def ttft_s(self) -> float:
        """Queue and prefill."""
        return self.queue_s + self.own_s


def scaled(view: WorkerView, factor: float) -> WorkerView:
    """A worker with `factor` times the load, counts rounded up."""
    return view._replace(
        running=ceil(view.running * factor),
        waiting=ceil(view.waiting * factor),
        waiting_tokens=ceil(view.waiting_tokens * factor),
        kv_tokens=ceil(view.kv_tokens * factor),
        kv_used_blocks=ceil(view.kv_used_blocks * factor),
    )


def latency(predictor: CostPredictor, view: WorkerView, demand: Demand, workers: float) -> Latency:
    """The latencies on a worker, of a pool of so many.

    own   = prefill of the mean prompt beside what is decoding
    queue = prefill of what waits
    ITL   = a decode step of what is running; on a mixed worker / (1 - u), as a share u = rate x own / workers
            of its time goes to prefills. Infinite when that is all of it.
    """
    beside = (view.running, view.kv_tokens) if view.role == "mixed" else (0, 0)
    own_s = own_prefill_s(predictor, demand, *beside)
    itl_s = 0.0
    if view.running and view.role != "prefill":
        base, slope = predictor.cost.decode(view.running)
        share = demand.rate_per_s * own_prefill_s(predictor, demand) / workers if view.role == "mixed" else 0.0
        itl_s = (base + slope * view.kv_tokens) / (1 - share) if share < 1 else inf
    return Latency(own_s, predictor.queue_s(view) if view.role != "decode" else 0.0, itl_s)


def own_prefill_s(predictor: CostPredictor, demand: Demand, decodes: int = 0, kv_tokens: int = 0) -> float:
    """Seconds to compute what the caches leave of the mean prompt."""
    prompt, cached = max(1, round(demand.prompt_tokens)), round(demand.cached_tokens)
    return predictor.prefill_s(prompt, min(cached, prompt - 1), decodes, kv_tokens)


def prefill_capacity_per_s(own_s: float, ttft_s: float) -> float:
    """Prefills a second of a worker that keeps its mean TTFT, as of M/D/1: own + u own / (2 (1 - u)) <= TTFT.

    With r = TTFT - own: u = 2 r / (own + 2 r) of its time may be prefill. A prompt that alone takes longer
    than the TTFT keeps it on no fleet; the capacity is then all of the time, for the sake of the others.
    """
    room_s = ttft_s - own_s
    return 1 / own_s if room_s <= 0 else 2 * room_s / (own_s + 2 * room_s) / own_s


def batch_capacity_per_s(
    predictor: CostPredictor,
    demand: Demand,
    itl_s: float,
    kv_tokens: int,
    max_batch: int,
    own_s: float = 0.0,
) -> float:
    """Requests a second that a worker ends at the best batch b that keeps the ITL and fits into `kv_tokens`.

    A request takes `own_s` of prefill (0 on a decode worker) and output x d(b) / b of steps d(b) that decode
    b requests: rate(b) = 1 / (own + output d(b) / b). A share u = rate x own goes to prefills, so that the
    ITL is d(b) / (1 - u). When no batch keeps it, that of one request.
    """
    best = 0.0
    for batch in range(1, max_batch + 1):
        context = batch * demand.context_tokens
        base, slope = predictor.cost.decode(batch)
        step_s = base + slope * context
        rate = 1 / (own_s + demand.output_tokens * step_s / batch)
        if batch == 1 or (context <= kv_tokens and step_s <= itl_s * (1 - rate * own_s)):
            best = max(best, rate)
    return best
