"""Attention of prefill rows: chunks of any length, causal, against the paged context before and in them.

One kernel serves a first chunk, a later chunk and a prompt whose beginning came from the prefix cache: the
queries of a row are always the last ones of its context. One program takes a block of query tokens times
the query heads that share a KV head, 64 or 128 rows in all, so that the two matmuls of flash attention
(Dao et al., arXiv 2205.14135) run on the warpgroup matrix unit. 4 heads * head_dim FLOP a (query, key) pair.
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import LOG2_E, next_power_of_2, runs_triton, tl, triton
from helpers.engine.kernels.rope import Rotation, rotated, rotated_heads

# Query rows, keys and warps of a tile. Large tiles read keys less often, but a short chunk has too few of them
# to fill the GPU; float32 is for checks, and needs room.
SMALL_TILE, LARGE_TILE, FLOAT32_TILE = (64, 64, 4), (128, 128, 8), (32, 32, 4)
LONG_CHUNK = 4096  # query tokens from which tiles are large


def prefill_attention(
    qkv: Tensor,
    positions: Tensor,
    rotation: Rotation,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    query_starts: Tensor,
    max_query: int,
    page_tokens: int,
    out: Tensor,
    kv_scale: float = 1.0,
) -> None:
    """Write the attention of packed query tokens, whose own KV is in the pages, to `out`.

    qkv [T, (heads + 2 kv_heads) * head_dim]; positions [T]; keys, values [all slots, kv_heads, head_dim];
    page_table [R, P] and lengths [R] of the prefill rows; query_starts [R + 1], where each row's tokens
    begin in qkv; max_query, the longest row; out [T, heads * head_dim]. Pages hold keys and values divided
    by `kv_scale`.
    """
    if len(out):
        body = prefill_attention_triton if runs_triton(qkv) else prefill_attention_torch
        rows = (page_table, lengths, query_starts, max_query, page_tokens)
        body(qkv, positions, rotation, keys, values, *rows, out, kv_scale)


def prefill_attention_torch(
    qkv, positions, rotation, keys, values, page_table, lengths, query_starts, max_query, page_tokens, out, kv_scale
) -> None:
    kv_heads, head_dim = keys.shape[1:]
    queries = rotated(qkv[:, : out.shape[1]].view(len(out), -1, head_dim), rotation.q_norm, positions, rotation)
    starts = query_starts.tolist()
    for row, length in enumerate(lengths.tolist()):
        begin, end = starts[row], starts[row + 1]
        if begin == end:
            continue
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
def _kernel(
    qkv, positions, cos, sin, q_norm, eps, keys, values, page_table, lengths, query_starts, out, scale, kv_scale,
    row_stride, out_stride, slot_stride, head_stride, table_stride,
    GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, HEAD_DIM: tl.constexpr, NORM: tl.constexpr,
    PAGE: tl.constexpr, QUERIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """QUERIES tokens times GROUP heads (padded to a power of two) are the ROWS of a tile; keys come BLOCK at a time."""
    ROWS: tl.constexpr = QUERIES * GROUP_PADDED
    sequence = tl.program_id(2)
    kv_head = tl.program_id(1)
    first = tl.load(query_starts + sequence)
    queries = tl.load(query_starts + sequence + 1) - first
    block = tl.cdiv(queries, QUERIES) - 1 - tl.program_id(0)  # the last queries see most keys: they start first
    if block >= 0:
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
    qkv, positions, rotation, keys, values, page_table, lengths, query_starts, max_query, page_tokens, out,
    kv_scale=1.0, tile=None,
) -> None:  # fmt: skip
    kv_heads, head_dim = keys.shape[1:]
    group = out.shape[1] // head_dim // kv_heads
    group_padded = next_power_of_2(group)
    if tile is None:
        tile = SMALL_TILE if max_query < LONG_CHUNK else LARGE_TILE
        tile = FLOAT32_TILE if qkv.dtype == torch.float32 else tile
    rows, block, warps = tile
    queries = max(rows // group_padded, 1)
    normed = rotation.q_norm is not None
    _kernel[(triton.cdiv(max_query, queries), kv_heads, len(lengths))](
        qkv, positions, rotation.cos, rotation.sin, rotation.q_norm if normed else qkv, rotation.eps,
        keys, values, page_table, lengths, query_starts, out,
        head_dim**-0.5 * LOG2_E * kv_scale, kv_scale,
        qkv.stride(0), out.stride(0), keys.stride(0), keys.stride(1), page_table.stride(0),
        group, group_padded, head_dim, normed, page_tokens, queries, block, num_warps=warps, num_stages=2,
    )  # fmt: skip
