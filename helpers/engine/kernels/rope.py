"""Rotary positions with the norms of single heads, and the store of keys and values into their pages.

The pairs that are rotated are (i, i + half), as in Hugging Face checkpoints (Su et al., arXiv 2104.09864).
Queries are rotated by the attention kernels as they load them; `store_kv` rotates the keys of prefill rows
into the pages and copies the values: it moves 4 kv_heads * head_dim * bytes-per-element a token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.engine.config import RopeScaling
from helpers.engine.kernels.backend import next_power_of_2, runs_triton, tl, triton


@dataclass(slots=True)
class Rotation:
    """What makes rotated queries and keys of a projection: cos and sin [max_context, head_dim / 2] float32 and,
    where the model norms each head first, the weights of those norms [head_dim]."""

    cos: Tensor
    sin: Tensor
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    eps: float = 0.0


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


def rotated(x: Tensor, norm: Tensor | None, positions: Tensor, rotation: Rotation) -> Tensor:
    """Heads x [T, n, head_dim], normed and rotated, computed in float32 and given in x's type."""
    y = x.float()
    if norm is not None:
        y = torch.nn.functional.rms_norm(y, (x.shape[-1],), norm.float(), rotation.eps)
    cos, sin = rotation.cos[positions][:, None], rotation.sin[positions][:, None]
    first, second = y.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


@triton.jit
def rotated_heads(heads, d, position, cos, sin, norm, eps, mask, HEAD_DIM: tl.constexpr, NORM: tl.constexpr):
    """`rotated` for the kernels: heads is a column of pointers, d [1, HEAD_DIM], position a scalar or a column.

    Each element also loads its partner, half a head away: the loads are twice as many, half of them from the cache.
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    partner = d ^ HALF
    x = tl.load(heads + d, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(heads + partner, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / HEAD_DIM + eps)
        x = x * scale[:, None] * tl.load(norm + d).to(tl.float32)
        y = y * scale[:, None] * tl.load(norm + partner).to(tl.float32)
    c = tl.load(cos + position * HALF + d % HALF)
    s = tl.load(sin + position * HALF + d % HALF)
    return x * c + tl.where(d < HALF, -y, y) * s


def store_kv(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    rotation: Rotation,
    keys: Tensor,
    values: Tensor,
    kv_scale: float = 1.0,
) -> None:
    """Store the keys, rotated, and the values of a projection, each divided by `kv_scale`.

    qkv [T, (heads + 2 kv_heads) * head_dim]; positions, slots [T]; keys, values [all slots, kv_heads,
    head_dim], a layer of the pages, of the projection's type or float8_e4m3fn. A token with slot -1 is not stored.
    """
    if len(qkv):
        body = store_kv_triton if runs_triton(qkv) else store_kv_torch
        body(qkv, positions, slots, rotation, keys, values, kv_scale)


def store_kv_torch(qkv, positions, slots, rotation, keys, values, kv_scale) -> None:
    kv_heads, head_dim = keys.shape[1:]
    k, v = qkv.view(len(qkv), -1, head_dim)[:, -2 * kv_heads :].split(kv_heads, dim=1)
    k = rotated(k, rotation.k_norm, positions, rotation)
    if (slots < 0).any():
        kept = slots >= 0
        slots, k, v = slots[kept], k[kept], v[kept]
    keys[slots] = (k / kv_scale).to(keys.dtype)
    values[slots] = (v / kv_scale).to(values.dtype)


@triton.jit
def _store_kv(
    kv, positions, slots, cos, sin, norm, eps, kv_scale, keys, values, row_stride, slot_stride, head_stride,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a token and BLOCK KV heads; kv points at the first key of the first token."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    if slot >= 0:
        position = tl.load(positions + token).to(tl.int64)
        head = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
        d = tl.arange(0, HEAD_DIM)[None, :]
        real = (head < KV_HEADS) & (d >= 0)
        source = kv + token * row_stride + head * HEAD_DIM
        key = rotated_heads(source, d, position, cos, sin, norm, eps, real, HEAD_DIM, NORM)
        value = tl.load(source + KV_HEADS * HEAD_DIM + d, mask=real).to(tl.float32)
        target = slot * slot_stride + head * head_stride + d
        tl.store(keys + target, (key / kv_scale).to(keys.dtype.element_ty), mask=real)
        tl.store(values + target, (value / kv_scale).to(values.dtype.element_ty), mask=real)


def store_kv_triton(qkv, positions, slots, rotation, keys, values, kv_scale) -> None:
    kv_heads, head_dim = keys.shape[1:]
    block = min(next_power_of_2(kv_heads), 8)
    normed = rotation.k_norm is not None
    first_key = qkv[:, -2 * kv_heads * head_dim :]
    _store_kv[(len(qkv), triton.cdiv(kv_heads, block))](
        first_key, positions, slots, rotation.cos, rotation.sin, rotation.k_norm if normed else qkv, rotation.eps,
        kv_scale, keys, values, qkv.stride(0), keys.stride(0), keys.stride(1), kv_heads, head_dim, normed, block,
        num_warps=2,
    )  # fmt: skip
