"""The slices that the simulator may learn from, and the terms that live runs of them give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from helpers.bench.fidelity.ahead import lead_s
from helpers.bench.fidelity.plan import LEARNT_FROM, SPLIT, Slice, described
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
    """What one worker sustains, and the terms of each regime (`Slice.regime`) that something was learnt from."""

    sustained_per_s: float
    terms: Mapping[str, Terms]

    def of(self, one: Slice) -> Terms:
        """The terms for the regime of a slice."""
        return self.terms[one.regime]


def slices_for(plan: Sequence[Slice]) -> tuple[Slice, ...]:
    """What is served to learn about the fleets of a plan, besides the burst; raises `InputError` for unknown ones.

    For a fleet that is full these are the usual slice and its own: `learn` needs both.
    """
    regimes = {regime for one in plan for regime in (one.fleet, one.regime)}
    for regime in sorted(regimes - LEARNT_FROM.keys()):
        raise InputError(f"nothing is learnt about a fleet {regime}; serve one of {'; '.join(LEARNT_FROM)}")
    return tuple(one for regime, slices in LEARNT_FROM.items() if regime in regimes for one in slices)


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
    slices: Mapping[str, Sequence[Slice]] = LEARNT_FROM,
    ahead: bool = False,
) -> Learned:
    """The terms that runs of these slices give, by the name of the slice; raises `InputError` for too few requests.

    A fleet that is full has a cost of its own. Hardly a request meets an idle worker there, so that all else is what
    was learnt of the fleet before.
    """
    terms: dict[str, Terms] = {}
    for regime, some in slices.items():
        found = [run for one in some for run in runs.get(one.name, ())]
        if found and regime == some[0].fleet:
            terms[regime] = terms_of(found, ahead)
        elif found:
            terms[regime] = full_terms(found, terms[some[0].fleet], ahead)
    return Learned(sustained_per_s, terms)


def full_terms(runs: Sequence[ClusterRun], known: Terms, ahead: bool = False) -> Terms:
    """Terms with the cost of the steps of these runs, and what else is `known` of the fleet."""
    samples = [s for run in runs for one in gapped(run) for s in one]
    cost = step_cost(samples, first_rows=not ahead)
    return replace(known, cost=cost, counts={**known.counts, "steps": len(samples)}, bias=bias_by_kind(cost, samples))


def terms_of(runs: Sequence[ClusterRun], ahead: bool = False) -> Terms:
    """The terms of one fleet; a link where it is split. `ahead`: its workers launch a step while another one runs.

    Raises `InputError` where too few requests met an idle worker.
    """
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
