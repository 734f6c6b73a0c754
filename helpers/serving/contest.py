"""Several arms on the same draws, each measured under every seed: runs, knees, regret."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from helpers.errors import InputError
from helpers.metrics.goodput import meets
from helpers.metrics.stats import longest_e2e_s
from helpers.metrics.timeline import EventLog
from helpers.serving.arms import Arms
from helpers.serving.compare import value_of
from helpers.serving.draws import Draws, drawn
from helpers.serving.experiment import Experiment
from helpers.serving.knees import SeedKnee, knees
from helpers.serving.processes import in_processes
from helpers.serving.regret import check_judgeable, judged, regret
from helpers.serving.simulate import Outcome, outcome_of
from helpers.simulator.oracle import Oracle
from helpers.workload.slo import slo_of

# One number of each run: the primary metric first.
FIGURES = (
    *("goodput_per_s", "attainment", "ttft_s.p50", "ttft_s.p90", "ttft_s.p99", "tpot_s.p50", "tpot_s.p90"),
    *("e2e_s.mean", "hit_rate", "imbalance", "preemptions", "rejected"),
)
KNEE_FIGURES = ("knee.rate_per_s", "knee.goodput_per_s")
REGRET_FIGURES = ("regret.mean", "regret.p90", "regret.best_share", "regret.random.mean", "regret.random.best_share")


@dataclass(frozen=True)
class Plan:
    """What is measured of every arm: its runs, and where asked its knees (`target`) and its regret (`decisions`)."""

    draws: Draws
    seeds: tuple[int, ...]
    warmup_s: float = 0.0
    target: float | None = None
    decisions: int = 0
    objective: str = "e2e_s"
    knee_requests: int | None = None  # fewer requests of each draw for the many runs of knees, and for regret


@dataclass(frozen=True)
class Arrivals:
    """When each counted request of a run arrived and whether it met its SLO, for time blocks; times in seconds."""

    times_s: tuple[float, ...]
    met: tuple[bool, ...]
    longest_e2e_s: float


@dataclass(frozen=True)
class Result:
    """What an arm gave: its runs (without their event logs), knees and regrets, in the order of the seeds."""

    name: str
    outcomes: tuple[Outcome, ...]
    knees: tuple[SeedKnee, ...] = ()
    regrets: tuple[dict, ...] = ()
    arrivals: Arrivals | None = None

    def replicates(self) -> list[dict]:
        """All figures of each seed as plain values."""
        rows = []
        for i, one in enumerate(self.outcomes):
            made = one.run.provenance
            row = {"seed": one.seed, "workload_sha256": made.workload_sha256, "requests": one.summary["requests"]}
            row |= {name: value_of(one.summary, name) for name in FIGURES} | {"stable": one.summary["stable"]}
            row["wall_s"] = one.run.wall_s
            if self.knees:
                row["knee"] = asdict(self.knees[i])
            if self.regrets:
                row["regret"] = self.regrets[i]
            rows.append(row)
        return rows


def contest(arms: Arms, plan: Plan, jobs: int = 1, done: Callable[[list[Result]], None] | None = None) -> list[Result]:
    """Measure every arm in `jobs` processes; the results in the order of the arms.

    `done` is given, after each arm, the results that are there by then, in that order too.
    An arm is one task, because its searches for a knee start where the last seed's ended; the oracle, the slowest by
    far, goes first. Raises `InputError` when two arms were not given the same draws, or their regret cannot be judged.
    """
    if plan.decisions:
        for experiment in arms.values():
            check_judgeable(experiment, plan.decisions)
    order = sorted(arms, key=lambda name: arms[name].router != Oracle.name)
    by_name: dict[str, Result] = {}

    def keep(result: Result) -> None:
        by_name[result.name] = result
        results = [by_name[name] for name in arms if name in by_name]
        check_paired(results[0], result)
        if done:
            done(results)

    in_processes(_measure, [(name, _without_workload(arms[name]), plan) for name in order], jobs, keep)
    return [by_name[name] for name in arms]


def _without_workload(experiment: Experiment) -> Experiment:
    """The question alone: each process draws the workloads itself."""
    return replace(experiment, workload=replace(experiment.workload, requests=()))


def _measure(task: tuple[str, Experiment, Plan]) -> Result:
    name, experiment, plan = task
    fewer = plan.draws if plan.knee_requests is None else replace(plan.draws, max_requests=plan.knee_requests)
    outcomes, regrets, arrivals = [], [], None
    for seed in plan.seeds:
        outcome = outcome_of(replace(experiment, workload=drawn(plan.draws, seed), seed=seed), plan.warmup_s)
        if arrivals is None:
            arrivals = _arrivals(outcome.run.log, experiment, plan.warmup_s)
        outcomes.append(replace(outcome, run=replace(outcome.run, log=EventLog(()), decisions=())))
        if plan.decisions:
            one = replace(experiment, workload=drawn(fewer, seed), seed=seed)
            regrets.append(regret(judged(one, plan.decisions, plan.warmup_s), plan.objective))
    found = ()
    if plan.target is not None:
        found = tuple(knees(experiment, lambda seed: drawn(fewer, seed), plan.seeds, plan.target, plan.warmup_s))
    return Result(name, tuple(outcomes), found, tuple(regrets), arrivals)


def _arrivals(log: EventLog, experiment: Experiment, warmup_s: float) -> Arrivals:
    chosen = [t for t in log.timelines if t.arrival_s >= warmup_s]
    met = tuple(meets(t, slo_of(t, experiment.slo)) for t in chosen)
    return Arrivals(tuple(t.arrival_s for t in chosen), met, longest_e2e_s(log))


def check_paired(a: Result, b: Result) -> None:
    """Raise `InputError` unless both arms saw the same workload under the same seeds."""
    draws = [{o.seed: o.run.provenance.workload_sha256 for o in one.outcomes} for one in (a, b)]
    wrong = [seed for seed in draws[0] | draws[1] if draws[0].get(seed) != draws[1].get(seed)]
    if wrong:
        raise InputError(
            f"arms {a.name} and {b.name} were not given the same draw for seed {', '.join(map(str, sorted(wrong)))}; "
            "pair each draw with itself"
        )


def figure(result: Result, name: str) -> dict[int, float]:
    """A figure by seed, such as `goodput_per_s` or `knee.rate_per_s`; seeds that do not have it are left out."""
    values = {}
    for row in result.replicates():
        value = row.get(name)
        if value is None:
            value = _at(row, name.split("."))
        if value is not None:
            values[row["seed"]] = value
    return values


def _at(row: dict, path: Sequence[str]) -> float | None:
    value: object = row
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
