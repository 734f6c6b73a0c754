"""One experiment at several rates, or on several draws of its workload."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.request import Workload


def over_rates(experiment: Experiment, rates_per_s: Iterable[float]) -> dict[float, Run]:
    """A simulated run for each offered rate: the same requests, arriving faster or slower.

    The rate of a workload is its requests over the seconds from the first to the last. Raises
    `InputError` for a workload that takes no time, and for a rate that is not above 0.
    """
    workload = experiment.workload
    if not workload.span_s > 0:
        raise InputError(f"workload {workload.name} takes {workload.span_s} s, so it has no rate to change")
    own = len(workload) / workload.span_s
    return {rate: replace(experiment, workload=workload.at_rate(rate / own)).run() for rate in rates_per_s}


def over_seeds(experiment: Experiment, draws: Mapping[int, Workload]) -> dict[int, Run]:
    """A simulated run for each draw of the workload, by its seed, which the policies get too."""
    return {seed: replace(experiment, workload=draw, seed=seed).run() for seed, draw in draws.items()}


def redraw(name: str, seeds: Iterable[int], **knobs: object) -> dict[int, Workload]:
    """A draw of a generated workload for each seed; `knobs` as in `helpers.workload.generate.generate`."""
    return {seed: generate(name, seed=seed, **knobs) for seed in seeds}
