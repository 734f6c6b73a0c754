"""What the simulator must know of a worker."""

from dataclasses import dataclass

from helpers.cost.iteration import CostModel
from helpers.errors import InputError
from helpers.metrics.timeline import WorkerInfo
from helpers.scheduling.limits import Limits

ROLES = ("mixed", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker: its role, limits and the cost of its steps; `tp`, `pp`, `ep` are carried along for the record."""

    limits: Limits
    cost: CostModel
    role: str = "mixed"
    tp: int = 1
    pp: int = 1
    ep: int = 1

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"worker role {self.role!r}; use one of {', '.join(ROLES)}")

    def info(self) -> WorkerInfo:
        """What a run says of the worker."""
        return WorkerInfo(self.role, self.tp, self.pp, self.ep, self.limits.kv_blocks, self.limits.block_tokens)
