"""The decoder again in float64, for one sequence, without a cache, kernels or batches: what the engine is held against.

Written from the formulas, sharing nothing with model.py but the weights.
"""

import math

import torch
from torch import Tensor

from helpers.engine.config import ModelConfig, MoEConfig
from helpers.engine.weights import ExpertWeights, LayerWeights, Weights

Choices = dict[int, Tensor]  # the experts [T, top_k] of every token, by layer


@torch.inference_mode()
def reference_logits(
    config: ModelConfig, weights: Weights, tokens: Tensor, forced: Choices | None = None, chosen: Choices | None = None
) -> Tensor:
    """Logits [T, vocab] float64 after every token of one sequence [T].

    Where `forced` has a layer, its tokens go to those experts (-1: the best one), and `chosen`, when given,
    receives the best ones. In bfloat16 two experts may be too close to tell, so that a sound engine
    takes the other: this way its choice and its arithmetic can be judged apart.
    """
    forced, chosen = forced or {}, {} if chosen is None else chosen
    cos, sin = _angles(config, len(tokens), tokens.device)
    x = weights.embedding[tokens].double()
    for i in range(config.layers):
        layer = weights.layers[i]
        x = x + _attention(config, layer, _norm(x, layer.attention_norm, config.norm_eps), cos, sin)
        y = _norm(x, layer.mlp_norm, config.norm_eps)
        if layer.moe is None:
            x = x + _mlp(y, layer.w13.double(), layer.w2.double())
        else:
            scores, chosen[i] = _route(y, layer.moe, config.moe)
            taken = torch.where(forced[i] < 0, chosen[i], forced[i]) if i in forced else chosen[i]
            x = x + _experts(y, layer.moe, config.moe, scores, taken)
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
    gate, up = (x @ w13.T).chunk(2, -1)
    return gate * torch.sigmoid(gate) * up @ w2.T


def _route(x: Tensor, weights: ExpertWeights, moe: MoEConfig) -> tuple[Tensor, Tensor]:
    """Scores [T, experts] and the chosen experts [T, top_k], token by token."""
    logits = x @ weights.router.double().T
    scores = logits.softmax(-1) if moe.gate == "softmax" else logits.sigmoid()
    choices = []
    for contest in scores if weights.bias is None else scores + weights.bias.double():
        members = contest.clone().view(moe.groups, -1)
        worth = members.sort(dim=-1, descending=True).values[:, :2].sum(-1)
        members[worth.argsort(descending=True)[moe.top_groups :]] = -math.inf
        choices.append(members.flatten().argsort(descending=True)[: moe.top_k])
    return scores, torch.stack(choices)


def _experts(x: Tensor, weights: ExpertWeights, moe: MoEConfig, scores: Tensor, chosen: Tensor) -> Tensor:
    """Every expert on every token, then only the chosen ones count."""
    gates = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
    if moe.norm_topk:
        gates = gates / gates.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for e in range(moe.experts):
        out += moe.scaling * gates[:, e : e + 1] * _mlp(x, weights.w13[e].double(), weights.w2[e].double())
    if weights.shared_w13 is not None:
        out += _mlp(x, weights.shared_w13.double(), weights.shared_w2.double())
    return out
