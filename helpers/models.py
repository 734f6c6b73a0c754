"""The table of open models (`data/models.toml`) and the closed forms that follow from a shape.

Parameters, FLOPs, KV bytes and weight bytes of one decoder, all from its config. Conventions:
one multiply-add is 2 FLOP; a linear layer costs 2 FLOP per matrix parameter and token; softmax,
norms, activations and rope are left out (below 1 % at these widths); "pairs" are (query, key)
pairs that the causal mask keeps, so a prompt of n tokens has n (n + 1) / 2, not n^2.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from pathlib import Path

from helpers.errors import InputError
from helpers.paths import data_file
from helpers.sources import Entry, Figure, Source, one_of, read_tables

# Kinds of attention with the fields that each needs. MHA and MQA are `gqa` with their own number of KV heads.
ATTENTION = {
    "gqa": ("kv_heads", "head_dim"),
    "mla": ("q_lora", "kv_lora", "nope_dim", "rope_dim", "v_dim"),
}
WINDOWS = ("none", "sliding", "chunked")


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs of a step: `linear` grows with tokens, `attention` with (query, key) pairs."""

    linear: float
    attention: float

    @property
    def total(self) -> float:
        return self.linear + self.attention


@dataclass(frozen=True)
class Model:
    """The shape of one decoder-only model; every count below follows from these fields.

    `ffn` is the width of a dense layer, `expert_ffn` that of one routed or shared expert;
    `dense_layers` counts the layers without a router (all of them when there are no experts).
    `window` limits attention in all but `full_attention_layers` layers: `sliding` sees the last
    `window` tokens, `chunked` those of its own aligned chunk.
    """

    key: str
    name: str
    layers: int
    hidden: int
    heads: int
    vocab: int
    max_context: int
    kv_heads: int = 0
    head_dim: int = 0
    ffn: int = 0
    aliases: tuple[str, ...] = ()
    attention: str = "gqa"
    tied_embeddings: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    expert_bias: bool = False
    sinks: bool = False
    norms_per_layer: int = 2
    window_kind: str = "none"
    window: int = 0
    full_attention_layers: int = -1
    experts: int = 0
    experts_per_token: int = 0
    shared_experts: int = 0
    expert_groups: int = 1
    groups_per_token: int = 1
    expert_ffn: int = 0
    dense_layers: int = -1
    q_lora: int = 0
    kv_lora: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    v_dim: int = 0
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        for name, known in (("attention", ATTENTION), ("window_kind", WINDOWS)):
            if getattr(self, name) not in known:
                raise one_of(name, getattr(self, name), known)
        for name in ("full_attention_layers", "dense_layers"):  # -1 stands for all of them
            if getattr(self, name) < 0:
                object.__setattr__(self, name, self.layers)
        needed = ("layers", "hidden", "heads", "vocab", "max_context", *ATTENTION[self.attention])
        needed += ("experts_per_token", "expert_ffn") if self.experts else ()
        needed += (("ffn",) if self.dense_layers else ()) + (("window",) if self.window_kind != "none" else ())
        for name in needed:
            if getattr(self, name) < 1:
                raise InputError(f"model {self.key}: {name} is {getattr(self, name)}; give 1 or more")
        possible = min(self.moe_layers, self.windowed_layers, self.experts - self.experts_per_token) >= 0
        stray_window = bool(self.windowed_layers) != (self.window_kind != "none")
        if not possible or stray_window or bool(self.moe_layers) != bool(self.experts):
            raise InputError(f"model {self.key}: its kinds of layers, or its experts, do not add up")

    def source_of(self, name: str) -> Source:
        """Mark and document of a figure: a config field, or `computed.total`, `card.active` and the like."""
        found = self.figures.get(name) or self.figures.get(f"config.{name}")
        if found is None:
            raise InputError(f"{self.name}: data/models.toml has no {name} for {self.key}")
        return found.source

    @property
    def moe_layers(self) -> int:  # layers with a router and experts
        return self.layers - self.dense_layers

    @property
    def windowed_layers(self) -> int:  # layers whose attention is limited to a window
        return self.layers - self.full_attention_layers

    @property
    def attention_matrix_parameters(self) -> int:
        """Matrix parameters of one attention layer: q, k, v, o, or the low-rank factors of MLA."""
        d = self.hidden
        if not self.kv_lora:
            return d * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        q = d * self.q_lora + self.q_lora * self.heads * (self.nope_dim + self.rope_dim)
        kv = d * (self.kv_lora + self.rope_dim) + self._kv_expansion_parameters
        return q + kv + self.heads * self.v_dim * d

    @property
    def _kv_expansion_parameters(self) -> int:  # the MLA matrix from the latent to keys and values, one layer
        return self.kv_lora * self.heads * (self.nope_dim + self.v_dim)

    @property
    def _layer_vector_parameters(self) -> int:  # norms, attention biases and sinks of one layer
        count = self.norms_per_layer * self.hidden + (self.q_lora + self.kv_lora if self.kv_lora else 0)
        count += 2 * self.head_dim if self.qk_norm else 0
        count += (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        return count + (self.hidden if self.output_bias else 0) + (self.heads if self.sinks else 0)

    @property
    def expert_parameters(self) -> int:
        """One expert: gate, up and down, with their biases where the model has them."""
        return 3 * self.hidden * self.expert_ffn + (2 * self.expert_ffn + self.hidden if self.expert_bias else 0)

    @property
    def embedding_parameters(self) -> int:
        """The input embedding; the head has the same size, and is the same matrix where they are tied."""
        return self.vocab * self.hidden

    def _body_matrix_parameters(self, experts: int) -> int:
        """Matrix parameters of all layers, `experts` routed experts per MoE layer; no embedding, no head."""
        dense = self.dense_layers * 3 * self.hidden * self.ffn
        moe = (experts + self.shared_experts) * 3 * self.hidden * self.expert_ffn + self.hidden * self.experts
        return self.layers * self.attention_matrix_parameters + dense + self.moe_layers * moe

    def _parameters(self, experts: int) -> int:
        vectors = self.layers * self._layer_vector_parameters + self.hidden
        if self.expert_bias:
            vectors += self.moe_layers * (experts * (2 * self.expert_ffn + self.hidden) + self.experts)
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self._body_matrix_parameters(experts) + vectors + embeddings

    @property
    def total_parameters(self) -> int:
        """All parameters, multi-token-prediction modules excluded."""
        return self._parameters(self.experts)

    def active_parameters(self, input_embedding: bool = True) -> int:
        """Parameters that one token touches: of the routed experts only those it is sent to.

        Vendors differ in whether the input embedding counts; a tied one always does, as the head.
        """
        active = self._parameters(self.experts_per_token)
        return active if input_embedding or self.tied_embeddings else active - self.embedding_parameters

    @property
    def head_flops_per_token(self) -> int:
        """FLOPs of the output head for one position. A prefill needs it for the last position only."""
        return 2 * self.embedding_parameters

    @property
    def linear_flops_per_token(self) -> int:
        """2 x active matrix parameters without the input embedding, head included."""
        return 2 * self._body_matrix_parameters(self.experts_per_token) + self.head_flops_per_token

    @property
    def attention_flops_per_token_context(self) -> int:
        """FLOPs per (query, key) pair, all layers: scores and weighted sum, 4 L heads head_dim for MHA/GQA.

        MLA: with keys and values expanded from the latent, 2 L heads (qk + v), as a prefill runs it.
        Windowed layers count as if full: exact up to the window, an upper bound beyond.
        """
        return self.layers * self._pair_flops

    @property
    def decode_attention_flops_per_token_context(self) -> int:
        """As above for a decode step: MLA attends on the latent itself, 2 L heads (2 kv_lora + rope)."""
        return self.layers * self._decode_pair_flops

    @property
    def _pair_flops(self) -> int:
        mla = self.nope_dim + self.rope_dim + self.v_dim
        return 2 * self.heads * (mla if self.kv_lora else 2 * self.head_dim)

    @property
    def _decode_pair_flops(self) -> int:
        return 2 * self.heads * (2 * self.kv_lora + self.rope_dim) if self.kv_lora else self._pair_flops

    def prefill_flops(self, new_tokens: int, context: int = 0, logit_positions: int = 1) -> Flops:
        """FLOPs to prefill `new_tokens` tokens after `context` cached ones.

        Pairs are causal: new token i (from 0) attends to context + i + 1 keys. The head runs for
        `logit_positions` positions. MLA expands the cached latents again, which counts as linear.
        """
        _at_least(1, new_tokens=new_tokens)
        _at_least(0, context=context, logit_positions=logit_positions)
        linear = new_tokens * (self.linear_flops_per_token - self.head_flops_per_token)
        linear += logit_positions * self.head_flops_per_token
        if self.kv_lora:
            linear += context * 2 * self.layers * self._kv_expansion_parameters
        end = context + new_tokens
        pairs = self.full_attention_layers * (_causal_pairs(end) - _causal_pairs(context))
        pairs += self.windowed_layers * (self._window_pairs(end) - self._window_pairs(context))
        return Flops(linear, pairs * self._pair_flops)

    def decode_flops(self, batch: int, kv_tokens: int) -> Flops:
        """FLOPs of one decode step: `batch` new tokens that attend to `kv_tokens` tokens in all, themselves included.

        For windowed layers the contexts are taken as equal, kv_tokens / batch each.
        """
        _at_least(1, batch=batch)
        _at_least(batch, kv_tokens=kv_tokens)
        pairs = self.full_attention_layers * kv_tokens
        pairs += self.windowed_layers * batch * self._visible(kv_tokens / batch)
        return Flops(batch * self.linear_flops_per_token, pairs * self._decode_pair_flops)

    def _window_pairs(self, tokens: int) -> int:  # of the first `tokens` queries in one windowed layer
        if self.window_kind == "chunked":
            chunks, rest = divmod(tokens, self.window)
            return chunks * _causal_pairs(self.window) + _causal_pairs(rest)
        return _causal_pairs(min(tokens, self.window)) + max(0, tokens - self.window) * self.window

    def _visible(self, context: float) -> float:  # keys that the last token sees in a windowed layer
        return (context - 1) % self.window + 1 if self.window_kind == "chunked" else min(context, self.window)

    def _kv_layer_bytes(self, dtype_bytes: float, tp: int) -> float:  # one token, one layer, one of tp GPUs
        _at_least(1, tp=tp)
        _at_least(0.25, dtype_bytes=dtype_bytes)
        if self.kv_lora:
            return (self.kv_lora + self.rope_dim) * dtype_bytes
        return 2 * -(-self.kv_heads // tp) * self.head_dim * dtype_bytes

    def kv_bytes_per_token(self, dtype_bytes: float = 2) -> float:
        """KV bytes of one token, all layers, one copy: 2 L n_kv d_head b; MLA: L (r_kv + d_rope) b.

        With windowed layers this is exact up to the window and an upper bound beyond: see `kv_bytes`.
        """
        return self.layers * self._kv_layer_bytes(dtype_bytes, 1)

    def kv_bytes_per_token_per_gpu(self, tp: int, dtype_bytes: float = 2) -> float:
        """KV bytes of one token on each GPU of a tensor-parallel group: 2 L ceil(n_kv / tp) d_head b.

        tp > n_kv replicates heads, MLA replicates the whole latent on each GPU.
        """
        return self.layers * self._kv_layer_bytes(dtype_bytes, tp)

    def kv_growing_bytes_per_token(self, dtype_bytes: float = 2, tp: int = 1) -> float:
        """KV bytes per GPU that one more token adds for ever: the full-attention layers alone."""
        return self.full_attention_layers * self._kv_layer_bytes(dtype_bytes, tp)

    def kv_window_cap_bytes(self, dtype_bytes: float = 2, tp: int = 1) -> float:
        """The most KV bytes per GPU that the windowed layers keep for one sequence; 0 without a window."""
        return self.windowed_layers * self.window * self._kv_layer_bytes(dtype_bytes, tp)

    def kv_bytes(self, context: int, dtype_bytes: float = 2, tp: int = 1) -> float:
        """KV bytes per GPU of a sequence of `context` tokens when windowed layers drop what they no longer see."""
        _at_least(0, context=context)
        kept = self.full_attention_layers * context + self.windowed_layers * min(context, self.window)
        return kept * self._kv_layer_bytes(dtype_bytes, tp)

    def weight_bytes(self, dtype_bytes: float = 2, expert_dtype_bytes: float | None = None) -> float:
        """Bytes of all weights; routed experts may have a format of their own (MXFP4: 17/32 byte)."""
        return self._weights(self.experts, self.total_parameters, dtype_bytes, expert_dtype_bytes)

    def distinct_experts(self, batch: int) -> float:
        """Expected distinct experts that `batch` tokens hit in one layer: E (1 - (1 - k/E)^B).

        Uniform, independent routing; each token misses a given expert with probability 1 - k/E.
        Real routing is skewed and hits fewer. 0 for a dense model.
        """
        _at_least(1, batch=batch)
        return self.experts * (1.0 - (1.0 - self.experts_per_token / max(1, self.experts)) ** batch)

    def decode_weight_bytes(self, batch: int, dtype_bytes: float = 2, expert_dtype_bytes: float | None = None) -> float:
        """Bytes of weights that one decode step of `batch` tokens reads: all but the input embedding
        (of which it reads `batch` rows, left out), and of the routed experts the distinct ones it hits."""
        read = self.total_parameters - (0 if self.tied_embeddings else self.embedding_parameters)
        return self._weights(self.distinct_experts(batch), read, dtype_bytes, expert_dtype_bytes)

    def _weights(self, experts: float, parameters: int, dtype_bytes: float, expert_dtype_bytes: float | None) -> float:
        expert_bytes = dtype_bytes if expert_dtype_bytes is None else expert_dtype_bytes
        _at_least(0.25, dtype_bytes=dtype_bytes, expert_dtype_bytes=expert_bytes)
        routed = self.moe_layers * self.expert_parameters
        return (parameters - self.experts * routed) * dtype_bytes + experts * routed * expert_bytes


def _causal_pairs(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name} is {value}; give {least} or more")


def load_models(path: Path) -> dict[str, Model]:
    """All models of a table file by key; raises `InputError` for an unknown or a missing field."""
    return {key: _model_of(entry, f"{path.name}: {key}") for key, entry in read_tables(path).items()}


def _model_of(entry: Entry, where: str) -> Model:
    known = {f.name: f for f in fields(Model) if f.name not in ("key", "figures")}
    given: dict[str, object] = {}
    for name, value in (entry.labels | {name: figure.value for name, figure in entry.figures.items()}).items():
        short = name.removeprefix("config.")
        if short in known:
            given[short] = tuple(value) if isinstance(value, list) else value
            if isinstance(known[short].type, type) and not isinstance(value, known[short].type):
                raise InputError(f"{where}.{name} is {value!r}; give a value of type {known[short].type.__name__}")
        elif name.partition(".")[0] not in ("computed", "card"):
            raise InputError(f"{where} has the unknown field {name!r}; fields are those of Model in helpers/models.py")
    missing = [name for name, f in known.items() if f.default is MISSING and name not in given]
    if missing:
        raise InputError(f"{where} lacks {missing[0]!r}; every model needs it")
    return Model(key=entry.key, figures=entry.figures, **given)


@lru_cache(maxsize=1)
def models() -> Mapping[str, Model]:
    """All models of the course's table by key, in the order of the file."""
    return load_models(data_file("models.toml"))


def model(name: str) -> Model:
    """A model by key or alias (`llama-3.1-8b`, `deepseek-r1`, any case); raises `InputError` listing the keys."""
    wanted = name.strip().lower()
    for found in models().values():
        if wanted == found.key or wanted in found.aliases:
            return found
    raise one_of("model", name, models())
