"""Two experiments against each other: the same draws in both arms, one number of each run."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from helpers.errors import InputError
from helpers.metrics.stats import Comparison
from helpers.metrics.stats import compare as compare_values
from helpers.metrics.summary import summarize
from helpers.serving.experiment import Experiment
from helpers.workload.request import Workload


def value_of(summary: dict, path: str) -> float | None:
    """A number of a summary by its dotted path, such as `goodput_per_s` or `ttft_s.p50`.

    None where the run has no such number (no request finished, say). Raises `InputError` for a
    path that no summary has.
    """
    value: object = summary
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        if part not in value and value is summary:
            raise InputError(f"the summary has no figure {path!r}; it has {', '.join(summary)}")
        value = value.get(part)
    return value if isinstance(value, int | float) else None


def measure(experiment: Experiment, workload: Workload, seed: int, metric: str) -> float:
    """One number of one simulated run; raises `InputError` when the run does not have it."""
    run = replace(experiment, workload=workload, seed=seed).run(on="simulator")
    value = value_of(summarize(run.log, experiment.slo), metric)
    if value is None:
        raise InputError(f"seed {seed}: the run has no {metric}; take a metric that every run has, or more requests")
    return value


def compare(
    a: Experiment,
    b: Experiment,
    seeds: Iterable[int],
    workload_of: Callable[[int], Workload],
    metric: str = "goodput_per_s",
) -> Comparison:
    """Run both arms once a seed, each pair on the same redrawn workload, and compare one metric.

    `workload_of(seed)` redraws arrivals, lengths and prefixes: the replicate is the seed, never a
    request. `metric` is the primary one, named before the runs. Raises `InputError` for fewer than
    two seeds.
    """
    first, second = {}, {}
    for seed in seeds:
        workload = workload_of(seed)
        first[seed] = measure(a, workload, seed, metric)
        second[seed] = measure(b, workload, seed, metric)
    return compare_values(first, second)
