"""A fleet in the words of a person: model, hardware, workers, split, memory, links."""

import re
from dataclasses import asdict, dataclass, field, replace
from math import inf

from helpers.cost.budget import kv_blocks, kv_bytes_per_gpu
from helpers.cost.iteration import CostModel
from helpers.cost.predictor import CostPredictor
from helpers.cost.roofline import Efficiency, RooflineCost
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.hardware import GPU, gpu
from helpers.models import Model, model
from helpers.scheduling.limits import Limits
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry

# Mooncake's published prefill-to-decode transfers fit a latency of 0.4 to 1.8 ms and reach 71 to 82 % of
# the line rate when large (its performance pages for vLLM and SGLang, read 2026-08).
LINK_LATENCY_S = 1.0e-3
LINK_EFFICIENCY = 0.75
MOST_WORKERS = 100_000
# An engine takes 58 s to start besides reading its weights: vllm-project/vllm#20264 counts 59 s to the first answer
# of a pod that finds its compiled graphs in a cache, 0.7 s of them for weights. These come from one NVMe drive
# (PCIe 4.0 x4, 7 GB/s), over which the accelerators of a worker share them.
ENGINE_START_S = 58.0
STORAGE_BYTES_PER_S = 7.0e9
# A worker that changes its role keeps its weights and graphs: what is left is to say so to the router and to set up
# connections. By hand; an engine that must be restarted for it takes `Fleet.startup_s` instead.
ROLE_CHANGE_S = 1.0


