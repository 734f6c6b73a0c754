"""The slices that the simulator may learn from, served live, and the terms that they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from helpers.bench.fidelity.plan import BURST, LIGHT, ONE, TWO, Slice, described
from helpers.bench.fidelity.terms import (
    LEAST_IDLE,
    Terms,
    bias_by_kind,
    gap_of,
    hand_overs,
    hops_s,
    link_of,
    step_cost,
    with_gaps,
)
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterRun


@dataclass(frozen=True)
class Learned:
    """What one worker sustains, and the terms of fleets by their number of workers."""

    sustained_per_s: float
    terms: Mapping[int, Terms]

    def of(self, one: Slice) -> Terms:
        """The terms for the fleet of a slice; those of the largest fleet that was served where it is larger."""
        return self.terms[min(one.workers, max(self.terms))]


def slices_for(workers: int) -> tuple[Slice, ...]:
    """What is served to learn about fleets of up to so many workers, besides the burst."""
    return (ONE,) if workers == 1 else (ONE, TWO, LIGHT)


def sustained(run: ClusterRun) -> float:
    """Requests a second between the first and the last quarter of a burst; raises `InputError` for too few."""
    ended = sorted(t.finished_s for t in run.timelines if t.status == "finished")
    first, last = len(ended) // 4, 3 * len(ended) // 4
    if last - first < 2:
        raise InputError(f"{len(ended)} requests of the burst finished, too few for a rate; let more come")
    return (last - first) / (ended[last] - ended[first])


def learn(sustained_per_s: float, runs: Mapping[str, Sequence[ClusterRun]]) -> Learned:
    """The terms that runs of the slices give, by the name of the slice; raises `InputError` for too few requests."""
    one, two, light = (runs.get(which.name, ()) for which in (ONE, TWO, LIGHT))
    alone = _terms([*runs[BURST.name], *one], light or one)
    if not two:
        return Learned(sustained_per_s, {1: alone})
    return Learned(sustained_per_s, {1: alone, 2: _terms(two, light, light)})


def _terms(steps_of: Sequence[ClusterRun], idle: Sequence[ClusterRun], split: Sequence[ClusterRun] = ()) -> Terms:
    samples = [s for run in steps_of for one in gapped(run) for s in one]
    hops = [hop for run in idle for hop in hops_s(run.log)]
    moved = [one for run in split for one in hand_overs(run.log)]
    counts = {"steps": len(samples), "idle arrivals": len(hops)} | ({"hand-overs": len(moved)} if split else {})
    if len(hops) < LEAST_IDLE or (split and len(moved) < LEAST_IDLE):
        raise InputError(
            f"{len(hops)} requests and {len(moved)} hand-overs met an idle worker, and a term needs {LEAST_IDLE}; "
            "calibrate with more requests"
        )
    hop_s = max(0.0, median(hops) - gap_of(samples, chunks=True))
    kv_bytes = described(LIGHT.fleet).served_model.kv_bytes_per_token()
    link = link_of(moved, kv_bytes, gap_of(samples, chunks=False)) if split else None
    cost = step_cost(samples)
    return Terms(cost, hop_s, link, counts, bias_by_kind(cost, samples))


def gapped(run: ClusterRun) -> list[list[StepSample]]:
    """The steps of each worker of a run, with what the host took before them."""
    return [with_gaps(run.log, worker, samples) for worker, samples in enumerate(run.worker_samples)]
