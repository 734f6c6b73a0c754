"""On how many workers a live target is run: the split, whether seconds may be measured there, what is said of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from helpers.bench.disagg.one_device import WHERE
from helpers.bench.targets.target import Sample, Scenario, Target
from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.serving.processes import cores

CPU, GPU = "cpu", "cuda"
WHERE_ONE = {CPU: "in a process with one thread", GPU: "on one GPU"}
FEW = 8  # workers that a machine with fewer cores can still be asked for: without timing, more show nothing more
COUNTS = ("moved_mb",)  # statistics that do not depend on how fast the machine is
NOTHING_EXPECTED = "None was written down for this many workers."


def sized(target: Target, nproc: int | None = None, prefill_ranks: int | None = None, device: str = CPU) -> Target:
    """A target as it is run here: on `nproc` workers, of which `prefill_ranks` prefill where the fleet is split.

    On `cuda` it is what the target declares for a GPU.
    None is what the target declares. 1 is one device: two roles share it, and one engine is their rival. A fleet of
    one worker stays one. With more workers than cores nothing is timed, and no effect is judged. Raises `InputError`
    for a split without both sides, for too many workers, for a target that is not measured live, and for one that says
    nothing of a GPU.
    """
    if device != CPU:
        target = _on_a_gpu(target, device)
    if not target.live:
        if nproc is None and prefill_ranks is None:
            return target
        raise InputError(f"target {target.full_name} is simulated: --nproc and --prefill-ranks are for live targets")
    declared = _declared(target)
    workers = declared if nproc is None else nproc
    _check(workers, prefill_ranks, cores())
    if declared == 1:
        return replace(target, where=f"one engine, {WHERE_ONE[device]}")
    if workers == 1:
        return _on_one_device(target)
    prefill = prefill_ranks or max(1, workers // 2)
    scenarios = tuple(_fleets(one, lambda fleet: _split(fleet, workers, prefill)) for one in target.scenarios)
    if scenarios != target.scenarios:
        scenarios = tuple(replace(one, predicted={}) for one in scenarios)
        target = replace(target, scenarios=scenarios, hypothesis=NOTHING_EXPECTED)
    where = f"{workers} workers ({prefill}P{workers - prefill}D in a split) on {cores()} cores, one thread each"
    return replace(target, where=where) if workers <= cores() else _without_timing(target, where)


def _on_a_gpu(target: Target, device: str) -> Target:
    if device != GPU:
        raise InputError(f"--device {device!r} is none; give {CPU} or {GPU}")
    if target.on_a_gpu is None:
        raise InputError(f"target {target.full_name} is not measured on a GPU; leave out --device, or use `record`")
    return target.on_a_gpu


def refuse_together(targets: Sequence[Target], nproc: int | None, prefill_ranks: int | None, device: str) -> None:
    """Raise `InputError` for a device on which not all of the targets are measured, and for a number of workers that
    none of them has."""
    here, elsewhere = ([one.full_name for one in targets if bool(one.on_a_gpu) == kind] for kind in (True, False))
    if device == GPU and elsewhere:
        advice = f"name {' and '.join(here)} alone" if here else f"leave out --device {GPU}"
        raise InputError(f"not measured on a GPU: {', '.join(elsewhere)}; {advice}, or use `record`")
    asked = {"--nproc": nproc, "--prefill-ranks": prefill_ranks}
    given = [
        f"{name} {value}" for name, value in asked.items() if value is not None and (name, value) != ("--nproc", 1)
    ]
    if given and all(one.live and _declared(one) == 1 for one in targets):
        names = " and ".join(one.full_name for one in targets)
        raise InputError(f"{' '.join(given)} changes nothing: {names} is measured on one engine; leave that out")


def _declared(target: Target) -> int:
    """On how many workers a target is measured, unless told otherwise."""
    return max(len(scenario.baseline.fleet.roles) for scenario in target.scenarios)


def refuse_what_is_not_here(device: str) -> None:
    """Raise `InputError` for a GPU on a machine without one."""
    if device != CPU:
        from helpers.engine.load import device_of

        device_of(device)


def _check(workers: int, prefill_ranks: int | None, here: int) -> None:
    most = max(FEW, here)
    if workers < 1:
        raise InputError(f"--nproc {workers} serves nothing; give 1 (two roles on one device), or 2 and more workers")
    if workers > most:
        raise InputError(f"--nproc {workers} is more than {here} cores can show; give {most} or fewer")
    if prefill_ranks is None:
        return
    if workers == 1:
        raise InputError("on one device both roles are there; leave out --prefill-ranks, or give --nproc 2 or more")
    if not 0 < prefill_ranks < workers:
        lacking = "decode" if prefill_ranks > 0 else "prefill"
        raise InputError(
            f"--prefill-ranks {prefill_ranks} of {workers} workers leaves none to {lacking}; give 1 to {workers - 1}"
        )


def _on_one_device(target: Target) -> Target:
    if target.on_one_device is None:
        raise InputError(f"target {target.full_name} says nothing of one device; give --nproc 2 or more")
    scenarios = tuple(
        replace(_each(one, lambda e: replace(e, one_device=True)), predicted=target.on_one_device.predicted)
        for one in target.scenarios
    )
    return replace(target, scenarios=scenarios, hypothesis=target.on_one_device.hypothesis, where=WHERE["cpu"])


def _without_timing(target: Target, where: str) -> Target:
    """What is left of a target where workers wait for each other's cores: answers, pages and counts."""
    scenarios = tuple(replace(one, timed=_counting(one.timed), predicted={}) for one in target.scenarios)
    return replace(
        target, scenarios=scenarios, timing=False, hypothesis=NOTHING_EXPECTED,
        statistics=tuple(one for one in target.statistics if one.name in COUNTS),
        where=f"{where}: a correctness run without timing, in which no effect is judged",
    )  # fmt: skip


def _counting(timed: Callable[..., Sample]) -> Callable[..., Sample]:
    """A cell of which only the counts are kept."""

    def run(*asked: object) -> Sample:
        sample = timed(*asked)
        return replace(sample, values={name: value for name, value in sample.values.items() if name in COUNTS})

    return run


def _split(fleet, workers: int, prefill: int):
    return replace(fleet, workers=workers, split=fleet.split and f"{prefill}P{workers - prefill}D")


def _fleets(scenario: Scenario, change: Callable) -> Scenario:
    return _each(scenario, lambda experiment: replace(experiment, fleet=change(experiment.fleet)))


def _each(scenario: Scenario, change: Callable[[Experiment], Experiment]) -> Scenario:
    """Every arm of a scenario changed alike, so that a variant still differs from its baseline in one thing."""
    variants = {name: change(one) for name, one in scenario.variants.items()}
    planted = scenario.planted and change(scenario.planted)
    return replace(scenario, baseline=change(scenario.baseline), variants=variants, planted=planted)
