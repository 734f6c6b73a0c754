"""The slices that the simulator may learn from, and the terms that live runs of them give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    mean_gap_s,
    step_cost,
    with_gaps,
)
from helpers.cost.first_rows import FirstRowsCost
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.cost.warm import WarmCost
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterRun
from helpers.serving.run import Run


@dataclass(frozen=True)
class Learned:
    """What one worker sustains, and the terms of each regime (`Slice.regime`) that something was learnt from.

    `smaller` by fleet: terms without the steps of a burst, where it taught the fleet's terms too.
    """

    sustained_per_s: float
    terms: Mapping[str, Terms]
    smaller: Mapping[str, Terms] = field(default_factory=dict)

    def of(self, one: Slice) -> Terms:
        """The terms for the regime of a slice."""
        return self.terms[one.regime]

    def without_large_steps(self, one: Slice) -> Terms:
        """Those of its fleet that were learnt from no other steps than those of the fleet's usual slice."""
        return self.smaller.get(one.fleet, self.terms[one.fleet])


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
    burst: Sequence[StepSample] = (),
) -> Learned:
    """The terms that runs of these slices give, by the name of the slice; raises `InputError` for too few requests.

    A fleet that is full has a cost of its own. Hardly a request meets an idle worker there, so that all else is what
    was learnt of the fleet before. The steps of a `burst` have the largest batches; where they are given, the cost of
    fleets whose workers do all of a request's work is fitted to them too.
    """
    terms: dict[str, Terms] = {}
    smaller: dict[str, Terms] = {}
    for regime, some in slices.items():
        found, fleet = [run for one in some for run in runs.get(one.name, ())], some[0].fleet
        if found and regime == fleet:
            terms[regime] = terms_of(found, ahead)
            if burst and not described(fleet).split:
                smaller[fleet] = terms[regime]
                terms[regime] = larger_terms([*burst, *steps_of(found)], smaller[fleet], ahead)
        elif found:
            terms[regime] = larger_terms(steps_of(found), terms[fleet], ahead)
    return Learned(sustained_per_s, terms, smaller)


def larger_terms(samples: Sequence[StepSample], known: Terms, ahead: bool = False) -> Terms:
    """Terms with the cost of these steps, and what else is `known` of the fleet."""
    cost = step_cost(samples, kind_of(ahead))
    return replace(known, cost=cost, counts={**known.counts, "steps": len(samples)}, bias=bias_by_kind(cost, samples))


def terms_of(runs: Sequence[ClusterRun], ahead: bool = False) -> Terms:
    """The terms of one fleet; a link where it is split. `ahead`: its workers launch a step while another one runs.

    Raises `InputError` where too few requests met an idle worker.
    """
    samples = steps_of(runs)
    hops = [hop for run in runs for hop in hops_s(run.log)]
    moved = [one for run in runs for one in hand_overs(run.log)]
    split = any(info.role == "decode" for run in runs for info in run.log.workers)
    if (not ahead and len(hops) < LEAST_IDLE) or (split and len(moved) < LEAST_IDLE):
        raise InputError(
            f"{len(hops)} requests and {len(moved)} hand-overs met an idle worker, and a term needs {LEAST_IDLE}; "
            "calibrate with more requests"
        )
    cost = step_cost(samples, kind_of(ahead))
    kv_bytes = described(SPLIT.fleet).served_model.kv_bytes_per_token()
    return Terms(
        cost,
        max(0.0, way_s(runs, hops, samples, ahead)),
        link_of(moved, kv_bytes, gap_of(samples, chunks=False)) if split else None,
        {"steps": len(samples), "idle arrivals": len(hops), "hand-overs": len(moved)},
        bias_by_kind(cost, samples),
        step_cost(steps_of(runs, "prefill"), WarmCost if ahead else AffineCost) if split else None,
    )


def kind_of(ahead: bool) -> type[AffineCost]:
    """What the first rows of a step cost on top is fitted on a CPU; one launches ahead on a GPU, which does few rows as
    fast as one."""
    return AffineCost if ahead else FirstRowsCost


def way_s(runs: Sequence[ClusterRun], hops: Sequence[float], samples: Sequence[StepSample], ahead: bool) -> float:
    """The way to a worker, read from those who met an idle one, less the gap that their first step has.

    Means of both, as the cost of steps keeps theirs. Where steps are launched ahead hardly anybody meets an idle worker
    that does all of a request's work; then the lead of those launches says which steps are missed.
    """
    if not ahead:
        return fmean(hops) - gap_of(samples, chunks=True)
    return fmean(hops) - mean_gap_s(samples) if len(hops) >= LEAST_IDLE else lead_s([run.log for run in runs])


def steps_of(runs: Sequence[ClusterRun], role: str = "") -> list[StepSample]:
    """The steps of all workers of some runs, or of those of a `role`, with what the host took before them."""
    return [
        step
        for run in runs
        for info, worker in zip(run.log.workers, gapped(run), strict=True)
        if role in ("", info.role)
        for step in worker
    ]


def gapped(run: ClusterRun) -> list[list[StepSample]]:
    """The steps of each worker of a run, with what the host took before them."""
    return [with_gaps(run.log, worker, samples) for worker, samples in enumerate(run.worker_samples)]
