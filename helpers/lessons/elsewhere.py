"""What a page ran, once more on every other hardware that the switch in its header offers, by the key of the choice.

Each takes the fleet of the page, which is not run again: `{"h100": mine} | elsewhere.served(...)` has them all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from helpers.cost.service import Service, service_of
from helpers.hardware import GPU, gpu
from helpers.lessons.reading import mean_s
from helpers.metrics.queueing import pollaczek_khinchine_wait_s
from helpers.models import Model
from helpers.roofline.bounds import Shape, StepBound, step_bound
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.serving.sweep import over_rates
from helpers.widgets.hardware import DEFAULT, PREDICTED, choices
from helpers.workload.request import Workload


def fleets(fleet: Fleet) -> dict[str, Fleet]:
    """The same workers with other memory and step times, without the hardware that pages show first."""
    others = [one for one in choices() if one.gpu and one.key != DEFAULT]
    return {one.key: replace(fleet, hardware=one.gpu, cost=one.cost) for one in others}


def served(workload: Workload, fleet: Fleet, routers: Iterable[str]) -> dict[str, dict[str, Run]]:
    """The workload under each router."""
    named = tuple(routers)
    return {k: {r: Experiment(workload, there, r).run() for r in named} for k, there in fleets(fleet).items()}


def waited(
    workload: Workload, fleet: Fleet, rates: Sequence[float], whole: Workload
) -> dict[str, tuple[list[float], list[float]]]:
    """Mean waits under random routing at these rates, and what Pollaczek and Khinchine say of the prefills alone.

    The prefills are those of the `whole` workload, of which `workload` may be a part.
    """
    found = {}
    for key, there in fleets(fleet).items():
        runs = over_rates(Experiment(workload, there, "random"), rates)
        one = service_on(there, whole)
        bound = [pollaczek_khinchine_wait_s(rate / there.workers, one.mean_s, one.cv2) for rate in rates]
        found[key] = [mean_s(run, "queue_s") for run in runs.values()], bound
    return found


def swept(
    workload: Workload, fleet: Fleet, routers: Iterable[str], rates: Sequence[float]
) -> dict[str, dict[str, dict[float, Run]]]:
    """Sweeps of each router, at rates that ask of the hardware what `rates` ask of the fleet of the page."""
    named, found = tuple(routers), {}
    for key, there in fleets(fleet).items():
        own = at_its_speed(rates, there, fleet, workload)
        found[key] = {r: over_rates(Experiment(workload, there, r), own) for r in named}
    return found


def bounded(served: Model, shapes: Mapping[str, Shape]) -> dict[str, tuple[GPU, dict[str, StepBound]]]:
    """The bounds of whole steps on every part that is shown from its data sheet, the page's own among them."""
    return {
        key: (part, {name: step_bound(part, served, shape) for name, shape in shapes.items()})
        for key, part in ((key, gpu(key)) for key in PREDICTED)
    }


def service_on(fleet: Fleet, workload: Workload) -> Service:
    """What the requests of a workload ask of one worker of a fleet."""
    return service_of(workload, fleet.cluster(workload.block_tokens).workers[0].cost)


def at_its_speed(rates: Sequence[float], fleet: Fleet, base: Fleet, workload: Workload) -> list[float]:
    """Rates that ask of a fleet what `rates` ask of the `base` fleet: as much faster as a prefill is, rounded."""
    speed = service_on(base, workload).mean_s / service_on(fleet, workload).mean_s
    return [float(f"{rate * speed:.2g}") for rate in rates]
