"""Residual add and RMSNorm in one pass.

y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, arXiv 1910.07467), after x = residual += branch.
Moves 4 bytes-per-element times [T, hidden]: reads branch and residual, writes residual and y.
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import early_launch, follow, next_power_of_2, runs_triton, tl, triton


def add_rms_norm(branch: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Add `branch` [T, hidden] to `residual` in place and return the norm of the sum; without a
    residual, the norm of `branch`."""
    return (add_rms_norm_triton if runs_triton(branch) else add_rms_norm_torch)(branch, residual, weight, eps)


def add_rms_norm_torch(branch: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    x = branch if residual is None else residual.add_(branch)
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


@triton.jit
def _add_norm(
    branch, residual, weight, out, eps,
    HIDDEN: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a token."""
    row = tl.program_id(0).to(tl.int64) * HIDDEN
    column = tl.arange(0, BLOCK)
    inside = column < HIDDEN
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    follow(EARLY)
    x = tl.load(branch + row + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual + row + column, mask=inside, other=0.0).to(tl.float32)
        rounded = x.to(residual.dtype.element_ty)
        tl.store(residual + row + column, rounded, mask=inside)
        x = rounded.to(tl.float32)  # the norm is of what the next layer will read
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / HIDDEN + eps)
    tl.store(out + row + column, (x * scale * w).to(out.dtype.element_ty), mask=inside)


def add_rms_norm_triton(branch: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    tokens, hidden = branch.shape
    out = torch.empty_like(branch)
    block = next_power_of_2(hidden)
    _add_norm[(tokens,)](
        branch, branch if residual is None else residual, weight, out, eps, hidden, residual is not None, block,
        num_warps=min(8, max(1, block // 512)), **early_launch(),
    )  # fmt: skip
    return out
