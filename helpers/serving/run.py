"""What an experiment gives: the event log, where it came from, and how it was made."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from helpers.metrics.timeline import EventLog, StepLog, Timeline, WorkerInfo

MEASURED, SIMULATED = "measured", "simulated"


@dataclass(frozen=True)
class Provenance:
    """Enough to make a run again, or to know why one cannot.

    `kind` is `measured` or `simulated`; `hardware_key` the machine that was measured, or the
    simulated part with the prefix `sim_`. `versions` names the software that mattered.
    """

    kind: str
    hardware_key: str
    command: str
    commit: str
    made: str  # ISO 8601, UTC
    seeds: tuple[int, ...]
    workload: str
    workload_sha256: str
    repairs: tuple[str, ...]
    policy: dict = field(default_factory=dict)
    fleet: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    cost: str = ""  # simulated: `predicted` from tables, or `fitted` to measured steps
    notes: str = ""


@dataclass(frozen=True)
class Run:
    """One run of one experiment; every metric, figure and check takes this and does not ask who made it.

    `wall_s` is the time that the backend worked, without parsing and statistics. `fleet_changes` are the
    workers that a scaler started, stopped or gave another role: when, which, and why.
    """

    log: EventLog
    provenance: Provenance
    wall_s: float = 0.0
    decisions: tuple[dict, ...] = ()
    fleet_changes: tuple[dict, ...] = ()

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """The requests, by id."""
        return self.log.timelines

    @property
    def step_logs(self) -> Sequence[StepLog]:
        """The steps of each worker; empty where a recording kept none."""
        return self.log.step_logs

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """The workers."""
        return self.log.workers

    @property
    def end_s(self) -> float:
        """When the last request left, in seconds from the start."""
        return self.log.end_s
