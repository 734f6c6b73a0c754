"""Prefill and decode apart, or together: what moves, how long it takes, when it pays, and how many workers each needs.

Closed forms without randomness: rates are bounds that no queue is counted in. Step times come from a cost model,
transfers from `helpers.cost.transfer`.
"""

from dataclasses import dataclass
from math import inf

from helpers.cost.iteration import CostModel
from helpers.cost.service import prefill_s
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.models import Model
from helpers.sources import one_of

# Figure of a GPU and the share of its line rate that large transfers reach. NVLink and PCIe: nvbandwidth on H200,
# 396 of 450 and 55.4 of 63 GB/s (stas00/ml-engineering, network/README.md, 2026-08). Network: 71 to 82 % in Mooncake's
# published transfers (its performance pages for vLLM and SGLang, 2026-08). Their latency a hand-off, 0.4 to 1.8 ms,
# is mostly software and taken for every wire.
WIRES = {
    "nvlink": ("nvlink_bytes_per_s", 0.88),
    "network": ("nic_bytes_per_s", 0.75),
    "pcie": ("host_bytes_per_s", 0.88),
}
HAND_OFF_LATENCY_S = 1.0e-3
MOST_DECODES = 256
HALVINGS = 20
MOST_ROUNDS, AGREES = 60, 3e-5  # of looking for a mean step: it is found when a round changes it by less than that


def link_of(gpu: GPU, wire: str, mode: str = "layerwise") -> Link:
    """One direction of a GPU's `nvlink`, `network` or `pcie` at the rate that large transfers reach.

    Raises `InputError` for another wire, and for one that the part does not have.
    """
    if wire not in WIRES:
        raise one_of("wire", wire, WIRES)
    name, share = WIRES[wire]
    if not gpu.has(name):
        raise InputError(f"{gpu.name} has no {wire} in data/hardware.toml; choose another link or GPU")
    return Link(HAND_OFF_LATENCY_S, share * gpu.figure(name), mode)


def moved_bytes(model: Model, prompt_tokens: int, dtype_bytes: float = 2.0) -> float:
    """Bytes of KV of a prompt that a hand-off moves: all layers, one copy (`Model.kv_bytes`)."""
    return model.kv_bytes(prompt_tokens, dtype_bytes)


@dataclass(frozen=True, slots=True)
class HandOff:
    """One hand-off: how long it takes alone, and what of it is left when the prefill has ended."""

    size_bytes: float
    whole_s: float
    exposed_s: float

    @property
    def hidden_s(self) -> float:
        """Seconds of the transfer that lie behind the computation of later layers."""
        return self.whole_s - self.exposed_s


def hand_off(link: Link, size_bytes: float, prefill_s: float, layers: int) -> HandOff:
    """The hand-off of a prompt whose prefill takes `prefill_s` (`Link.wire_s`, and the latency, which is exposed)."""
    return HandOff(size_bytes, link.transfer_s(size_bytes), link.latency_s + link.wire_s(size_bytes, prefill_s, layers))


