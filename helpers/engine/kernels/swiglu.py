"""SwiGLU: silu(gate) * up (Shazeer, arXiv 2002.05202), gate and up side by side as the fused matmul leaves them.

Moves 3 bytes-per-element times [T, intermediate].
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import early_launch, follow, runs_triton, tl, triton


def swiglu(gate_up: Tensor) -> Tensor:
    """[T, 2 * intermediate] to [T, intermediate]."""
    return (swiglu_triton if runs_triton(gate_up) else swiglu_torch)(gate_up)


def swiglu_torch(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


@triton.jit
def _swiglu(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """One program a token and block of columns."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    follow(EARLY)
    gate = tl.load(gate_up + row * 2 * WIDTH + column, mask=inside).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + column, mask=inside).to(tl.float32)
    tl.store(out + row * WIDTH + column, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


def swiglu_triton(gate_up: Tensor) -> Tensor:
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    _swiglu[(tokens, triton.cdiv(width, 1024))](gate_up, out, width, 1024, num_warps=4, **early_launch())
    return out
