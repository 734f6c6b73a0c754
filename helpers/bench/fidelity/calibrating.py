"""The slices that the simulator may learn from, and the terms that live runs of them give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from helpers.bench.fidelity.ahead import lead_s
from helpers.bench.fidelity.plan import ONE, SPLIT, TWO, Slice, described
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
from helpers.serving.run import Run


@dataclass(frozen=True)
class Learned:
    """What one worker sustains, and the terms of each fleet that something was learnt from."""

    sustained_per_s: float
    terms: Mapping[str, Terms]

    def of(self, one: Slice) -> Terms:
        """The terms for the fleet of a slice."""
        return self.terms[one.fleet]


def slices_for(plan: Sequence[Slice]) -> tuple[Slice, ...]:
    """What is served to learn about the fleets of a plan, besides the burst; raises `InputError` for unknown ones."""
    fleets = {one.fleet for one in plan}
    known = {one.fleet: one for one in (ONE, TWO, SPLIT)}
    for fleet in fleets - known.keys():
        raise InputError(f"nothing is learnt about a fleet {fleet}; serve one of {', '.join(known)}")
    return tuple(one for fleet, one in known.items() if fleet in fleets)


def sustained(run: Run) -> float:
    """Requests a second between the first and the last quarter of a burst; raises `InputError` for too few."""
    ended = sorted(t.finished_s for t in run.timelines if t.status == "finished")
    first, last = len(ended) // 4, 3 * len(ended) // 4
    if last - first < 2:
        raise InputError(f"{len(ended)} requests of the burst finished, too few for a rate; let more come")
    return (last - first) / (ended[last] - ended[first])


def learn(
    sustained_per_s: float,
    runs: Mapping[str, Sequence[ClusterRun]],
    slices: Sequence[Slice] = (ONE, TWO, SPLIT),
    ahead: bool = False,
) -> Learned:
    """The terms that runs of these slices give, by the name of the slice; raises `InputError` for too few requests."""
    every: dict[str, list[ClusterRun]] = {}
    for one in slices:
        if one.name in runs:
            every.setdefault(one.fleet, []).extend(runs[one.name])
    return Learned(sustained_per_s, {fleet: terms_of(found, ahead) for fleet, found in every.items()})


def terms_of(runs: Sequence[ClusterRun], ahead: bool = False) -> Terms:
    """The terms of one fleet; a link where it is split. `ahead`: its workers launch a step while another one runs."""
    samples = [s for run in runs for one in gapped(run) for s in one]
    hops = [hop for run in runs for hop in hops_s(run.log)]
    moved = [one for run in runs for one in hand_overs(run.log)]
    split = any(info.role == "decode" for run in runs for info in run.log.workers)
    if (not ahead and len(hops) < LEAST_IDLE) or (split and len(moved) < LEAST_IDLE):
        raise InputError(
            f"{len(hops)} requests and {len(moved)} hand-overs met an idle worker, and a term needs {LEAST_IDLE}; "
            "calibrate with more requests"
        )
    cost = step_cost(samples, first_rows=not ahead)  # ahead is a GPU, which does few rows as fast as one
    kv_bytes = described(SPLIT.fleet).served_model.kv_bytes_per_token()
    # Means of both, as the cost of steps keeps theirs.
    hop_s = lead_s([run.log for run in runs]) if ahead else fmean(hops) - gap_of(samples, chunks=True)
    return Terms(
        cost,
        max(0.0, hop_s),
        link_of(moved, kv_bytes, gap_of(samples, chunks=False)) if split else None,
        {"steps": len(samples), "idle arrivals": len(hops), "hand-overs": len(moved)},
        bias_by_kind(cost, samples),
    )


def gapped(run: ClusterRun) -> list[list[StepSample]]:
    """The steps of each worker of a run, with what the host took before them."""
    return [with_gaps(run.log, worker, samples) for worker, samples in enumerate(run.worker_samples)]
