"""The operations of one step of a model under the roofline of a device: FLOPs, bytes, which of them is the bound.

Williams, Waterman and Patterson, *Roofline*, CACM 52(4), 2009: an operation of `flops` FLOPs that moves `bytes`
bytes takes at least max(flops / peak, bytes / bandwidth), so it reaches at most min(peak, intensity x bandwidth)
FLOP/s, with intensity = flops / bytes; the two meet at the ridge point, peak / bandwidth.

Each operand is taken to cross the memory once: weights, KV cache, activations in and out of each matrix product.
Operations run one after another. Norms, RoPE, activation functions and sampling are left out, and so are launches:
the times are lower bounds. Counts of FLOPs, weights and KV are those of `helpers.models`. Standard library only.
"""

from dataclasses import dataclass
from math import fsum
from types import MappingProxyType

from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.models import Model
from helpers.sources import one_of

PHASES = ("prefill", "decode")
COMPUTE, MEMORY = "compute", "memory"


@dataclass(frozen=True, slots=True)
class Format:
    """Bytes of a weight, a KV value and an activation, and in which formats matrix products and attention compute."""

    weight_bytes: float
    kv_bytes: float
    activation_bytes: float
    matmul: str
    attention: str


# Activations between operations and the arithmetic of attention stay in bf16, as engines mostly leave them. NVFP4 has
# an 8-bit scale for every 16 values of 4 bits: (16 x 4 + 8) / 16 / 8 = 9/16 byte.
FORMATS = MappingProxyType(
    {
        "bf16": Format(2.0, 2.0, 2.0, "bf16", "bf16"),
        "fp8": Format(1.0, 1.0, 2.0, "fp8", "bf16"),
        "fp4": Format(9 / 16, 1.0, 2.0, "fp4", "bf16"),
    }
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One step: `batch` sequences that prefill a prompt of `context` tokens, or decode one token each, the last of
    `context`. Raises `InputError` for another phase and for sizes below 1."""

    phase: str
    batch: int
    context: int

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise one_of("phase", self.phase, PHASES)
        for name in ("batch", "context"):
            if getattr(self, name) < 1:
                raise InputError(f"the {name} of a step is {getattr(self, name)}; give 1 or more")

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        return self.batch if self.phase == "decode" else self.batch * self.context


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation does in one step, all layers together; `format` names the peak that it computes at."""

    name: str
    flops: float
    weight_bytes: float
    kv_bytes: float
    activation_bytes: float
    format: str

    @property
    def bytes(self) -> float:
        """Bytes that cross the memory."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class Bound:
    """An operation on a device: the seconds that arithmetic and memory ask for; the longer one is the bound."""

    operation: Operation
    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The least time that the operation takes."""
        return max(self.compute_s, self.memory_s)

    @property
    def by(self) -> str:
        """`compute` or `memory`; memory where both take as long."""
        return COMPUTE if self.compute_s > self.memory_s else MEMORY

    @property
    def flops_per_s(self) -> float:
        """The most FLOP/s that the operation reaches: its place on the roof."""
        return self.operation.flops / self.seconds


@dataclass(frozen=True, slots=True)
class StepBound:
    """The operations of a step, in their order, and what they come to together."""

    shape: Shape
    bounds: tuple[Bound, ...]

    @property
    def seconds(self) -> float:
        """The least time of the step."""
        return fsum(one.seconds for one in self.bounds)

    @property
    def tokens_per_s(self) -> float:
        """The most tokens a second: prompt tokens of a prefill, output tokens of a decode step."""
        return self.shape.tokens / self.seconds

    @property
    def flops(self) -> float:
        """FLOPs of the step."""
        return fsum(one.operation.flops for one in self.bounds)

    @property
    def bytes(self) -> float:
        """Bytes of the step."""
        return fsum(one.operation.bytes for one in self.bounds)

    @property
    def by(self) -> str:
        """What bounds the operations that take most of the time."""
        compute_s = fsum(one.seconds for one in self.bounds if one.by == COMPUTE)
        return COMPUTE if compute_s > self.seconds / 2 else MEMORY


def operations(model: Model, shape: Shape, dtype: str = "bf16") -> tuple[Operation, ...]:
    """Projections, attention, MLP (experts, with their router, where a model has them) and output head of one step.

    The vectors of norms and biases count with the MLP, so that the weights of all operations add up to
    `Model.decode_weight_bytes`. A prefill computes the head for the last position of each prompt. Experts are hit
    uniformly (`Model.distinct_experts`). Raises `InputError` for an unknown dtype and a context beyond the model's.
    """
    if dtype not in FORMATS:
        raise one_of("dtype", dtype, FORMATS)
    if shape.context > model.max_context:
        raise InputError(f"{model.name} has a context of {model.max_context:,} tokens; give at most that")
    form, tokens = FORMATS[dtype], shape.tokens
    flops, head_flops = _flops(model, shape), shape.batch * model.head_flops_per_token
    weights = model.decode_weight_bytes(tokens, form.weight_bytes)
    projection_parameters = model.layers * model.attention_matrix_parameters
    projection_flops = 2 * tokens * projection_parameters
    projection_bytes, head_bytes = (n * form.weight_bytes for n in (projection_parameters, model.embedding_parameters))
    values = form.activation_bytes * tokens
    head_values = form.activation_bytes * shape.batch * (model.hidden + model.vocab)
    mlp = "experts" if model.experts else "MLP"
    linear_flops, linear_bytes = flops.linear - head_flops, weights - head_bytes
    return (
        Operation("projections", projection_flops, projection_bytes, 0.0, values * _projected(model), form.matmul),
        Operation(
            "attention",
            flops.attention,
            0.0,
            _kv_bytes(model, shape, form),
            values * _attended(model, shape),
            form.attention,
        ),
        Operation(
            mlp,
            linear_flops - projection_flops,
            linear_bytes - projection_bytes,
            0.0,
            values * _mlp(model),
            form.matmul,
        ),
        Operation("LM head", head_flops, head_bytes, 0.0, head_values, form.matmul),
    )


def _flops(model: Model, shape: Shape):
    if shape.phase == "decode":
        return model.decode_flops(shape.batch, shape.batch * shape.context)
    one = model.prefill_flops(shape.context)
    return type(one)(shape.batch * one.linear, shape.batch * one.attention)


def _kv_bytes(model: Model, shape: Shape, form: Format) -> float:
    """KV that is read: what a decode step's sequences hold, or all that a prefill makes."""
    if shape.phase == "decode":
        return shape.batch * model.kv_bytes(shape.context, form.kv_bytes)
    return shape.tokens * model.kv_bytes_per_token(form.kv_bytes)


def _projected(model: Model) -> int:
    """Values in and out of the attention matrices, a token."""
    m = model
    if not m.kv_lora:
        return m.layers * (2 * m.hidden + 2 * (m.heads + m.kv_heads) * m.head_dim)
    low_rank = 2 * (m.q_lora + m.kv_lora) + m.rope_dim
    return m.layers * (3 * m.hidden + low_rank + m.heads * (2 * m.nope_dim + m.rope_dim + 2 * m.v_dim))


def _attended(model: Model, shape: Shape) -> int:
    """Values in and out of attention besides the KV cache, a token: queries and outputs; MLA's expanded keys too."""
    m = model
    if not m.kv_lora:
        return m.layers * 2 * m.heads * m.head_dim
    if shape.phase == "decode":  # queries and outputs in the space of the latent
        return m.layers * m.heads * (2 * m.kv_lora + m.rope_dim)
    return m.layers * m.heads * (2 * m.nope_dim + m.rope_dim + 2 * m.v_dim)


def _mlp(model: Model) -> int:
    """Values in and out of the matrices of the MLP, a token: gate and up, then down; the router of experts too."""
    m = model
    experts = (m.experts_per_token + m.shared_experts) * (2 * m.hidden + 3 * m.expert_ffn) + m.hidden + m.experts
    return m.dense_layers * (2 * m.hidden + 3 * m.ffn) + m.moe_layers * experts


def bound(operation: Operation, gpu: GPU) -> Bound:
    """An operation on a device; raises `InputError` when the part has no peak in the operation's format."""
    compute_s = operation.flops / gpu.peak_flops(operation.format)
    return Bound(operation, compute_s, operation.bytes / gpu.hbm_bytes_per_s)


def step_bound(gpu: GPU, model: Model, shape: Shape, dtype: str = "bf16") -> StepBound:
    """All operations of one step on one device. Raises `InputError` as `operations` and `bound` do."""
    return StepBound(shape, tuple(bound(one, gpu) for one in operations(model, shape, dtype)))


def held_bytes(model: Model, shape: Shape, dtype: str = "bf16") -> float:
    """Bytes that must lie in the memory of the device: all weights, and the KV of the sequences."""
    form = FORMATS[dtype]
    return model.weight_bytes(form.weight_bytes) + shape.batch * model.kv_bytes(shape.context, form.kv_bytes)
