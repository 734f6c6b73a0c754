"""One cell of a target, in the process that was started for it: drawn, frozen, run, verified, measured."""

from dataclasses import replace

from helpers.bench.order import IDENTICAL, SLOW, SLOW_FACTOR, Cell
from helpers.bench.targets.target import Sample, Scenario, Target
from helpers.bench.verification import breaches, digests, unnoticed
from helpers.serving.experiment import Experiment
from helpers.simulator.disturbances import SlowWorker
from helpers.workload.request import Workload

TO_THE_END = 1e9


def experiment_of(scenario: Scenario, arm: str) -> Experiment:
    """The experiment of an arm; the planted slow one is the baseline on workers that take four times as long."""
    if arm == SLOW:
        if scenario.planted:
            return scenario.planted
        base = scenario.baseline
        slow = tuple(SlowWorker(w, 0.0, TO_THE_END, SLOW_FACTOR) for w in range(len(base.fleet.roles)))
        return replace(base, disturbances=(*base.disturbances, *slow))
    return scenario.variants.get(arm, scenario.baseline)


def asked(scenario: Scenario, cell: Cell, workload: Workload) -> Experiment:
    """The experiment of a cell on its workload, upset and all."""
    experiment = replace(experiment_of(scenario, cell.arm), seed=cell.seed)
    if scenario.upset:
        return scenario.upset.applied(experiment, workload)
    return replace(experiment, workload=workload)


def sample_of(target: Target, cell: Cell, workload: Workload, iterations: int = 1, on: str = "simulator") -> Sample:
    """Run a cell on its workload `iterations` times and say what came of it.

    Every repetition must come to the same run. The statistics are those of the last.
    """
    scenario = target.scenario(cell.scenario)
    if scenario.timed:
        return scenario.timed(experiment_of(scenario, cell.arm), workload, cell.seed, iterations)
    experiment, sha256 = asked(scenario, cell, workload), workload.sha256
    found: list[str] = []
    walls: list[float] = []
    seen: dict[str, str] = {}
    for _ in range(iterations):
        run = experiment.run(on=on)
        walls.append(run.wall_s)
        now = digests(run.log)
        if seen and now != seen:
            found.append("a repetition in the same process came to another run")
        seen = now
    found += breaches(run.log, workload, sha256)
    values = target.measure(run, experiment, scenario)
    if values.get(target.primary.name) is None:
        found.append(f"the run has no {target.primary.name}")
    series = target.series(run, experiment, scenario) if target.series and cell.arm not in (IDENTICAL, SLOW) else {}
    return Sample(values, sha256, seen, tuple(found), tuple(walls), series)


def unnoticed_faults(target: Target, cell: Cell, workload: Workload) -> list[str]:
    """The planted faults in the log of a cell's run that the verification does not notice."""
    experiment = asked(target.scenario(cell.scenario), cell, workload)
    if target.unnoticed:
        return target.unnoticed(experiment, workload)
    return unnoticed(experiment.run().log, workload, workload.sha256)
