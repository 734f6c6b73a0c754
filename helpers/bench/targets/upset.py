"""What goes wrong at a declared moment of a run: a step of the load, a burst, a slow worker, a lost worker."""

from dataclasses import dataclass, replace

from helpers.errors import InputError
from helpers.serving.experiment import Experiment
from helpers.simulator.disturbances import Disturbance, LoseWorker, SlowWorker, step_rate
from helpers.workload.request import Workload

KINDS = ("step", "burst", "slow worker", "lost worker")
LASTS_TO_THE_END = 1e9  # seconds: longer than any run


@dataclass(frozen=True, slots=True)
class Upset:
    """An upset of a `kind` at the share `at` of the time in which requests arrive (before it is applied).

    `step`: from then on they come `factor` times as fast; `burst`: for the share `lasts` of the time. `slow worker`:
    worker 0 takes `factor` times as long from then on; `lost worker`: worker 0 is gone.
    """

    kind: str
    at: float = 0.4
    factor: float = 1.5
    lasts: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not 0 < self.at < 1:
            raise InputError(f"an upset {self.kind!r} at {self.at} of the run; use {', '.join(KINDS)}, and 0 to 1")

    def at_s(self, workload: Workload) -> float:
        """When it happens, in seconds; from the workload as drawn or with the upset applied, which begin alike."""
        kept = len(workload) * self.at
        return workload.requests[min(round(kept), len(workload) - 1)].arrival_s

    def load(self, workload: Workload) -> Workload:
        """The requests as they come: faster from the upset on, or as they were."""
        at_s = self.at_s(workload)
        if self.kind == "step":
            return step_rate(workload, at_s, self.factor)
        if self.kind == "burst":
            return step_rate(workload, at_s, self.factor, at_s + self.lasts * workload.requests[-1].arrival_s)
        return workload

    def disturbances(self, workload: Workload) -> tuple[Disturbance, ...]:
        """What happens to workers."""
        at_s = self.at_s(workload)
        if self.kind == "slow worker":
            return (SlowWorker(0, at_s, at_s + LASTS_TO_THE_END, self.factor),)
        return (LoseWorker(0, at_s),) if self.kind == "lost worker" else ()

    def applied(self, experiment: Experiment, workload: Workload) -> Experiment:
        """The experiment on the workload (with its upset in the load already), and what happens to its workers."""
        happens = (*experiment.disturbances, *self.disturbances(workload))
        return replace(experiment, workload=workload, disturbances=happens)

    def workers_left(self, workers: int) -> list[int]:
        """Who is there after the upset."""
        return list(range(1 if self.kind == "lost worker" else 0, workers))
