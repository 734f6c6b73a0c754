"""What goes wrong during a run, or changes: slow and lost workers, steps and bursts of the arrival rate."""

from dataclasses import dataclass, replace
from math import inf

from helpers.errors import InputError
from helpers.workload.request import Workload


@dataclass(frozen=True, slots=True)
class SlowWorker:
    """Every step of `worker` that starts in [at_s, until_s) takes `factor` times as long."""

    worker: int
    at_s: float
    until_s: float
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < inf or not self.until_s > self.at_s >= 0:
            raise InputError(
                f"slow worker {self.worker}: factor {self.factor} from {self.at_s} to {self.until_s} s; "
                "give a positive factor and an end after the start"
            )


@dataclass(frozen=True, slots=True)
class LoseWorker:
    """`worker` is gone from `at_s` on, and what it is doing (a step, a blocking transfer) is its last.

    When that has ended its requests return to the router; what was generated is kept.
    """

    worker: int
    at_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.at_s < inf:
            raise InputError(f"lost worker {self.worker}: time {self.at_s} s; give a finite time of 0 or later")


Disturbance = SlowWorker | LoseWorker


def step_rate(workload: Workload, at_s: float, factor: float, until_s: float = inf) -> Workload:
    """The same requests with the arrival rate multiplied by `factor` from `at_s` on (a burst when `until_s` is given).

    `until_s` is the end of the change in the new time. Later arrivals keep their gaps, moved forward.
    """
    if not 0 < factor < inf or not until_s > at_s:
        raise InputError(f"rate step x{factor} from {at_s} to {until_s} s; give a positive factor and an end after it")
    old_end = at_s + (until_s - at_s) * factor
    shift = until_s - old_end if until_s != inf else 0.0

    def moved(t: float) -> float:
        if t <= at_s:
            return t
        return at_s + (t - at_s) / factor if t < old_end else t + shift

    label = f"rate x{factor:g} from {at_s:g} s" + ("" if until_s == inf else f" to {until_s:g} s")
    requests = tuple(replace(r, arrival_s=moved(r.arrival_s)) for r in workload.requests)
    return replace(workload, requests=requests, repairs=(*workload.repairs, label))
