"""Mixture of experts: the choice of experts, and one sort that turns it into two grouped matmuls.

Nothing here waits for the host: sizes that depend on the routing stay on the device.
"""

import torch
from torch import Tensor

from helpers.engine.config import MoEConfig
from helpers.engine.kernels.grouped import grouped_matmul
from helpers.engine.kernels.join import gated_sum
from helpers.engine.kernels.swiglu import swiglu
from helpers.engine.weights import ExpertWeights


def route(logits: Tensor, moe: MoEConfig, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gates [T, top_k] float32 and expert numbers [T, top_k] int64 from the router's logits [T, experts]."""
    logits = logits.float()
    scores = logits.softmax(dim=-1) if moe.gate == "softmax" else logits.sigmoid()
    contest = scores if bias is None else scores + bias
    if moe.groups > 1:
        contest = _within_best_groups(contest, moe)
    chosen = contest.topk(moe.top_k, dim=-1).indices
    gates = scores.gather(-1, chosen)
    if moe.norm_topk:
        gates = gates / gates.sum(dim=-1, keepdim=True)
    return (gates * moe.scaling if moe.scaling != 1.0 else gates), chosen


def _within_best_groups(contest: Tensor, moe: MoEConfig) -> Tensor:
    """Experts outside the `top_groups` best groups cannot win; a group is as good as its two best experts."""
    grouped = contest.unflatten(-1, (moe.groups, -1))
    best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
    allowed = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, best.topk(moe.top_groups, dim=-1).indices, True)
    return grouped.masked_fill(~allowed[..., None], -torch.inf).flatten(-2)


def run_experts(hidden: Tensor, chosen: Tensor, gates: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    """The gated sum of the chosen experts: hidden [T, hidden], chosen and gates [T, top_k] to [T, hidden].

    Choices are sorted by expert, so that each expert has its rows in one piece.
    """
    tokens, top_k = chosen.shape
    experts, order = chosen.flatten().sort(stable=True)
    number = torch.arange(len(w13), device=hidden.device)
    ends = torch.searchsorted(experts, number, right=True, out_int32=True)
    rows = grouped_matmul(hidden[order // top_k], w13, ends)
    rows = grouped_matmul(swiglu(rows), w2, ends)
    places = torch.empty_like(order)
    places[order] = torch.arange(tokens * top_k, device=hidden.device)
    return gated_sum(rows, places.view(tokens, top_k), gates)


def moe_layer(hidden: Tensor, weights: ExpertWeights, moe: MoEConfig, dispatcher=None) -> Tensor:
    """[T, hidden] to [T, hidden].

    `dispatcher(hidden, chosen, gates, weights)` takes the place of `run_experts` where the experts of a
    layer live on several workers.
    """
    gates, chosen = route(torch.nn.functional.linear(hidden, weights.router), moe, weights.bias)
    if dispatcher is None:
        out = run_experts(hidden, chosen, gates, weights.w13, weights.w2)
    else:
        out = dispatcher(hidden, chosen, gates, weights)
    if weights.shared_w13 is not None:
        shared = swiglu(torch.nn.functional.linear(hidden, weights.shared_w13))
        out = out + torch.nn.functional.linear(shared, weights.shared_w2)
    return out
