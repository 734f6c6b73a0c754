"""The decoder again in float64, for one sequence, without a cache, kernels or batches: what the engine is held against.

Written from the formulas, sharing nothing with model.py but the weights.
"""

import math

import torch
from torch import Tensor

from helpers.engine.config import ModelConfig, MoEConfig
from helpers.engine.weights import ExpertWeights, LayerWeights, Weights


@torch.inference_mode()
def reference_logits(config: ModelConfig, weights: Weights, tokens: Tensor) -> Tensor:
    """Logits [T, vocab] float64 after every token of one sequence [T]."""
    cos, sin = _angles(config, len(tokens), tokens.device)
    x = weights.embedding[tokens].double()
    for i in range(config.layers):
        layer = weights.layers[i]
        x = x + _attention(config, layer, _norm(x, layer.attention_norm, config.norm_eps), cos, sin)
        y = _norm(x, layer.mlp_norm, config.norm_eps)
        x = x + (_mlp(y, layer.w13, layer.w2) if layer.moe is None else _experts(y, layer.moe, config.moe))
    return _norm(x, weights.norm, config.norm_eps) @ weights.head.double().T


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def _angles(config: ModelConfig, tokens: int, device) -> tuple[Tensor, Tensor]:
    """cos and sin [tokens, 1, head_dim / 2]."""
    frequencies = []
    for pair in range(config.head_dim // 2):
        frequency = config.rope_theta ** (-2 * pair / config.head_dim)
        scaling = config.rope_scaling
        if scaling is not None:
            wave = 2 * math.pi / frequency
            longest = scaling.original_context / scaling.low_freq_factor
            shortest = scaling.original_context / scaling.high_freq_factor
            if wave > longest:
                frequency /= scaling.factor
            elif wave >= shortest:
                span = scaling.high_freq_factor - scaling.low_freq_factor
                share = (scaling.original_context / wave - scaling.low_freq_factor) / span
                frequency = (1 - share) * frequency / scaling.factor + share * frequency
        frequencies.append(frequency)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    return angle.cos()[:, None].to(device), angle.sin()[:, None].to(device)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _attention(config: ModelConfig, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    tokens, group = len(x), config.heads // config.kv_heads
    sizes = [config.heads, config.kv_heads, config.kv_heads]
    q, k, v = (x @ layer.wqkv.double().T).view(tokens, -1, config.head_dim).split(sizes, dim=1)
    if config.qk_norm:
        q, k = _norm(q, layer.q_norm, config.norm_eps), _norm(k, layer.k_norm, config.norm_eps)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(config.head_dim)
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1) @ layer.wo.double().T


def _mlp(x: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    gate, up = (x @ w13.double().T).chunk(2, -1)
    return gate * torch.sigmoid(gate) * up @ w2.double().T


def _experts(x: Tensor, weights: ExpertWeights, moe: MoEConfig) -> Tensor:
    """Token by token and expert by expert."""
    out = torch.zeros_like(x)
    for t, token in enumerate(x):
        logits = token @ weights.router.double().T
        scores = logits.softmax(-1) if moe.gate == "softmax" else logits.sigmoid()
        contest = scores.clone() if weights.bias is None else scores + weights.bias.double()
        if moe.groups > 1:
            members = contest.view(moe.groups, -1)
            worth = members.sort(dim=-1, descending=True).values[:, :2].sum(-1)
            for group in worth.argsort(descending=True)[moe.top_groups :].tolist():
                members[group] = -math.inf  # a view: the contest itself changes
        chosen = contest.argsort(descending=True)[: moe.top_k].tolist()
        total = sum(scores[e] for e in chosen) if moe.norm_topk else 1.0
        for e in chosen:
            out[t] += moe.scaling * scores[e] / total * _mlp(token, weights.w13[e], weights.w2[e])
    if weights.shared_w13 is not None:
        out = out + _mlp(x, weights.shared_w13, weights.shared_w2)
    return out
