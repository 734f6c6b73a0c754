"""Rotary positions, per-head norms of queries and keys, and the store of keys and values into their pages.

One pass over the fused projection [T, heads + 2 kv_heads, head_dim]: queries are rotated in place, keys
are rotated into the pages, values are copied into the pages. The pairs that are rotated are (i, i + half),
as in Hugging Face checkpoints (Su et al., arXiv 2104.09864). Moves 2 bytes-per-element times the projection.
"""

import torch
from torch import Tensor

from helpers.engine.config import RopeScaling
from helpers.engine.kernels.backend import runs_triton, tl, triton


def rope_tables(
    head_dim: int, theta: float, positions: int, scaling: RopeScaling | None = None, device="cpu"
) -> tuple[Tensor, Tensor]:
    """cos and sin of every position and frequency, each [positions, head_dim / 2], made in float64, kept in float32."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
    frequency = theta**-exponent
    if scaling is not None:
        frequency = _stretched(frequency, scaling)
    angle = torch.arange(positions, dtype=torch.float64, device=device)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def _stretched(frequency: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama-3.1: the share of a frequency that stays grows with the waves that fit in the original context."""
    waves = scaling.original_context * frequency / (2 * torch.pi)
    stays = (waves - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    stays = stays.clamp(0.0, 1.0)
    return stays * frequency + (1.0 - stays) * frequency / scaling.factor


def rope_store(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rotate queries in place, store keys and values.

    qkv [T, (heads + 2 kv_heads) * head_dim]; positions, slots [T]; cos, sin [max_context, head_dim / 2]; keys,
    values [all slots, kv_heads, head_dim], a layer of the pages; q_norm, k_norm [head_dim] where the model
    norms each head first. A token with slot -1 is not stored.
    """
    body = _triton if runs_triton(qkv) else _torch
    body(qkv, positions, slots, cos, sin, keys, values, q_norm, k_norm, eps)


def _torch(qkv, positions, slots, cos, sin, keys, values, q_norm, k_norm, eps) -> None:
    kv_heads, head_dim = keys.shape[1:]
    heads = qkv.view(qkv.shape[0], -1, head_dim)
    q, k, v = heads[:, : -2 * kv_heads], heads[:, -2 * kv_heads : -kv_heads], heads[:, -kv_heads:]
    angles = cos[positions][:, None], sin[positions][:, None]
    q.copy_(_rotated(q, q_norm, eps, *angles))
    k = _rotated(k, k_norm, eps, *angles)
    if (slots < 0).any():
        kept = slots >= 0
        slots, k, v = slots[kept], k[kept], v[kept]
    keys[slots] = k.to(keys.dtype)
    values[slots] = v.to(values.dtype)


def _rotated(x: Tensor, norm: Tensor | None, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, heads, head_dim], computed in float32."""
    y = x.float()
    if norm is not None:
        y = torch.nn.functional.rms_norm(y, (x.shape[-1],), norm.float(), eps)
    first, second = y.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


@triton.jit
def _kernel(
    qkv, positions, slots, cos, sin, keys, values, q_norm, k_norm, eps, slot_stride, head_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a token and BLOCK heads, which are all queries, all keys or all values."""
    HALF: tl.constexpr = HEAD_DIM // 2
    token = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    head = (start + tl.arange(0, BLOCK))[:, None]
    d = tl.arange(0, HALF)[None, :]
    source = qkv + token * (HEADS + 2 * KV_HEADS) * HEAD_DIM + head * HEAD_DIM + d
    first = tl.load(source)
    second = tl.load(source + HALF)
    slot = tl.load(slots + token).to(tl.int64)
    if start >= HEADS + KV_HEADS:
        target = values + slot * slot_stride + (head - HEADS - KV_HEADS) * head_stride + d
        stored = (head >= 0) & (d >= 0) & (slot >= 0)
        tl.store(target, first.to(values.dtype.element_ty), mask=stored)
        tl.store(target + HALF, second.to(values.dtype.element_ty), mask=stored)
    else:
        a = first.to(tl.float32)
        b = second.to(tl.float32)
        if NORM:
            norm = q_norm if start < HEADS else k_norm
            scale = 1.0 / tl.sqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / HEAD_DIM + eps)
            a = a * scale[:, None] * tl.load(norm + d).to(tl.float32)
            b = b * scale[:, None] * tl.load(norm + HALF + d).to(tl.float32)
        position = tl.load(positions + token).to(tl.int64)
        c = tl.load(cos + position * HALF + d)
        s = tl.load(sin + position * HALF + d)
        if start < HEADS:
            tl.store(source, (a * c - b * s).to(first.dtype))
            tl.store(source + HALF, (b * c + a * s).to(first.dtype))
        else:
            target = keys + slot * slot_stride + (head - HEADS) * head_stride + d
            stored = (head >= 0) & (d >= 0) & (slot >= 0)
            tl.store(target, (a * c - b * s).to(keys.dtype.element_ty), mask=stored)
            tl.store(target + HALF, (b * c + a * s).to(keys.dtype.element_ty), mask=stored)


def _triton(qkv, positions, slots, cos, sin, keys, values, q_norm, k_norm, eps) -> None:
    tokens = qkv.shape[0]
    kv_heads, head_dim = keys.shape[1:]
    total = qkv.shape[1] // head_dim
    block = min(kv_heads & -kv_heads, 8)  # a power of two that divides the KV heads, and so the query heads
    _kernel[(tokens, total // block)](
        qkv, positions, slots, cos, sin, keys, values,
        qkv if q_norm is None else q_norm, qkv if k_norm is None else k_norm, eps,
        keys.stride(0), keys.stride(1), total - 2 * kv_heads, kv_heads, head_dim, q_norm is not None, block,
        num_warps=1 if tokens > 64 else 2,
    )  # fmt: skip
