"""What the simulator has to know of a live cluster, measured in runs of that cluster on this machine.

Every term is read from the records of runs. The cost of a step holds its operations and the host's work: the gap before
a step that began while its worker had something to do. What is no part of steps is read from requests that met an idle
worker: the way from the client to the first step, and the hand-over of KV. The simulator has the gap in every step, so
both are less one gap.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from helpers.cost.first_rows import FirstRowsCost
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import KINDS, StepSample
from helpers.cost.transfer import Link
from helpers.cost.warm import Recent, WarmCost, seconds_of
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, StepLog, Timeline

LEAST_IDLE = 10  # requests that met an idle worker, for a term that is read from them
MODE = "batched"  # the mover of the live cluster, and the simulator's mode of the same name
LEAST_S = 1e-9


@dataclass(frozen=True)
class Terms:
    """The cost of a step, the way to a worker, the link between two; `counts` says how much each was read from.

    `bias` by kind of step: how much longer those are in all by `cost` than they took. `prefill_cost` is that of
    workers that only prefill; None in a fleet without any, and in records from before it was told apart.
    """

    cost: AffineCost
    hop_s: float
    link: Link | None
    counts: dict[str, int]
    bias: dict[str, float]
    prefill_cost: AffineCost | None = None

    @property
    def costs(self) -> dict[str, AffineCost]:
        """Of all workers, and of those with one of their own, by the name in a record."""
        own = {"prefill_cost": self.prefill_cost} if self.prefill_cost else {}
        return {"cost": self.cost, **own}

    def biases(self, samples: Sequence[StepSample]) -> dict[str, float]:
        """How much longer steps are in all than they took, by kind, each by the cost that it is simulated with."""
        prefills = [s for s in samples if s.kind == "prefill"]
        return bias_by_kind(self.cost, samples) | bias_by_kind(self.prefill_cost or self.cost, prefills)

    def slowed(self, factor: float) -> "Terms":
        """With steps that take `factor` times as long."""
        return replace(self, **{name: times(cost, factor) for name, cost in self.costs.items()})

    def record(self) -> dict:
        """As JSON."""
        costs = {name: {k: v for k, v in asdict(cost).items() if k != "kind"} for name, cost in self.costs.items()}
        link = asdict(self.link) if self.link else None
        return {**costs, "hop_s": self.hop_s, "link": link, "counts": self.counts, "bias": self.bias}


class Presence:
    """When requests were at a worker: from their dispatch, or the arrival of their KV, until they left it."""

    def __init__(self, timelines: Sequence[Timeline], worker: int) -> None:
        stays = [stay for t in timelines if (stay := stay_at(t, worker))]
        self._came, self._left = sorted(a for a, _ in stays), sorted(b for _, b in stays)

    def count(self, time_s: float) -> int:
        """How many had come before a time and left after it."""
        return bisect_left(self._came, time_s) - bisect_right(self._left, time_s)


def stay_at(t: Timeline, worker: int) -> tuple[float, float] | None:
    """The first and the last moment of a finished request at a worker; None when it was not there."""
    if t.status != "finished":
        return None
    if t.prefill_worker == worker:
        return t.dispatched_s, t.finished_s if t.decode_worker == worker else t.first_token_s
    if t.decode_worker == worker and t.transfer_end_s is not None:
        return t.transfer_end_s, t.finished_s
    return None


def ends(log: StepLog) -> list[float]:
    """When each row of a live step log ended."""
    return [start + base for start, base in zip(log.start_s, log.base_s, strict=True)]


def with_gaps(log: EventLog, worker: int, samples: Sequence[StepSample]) -> list[StepSample]:
    """The steps of a worker with what its host took before each, where somebody was there all the while, and with the
    prompt tokens that it had just computed.

    Raises `InputError` when the samples are not those of the log.
    """
    rows = log.step_logs[worker]
    if len(rows) != len(samples):
        raise InputError(f"worker {worker} has {len(rows)} rows and {len(samples)} samples; take those of one run")
    present, ended, found = Presence(log.timelines, worker), ends(rows), []
    for i, (start_s, sample) in enumerate(zip(rows.start_s, samples, strict=True)):
        went_on = i > 0 and present.count(ended[i - 1]) > 0
        found.append(sample._replace(gap_s=max(0.0, start_s - ended[i - 1]) if went_on else 0.0))
    return warmed(rows.start_s, found)


def warmed(starts_s: Sequence[float], samples: Sequence[StepSample]) -> list[StepSample]:
    """Steps that began then with the prompt tokens that their worker had just computed."""
    recent, found = Recent(), []
    for start_s, sample in zip(starts_s, samples, strict=True):
        found.append(sample._replace(recent_tokens=recent.left(start_s)))
        if sample.chunks:
            recent = recent.after(sum(n for n, _ in sample.chunks), start_s + sample.seconds)
    return found


def step_cost(samples: Sequence[StepSample], kind: type[AffineCost] = AffineCost) -> AffineCost:
    """The fitted cost of this `kind`, scaled so that the steps it was fitted to take as long in all as they took.

    The fit makes relative errors small, and so is short of the mean where some steps are disturbed; latencies and
    throughput are sums of steps, and need the mean.
    """
    from helpers.cost.fit import fit

    cost = fit(samples, blocks=min(40, len(samples) // 2), draws=2, kind=kind).cost
    return times(cost, 1 / (1 + bias_of(cost, samples)))


def cost_from(kept: Mapping[str, float]) -> AffineCost:
    """The cost that `Terms.record` wrote."""
    kinds = {"per_first_row_s": FirstRowsCost, "per_recent_token_s": WarmCost}
    return next((kind for name, kind in kinds.items() if name in kept), AffineCost)(**kept)


def bias_of(cost: AffineCost, samples: Sequence[StepSample]) -> float:
    """How much longer steps are in all by a cost than they took, as a share."""
    said_s = math.fsum(seconds_of(cost, s) for s in samples)
    return said_s / math.fsum(s.period_s for s in samples) - 1


def bias_by_kind(cost: AffineCost, samples: Sequence[StepSample]) -> dict[str, float]:
    """The same for each kind of step that is there."""
    by_kind = {kind: [s for s in samples if s.kind == kind] for kind in KINDS}
    return {kind: bias_of(cost, some) for kind, some in by_kind.items() if some}


def times(cost: AffineCost, factor: float) -> AffineCost:
    """A cost that is `factor` times as high."""
    return replace(cost, **{k: v * factor for k, v in asdict(cost).items() if k != "kind"})


def gap_of(samples: Sequence[StepSample], chunks: bool) -> float:
    """The mean gap before steps with chunks, or without, where there was one; 0 where there was none."""
    gaps = [s.gap_s for s in samples if s.gap_s and bool(s.chunks) is chunks]
    return math.fsum(gaps) / len(gaps) if gaps else 0.0


def mean_gap_s(samples: Sequence[StepSample]) -> float:
    """The mean gap before the steps with chunks, those without a gap among them: what the cost of a step has of it."""
    gaps = [s.gap_s for s in samples if s.chunks]
    return math.fsum(gaps) / len(gaps) if gaps else 0.0


def hops_s(log: EventLog) -> list[float]:
    """From the arrival of each request that met an idle worker to the start of its first step."""
    found = []
    for worker, rows in enumerate(log.step_logs):
        present, ended = Presence(log.timelines, worker), ends(rows)
        row_of = {start: i for i, start in enumerate(rows.start_s)}
        for t in log.timelines:
            i = row_of.get(t.prefill_start_s) if t.prefill_worker == worker and t.status == "finished" else None
            if i is not None and present.count(t.arrival_s) == 0 and (i == 0 or ended[i - 1] <= t.arrival_s):
                found.append(t.prefill_start_s - t.arrival_s)
    return found


def hand_overs(log: EventLog) -> list[tuple[int, float]]:
    """(tokens, seconds) of each hand-over to an idle worker: from the first token to the start of the next step."""
    found = []
    for worker, info in enumerate(log.workers):
        if info.role != "decode":
            continue
        rows = log.step_logs[worker]
        present, ended = Presence(log.timelines, worker), ends(rows)
        for t in log.timelines:
            if t.decode_worker != worker or t.status != "finished" or not t.spans:
                continue
            i = t.spans[0].first
            if present.count(t.first_token_s) == 0 and (i == 0 or ended[i - 1] <= t.first_token_s):
                found.append((t.prompt_tokens, rows.start_s[i] - t.first_token_s))
    return found


def link_of(found: Sequence[tuple[int, float]], kv_bytes_per_token: float, gap_s: float = 0.0) -> Link:
    """The latency (less a gap) and the rate that fit hand-overs with the least squared error, neither of them below 0.

    Bytes are those of the simulator's model: what counts is the time of a token.
    """
    n, tokens, seconds = len(found), [float(t) for t, _ in found], [s for _, s in found]
    mean_t, mean_s = math.fsum(tokens) / n, math.fsum(seconds) / n
    spread = math.fsum((t - mean_t) ** 2 for t in tokens)
    slope = math.fsum((t - mean_t) * (s - mean_s) for t, s in found) / spread if spread else 0.0
    slope = min(max(slope, LEAST_S), mean_s / mean_t if mean_s > 0 else LEAST_S)
    slope = max(slope, LEAST_S)
    return Link(max(0.0, mean_s - slope * mean_t - gap_s), kv_bytes_per_token / slope, MODE)
