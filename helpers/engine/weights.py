"""The parameters of a decoder as plain tensors, and seeded random ones.

Projections that read the same input are one matrix: `wqkv` (queries, keys, values) and `w13` (gate, up).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from helpers.engine.config import ModelConfig


@dataclass(slots=True)
class ExpertWeights:
    """Router and experts of one layer; E experts of width F, S shared ones as one MLP of width S * F."""

    router: Tensor  # [E, hidden]
    w13: Tensor  # [E, 2 F, hidden]
    w2: Tensor  # [E, hidden, F]
    bias: Tensor | None = None  # [E] float32, added to the scores for the choice alone
    shared_w13: Tensor | None = None  # [2 S F, hidden]
    shared_w2: Tensor | None = None  # [hidden, S F]


@dataclass(slots=True)
class LayerWeights:
    attention_norm: Tensor  # [hidden]
    wqkv: Tensor  # [(heads + 2 kv_heads) * head_dim, hidden]
    wo: Tensor  # [hidden, heads * head_dim]
    mlp_norm: Tensor  # [hidden]
    q_norm: Tensor | None = None  # [head_dim]
    k_norm: Tensor | None = None
    w13: Tensor | None = None  # [2 intermediate, hidden]
    w2: Tensor | None = None  # [hidden, intermediate]
    moe: ExpertWeights | None = None


@dataclass(slots=True)
class Weights:
    """`layers` by their number in the model, so that a pipeline stage holds its own alone; the first stage
    has `embedding`, the last `norm` and `head` (the embedding itself where they are tied)."""

    layers: dict[int, LayerWeights]
    embedding: Tensor | None = None  # [vocab, hidden]
    norm: Tensor | None = None  # [hidden]
    head: Tensor | None = None  # [vocab, hidden]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors, a tied matrix once."""
        return sum(t.nbytes for t in {t.data_ptr(): t for t in tensors(self)}.values())


def tensors(part) -> list[Tensor]:
    """All tensors of a dataclass, a dict or a tensor."""
    if isinstance(part, Tensor):
        return [part]
    children = part.values() if isinstance(part, dict) else ()
    if is_dataclass(part):
        children = (getattr(part, f.name) for f in fields(part))
    return [tensor for child in children for tensor in tensors(child)]


Make = Callable[..., Tensor]  # (name, *shape) -> the tensor of that name


def build(config: ModelConfig, make: Make, layers: range | None = None) -> Weights:
    """The weights of `layers` (all) with every tensor made by `make(name, *shape)`: random, or read from a file."""
    layers = range(config.layers) if layers is None else layers
    first, last = layers.start == 0, layers.stop == config.layers
    weights = Weights({i: _layer(config, i, make) for i in layers})
    if first or (last and config.tied):
        weights.embedding = make("embedding", config.vocab, config.hidden)
    if last:
        weights.norm = make("norm", config.hidden)
        weights.head = weights.embedding if config.tied else make("head", config.vocab, config.hidden)
    return weights


def _layer(config: ModelConfig, i: int, make: Make) -> LayerWeights:
    hidden, head_dim = config.hidden, config.head_dim
    layer = LayerWeights(
        attention_norm=make(f"layers.{i}.attention_norm", hidden),
        wqkv=make(f"layers.{i}.wqkv", config.qkv_heads * head_dim, hidden),
        wo=make(f"layers.{i}.wo", hidden, config.heads * head_dim),
        mlp_norm=make(f"layers.{i}.mlp_norm", hidden),
    )
    if config.qk_norm:
        layer.q_norm = make(f"layers.{i}.q_norm", head_dim)
        layer.k_norm = make(f"layers.{i}.k_norm", head_dim)
    if not config.has_experts(i):
        layer.w13 = make(f"layers.{i}.w13", 2 * config.intermediate, hidden)
        layer.w2 = make(f"layers.{i}.w2", hidden, config.intermediate)
        return layer
    moe = config.moe
    experts, width, shared = moe.experts, moe.intermediate, moe.shared_experts * moe.intermediate
    layer.moe = ExpertWeights(
        router=make(f"layers.{i}.moe.router", experts, hidden),
        w13=make(f"layers.{i}.moe.w13", experts, 2 * width, hidden),
        w2=make(f"layers.{i}.moe.w2", experts, hidden, width),
        bias=make(f"layers.{i}.moe.bias", experts) if moe.bias else None,
        shared_w13=make(f"layers.{i}.moe.shared_w13", 2 * shared, hidden) if shared else None,
        shared_w2=make(f"layers.{i}.moe.shared_w2", hidden, shared) if shared else None,
    )
    return layer


def random_weights(
    config: ModelConfig, seed: int = 0, device="cpu", dtype: torch.dtype = torch.float32, layers: range | None = None
) -> Weights:
    """Seeded normal weights that behave like trained ones where it matters to tests and timings.

    Matrices have standard deviation 1 / sqrt(inputs) (0.016 at 4,096), so that activations, and the
    scores of attention, are of the order of one at any width: every KV page then moves the logits. Norm
    weights lie around 1. The embedding's 0.02 keeps a token from drowning what the layers add, also where
    the head is tied to it. Each tensor has a seed of its own, so a stage has the very tensors of the whole
    model; a GPU draws other numbers than a CPU.
    """

    def make(name: str, *shape: int) -> Tensor:
        digest = blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))
        drawn = torch.empty(shape, device=device).normal_(generator=generator)
        if name.endswith("norm"):
            drawn = 1.0 + 0.1 * drawn
        elif name.endswith("bias"):
            return 0.1 * drawn  # float32, as the router's scores
        else:
            drawn *= 0.02 if name == "embedding" else shape[-1] ** -0.5
        return drawn.to(dtype)

    return build(config, make, layers)
