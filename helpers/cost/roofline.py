"""The time of a step predicted from the hardware and model tables.

Each group of operations takes the larger of its arithmetic time and its memory time, at stated
efficiencies; the groups run one after the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.models import Model


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the datasheet rates that a step is assumed to reach, and its fixed times.

    The shares are the assumption of a prediction, not a measurement: matrix products reach about
    0.8 of the dense peak at best on an H100 (measured 798 of 989 TFLOP/s), a served prefill less;
    0.8 of the memory rate is what NVIDIA's aiconfigurator assumes.
    """

    matmul: float = 0.60
    attention: float = 0.40
    memory: float = 0.80
    fabric: float = 0.80
    host_s: float = 1.0e-3  # per step: scheduling, launches that are not hidden, sampling
    collective_s: float = 10.0e-6  # latency of one all-reduce

    def __post_init__(self) -> None:
        for name in ("matmul", "attention", "memory", "fabric"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"efficiency {name} is {getattr(self, name)}; give a share above 0, at most 1")
        if not (0 <= self.host_s < inf and 0 <= self.collective_s < inf):
            raise InputError(
                f"host_s is {self.host_s} and collective_s {self.collective_s}; "
                "they are times in seconds and cannot be negative or endless"
            )


# CUDA graphs are captured for these decode batches; a batch in between runs as the next larger one.
GRAPH_BATCHES = (1, 2, 4, *range(8, 257, 8))


def graph_batch(decodes: int) -> int:
    """The captured batch that runs `decodes` requests; batches beyond the largest run as they are."""
    if decodes > GRAPH_BATCHES[-1]:
        return decodes
    return decodes if decodes <= 2 else 4 if decodes <= 4 else -(-decodes // 8) * 8


@dataclass(frozen=True)
class RooflineCost:
    """A step of `model` on `tp` GPUs, predicted from peak rates times `efficiency`.

    linear = max(FLOPs of all tokens, the output head once per sequence / matmul rate, weight bytes / memory rate)
    prefill attention = max(FLOPs of the causal pairs / attention rate, KV bytes read / memory rate) per chunk
    decode attention = KV tokens * max(KV bytes / memory rate, FLOPs per pair / attention rate)
    a decode-only step runs at a captured batch, a mixed one at its own: a small chunk can make a step shorter
    (sliding windows are not modelled: every layer is charged for the whole context)
    tp > 1 adds two all-reduces a layer: collective latency + 2 (tp-1)/tp * tokens * hidden * 2 bytes / fabric rate.
    """

    model: Model
    gpu: GPU
    tp: int = 1
    efficiency: Efficiency = field(default_factory=Efficiency)
    kind: str = "predicted"

    def __post_init__(self) -> None:
        if self.tp < 1:
            raise InputError(f"tp is {self.tp}; give 1 or more")
        m, g, e, tp = self.model, self.gpu, self.efficiency, self.tp
        matmul = g.peak_flops("bf16") * e.matmul * tp
        attention = g.peak_flops("bf16") * e.attention * tp
        memory = g.hbm_bytes_per_s * e.memory
        kv_bytes = m.kv_bytes_per_token_per_gpu(tp)
        wire = 2 * (tp - 1) / tp * m.hidden * 2 / (g.nvlink_bytes_per_s * e.fabric) if tp > 1 else 0.0
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 (the class is frozen)
        put("_token_s", (m.linear_flops_per_token - m.head_flops_per_token) / matmul)
        put("_head_s", m.head_flops_per_token / matmul)
        put("_pair_s", m.attention_flops_per_token_context / attention)
        put("_kv_read_s", kv_bytes / memory)
        put("_kv_slope_s", max(kv_bytes / memory, m.decode_attention_flops_per_token_context / attention))
        put("_weights_per_s", memory * tp)
        put("_fixed_s", e.host_s + (2 * m.layers * e.collective_s if tp > 1 else 0.0))
        put("_wire_s", 2 * m.layers * wire)
        put("_by_batch", m.experts > 0)  # whether the weights that are read depend on the batch
        put("_weight_s", {})  # batch -> seconds to read the weights

    def _linear_s(self, tokens: int, sequences: int) -> float:
        batch = tokens if self._by_batch else 1
        weights = self._weight_s.get(batch)
        if weights is None:
            weights = self._weight_s[batch] = self.model.decode_weight_bytes(batch) / self._weights_per_s
        compute = tokens * self._token_s + sequences * self._head_s
        return (compute if compute > weights else weights) + tokens * self._wire_s

    def step(self, chunks: Sequence[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
        if not chunks:
            base, slope = self.decode(decodes)
            return base + slope * kv_tokens
        tokens, attention = decodes, kv_tokens * self._kv_slope_s
        for n, context in chunks:
            tokens += n
            compute = (n * context + n * (n + 1) / 2) * self._pair_s
            read = (context + n) * self._kv_read_s
            attention += compute if compute > read else read
        return self._fixed_s + self._linear_s(tokens, decodes + len(chunks)) + attention

    def steps(self, tokens: int, contexts: Iterable[int], decodes: int, kv_tokens: int) -> list[float]:
        linear_s = self._fixed_s + self._linear_s(tokens + decodes, decodes + 1)
        decoding_s = kv_tokens * self._kv_slope_s
        own_pairs, pair_s, read_s = tokens * (tokens + 1) / 2, self._pair_s, self._kv_read_s
        seconds = []
        for context in contexts:  # to the last bit what `step` says, with what all have in common computed once
            compute, read = (tokens * context + own_pairs) * pair_s, (context + tokens) * read_s
            seconds.append(linear_s + (decoding_s + (compute if compute > read else read)))
        return seconds

    def decode(self, decodes: int) -> tuple[float, float]:
        batch = graph_batch(decodes)
        return self._fixed_s + self._linear_s(batch, batch), self._kv_slope_s
