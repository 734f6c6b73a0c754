"""Which experts a token goes to, and the order in which experts find their tokens together.

Two launches in place of a softmax, a top-k, a sort and their small change: a decode step with few tokens has
so little work in each that launches would be most of its time. Both read and write a few bytes a choice.
"""

import torch
from torch import Tensor

from helpers.engine.config import MoEConfig
from helpers.engine.kernels.backend import next_power_of_2, runs_triton, tl, triton


def choose_experts(logits: Tensor, moe: MoEConfig, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gates [T, top_k] float32 and expert numbers [T, top_k] int64 from the router's logits [T, experts]."""
    if runs_triton(logits) and moe.groups == 1:
        return choose_experts_triton(logits, moe, bias)
    return choose_experts_torch(logits, moe, bias)


def choose_experts_torch(logits: Tensor, moe: MoEConfig, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    scores = logits.softmax(dim=-1) if moe.gate == "softmax" else logits.sigmoid()
    contest = scores if bias is None else scores + bias
    if moe.groups > 1:
        contest = _within_best_groups(contest, moe)
    chosen = contest.topk(moe.top_k, dim=-1).indices
    gates = scores.gather(-1, chosen)
    if moe.norm_topk:
        gates = gates / gates.sum(dim=-1, keepdim=True)
    return gates * moe.scaling, chosen


def _within_best_groups(contest: Tensor, moe: MoEConfig) -> Tensor:
    """Experts outside the `top_groups` best groups cannot win; a group is as good as its two best experts."""
    grouped = contest.unflatten(-1, (moe.groups, -1))
    best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
    allowed = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, best.topk(moe.top_groups, dim=-1).indices, True)
    return grouped.masked_fill(~allowed[..., None], -torch.inf).flatten(-2)


@triton.jit
def _choose(
    logits, bias, gates, chosen, scaling, EXPERTS: tl.constexpr, EXPERTS_PADDED: tl.constexpr, TOP_K: tl.constexpr,
    TOP_K_PADDED: tl.constexpr, SIGMOID: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """One program a token takes the best expert TOP_K times."""
    token = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EXPERTS_PADDED)
    real = e < EXPERTS
    logit = tl.load(logits + token * EXPERTS + e, mask=real, other=-float("inf")).to(tl.float32)
    if SIGMOID:
        score = 1.0 / (1.0 + tl.exp(-logit))
    else:
        weight = tl.exp(logit - tl.max(logit, 0))
        score = weight / tl.sum(weight, 0)
    contest = tl.where(real, score, -float("inf"))
    if BIAS:
        contest += tl.load(bias + e, mask=real, other=0.0)
    k = tl.arange(0, TOP_K_PADDED)
    gate = tl.zeros([TOP_K_PADDED], tl.float32)
    winner = tl.zeros([TOP_K_PADDED], tl.int32)
    for i in tl.static_range(TOP_K):
        best = tl.minimum(tl.argmax(contest, 0), EXPERTS - 1)  # in range even for scores that are no numbers
        gate = tl.where(k == i, tl.sum(tl.where(e == best, score, 0.0), 0), gate)
        winner = tl.where(k == i, best, winner)
        contest = tl.where(e == best, -float("inf"), contest)
    if NORM:
        gate = gate / tl.sum(gate, 0)
    tl.store(gates + token * TOP_K + k, gate * scaling, mask=k < TOP_K)
    tl.store(chosen + token * TOP_K + k, winner.to(tl.int64), mask=k < TOP_K)


def choose_experts_triton(logits: Tensor, moe: MoEConfig, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    tokens = len(logits)
    gates = torch.empty(tokens, moe.top_k, dtype=torch.float32, device=logits.device)
    chosen = torch.empty(tokens, moe.top_k, dtype=torch.int64, device=logits.device)
    _choose[(tokens,)](
        logits, gates if bias is None else bias, gates, chosen, moe.scaling, moe.experts, next_power_of_2(moe.experts),
        moe.top_k, next_power_of_2(moe.top_k), moe.gate == "sigmoid", bias is not None, moe.norm_topk, num_warps=1,
    )  # fmt: skip
    return gates, chosen


def group_by_expert(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """A stable sort of choices [T, top_k] by expert.

    Gives the token of each sorted row [T * top_k], the row of each choice [T, top_k] (int64 both), and where
    each expert's rows end [experts] int32.
    """
    return (group_by_expert_triton if runs_triton(chosen) else group_by_expert_torch)(chosen, experts)


def group_by_expert_torch(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    found, order = chosen.flatten().sort(stable=True)
    ends = torch.searchsorted(found, torch.arange(experts, device=chosen.device), right=True, out_int32=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=chosen.device)
    return order // chosen.shape[1], places.view_as(chosen), ends


@triton.jit
def _group(chosen, tokens, places, ends, count, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """One program an expert: count the choices of the experts before it, then number its own in order."""
    expert = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    row = 0
    for start in range(0, count, BLOCK):
        inside = start + i < count
        choice = tl.load(chosen + start + i, mask=inside, other=0)
        row += tl.sum(tl.where(inside & (choice < expert), 1, 0), 0)
    for start in range(0, count, BLOCK):
        inside = start + i < count
        choice = tl.load(chosen + start + i, mask=inside, other=0)
        mine = tl.where(inside & (choice == expert), 1, 0)
        place = row + tl.cumsum(mine, 0) - 1
        tl.store(tokens + place, ((start + i) // TOP_K).to(tl.int64), mask=mine == 1)
        tl.store(places + start + i, place.to(tl.int64), mask=mine == 1)
        row += tl.sum(mine, 0)
    tl.store(ends + expert, row)


def group_by_expert_triton(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    count, top_k = chosen.numel(), chosen.shape[1]
    tokens = torch.empty(count, dtype=torch.int64, device=chosen.device)
    places = torch.empty_like(chosen)
    ends = torch.empty(experts, dtype=torch.int32, device=chosen.device)
    block = min(next_power_of_2(count), 2048)
    _group[(experts,)](chosen, tokens, places, ends, count, top_k, block, num_warps=4 if block <= 1024 else 8)
    return tokens, places, ends
