"""What the simulator must know of a worker and of a fleet."""

from dataclasses import dataclass, field
from math import inf

from helpers.cost.iteration import CostModel
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.timeline import WorkerInfo
from helpers.scheduling.limits import Limits
from helpers.simulator.views import Telemetry

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


@dataclass(frozen=True)
class ClusterSpec:
    """The hardware side of a simulation.

    `link` connects workers of different roles (needed for hand-offs and fetches);
    `kv_bytes_per_token` is what one token's KV weighs on the wire, over all layers and GPUs of a
    worker; `hop_s` is the time from the front end to a worker. A worker that is started later takes
    requests after `startup_s`, one that has drained to change its role after `role_change_s`. Raises
    `InputError` for a fleet that cannot serve, or times that cannot be.
    """

    workers: tuple[WorkerSpec, ...]
    link: Link | None = None
    kv_bytes_per_token: float = 0.0
    layers: int = 1
    telemetry: Telemetry = field(default_factory=Telemetry)
    hop_s: float = 0.0
    startup_s: float = 0.0
    role_change_s: float = 0.0

    def __post_init__(self) -> None:
        roles = {w.role for w in self.workers}
        if not self.workers:
            raise InputError("a fleet of 0 workers serves nothing; give at least one")
        if not roles - {"decode"} or not roles - {"prefill"}:
            raise InputError(f"a fleet of {roles.pop()} workers only cannot finish a request; add the other role")
        if "prefill" in roles and self.link is None:
            raise InputError("a fleet with prefill workers hands KV over; give it a link")
        if len({w.limits.block_tokens for w in self.workers}) > 1:
            raise InputError("workers with different block_tokens cannot share prefix hashes; use one size")
        for name in ("startup_s", "role_change_s"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{name} is {getattr(self, name)}; give a finite number of 0 or more")
