"""The shape of a decoder that the engine can run, and presets from a laptop to one H100.

Names follow the Hugging Face config where a person would look for them. Counts of parameters,
FLOPs and KV bytes are not written again here: `ModelConfig.shape` gives the `helpers.models.Model`
that has them.
"""

from dataclasses import dataclass

from helpers.errors import InputError
from helpers.models import Model

GATES = ("softmax", "sigmoid")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama-3.1's stretching of rotary frequencies (Hugging Face: `rope_type` "llama3").

    Waves longer than `original_context / low_freq_factor` are slowed by `factor`, waves shorter than
    `original_context / high_freq_factor` stay, those between are blended.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class MoEConfig:
    """Routed experts in place of the MLP.

    Scores are a softmax or a sigmoid of the router's logits; the `top_k` largest are chosen, with
    `bias` after adding a learned bias that counts for the choice only. With `groups` > 1 the experts
    form equal groups, a group scores the sum of its two best, and only `top_groups` groups compete
    (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). Chosen scores are made to sum to one where
    `norm_topk` says so, then multiplied by `scaling`. The first `dense_layers` layers have a plain MLP.
    """

    experts: int
    top_k: int
    intermediate: int
    gate: str = "softmax"
    bias: bool = False
    norm_topk: bool = True
    shared_experts: int = 0
    groups: int = 1
    top_groups: int = 1
    scaling: float = 1.0
    dense_layers: int = 0

    def __post_init__(self) -> None:
        if self.gate not in GATES:
            raise InputError(f"gate is {self.gate!r}; give one of {', '.join(GATES)}")
        if not 1 <= self.top_k <= self.experts:
            raise InputError(f"top_k is {self.top_k} of {self.experts} experts; give 1 to {self.experts}")
        if self.experts % self.groups or not 1 <= self.top_groups <= self.groups:
            raise InputError(
                f"{self.top_groups} of {self.groups} groups over {self.experts} experts: "
                "groups must divide the experts, and top_groups be among them"
            )
        if self.top_k > self.top_groups * (self.experts // self.groups):
            raise InputError(f"top_k {self.top_k} does not fit in {self.top_groups} groups; raise top_groups")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One decoder-only model with grouped-query attention (`kv_heads` = `heads` is MHA)."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5
    max_context: int = 8192
    qk_norm: bool = False
    tied: bool = False
    rope_scaling: RopeScaling | None = None
    moe: MoEConfig | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "max_context"):
            if getattr(self, name) < 1:
                raise InputError(f"model {self.name}: {name} is {getattr(self, name)}; give 1 or more")
        if self.heads % self.kv_heads:
            raise InputError(f"model {self.name}: {self.heads} heads cannot share {self.kv_heads} KV heads evenly")
        if self.head_dim < 16 or self.head_dim & (self.head_dim - 1):
            raise InputError(f"model {self.name}: head_dim is {self.head_dim}; the kernels need a power of two from 16")
        if self.dense_layers and self.intermediate < 1:
            raise InputError(f"model {self.name}: intermediate is {self.intermediate}, but it has layers with an MLP")

    @property
    def dense_layers(self) -> int:
        """Leading layers with a plain MLP: all of them without experts."""
        return self.moe.dense_layers if self.moe else self.layers

    def has_experts(self, layer: int) -> bool:
        return layer >= self.dense_layers

    @property
    def qkv_heads(self) -> int:
        """Heads in the fused projection: queries, then keys, then values."""
        return self.heads + 2 * self.kv_heads

    @property
    def shape(self) -> Model:
        """The same model as the cost formulas know it: parameters, FLOPs, weight and KV bytes."""
        moe = self.moe
        experts = {} if moe is None else {
            "experts": moe.experts,
            "experts_per_token": moe.top_k,
            "shared_experts": moe.shared_experts,
            "expert_groups": moe.groups,
            "groups_per_token": moe.top_groups,
            "expert_ffn": moe.intermediate,
        }  # fmt: skip
        return Model(
            key=self.name,
            name=self.name,
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            ffn=self.intermediate,
            vocab=self.vocab,
            max_context=self.max_context,
            tied_embeddings=self.tied,
            qk_norm=self.qk_norm,
            dense_layers=self.dense_layers,
            **experts,
        )


BYTE_VOCAB = 320  # 256 bytes and a few marks (tokenizer.py), rounded up to a multiple of 64

_TINY = {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "vocab": BYTE_VOCAB}

PRESETS: dict[str, ModelConfig] = {
    config.name: config
    for config in (
        # Seconds on two CPU cores; vocabulary of bytes.
        ModelConfig("tiny", intermediate=704, max_context=8192, **_TINY),
        ModelConfig(
            "tiny-moe",
            intermediate=0,
            max_context=8192,
            qk_norm=True,
            moe=MoEConfig(experts=8, top_k=2, intermediate=256),
            **_TINY,
        ),
        ModelConfig("small", 12, 768, 12, 4, 64, 2048, 32_000, max_context=8192),
        # The shapes of Llama-3.2-1B and Llama-3.1-8B.
        ModelConfig(
            "1b", 16, 2048, 32, 8, 64, 8192, 128_256, max_context=131_072, tied=True, rope_scaling=RopeScaling(32.0)
        ),
        ModelConfig("llama-8b", 32, 4096, 32, 8, 128, 14_336, 128_256, max_context=131_072, rope_scaling=RopeScaling()),
        # Like Qwen3-30B-A3B with half the layers and half the experts, a little wider: about 20 GB in bf16.
        ModelConfig(
            "qwen3-moe-small",
            24,
            2048,
            32,
            4,
            128,
            0,
            151_936,
            rope_theta=1_000_000.0,
            norm_eps=1e-6,
            max_context=32_768,
            qk_norm=True,
            moe=MoEConfig(experts=64, top_k=8, intermediate=1024),
        ),
    )
}


def preset(name: str) -> ModelConfig:
    """A preset by name; raises `InputError` listing the names."""
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; give one of {', '.join(PRESETS)}, or the folder of a checkpoint")
    return PRESETS[name]
