"""Attention of decode rows: one query token a row against its paged context, split over the context.

A row's keys and values are read once: 2 kv_heads * head_dim * bytes-per-element a context token, and that
is all the traffic that matters. One program takes one row, one KV head with all query heads that share it,
and one part of the context; a second kernel joins the parts by their log-sum-exp (flash decoding, Dao et
al. 2023). How many parts depends on the number of rows alone, never on a length, so a captured graph
stays right while the contexts grow.
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import LOG2_E, next_power_of_2, runs_triton, tl, triton

PROGRAMS_WANTED = 264  # two for each of an H100's 132 multiprocessors
MOST_PARTS = 32


def decode_attention(
    qkv: Tensor, keys: Tensor, values: Tensor, page_table: Tensor, lengths: Tensor, page_tokens: int, out: Tensor
) -> None:
    """Write the attention of each row's query to `out`.

    qkv [R, (heads + 2 kv_heads) * head_dim], rotated; keys, values [all slots, kv_heads, head_dim];
    page_table [R, P] int32; lengths [R] int32, the query's own token included; out [R, heads * head_dim].
    A row of length 0 gets zeros.
    """
    if len(out):
        (_triton if runs_triton(qkv) else _torch)(qkv, keys, values, page_table, lengths, page_tokens, out)


def _torch(qkv, keys, values, page_table, lengths, page_tokens, out) -> None:
    rows, (kv_heads, head_dim) = len(out), keys.shape[1:]
    used = page_table[:, : -(-max(int(lengths.max()), 1) // page_tokens)]  # on a CPU the maximum costs no wait
    context = used.shape[1] * page_tokens

    def gathered(pages: Tensor) -> Tensor:
        whole = pages.view(-1, page_tokens * kv_heads * head_dim).index_select(0, used.flatten())
        return whole.view(rows, context, kv_heads, head_dim).transpose(1, 2).to(qkv.dtype)

    visible = torch.arange(context, device=lengths.device) < lengths[:, None]
    query = qkv[:, : out.shape[1]].view(rows, kv_heads, -1, head_dim)  # the heads that share a KV head as its queries
    answer = torch.nn.functional.scaled_dot_product_attention(
        query, gathered(keys), gathered(values), attn_mask=visible[:, None, None]
    )
    out.copy_(answer.reshape(rows, -1).masked_fill_(lengths[:, None] == 0, 0.0))


@triton.jit
def _kernel(
    qkv, keys, values, page_table, lengths, out, part_out, part_lse, scale,
    row_stride, slot_stride, head_stride, table_stride,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """BLOCK keys at a time. The scores of GROUP query heads fill a tile of GROUP_PADDED rows."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths + row)
    share = tl.cdiv(tl.cdiv(length, BLOCK), PARTS) * BLOCK
    begin = part * share
    end = tl.minimum(begin + share, length)
    g = tl.arange(0, GROUP_PADDED)
    d = tl.arange(0, HEAD_DIM)
    j = tl.arange(0, BLOCK)
    head = kv_head * GROUP + g
    real = g < GROUP
    query = tl.load(qkv + row * row_stride + head[:, None] * HEAD_DIM + d[None, :], mask=real[:, None], other=0.0)
    largest = tl.full([GROUP_PADDED], -float("inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    sums = tl.zeros([GROUP_PADDED, HEAD_DIM], tl.float32)
    table = page_table + row * table_stride
    for start in range(begin, end, BLOCK):
        position = start + j
        inside = position < end
        if BLOCK <= PAGE:  # a block lies in one page: one read of the table
            slot = tl.load(table + start // PAGE).to(tl.int64) * PAGE + start % PAGE + j
        else:
            slot = tl.load(table + position // PAGE, mask=inside, other=0).to(tl.int64) * PAGE + position % PAGE
        where = slot[:, None] * slot_stride + kv_head * head_stride + d[None, :]
        key = tl.load(keys + where, mask=inside[:, None], other=0.0).to(query.dtype)
        value = tl.load(values + where, mask=inside[:, None], other=0.0).to(query.dtype)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        score = tl.where(inside[None, :], score, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(score, 1))
        weight = tl.exp2(score - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weight, 1)
        sums = sums * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        largest = new_largest
    seen = tl.where(total > 0.0, total, 1.0)  # an empty part has no keys
    mean = sums / seen[:, None]
    first = row * KV_HEADS * GROUP
    if PARTS == 1:
        tl.store(out + (first + head)[:, None] * HEAD_DIM + d[None, :], mean.to(out.dtype.element_ty), real[:, None])
    else:
        piece = (first + head) * PARTS + part
        tl.store(part_out + piece[:, None] * HEAD_DIM + d[None, :], mean, real[:, None])
        tl.store(part_lse + piece, tl.where(total > 0.0, largest + tl.log2(seen), -float("inf")), real)


@triton.jit
def _join(part_out, part_lse, out, HEAD_DIM: tl.constexpr, PARTS: tl.constexpr):  # one program a query head
    head = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    d = tl.arange(0, HEAD_DIM)
    lse = tl.load(part_lse + head * PARTS + part)
    largest = tl.max(lse, 0)
    weight = tl.exp2(lse - tl.where(largest == -float("inf"), 0.0, largest))
    weight = weight / tl.maximum(tl.sum(weight, 0), 1e-30)
    parts = tl.load(part_out + (head * PARTS + part)[:, None] * HEAD_DIM + d[None, :])
    tl.store(out + head * HEAD_DIM + d, tl.sum(parts * weight[:, None], 0).to(out.dtype.element_ty))


def parts_for(rows: int, kv_heads: int) -> int:
    """In how many parts a context is split so that the whole GPU has work: a power of two."""
    parts = 1
    while rows * kv_heads * parts < PROGRAMS_WANTED and parts < MOST_PARTS:
        parts *= 2
    return parts


def _triton(qkv, keys, values, page_table, lengths, page_tokens, out, parts=None, block=64) -> None:
    rows, (kv_heads, head_dim) = len(out), keys.shape[1:]
    heads = out.shape[1] // head_dim
    group = heads // kv_heads
    parts = parts or parts_for(rows, kv_heads)
    part_out = part_lse = out
    if parts > 1:
        part_out = torch.empty(rows * heads * parts, head_dim, dtype=torch.float32, device=out.device)
        part_lse = torch.empty(rows * heads * parts, dtype=torch.float32, device=out.device)
    _kernel[(rows, kv_heads, parts)](
        qkv, keys, values, page_table, lengths, out, part_out, part_lse, head_dim**-0.5 * LOG2_E,
        qkv.stride(0), keys.stride(0), keys.stride(1), page_table.stride(0),
        kv_heads, group, max(16, next_power_of_2(group)), head_dim, page_tokens, block, parts,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    if parts > 1:
        _join[(rows * heads,)](part_out, part_lse, out, head_dim, parts, num_warps=4)
