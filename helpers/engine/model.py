"""The decoder: embedding, layers of attention and MLP (or experts), head.

A layer of a decode step is eight launches: fused projection, attention (which rotates and stores), output
projection, norm, fused gate and up, SwiGLU, down, norm; prefill rows add the store of their KV and an attention
of their own. The residual stream is one tensor that the norm kernel adds to in place.
"""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor
from torch.nn.functional import embedding

from helpers.engine.config import ModelConfig
from helpers.engine.kernels.decode import decode_attention, join_counters
from helpers.engine.kernels.few_rows import linear
from helpers.engine.kernels.norm import add_rms_norm
from helpers.engine.kernels.prefill import prefill_attention
from helpers.engine.kernels.rope import Rotation, rope_tables, store_kv
from helpers.engine.kernels.swiglu import swiglu
from helpers.engine.moe import moe_layer
from helpers.engine.step import Batch, Rows
from helpers.engine.weights import LayerWeights, Weights, tensors

Dispatcher = Callable[..., Tensor]  # see moe_layer


class Decoder:
    """A range of layers of one model; all of them unless `layers` says otherwise.

    The first stage embeds tokens, the last gives logits, and a stage hands hidden states [T, hidden] to
    the next. `pages.layer(i)` counts from the stage's own first layer.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        layers: range | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self.layers = range(config.layers) if layers is None else layers
        self.first = self.layers.start == 0
        self.last = self.layers.stop == config.layers
        self.dispatcher = dispatcher
        self.device = tensors(weights)[0].device
        self.dtype = tensors(weights)[0].dtype
        angles = rope_tables(config.head_dim, config.rope_theta, config.max_context, config.rope_scaling, self.device)
        self.rotations = {
            i: Rotation(*angles, weights.layers[i].q_norm, weights.layers[i].k_norm, config.norm_eps)
            for i in self.layers
        }
        self.counters = join_counters(self.device)

    def twin(self) -> "Decoder":
        """The same weights for another engine, whose steps may run on the device beside those of this one."""
        other = copy(self)
        other.counters = join_counters(self.device)
        return other

    @torch.inference_mode()
    def forward(self, inputs: Tensor, batch: Batch, pages) -> Tensor:
        """Logits [R, vocab] of each row's last token, or hidden states [T, hidden] before the last stage.

        inputs: tokens [T] for the first stage, hidden states [T, hidden] for the others. Stores the KV of
        the batch's tokens into `pages` (pages.KVPages).
        """
        eps, decode = self.config.norm_eps, batch.decode_rows()
        residual = embedding(inputs, self.weights.embedding) if self.first else inputs.clone()
        branch = None
        for local, number in enumerate(self.layers):
            layer = self.weights.layers[number]
            if branch is None:
                hidden = add_rms_norm(residual, None, layer.attention_norm, eps)
            else:
                hidden = add_rms_norm(branch, residual, layer.attention_norm, eps)
            branch = self._attention(number, local, hidden, batch, decode, pages)
            hidden = add_rms_norm(branch, residual, layer.mlp_norm, eps)
            branch = self._mlp(layer, hidden)
        if not self.last:
            return residual.add_(branch)
        if batch.tiles is not None:  # a decode-only step has nothing but last tokens
            branch, residual = branch[batch.last], residual[batch.last]
        hidden = add_rms_norm(branch, residual, self.weights.norm, eps)
        return linear(hidden, self.weights.head, self.counters)

    def _attention(self, number: int, local: int, hidden: Tensor, batch: Batch, decode: Rows | None, pages) -> Tensor:
        layer, rotation = self.weights.layers[number], self.rotations[number]
        keys, values = pages.layer(local)
        qkv = linear(hidden, layer.wqkv, self.counters)
        out = qkv.new_empty(len(qkv), self.config.heads * self.config.head_dim)
        if decode is not None:
            n = len(decode.lengths)
            decode_attention(
                qkv[:n], decode.positions, decode.slots, rotation, keys, values, decode.page_table, decode.lengths,
                pages.page_tokens, self.counters, out[:n], pages.scale,
            )  # fmt: skip
        if batch.tiles is not None:
            store_kv(qkv, batch.positions, batch.slots, rotation, keys, values, pages.scale)
            pages.stored(local)
            prefill_attention(
                qkv, batch.positions, rotation, keys, values, batch.page_table, batch.lengths,
                batch.query_starts, batch.tiles, pages.page_tokens, out, pages.scale,
            )  # fmt: skip
        return linear(out, layer.wo, self.counters)

    def _mlp(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        if layer.moe is not None:
            return moe_layer(hidden, layer.moe, self.config.moe, self.dispatcher)
        gate_up = linear(hidden, layer.w13, self.counters)
        return linear(swiglu(gate_up), layer.w2, self.counters)
