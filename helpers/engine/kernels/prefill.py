"""Attention of prefill rows: chunks of any length, causal, against the paged context before and in them.

One kernel serves a first chunk, a later chunk and a prompt whose beginning came from the prefix cache: the
queries of a row are always the last ones of its context. One program takes a block of query tokens times
the query heads that share a KV head, 64 or 128 rows in all, so that the two matmuls of flash attention
(Dao et al., arXiv 2205.14135) run on the warpgroup matrix unit. 4 heads * head_dim FLOP a (query, key) pair.

Which program takes which block is read from a list on the device, so a captured graph serves any chunks
whose list fits in its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helpers.engine.kernels.backend import LOG2_E, next_power_of_2, runs_triton, tl, triton
from helpers.engine.kernels.rope import Rotation, rotated, rotated_heads

# Query rows, keys and warps of a tile. Large tiles read keys less often, but a short chunk has too few of them
# to fill the GPU; float32 is for checks, and needs room.
SMALL_TILE, LARGE_TILE, FLOAT32_TILE = (64, 64, 4), (128, 128, 8), (32, 32, 4)
LONG_CHUNK = 4096  # query tokens from which tiles are large


@dataclass(frozen=True, slots=True)
class TileShape:
    """Query tokens of a tile, keys that it takes at a time, and the warps that work on it."""

    queries: int
    keys: int
    warps: int


def tile_shape(group: int, dtype: torch.dtype, longest: int) -> TileShape:
    """The tiles of a step whose longest chunk is that many tokens; `group` query heads share a KV head."""
    tile = SMALL_TILE if longest < LONG_CHUNK else LARGE_TILE
    rows, keys, warps = FLOAT32_TILE if dtype == torch.float32 else tile
    return TileShape(max(rows // next_power_of_2(group), 1), keys, warps)


def tile_places(counts: np.ndarray, contexts: np.ndarray, first_row: int, queries: int) -> np.ndarray:
    """The tiles [N, 2] int64 of chunks of `counts` [n] tokens after `contexts` [n]: (row, block of query tokens in it).

    The rows of the chunks begin at `first_row`. Tiles that see most keys come first, as they take longest.
    """
    blocks = -(-counts // queries)
    chunk = np.repeat(np.arange(len(counts)), blocks)
    block = np.arange(len(chunk)) - np.repeat(blocks.cumsum() - blocks, blocks)
    order = np.argsort(-(contexts[chunk] + (block + 1) * queries), kind="stable")
    return np.stack([first_row + chunk, block], axis=1)[order]


@dataclass(frozen=True, slots=True)
class Tiles:
    """`places` [N, 2] int32 as `tile_places` gives them, and the shape that they were made for.

    A row of -1 is a tile of nothing.
    """

    places: Tensor
    shape: TileShape


def tiles_of(chunks: Sequence[tuple[int, int]], first_row: int, group: int, dtype: torch.dtype, device) -> Tiles | None:
    """The tiles of `chunks` of (new tokens, context before them); None without any."""
    if not chunks:
        return None
    counts, contexts = np.array(chunks).T
    shape = tile_shape(group, dtype, int(counts.max()))
    places = tile_places(counts, contexts, first_row, shape.queries)
    return Tiles(torch.tensor(places, dtype=torch.int32, device=device), shape)


def prefill_attention(
    qkv: Tensor,
    positions: Tensor,
    rotation: Rotation,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    query_starts: Tensor,
    tiles: Tiles,
    page_tokens: int,
    out: Tensor,
    kv_scale: float = 1.0,
) -> None:
    """Write the attention of packed query tokens, whose own KV is in the pages, to `out`.

    qkv [T, (heads + 2 kv_heads) * head_dim]; positions [T]; keys, values [all slots, kv_heads, head_dim];
    page_table [R, P] and lengths [R] of the rows; query_starts [R + 1], where each row's tokens begin in
    qkv; out [T, heads * head_dim], written for the rows that `tiles` name. Pages hold keys and values
    divided by `kv_scale`.
    """
    if len(out):
        body = prefill_attention_triton if runs_triton(qkv) else prefill_attention_torch
        rows = (page_table, lengths, query_starts, tiles, page_tokens)
        body(qkv, positions, rotation, keys, values, *rows, out, kv_scale)


def prefill_attention_torch(
    qkv, positions, rotation, keys, values, page_table, lengths, query_starts, tiles, page_tokens, out, kv_scale
) -> None:
    kv_heads, head_dim = keys.shape[1:]
    queries = rotated(qkv[:, : out.shape[1]].view(len(out), -1, head_dim), rotation.q_norm, positions, rotation)
    starts, all_lengths = query_starts.tolist(), lengths.tolist()
    for row in sorted({row for row, _ in tiles.places.tolist() if row >= 0}):
        begin, end, length = starts[row], starts[row + 1], all_lengths[row]
        used = page_table[row, : -(-length // page_tokens)]

        def gathered(pages: Tensor, used: Tensor = used, length: int = length) -> Tensor:
            whole = pages.view(-1, page_tokens, kv_heads, head_dim).index_select(0, used)
            return whole.view(-1, kv_heads, head_dim)[:length].transpose(0, 1)[None].to(qkv.dtype) * kv_scale

        query = queries[begin:end].transpose(0, 1)[None]
        position = torch.arange(length - (end - begin), length, device=qkv.device)
        visible = torch.arange(length, device=qkv.device) <= position[:, None]
        answer = torch.nn.functional.scaled_dot_product_attention(
            query, gathered(keys), gathered(values), attn_mask=visible, enable_gqa=True
        )
        out[begin:end] = answer[0].transpose(0, 1).reshape(end - begin, -1)


@triton.jit
def _keys_and_values(
    keys, values, table, start, end, kv_head, slot_stride, head_stride, HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The BLOCK keys and values from position `start`; where the block is not WHOLE, zeros from `end` on."""
    j = tl.arange(0, BLOCK)
    d = tl.arange(0, HEAD_DIM)
    inside = start + j < end
    if BLOCK <= PAGE:
        slot = tl.load(table + start // PAGE).to(tl.int64) * PAGE + start % PAGE + j
    else:
        page = tl.load(table + (start + j) // PAGE, mask=inside, other=0)
        slot = page.to(tl.int64) * PAGE + (start + j) % PAGE
    where = slot[:, None] * slot_stride + kv_head * head_stride + d[None, :]
    if WHOLE:
        return tl.load(keys + where), tl.load(values + where)
    return tl.load(keys + where, inside[:, None], other=0.0), tl.load(values + where, inside[:, None], other=0.0)


@triton.jit
def _prefill_attention(
    qkv, positions, cos, sin, q_norm, eps, keys, values, page_table, lengths, query_starts, tiles, out, scale, kv_scale,
    row_stride, out_stride, slot_stride, head_stride, table_stride,
    GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, HEAD_DIM: tl.constexpr, NORM: tl.constexpr,
    PAGE: tl.constexpr, QUERIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """QUERIES tokens times GROUP heads (padded to a power of two) are the ROWS of a tile; keys come BLOCK at a time."""
    ROWS: tl.constexpr = QUERIES * GROUP_PADDED
    tile = tiles + 2 * tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.load(tile)
    if sequence >= 0:
        block = tl.load(tile + 1)
        first = tl.load(query_starts + sequence)
        queries = tl.load(query_starts + sequence + 1) - first
        length = tl.load(lengths + sequence)
        before = length - queries  # context tokens before the chunk
        r = tl.arange(0, ROWS)
        d = tl.arange(0, HEAD_DIM)
        token = block * QUERIES + r // GROUP_PADDED
        head = kv_head * GROUP + r % GROUP_PADDED
        real = (token < queries) & (r % GROUP_PADDED < GROUP)
        at = (first + token).to(tl.int64)[:, None]
        visible_to = before + token  # each query sees the keys up to its own
        angle = tl.load(positions + first + token, mask=real, other=0).to(tl.int64)[:, None]
        heads = qkv + at * row_stride + head[:, None] * HEAD_DIM
        query = rotated_heads(
            heads, d[None, :], angle, cos, sin, q_norm, eps, real[:, None] & (d >= 0)[None, :], HEAD_DIM, NORM
        ).to(qkv.dtype.element_ty)
        end = tl.minimum(length, before + (block + 1) * QUERIES)
        unmasked = (before + block * QUERIES + 1) // BLOCK * BLOCK  # every query of the tile sees these keys
        largest = tl.full([ROWS], -float("inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        sums = tl.zeros([ROWS, HEAD_DIM], tl.float32)
        table = page_table + sequence.to(tl.int64) * table_stride
        for start in range(0, unmasked, BLOCK):
            key, value = _keys_and_values(
                keys, values, table, start, end, kv_head, slot_stride, head_stride, HEAD_DIM, PAGE, BLOCK, True
            )
            score = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee")
            new_largest = tl.maximum(largest, tl.max(score, 1) * scale)
            weight = tl.exp2(score * scale - new_largest[:, None])
            shrink = tl.exp2(largest - new_largest)
            total = total * shrink + tl.sum(weight, 1)
            sums = sums * shrink[:, None]
            sums = tl.dot(weight.to(query.dtype), value.to(query.dtype), sums, input_precision="ieee")
            largest = new_largest
        for start in range(unmasked, end, BLOCK):
            key, value = _keys_and_values(
                keys, values, table, start, end, kv_head, slot_stride, head_stride, HEAD_DIM, PAGE, BLOCK, False
            )
            score = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee") * scale
            score = tl.where((start + tl.arange(0, BLOCK))[None, :] <= visible_to[:, None], score, -float("inf"))
            new_largest = tl.maximum(largest, tl.max(score, 1))
            weight = tl.exp2(score - new_largest[:, None])
            shrink = tl.exp2(largest - new_largest)
            total = total * shrink + tl.sum(weight, 1)
            sums = sums * shrink[:, None]
            sums = tl.dot(weight.to(query.dtype), value.to(query.dtype), sums, input_precision="ieee")
            largest = new_largest
        answer = (sums / total[:, None] * kv_scale).to(out.dtype.element_ty)
        tl.store(out + at * out_stride + head[:, None] * HEAD_DIM + d[None, :], answer, mask=real[:, None])


def prefill_attention_triton(
    qkv, positions, rotation, keys, values, page_table, lengths, query_starts, tiles, page_tokens, out, kv_scale=1.0
) -> None:
    kv_heads, head_dim = keys.shape[1:]
    group = out.shape[1] // head_dim // kv_heads
    shape = tiles.shape
    normed = rotation.q_norm is not None
    _prefill_attention[(len(tiles.places), kv_heads)](
        qkv, positions, rotation.cos, rotation.sin, rotation.q_norm if normed else qkv, rotation.eps,
        keys, values, page_table, lengths, query_starts, tiles.places, out,
        head_dim**-0.5 * LOG2_E * kv_scale, kv_scale,
        qkv.stride(0), out.stride(0), keys.stride(0), keys.stride(1), page_table.stride(0),
        group, next_power_of_2(group), head_dim, normed, page_tokens, shape.queries, shape.keys,
        num_warps=shape.warps, num_stages=2,
    )  # fmt: skip
