"""The fleet as a scaler looks at it: its workers by role."""

from dataclasses import dataclass
from math import inf

from helpers.errors import InputError
from helpers.policies.view import FleetViews, WorkerView

# As often as the horizontal autoscaler of Kubernetes looks (--horizontal-pod-autoscaler-sync-period).
PERIOD_S = 15.0


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers of one role: those that take requests, and how many are starting and leaving."""

    role: str
    open: tuple[WorkerView, ...]
    starting: int
    leaving: int

    @property
    def size(self) -> int:
        """Workers that take requests, or soon will."""
        return len(self.open) + self.starting


def pools_of(views: FleetViews, seen: list[str]) -> dict[str, Pool]:
    """The pools of a fleet by role: those `seen` before, to which new ones are added in order of first worker.

    A pool that has lost all of its workers is there, empty.
    """
    taking = dict.fromkeys((*views.prefill, *views.decode))
    found: dict[str, tuple[list[WorkerView], list[int]]] = {role: ([], [0, 0]) for role in seen}
    for kind, workers in enumerate((taking, views.starting, views.leaving)):
        for worker in workers:
            view = views[worker]
            taken, counts = found.setdefault(view.role, ([], [0, 0]))
            if kind:
                counts[kind - 1] += 1
            else:
                taken.append(view)
    seen[:] = found
    return {role: Pool(role, tuple(taken), *counts) for role, (taken, counts) in found.items()}


def in_flight(pools: dict[str, Pool]) -> bool:
    """Whether a worker is starting or leaving."""
    return any(pool.starting or pool.leaving for pool in pools.values())


def check_period(scaler: str, period_s: float) -> None:
    """Raise `InputError` for a period that is not a positive number of seconds."""
    if not 0 < period_s < inf:
        raise InputError(f"scaler {scaler}: period_s is {period_s}; give a number of seconds above 0")


def check_range(scaler: str, role: str, least: int, most: int) -> None:
    """Raise `InputError` for bounds of a pool that leave nothing, or exclude each other."""
    if not 1 <= least <= most:
        raise InputError(f"scaler {scaler}: {least} to {most} {role} workers; give 1 or more, in this order")
