"""The arms of a case: run on the same draws, each compared with one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean

from helpers.bench.cases.case import Rows
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.summary import summarize
from helpers.serving.experiment import Experiment
from helpers.workload.request import Workload

METRIC = "goodput_per_s"


def rows_of(
    arms: Mapping[str, Experiment],
    workload_of: Callable[..., Workload],
    seeds: Sequence[int],
    reference: str,
) -> Rows:
    """One row an arm: goodput and its paired difference to the `reference` arm, each with a 95 % interval over seeds.

    Each seed draws one workload, `workload_of(seed=seed)`, the same for every arm. Attainment, hit rate and imbalance
    (of the least even role) are means over seeds; `unstable` counts the seeds whose run was past its knee. The
    reference has no difference.
    """
    found: dict[str, dict[int, dict]] = {arm: {} for arm in arms}
    for seed in seeds:
        workload = workload_of(seed=seed)
        for arm, experiment in arms.items():
            run = replace(experiment, workload=workload, seed=seed).run()
            found[arm][seed] = summarize(run.log, experiment.slo)
    against = {seed: summary[METRIC] for seed, summary in found[reference].items()}
    return [_row(arm, found[arm], against if arm != reference else None) for arm in arms]


def _row(arm: str, summaries: Mapping[int, dict], against: Mapping[int, float] | None) -> dict:
    values = {seed: summary[METRIC] for seed, summary in summaries.items()}
    difference = None if against is None else compare(values, against)
    every = list(summaries.values())
    return {
        "arm": arm,
        METRIC: asdict(mean_interval(list(values.values()))),
        "difference_per_s": None if difference is None else asdict(difference.difference),
        "attainment": fmean(one["attainment"] for one in every),
        "imbalance": fmean(one["imbalance"] for one in every),
        "hit_rate": fmean(one["hit_rate"] or 0.0 for one in every),
        "unstable": sum(one["stable"] is False for one in every),
        "requests": sum(one["requests"] for one in every),
    }


def by_arm(rows: Rows) -> dict[str, dict]:
    """The rows by the name of their arm."""
    return {row["arm"]: row for row in rows}


def below(row: dict) -> bool:
    """Whether an arm has less goodput than the reference: the interval of the difference lies below 0."""
    return row["difference_per_s"]["high"] < 0


def above(row: dict) -> bool:
    """Whether an arm has more goodput than the reference: the interval of the difference lies above 0."""
    return row["difference_per_s"]["low"] > 0
