"""The knee of an experiment for each seed, and the goodput there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf, nextafter

from helpers.errors import InputError
from helpers.metrics.goodput import Goodput, goodput
from helpers.metrics.knee import knee_near
from helpers.metrics.series import Window
from helpers.metrics.stability import stability
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.workload.request import Workload

STEP = 0.02


@dataclass(frozen=True, slots=True)
class SeedKnee:
    """The knee of one seed: the highest rate of 1.02^k requests/s at which attainment reaches the target.

    `attainment`, `goodput_per_s` and `stable` are those of the run at that rate; None, as the rate is, when no
    rate down to a 64th of the offered one reaches the target. `runs` rates were tried.
    """

    seed: int
    rate_per_s: float | None
    attainment: float | None
    goodput_per_s: float | None
    stable: bool | None
    monotone: bool
    runs: int


def knees(
    experiment: Experiment,
    workload_of: Callable[[int], Workload],
    seeds: Iterable[int],
    target: float,
    warmup_s: float = 0.0,
) -> list[SeedKnee]:
    """The knee for each seed; each search starts at the knee of the seed before, the first at the offered rate.

    The requests of a draw stay the same, they only come faster or slower, and those that come in the first
    `warmup_s` seconds of the draw are served but not counted, at every rate the same ones. The rest counts up to
    the last arrival. Raises `InputError` for a target that is no share, and a warm-up that leaves nothing.
    """
    found: list[SeedKnee] = []
    start_per_s = None
    for seed in seeds:
        found.append(knee_of_seed(experiment, workload_of(seed), seed, target, warmup_s, start_per_s))
        start_per_s = found[-1].rate_per_s or start_per_s
    return found


def knee_of_seed(
    experiment: Experiment,
    workload: Workload,
    seed: int,
    target: float,
    warmup_s: float = 0.0,
    start_per_s: float | None = None,
) -> SeedKnee:
    """The knee of one draw, searched from a rate (None: the offered one); see `knees`."""
    own_per_s = offered_per_s(workload)
    seen: dict[float, tuple[Goodput, bool | None]] = {}

    def attainment(rate_per_s: float) -> float:
        scale = rate_per_s / own_per_s
        one = replace(experiment, workload=workload.at_rate(scale), seed=seed)
        log = one.cluster().run(one.workload.requests)
        window = counted(workload, warmup_s, scale)
        met = goodput(log, experiment.slo, window)
        seen[rate_per_s] = met, stability(log, window).stable
        return met.attainment or 0.0

    knee = knee_near(attainment, target, start_per_s or own_per_s, STEP)
    at_knee, stable = seen.get(knee.rate_per_s, (None, None)) if knee.rate_per_s else (None, None)
    return SeedKnee(
        seed,
        knee.rate_per_s,
        at_knee.attainment if at_knee else None,
        at_knee.per_s if at_knee else None,
        stable,
        knee.monotone,
        len(seen),
    )


def counted(workload: Workload, warmup_s: float, scale: float = 1.0) -> Window:
    """The arrivals that count when the workload comes `scale` times as fast: from the warm-up to the last, included."""
    last_s = workload.requests[-1].arrival_s
    if not 0 <= warmup_s < last_s:
        raise InputError(f"a warm-up of {warmup_s:g} s leaves nothing: the last request comes at {last_s:g} s")
    return Window(warmup_s / scale, nextafter(last_s / scale, inf))
