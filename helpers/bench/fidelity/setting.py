"""What serves a slice, and how long its requests are: a tiny model on the cores of a CPU, a large one on GPUs."""

from dataclasses import dataclass, field

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterOptions
from helpers.simulator.views import Telemetry
from helpers.workload.slo import SLO

BLOCK_TOKENS = 64
BOUND = SLO(ttft_s=0.1, tpot_s=0.02)
PREDICTED = AffineCost(3e-3, 1e-4, 0.0, 3e-4, 1e-6)  # what policies are told while nothing is measured yet


@dataclass(frozen=True)
class Setting:
    """Workers with one engine each, and their limits.

    `mover` hands KV over where a fleet is split (empty: that of the link's mode). With `ahead` workers launch a step
    while the one before it runs, so that a request has to be there some time before a step to be in it. What is not
    served `drain_s` after the last arrival is unfinished. A worker that is silent for `hang_s` is lost.
    """

    model: str
    device: str
    token_budget: int
    max_batch: int
    kv_gib: float
    mover: str = ""
    ahead: bool = False
    drain_s: float = 60.0
    hang_s: float = 20.0

    @property
    def telemetry(self) -> Telemetry:
        """What policies see of these workers. One that launches ahead has booked the step in flight when it reports, as
        the simulator's has; any other reports between its steps."""
        return Telemetry(by_step=not self.ahead)

    def options(self, workers=None) -> ClusterOptions:
        """As a live cluster wants it."""
        return ClusterOptions(
            model=self.model, device=self.device, mover=self.mover, workers=workers, hang_s=self.hang_s
        )


@dataclass(frozen=True)
class Lengths:
    """A generator of the workloads with what it is told."""

    generator: str
    knobs: dict = field(default_factory=dict)


CPU = Setting("tiny", "cpu", 512, 32, 0.06)
# As in the part `serve` of a recording. What is compiled at its first use takes its time.
GPU = Setting("llama-8b", "cuda", 2048, 128, 20.0, mover="asynchronous", ahead=True, drain_s=20.0, hang_s=90.0)
SETTINGS = {"cpu": CPU, "cuda": GPU}

TRAFFIC = {"prompt_tokens": "lognormal:128:0.5", "output_tokens": "lognormal:16:0.5", "shared_tokens": 64}
LENGTHS = {
    "cpu": Lengths("poisson", {"blocks": True, **TRAFFIC}),
    "gpu": Lengths(
        "poisson",
        {
            "blocks": True, "shared_tokens": 256,
            "prompt_tokens": "lognormal:500:0.8", "output_tokens": "lognormal:100:0.4",
        },
    ),
    # Questions about texts of which a worker's KV has room for a half.
    "cpu, documents": Lengths(
        "documents",
        {
            "system_tokens": 64, "tenants": 4, "tenant_tokens": "64", "documents": 4, "skew": 0.6,
            "document_tokens": "lognormal:320:0.3", "question_tokens": "lognormal:24:0.5",
            "output_tokens": "lognormal:10:0.5",
        },
    ),
    "gpu, documents": Lengths(
        "documents",
        {
            "system_tokens": 128, "tenants": 6, "tenant_tokens": "512", "documents": 8, "skew": 0.6,
            "document_tokens": "lognormal:1500:0.3", "question_tokens": "lognormal:60:0.5",
            "output_tokens": "lognormal:48:0.5",
        },
    ),
    # A few tokens each, so that a worker that was handed one is idle again when the next one comes.
    "gpu, few tokens": Lengths(
        "poisson", {"blocks": True, "prompt_tokens": "lognormal:700:0.6", "output_tokens": "6"}
    ),
}  # fmt: skip


def lengths_of(name: str) -> Lengths:
    """The lengths of a name; raises `InputError` for one that does not exist."""
    if name not in LENGTHS:
        raise InputError(f"there are no lengths {name!r}; use one of {', '.join(LENGTHS)}")
    return LENGTHS[name]
