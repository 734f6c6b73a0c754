"""Paged attention against dense attention in float64: outputs, and pages after the store."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.engine.error_bounds import relative_error
from helpers.engine.kernels.decode import decode_attention, decode_attention_triton, join_counters
from helpers.engine.kernels.prefill import prefill_attention, tiles_of
from helpers.engine.kernels.rope import Rotation, rope_tables, store_kv


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads and pages of an attention check."""

    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    page: int = 16
    normed: bool = False
    fp8: bool = False  # pages of float8_e4m3fn, with a scale

    def __str__(self) -> str:
        more = (", normed heads" if self.normed else "") + (", fp8 pages" if self.fp8 else "")
        return f"{self.heads}:{self.kv_heads} heads of {self.head_dim}, page {self.page}{more}"


class Paged:
    """Random keys and values for rows of the given context lengths, on pages in random order."""

    def __init__(self, shape: Shape, lengths: list[int], device, dtype: torch.dtype, seed: int = 0) -> None:
        self.shape, self.dtype = shape, dtype
        self.generator = torch.Generator().manual_seed(seed)
        columns = max(1, *(-(-n // shape.page) for n in lengths))
        pages = len(lengths) * columns + 2
        order = torch.randperm(pages, generator=self.generator)[: len(lengths) * columns]
        self.table = order.view(-1, columns).int().to(device)
        self.lengths = torch.tensor(lengths, dtype=torch.int32, device=device)
        self.device = device
        self.scale = 0.25 if shape.fp8 else 1.0
        self.keys, self.values = (
            self.stored(self.draw(pages * shape.page, shape.kv_heads, shape.head_dim)) for _ in range(2)
        )
        cos, sin = rope_tables(shape.head_dim, 10_000.0, max(1, *lengths), device=device)
        norms = [1 + 0.1 * self.draw(shape.head_dim) for _ in range(2)] if shape.normed else [None, None]
        self.rotation = Rotation(cos, sin, *norms, 1e-6)

    def draw(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator).to(self.device, self.dtype)

    def stored(self, x: Tensor) -> Tensor:
        """Keys or values as the pages hold them."""
        return (x / self.scale).to(torch.float8_e4m3fn if self.shape.fp8 else self.dtype)

    def slots(self, row: int, begin: int, end: int) -> Tensor:
        position = torch.arange(begin, end, device=self.device)
        return self.table[row, position // self.shape.page].long() * self.shape.page + position % self.shape.page

    def rotate(self, x: Tensor, positions: Tensor, norm: Tensor | None) -> Tensor:
        """x [T, heads, head_dim] as float64, from the angles themselves."""
        x, half = x.double(), self.shape.head_dim // 2
        if norm is not None:
            x = x / (x.square().mean(-1, keepdim=True) + self.rotation.eps).sqrt() * norm.double()
        pair = torch.arange(half, device=self.device, dtype=torch.float64)
        angle = positions.double()[:, None, None] * 10_000.0 ** (-pair / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def split(self, qkv: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, of a projection, in float64."""
        s = self.shape
        q, k, v = qkv.view(len(qkv), -1, s.head_dim).split([s.heads, s.kv_heads, s.kv_heads], dim=1)
        k_rotated = self.rotate(k, positions, self.rotation.k_norm)
        return self.rotate(q, positions, self.rotation.q_norm), k_rotated, v.double()

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
        """Causal attention of queries at `positions` over stored keys of positions 0, 1, …; [T, heads * head_dim]."""
        s = self.shape
        q = q.view(len(q), s.kv_heads, -1, s.head_dim)
        keys, values = keys * self.scale, values * self.scale
        score = torch.einsum("tkgd,nkd->tkgn", q, keys) / math.sqrt(s.head_dim)
        future = torch.arange(len(keys), device=self.device) > positions[:, None]
        weight = score.masked_fill(future[:, None, None], -math.inf).softmax(-1)
        return torch.einsum("tkgn,nkd->tkgd", weight, values).reshape(len(q), -1)


def decode_error(
    shape: Shape,
    lengths: list[int],
    device,
    dtype: torch.dtype,
    fault: str = "",
    parts: tuple[int, int, int] | None = None,
) -> float:
    """Of outputs, and of all pages after the store of the new token; lengths count it, 0 is a padded row.

    Faults: with "page" the kernel gets a table whose last row begins with a page of another row, with "early" the first
    part of a row that has all of `parts` joins them. `parts` as `decode.parts_for`.
    """
    paged = Paged(shape, lengths, device, dtype)
    rows = len(lengths)
    qkv = paged.draw(rows, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    positions = (paged.lengths.long() - 1).clamp(min=0)
    slots = torch.tensor([int(paged.slots(r, n - 1, n)[0]) if n else -1 for r, n in enumerate(lengths)], device=device)
    q, k, v = paged.split(qkv, positions)
    keys, values = paged.keys.double(), paged.values.double()
    expected = torch.zeros(rows, shape.heads * shape.head_dim, dtype=torch.float64, device=device)
    for row, length in enumerate(lengths):
        if length:
            keys[slots[row]], values[slots[row]] = paged.stored(k[row]).double(), paged.stored(v[row]).double()
            at = paged.slots(row, 0, length)
            position = positions[row : row + 1]
            expected[row] = paged.attend(q[row : row + 1], keys[at], values[at], position)[0]
    if fault == "page":
        paged.table[-1, 0] = paged.table[0, 0]
    counters = join_counters(device)
    if fault == "early":
        counters += parts[1] - 1
    out = torch.full_like(expected, math.nan, dtype=dtype)
    arguments = (
        qkv, positions, slots, paged.rotation, paged.keys, paged.values, paged.table, paged.lengths, shape.page,
        counters, out, paged.scale,
    )  # fmt: skip
    if parts:
        decode_attention_triton(*arguments, parts=parts)
    else:
        decode_attention(*arguments)
    errors = [relative_error(out, expected), relative_error(paged.keys, keys), relative_error(paged.values, values)]
    return max(errors)


def prefill_error(shape: Shape, chunks: list[tuple[int, int]], device, dtype: torch.dtype, fault: str = "") -> float:
    """Chunks are (context before, new tokens) of each row; of outputs, and of all pages after the store.

    Faults: with "row" the kernel is told that the first token of the second chunk belongs to the first one,
    with "tile" the tiles of the first chunk are missing from its list.
    """
    lengths = [before + new for before, new in chunks]
    paged = Paged(shape, lengths, device, dtype)
    tokens = sum(new for _, new in chunks)
    qkv = paged.draw(tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    positions = torch.cat([torch.arange(b, b + n) for b, n in chunks]).to(device)
    slots = torch.cat([paged.slots(row, b, b + n) for row, (b, n) in enumerate(chunks)])
    q, k, v = paged.split(qkv, positions)
    keys, values = paged.keys.double(), paged.values.double()
    keys[slots], values[slots] = paged.stored(k).double(), paged.stored(v).double()
    starts = [0, *itertools.accumulate(new for _, new in chunks)]
    expected = torch.cat([
        paged.attend(q[a:b], keys[at], values[at], positions[a:b])
        for row, (a, b) in enumerate(itertools.pairwise(starts))
        for at in (paged.slots(row, 0, lengths[row]),)
    ])  # fmt: skip
    out = torch.full_like(expected, math.nan, dtype=dtype)
    told = torch.tensor(starts, dtype=torch.int32, device=device)
    tiles = tiles_of([(new, before) for before, new in chunks], 0, shape.heads // shape.kv_heads, dtype, device)
    if fault == "row":
        told[1] += 1
    elif fault == "tile":
        tiles.places[tiles.places[:, 0] == 0] = -1
    store_kv(qkv, positions, slots, paged.rotation, paged.keys, paged.values, paged.scale)
    prefill_attention(
        qkv, positions, paged.rotation, paged.keys, paged.values, paged.table, paged.lengths,
        told, tiles, shape.page, out, paged.scale,
    )  # fmt: skip
    errors = [relative_error(out, expected), relative_error(paged.keys, keys), relative_error(paged.values, values)]
    return max(errors)