@dataclass(frozen=True, slots=True)
class Work:
    """An operating point: tokens of a mean prompt, of which `cached_tokens` need no prefill, and of its answer."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        if self.output_tokens < 2:
            raise InputError(f"an answer of {self.output_tokens} tokens has no TPOT; give 2 or more")
        if not 0 <= self.cached_tokens < self.prompt_tokens:
            raise InputError(
                f"{self.cached_tokens} of {self.prompt_tokens} prompt tokens are cached; "
                "give 0 or more, and leave a token to compute"
            )

    @property
    def uncached_tokens(self) -> int:
        """Tokens to prefill."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def context_tokens(self) -> float:
        """Tokens that a request attends to half way through its answer."""
        return self.prompt_tokens + self.output_tokens / 2


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decode worker at its bound: so many requests run together, a step takes `step_s`, `per_s` requests end."""

    batch: int
    step_s: float
    per_s: float


def decoding(
    cost: CostModel, work: Work, tpot_s: float, kv_tokens: float = inf, max_batch: int = MOST_DECODES
) -> Decoding | None:
    """The most requests a second that one worker decodes when each step may take `tpot_s`; None when not even one.

    The batch is the largest B with base(B) + slope * B * context <= tpot_s (`CostModel.decode`) whose requests, half
    way through their answers, fit `kv_tokens`; by Little's law B / (output tokens * step) requests end a second.
    """
    fitting = int(min(max_batch, kv_tokens / work.context_tokens))
    low, high = 0, fitting + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _step_s(cost, work, middle) <= tpot_s else (low, middle)
    if low < 1:
        return None
    step_s = _step_s(cost, work, low)
    return Decoding(low, step_s, low / (work.output_tokens * step_s))


def _step_s(cost: CostModel, work: Work, batch: float) -> float:
    base, slope = cost.decode(max(1, round(batch)))
    return base + slope * batch * work.context_tokens


@dataclass(frozen=True, slots=True)
class Together:
    """A worker that does both, at its bound: `per_s` requests a second, `batch` of them decoding in a mean step."""

    per_s: float
    step_s: float
    batch: float


def together(
    cost: CostModel,
    work: Work,
    tpot_s: float,
    chunk_tokens: int,
    kv_tokens: float = inf,
    max_batch: int = MOST_DECODES,
) -> Together:
    """The most that one worker carries which prefills in chunks and decodes within `tpot_s` a token; 0 for none.

    At rate r a prompt takes n = uncached / (chunk - B) steps, one at least, each longer than a decode step D by d (with
    half of the prompt before it). Decodes see the mean step T = D(B) + r n d T, where B = r * output * T run (Little's
    law). It must be within tpot_s, and no more than every step can have a chunk: r n T <= 1. Solved by halving.
    """
    low, high = 0.0, 1 / prefill_s(cost, work.prompt_tokens, chunk_tokens, work.cached_tokens)
    step_s = cost.decode(1)[0]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found_s = _mean_step_s(cost, work, middle, tpot_s, chunk_tokens, kv_tokens, max_batch, step_s)
        low, high, step_s = (low, middle, step_s) if found_s is None else (middle, high, found_s)
    return Together(low, step_s, low * work.output_tokens * step_s)


def _mean_step_s(
    cost, work: Work, per_s: float, tpot_s: float, chunk_tokens: int, kv_tokens: float, max_batch: int, from_s: float
) -> float | None:
    """The least mean step that agrees with itself at a rate, None where it is not within all bounds.

    It is looked for from `from_s` on: that of a lower rate, which is no longer.
    """
    mean_s = from_s
    for _ in range(MOST_ROUNDS):
        batch = per_s * work.output_tokens * mean_s
        room = chunk_tokens - batch
        if mean_s > tpot_s or room < 1 or batch > max_batch or batch * work.context_tokens > kv_tokens:
            return None
        decode_s = _step_s(cost, work, batch)
        chunk = min(room, work.uncached_tokens)
        chunks_per_s = per_s * work.uncached_tokens / chunk
        longer_s = _longer_s(cost, work, chunk, batch, decode_s)
        before_s, mean_s = mean_s, decode_s + chunks_per_s * longer_s * mean_s
        if abs(mean_s - before_s) < AGREES * mean_s:
            break
    return mean_s if mean_s <= tpot_s and chunks_per_s * mean_s <= 1 else None


def _longer_s(cost: CostModel, work: Work, chunk: float, batch: float, decode_s: float) -> float:
    """By how much a chunk half way through a prompt makes a step of `batch` decodes longer."""
    before = work.cached_tokens + (work.uncached_tokens - chunk) / 2
    decodes = max(1, round(batch))
    return max(0.0, cost.step([(round(chunk), round(before))], decodes, round(batch * work.context_tokens)) - decode_s)


def stall_s(
    cost: CostModel, tokens: int, chunk_tokens: int, cached_tokens: int = 0, decodes: int = 0, kv_tokens: int = 0
) -> float:
    """Seconds that running requests lose to one prompt computed beside them: its steps, less as many without a chunk.

    `tokens` counts the prompt with its first `cached_tokens`, as in `helpers.cost.service.prefill_s`.
    """
    base, slope = cost.decode(max(1, decodes))
    steps = -(-(tokens - cached_tokens) // chunk_tokens)
    beside_s = prefill_s(cost, tokens, chunk_tokens, cached_tokens, decodes, kv_tokens)
    return beside_s - steps * (base + slope * kv_tokens)


@dataclass(frozen=True, slots=True)
class Beside:
    """A decode worker that could compute a prompt itself, in chunks beside `decodes` that hold `kv_tokens`."""

    chunk_tokens: int
    decodes: int
    kv_tokens: int

    def prefill_s(self, cost: CostModel, tokens: int, cached_tokens: int = 0) -> float:
        """Seconds until the prompt is computed there."""
        room = max(1, self.chunk_tokens - self.decodes)
        return prefill_s(cost, tokens, room, cached_tokens, self.decodes, self.kv_tokens)


def break_even_tokens(
    cost: CostModel, link: Link, model: Model, beside: Beside, cached_tokens: int = 0, wait_s: float = 0.0
) -> int | None:
    """From how many uncached tokens on handing over is no slower than computing beside decodes; None up to the context.

    Handing over costs a wait of `wait_s` for a prefill worker, the prefill alone, and the exposed transfer of the
    whole prompt; the cached tokens are on both workers. One crossing is assumed, and found by halving.
    """
    most = model.max_context - cached_tokens

    def pays(uncached: int) -> bool:
        tokens = cached_tokens + uncached
        alone_s = prefill_s(cost, tokens, 2048, cached_tokens)
        moved = hand_off(link, moved_bytes(model, tokens), alone_s, model.layers)
        return wait_s + alone_s + moved.exposed_s <= beside.prefill_s(cost, tokens, cached_tokens)

    if not pays(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high


def break_even_bytes_per_s(
    cost: CostModel,
    link: Link,
    model: Model,
    beside: Beside,
    tokens: int,
    cached_tokens: int = 0,
    wait_s: float = 0.0,
) -> float | None:
    """The rate of a link at which handing a prompt over is as fast as computing it beside decodes; None for no rate.

    `Link.wire_s` solved for the rate: with A seconds to spare a blocking link needs bytes / A; layer by layer over L
    layers and a prefill of P seconds bytes / min(L * A, A + P (L - 1) / L).
    """
    alone_s = prefill_s(cost, tokens, 2048, cached_tokens)
    spare_s = beside.prefill_s(cost, tokens, cached_tokens) - wait_s - alone_s - link.latency_s
    if spare_s <= 0:
        return None
    whole_s = spare_s
    if link.mode == "layerwise":
        whole_s = min(model.layers * spare_s, spare_s + alone_s * (model.layers - 1) / model.layers)
    return moved_bytes(model, tokens) / whole_s


@dataclass(frozen=True, slots=True)
class Apart:
    """What one prefill worker (`prefill_per_s`) and one decode worker (`decode_per_s`) carry, in requests/s."""

    prefill_per_s: float
    decode_per_s: float

    @property
    def ratio(self) -> float:
        """Prefill workers for each decode worker at which both are full."""
        return self.decode_per_s / self.prefill_per_s

    def per_s(self, prefill: int, decode: int) -> float:
        """The bound of a fleet: that of its fuller pool."""
        return min(prefill * self.prefill_per_s, decode * self.decode_per_s)

    def best(self, workers: int) -> tuple[int, int]:
        """(prefill, decode) with the highest bound among `workers`, the fewest prefill workers among equals.

        Raises `InputError` for fewer than two workers.
        """
        if workers < 2:
            raise InputError(f"{workers} workers cannot be split; give 2 or more")
        prefill = max(range(1, workers), key=lambda p: (self.per_s(p, workers - p), -p))
        return prefill, workers - prefill


def apart(
    cost: CostModel,
    link: Link,
    model: Model,
    work: Work,
    tpot_s: float,
    chunk_tokens: int = 2048,
    kv_tokens: float = inf,
    max_batch: int = MOST_DECODES,
) -> Apart:
    """The bounds of the two pools (rate matching: TensorRT-LLM tech blog 5, "Measurement Methodology").

    A prefill worker spends `prefill_s` a request, and sends meanwhile; with a blocking link it waits for the transfer
    too. A link carries one hand-off after the other, in each direction. The exposed part of a transfer delays the
    second token, so a step of the decode worker may take tpot_s - exposed / (output tokens - 1).
    """
    own_s = prefill_s(cost, work.prompt_tokens, chunk_tokens, work.cached_tokens)
    moved = hand_off(link, moved_bytes(model, work.prompt_tokens), own_s, model.layers)
    busy_s = own_s + moved.whole_s if link.mode == "blocking" else max(own_s, moved.whole_s)
    found = decoding(cost, work, tpot_s - moved.exposed_s / (work.output_tokens - 1), kv_tokens, max_batch)
    return Apart(1 / busy_s, min(found.per_s, 1 / moved.whole_s) if found else 0.0)
