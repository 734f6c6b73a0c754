"""Regret: how much worse the chosen worker was than the best one, by an oracle that knows output lengths and state.

The cost of a choice is `helpers.simulator.oracle.marginal`: what the request itself takes and what it adds for the
others on that worker, if nothing else arrived. Regret is the cost of the chosen worker less that of the cheapest.
Decisions are judged in the states that the judged router itself brought about, so beside its regret stands that of
a uniform draw in the same states. A copy of a prefix from another worker is left out: the worker alone is judged.
"""

from dataclasses import dataclass
from math import inf
from random import Random
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.percentiles import percentile
from helpers.serving.experiment import Experiment
from helpers.simulator.oracle import OBJECTIVES, Marginal, choices

DECISIONS = 300
ROUNDING = 1e-6  # a microsecond: less is the last digits of a time


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision: the request, the worker it went to, and what it would have cost on each worker."""

    request: int
    chosen: int
    costs: dict[int, Marginal]

    def regrets(self, objective: str) -> dict[int, float]:
        """The regret of each worker; 0 for the best."""
        costs = {w: getattr(cost, objective) for w, cost in self.costs.items()}
        least = min(costs.values())
        return {w: cost - least if cost - least > ROUNDING else 0.0 for w, cost in costs.items()}


def judged(experiment: Experiment, decisions: int = DECISIONS, warmup_s: float = 0.0) -> list[Judged]:
    """Run an experiment and judge some of its decisions, of requests drawn by its seed from those after the warm-up.

    Requests that were not accepted, or that fit on no worker, are left out. Raises `InputError` for a fleet with
    prefill or decode workers, and for no decisions.
    """
    check_judgeable(experiment, decisions)
    ids = [r.id for r in experiment.workload if r.arrival_s >= warmup_s]
    sample = set(Random(f"regret/{experiment.seed}").sample(ids, min(decisions, len(ids))))
    found: list[Judged] = []

    def look(sequence, decision, verdict, now: float) -> None:
        if sequence.request.id in sample and verdict.action == "accept":
            views = cluster.views
            costs = choices(views.workers, views.prefill, sequence, now, experiment.slo)
            if costs[decision.prefill].e2e_s < inf:
                found.append(Judged(sequence.request.id, decision.prefill, costs))

    cluster = experiment.cluster(on_decision=look)
    cluster.run(experiment.workload.requests)
    return found


def check_judgeable(experiment: Experiment, decisions: int) -> None:
    """Refuse what `judged` cannot do, before anything runs."""
    if set(experiment.fleet.roles) != {"mixed"}:
        raise InputError("regret follows a request to its end on one worker; give a fleet without a split")
    if decisions < 1:
        raise InputError(f"the regret of {decisions} decisions says nothing; give 1 or more")


def regret(decisions: list[Judged], objective: str = "e2e_s") -> dict:
    """Mean, p50 and p90 of the regret, the share of decisions that were best, and the same of a uniform draw.

    Of the draw nothing is drawn: each worker counts with the same weight in each state. In seconds, for the
    objective `missed` in SLOs missed. Raises `InputError` for no decisions or an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"regret by {objective!r} is unknown; use one of {', '.join(OBJECTIVES)}")
    if not decisions:
        raise InputError("no decision could be judged; sample more, or look at the admission policy")
    each = [one.regrets(objective) for one in decisions]
    chosen = [regrets[one.chosen] for one, regrets in zip(decisions, each, strict=True)]
    return {
        "objective": objective,
        "n": len(decisions),
        **_shape(chosen),
        "random": {**_shape([r for regrets in each for r in regrets.values()])},
    }


def _shape(regrets: list[float]) -> dict:
    return {
        "mean": fmean(regrets),
        "p50": percentile(regrets, 50).value,
        "p90": percentile(regrets, 90).value,
        "best_share": sum(r == 0 for r in regrets) / len(regrets),
    }