@dataclass(frozen=True)
class Fleet:
    """`workers` equal workers of `tp` GPUs each, serving one model.

    `split` such as `2P2D` makes some prefill and some decode workers (and their sum the number of
    workers); without it all are mixed. `kv_gib` sets the KV memory of each worker, all its GPUs
    together; by default it is 90 % of the GPU memory less the weights. `link` defaults to the
    workers' network cards. `cost` defaults to a roofline prediction. `shape` is that of a `model` which the
    table does not have. `prefill_cost` is that of workers that only prefill, where they have one of their own: policies
    are told `cost`. Raises `InputError` for what does not fit together.
    """

    model: str = "llama-3.1-8b"
    hardware: str = "h100"
    workers: int = 4
    split: str | None = None
    tp: int = 1
    chunk_tokens: int = 2048
    max_batch: int = 256
    kv_gib: float | None = None
    link: Link | None = None
    link_mode: str = "layerwise"
    telemetry: Telemetry = field(default_factory=Telemetry)
    hop_s: float = 0.0
    efficiency: Efficiency = field(default_factory=Efficiency)
    cost: CostModel | None = None
    shape: Model | None = None
    prefill_cost: CostModel | None = None

    def __post_init__(self) -> None:
        if self.tp < 1:
            raise InputError(f"tp is {self.tp}; give 1 or more")
        for name in ("chunk_tokens", "max_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.hop_s < inf:
            raise InputError(f"hop_s is {self.hop_s}; give a finite number of 0 or more")
        if self.kv_gib is not None and not 0 < self.kv_gib < inf:
            raise InputError(f"the KV memory is {self.kv_gib} GiB; give a finite number above 0")
        if self.split is None and self.workers < 1:
            raise InputError(f"a fleet of {self.workers} workers serves nothing; give at least one")
        if self.workers > MOST_WORKERS:
            raise InputError(f"a fleet of {self.workers} workers is more than the {MOST_WORKERS} that are simulated")
        if self.split is not None and len(self.roles) != self.workers:
            raise InputError(f"split {self.split} is {len(self.roles)} workers, but {self.workers} were asked for")

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each worker."""
        return ("mixed",) * self.workers if self.split is None else parse_split(self.split)

    @property
    def served_model(self) -> Model:
        """The row of the model table, or the `shape` of one that is not there."""
        return self.shape or model(self.model)

    @property
    def gpu(self) -> GPU:
        """The row of the hardware table."""
        return gpu(self.hardware)

    def kv_bytes(self) -> float:
        """Bytes of KV memory on each GPU of a worker."""
        if self.kv_gib is None:
            return kv_bytes_per_gpu(self.served_model, self.gpu, self.tp)
        return self.kv_gib * 2**30 / self.tp

    def kv_blocks(self, block_tokens: int) -> int:
        """Blocks of `block_tokens` tokens that a worker holds."""
        return kv_blocks(self.served_model, self.kv_bytes(), block_tokens, self.tp)

    def with_limits(self, limits: Limits) -> "Fleet":
        """This fleet of workers with the very limits of a running engine.

        Its KV memory is half a block more than those blocks take, so that rounding does not lose one.
        """
        kv_bytes = (limits.kv_blocks + 0.5) * limits.block_tokens * self.served_model.kv_bytes_per_token()
        return replace(self, chunk_tokens=limits.token_budget, max_batch=limits.max_batch, kv_gib=kv_bytes / 2**30)

    def cluster(self, block_tokens: int) -> ClusterSpec:
        """The fleet as the simulator wants it, with KV blocks of `block_tokens` tokens."""
        limits = Limits(self.kv_blocks(block_tokens), block_tokens, self.chunk_tokens, self.max_batch)
        cost = self._cost()
        costs = {"prefill": self.prefill_cost or cost}
        workers = tuple(WorkerSpec(limits, costs.get(role, cost), role, self.tp) for role in self.roles)
        return ClusterSpec(
            workers,
            self.link or self._network(),
            self.served_model.kv_bytes_per_token(),
            self.served_model.layers,
            self.telemetry,
            self.hop_s,
        )

    def predictor(self) -> CostPredictor:
        """Predicted latencies on a worker of this fleet, for the policies that ask for them."""
        kv_bytes = self.served_model.kv_bytes_per_token()
        return CostPredictor(self._cost(), self.chunk_tokens, self.link or self._network(), kv_bytes)

    def _cost(self) -> CostModel:
        return self.cost or RooflineCost(self.served_model, self.gpu, self.tp, self.efficiency)

    def _network(self) -> Link | None:
        if not self.gpu.has("nic_bytes_per_s"):
            if self.split is None:
                return None
            raise InputError(f"{self.gpu.name} has no network figure for the hand-off of KV; give the fleet a link")
        return Link(LINK_LATENCY_S, self.gpu.nic_bytes_per_s * self.tp * LINK_EFFICIENCY, self.link_mode)

    def startup_s(self) -> float:
        """Seconds from the start of a further worker to its first request: the engine's own, and reading the weights.

        For Llama-3.1-8B 58 s + 16.06 GB / 7 GB/s = 60.3 s. A machine and an image that are there are taken for granted.
        """
        return ENGINE_START_S + self.served_model.weight_bytes() / STORAGE_BYTES_PER_S

    def describe(self) -> dict:
        """The fleet in plain values, for provenance."""
        link, by_step = self.link or self._network(), ["by step"] if self.telemetry.by_step else []
        return {
            "model": self.model,
            "hardware": self.hardware,
            "workers": len(self.roles),
            "split": self.split,
            "tp": self.tp,
            "chunk_tokens": self.chunk_tokens,
            "max_batch": self.max_batch,
            "kv_gib_per_worker": round(self.kv_bytes() * self.tp / 2**30, 3),
            "telemetry": [self.telemetry.period_s, self.telemetry.delay_s, self.telemetry.noise, *by_step],
            "hop_s": self.hop_s,
            "link": asdict(link) if link else None,
            "cost": self.cost.kind if self.cost else "predicted",
            "efficiency": None if self.cost else asdict(self.efficiency),
        }


def parse_split(text: str) -> tuple[str, ...]:
    """The roles of a split such as `2P2D` (or `2P2D1M`, with mixed workers); raises `InputError`."""
    found = re.fullmatch(r"(\d+)P(\d+)D(?:(\d+)M)?", text.strip(), re.IGNORECASE)
    if not found or not (int(found[1]) and int(found[2])):
        raise InputError(f"split {text!r}; write prefill and decode workers like 2P2D, at least one of each")
    counts = zip(("prefill", "decode", "mixed"), (int(n or 0) for n in found.groups()), strict=True)
    return tuple(role for role, n in counts for _ in range(n))
