"""What a policy is told of the place where it runs, before the first request."""

from dataclasses import dataclass, field

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.workload.slo import SLO, SLOs


@dataclass(frozen=True)
class Facts:
    """The fleet and the promises, as a policy may know them.

    A policy is given each of these for which it has a field of that name. `block_tokens` is the size of the
    hashed blocks of the workload's prompts, `token_budget` and `kv_blocks` are those of a worker, `slos` what
    was promised to whom. Raises `InputError` for a fleet without workers and for sizes below 1.
    """

    workers: int = 1
    block_tokens: int = 512
    token_budget: int = 2048
    kv_blocks: int = 1000
    predictor: CostPredictor | None = None
    slos: SLOs = field(default_factory=SLO)

    def __post_init__(self) -> None:
        for name in ("workers", "block_tokens", "token_budget", "kv_blocks"):
            if getattr(self, name) < 1:
                raise InputError(f"the fleet of a policy: {name} is {getattr(self, name)}; give 1 or more")
