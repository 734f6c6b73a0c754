"""Claims about scalers: when fleets that change oscillate, and what changes of role gain and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from statistics import fmean

from helpers.bench.cases.arms import METRIC, above, below, by_arm, rows_of
from helpers.bench.cases.case import Case, Rows
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.summary import summarize
from helpers.metrics.workers import gpu_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

NOBODY = Workload("drawn for each seed", ())
HOUR_S = 3600.0

# -- who can be spared

ITL_S = 0.012
STATIC, CAREFUL, CARELESS = "two workers", "planner", "planner, survivors not looked at"


def consolidation(seeds: Sequence[int], duration_s: float = 900.0, rate_per_s: float = 16.0) -> Rows:
    """A constant load that two workers bear well, and one does not; the planner's load mode alone.

    On two, each token takes 8.5 ms, below 0.8 of the bound of 12 ms, so that the planner without the look at
    the survivors sends one away; on one it takes 12.4 ms, and a new worker takes a minute to start.
    """
    slo = SLO(ttft_s=1.0, tpot_s=ITL_S)
    fixed = Experiment(NOBODY, Fleet(workers=2), "least_requests", slo=slo)
    load_mode = {"throughput_s": 0.0, "itl_s": ITL_S}
    arms = {
        STATIC: fixed,
        CAREFUL: replace(fixed, scaler="sla_planner", scaler_parameters=load_mode),
        CARELESS: replace(fixed, scaler="sla_planner", scaler_parameters={**load_mode, "consolidation": False}),
    }
    runs: dict[str, dict[int, Run]] = {arm: {} for arm in arms}
    for seed in seeds:
        lengths = {"prompt_tokens": "lognormal:500:0.5", "output_tokens": "lognormal:400:0.5"}
        workload = generate("poisson", rate_per_s=rate_per_s, duration_s=duration_s, seed=seed, **lengths)
        for arm, experiment in arms.items():
            runs[arm][seed] = replace(experiment, workload=workload, seed=seed).run()
    against = _goodput(runs[CAREFUL], slo)
    return [_row(arm, found, slo, against if arm != CAREFUL else None) for arm, found in runs.items()]


def _goodput(runs: Mapping[int, Run], slo: SLO) -> dict[int, float]:
    return {seed: summarize(run.log, slo)[METRIC] for seed, run in runs.items()}


def _row(arm: str, runs: Mapping[int, Run], slo: SLO, against: Mapping[int, float] | None) -> dict:
    """Goodput with intervals; what was changed while requests came, the time at each size, and the GPU-hours."""
    values, every = _goodput(runs, slo), list(runs.values())
    hours = [gpu_s(run.log) / HOUR_S for run in every]
    per_hour = [summarize(run.log, slo)["goodput_per_gpu_hour"] for run in every]
    sizes = [time_at_sizes(run) for run in every]
    seen = sorted({size for one in sizes for size in one})
    return {
        "arm": arm,
        METRIC: asdict(mean_interval(list(values.values()))),
        "difference_per_s": None if against is None else _rounded(asdict(compare(values, against).difference)),
        "actions": fmean(len(changes(run)) for run in every),
        "most_actions": max(len(changes(run)) for run in every),
        "share_at_size": {str(size): fmean(one.get(size, 0.0) for one in sizes) for size in seen},
        "gpu_hours": asdict(mean_interval(hours)),
        "goodput_per_gpu_hour": asdict(mean_interval(per_hour)),
        "requests": sum(len(run.timelines) for run in every),
    }


def _rounded(interval: dict) -> dict:
    """An interval without the rounding of sums: a fleet that is not changed gives the same run in another order."""
    return {key: round(value, 9) if isinstance(value, float) else value for key, value in interval.items()}


def changes(run: Run) -> list[dict]:
    """What a scaler did to the fleet before the last request came."""
    last_s = max(t.arrival_s for t in run.timelines)
    return [change for change in run.fleet_changes if change["time_s"] <= last_s]


def time_at_sizes(run: Run) -> dict[int, float]:
    """The share of the time until the last request came in which so many workers took requests."""
    last_s = max(t.arrival_s for t in run.timelines)
    steps = [(w.ready_s, 1) for w in run.workers if w.ready_s is not None]
    steps += [(one["time_s"], -1) for one in changes(run) if one["action"] in ("stop", "change")]
    shares: dict[int, float] = {}
    size = 0
    for (time_s, step), (next_s, _) in pairwise([*sorted(s for s in steps if s[0] < last_s), (last_s, 0)]):
        size += step
        if next_s > time_s:
            shares[size] = shares.get(size, 0.0) + (next_s - time_s) / last_s
    return shares


def stays(rows: Rows) -> bool:
    """With the look at the survivors nothing is changed; without it the fleet goes up and down, and loses goodput."""
    found = by_arm(rows)
    calm = found[CAREFUL]["most_actions"] == 0
    return calm and found[CARELESS]["actions"] >= 4 and below(found[CARELESS])


# -- from prefill to decode

EVEN, FIXED = "2P2D", ("2P2D", "3P1D", "1P3D")
RESTART, SLOW = "roles, restart at each change", "roles, better for 30 s"
LOADS = {"moderate": (13.0, 15.0), "high": (20.0, 26.0)}  # requests a second before and after the shift
TPOT_S = 0.02
SLO_ROLES = SLO(ttft_s=2.0, tpot_s=TPOT_S)


def shifting(half_s: float, before_per_s: float, after_per_s: float, seed: int) -> Workload:
    """Long prompts with short answers for `half_s`, then short prompts with long answers for as long."""
    reading = {"prompt_tokens": "lognormal:4000:0.4", "output_tokens": "lognormal:100:0.4"}
    writing = {"prompt_tokens": "lognormal:500:0.4", "output_tokens": "lognormal:1000:0.4"}
    first = generate("poisson", rate_per_s=before_per_s, duration_s=half_s, seed=2 * seed, **reading)
    then = generate("poisson", rate_per_s=after_per_s, duration_s=half_s, seed=2 * seed + 1, **writing)
    moved = (replace(r, id=r.id + len(first), arrival_s=r.arrival_s + half_s) for r in then)
    return replace(first, name="from reading to writing", requests=(*first.requests, *moved))


def role_change(seeds: Sequence[int], half_s: float = 240.0) -> Rows:
    """Four workers on a workload that shifts half-way, in fixed splits and with workers that change their role.

    At the moderate load 2P2D can serve both halves; at the high one the first takes 2.3 prefill workers and the
    second as many decode workers. A change drains the worker and takes a second more, or as long as a start.
    """
    found: Rows = []
    for load, (before, after) in LOADS.items():
        fixed = Experiment(NOBODY, Fleet(workers=4, split=EVEN), "least_tokens", slo=SLO_ROLES)
        roles = replace(fixed, scaler="roles", scaler_parameters={"itl_s": TPOT_S})
        slow = replace(roles, scaler_parameters={"itl_s": TPOT_S, "dwell_s": 30.0})
        arms = {
            **{split: replace(fixed, fleet=Fleet(workers=4, split=split)) for split in FIXED},
            "roles": roles,
            SLOW: slow,
            RESTART: replace(roles, role_change_s=fixed.fleet.startup_s()),
        }
        draw = lambda seed, rates=(before, after): shifting(half_s, *rates, seed)  # noqa: E731
        found += [{"load": load, **row} for row in rows_of(arms, draw, seeds, EVEN)]
    return found


def shifts(rows: Rows) -> bool:
    """Past what the even split serves, changes of role beat every fixed split; where it copes they gain nothing.

    Nothing is less than 1 % of its goodput. There, changes that take a restart or a long look lose.
    """
    moderate, high = (by_arm([row for row in rows if row["load"] == load]) for load in LOADS)
    best_fixed = max(high[split][METRIC]["mean"] for split in FIXED)
    gains = above(high["roles"]) and high["roles"][METRIC]["mean"] > best_fixed
    copes = moderate[EVEN]["attainment"] > 0.999
    level = copes and moderate["roles"][METRIC]["mean"] < 1.01 * moderate[EVEN][METRIC]["mean"]
    return gains and level and below(moderate[RESTART]) and below(moderate[SLOW])


CASES = (
    Case(
        "consolidation_check",
        "Under a constant load that two workers bear and one does not, a planner that looks at each worker's own "
        "latency goes 2, 1, 2, 1 and loses goodput; one that looks at the load of the survivors changes nothing.",
        METRIC,
        consolidation,
        stays,
    ),
    Case(
        "role_change",
        "When a workload shifts from reading to writing, workers that change their role serve what no fixed split can; "
        "where the even split copes they gain nothing, and lose when each change takes a restart or a long look.",
        METRIC,
        role_change,
        shifts,
    ),
)
