"""The attention of decode rows in one launch: rotate query and key, store key and value, attend to the pages.

Each row reads the keys and values of its context once, 2 kv_heads * head_dim * bytes-per-element a token,
and nothing else weighs. A program takes one row, one KV head with all query heads that share it, and one
part of the context; of the parts of a row the one that ends last joins them by their log-sum-exp (flash
decoding, Dao et al. 2023). How many parts there can be depends on the number of rows and never on a length, so
that a captured graph stays right while contexts grow. How many of them a row uses, its length decides on the
device: the programs that are left over end at once.
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import LOG2_E, early_launch, follow, next_power_of_2, runs_triton, tl, triton
from helpers.engine.kernels.rope import Rotation, rotated, rotated_heads, store_kv_torch

PROGRAMS_WANTED = 256  # about two for each of an H100's 132 multiprocessors
PROGRAMS_MOST = 4096  # those that end at once cost something too
MOST_PARTS = 16  # more cost more to join than they hide
# Where rows alone are nearly as many programs as are wanted, each has a part for so many keys. Had all rows two, all
# would wait for the longest: captured steps on an H200 take 8.5 ms with two each and 6.4 by length for one row of 6,000
# tokens among 49 of 800, 7.1 and 5.9 for one among 15, 6.9 and 6.2 for 50 rows as they are served, 9.5 and 8.6 for 128;
# 128 rows of 1,024 take 10.0 and 9.4, of 1,040 10.1 both, 32 of 1,040 5.54 and 5.57. Parts of 512 keys cost 32 equal
# rows 0.3 ms more, those of 2,048 keys cost 50 served ones 0.65 ms.
KEYS_A_PART = 1024
PARTS_OF_FEW, PARTS_OF_MANY = (2, 4), (1, 8)  # at least and at most, up to as many programs as are wanted, and beyond
MOST_COUNTERS = 4096
GATHERED_TOKENS = 4096  # the plain twin copies the KV of so many tokens at a time, which a CPU's cache holds


def join_counters(device) -> Tensor:
    """The counters by which the parts of a row learn who is last: zeros, and zeros again after every launch.

    One set serves launches that follow each other on one stream.
    """
    return torch.zeros(MOST_COUNTERS, dtype=torch.int32, device=device)


def decode_attention(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    rotation: Rotation,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    page_tokens: int,
    counters: Tensor,
    out: Tensor,
    kv_scale: float = 1.0,
) -> None:
    """Store each row's new key and value, and write the attention of its query to `out`.

    qkv [R, (heads + 2 kv_heads) * head_dim]; positions, slots [R] of the new tokens; keys, values [all
    slots, kv_heads, head_dim], a layer of the pages; page_table [R, P] int32; lengths [R] int32, the new
    token included; counters, see `join_counters`; out [R, heads * head_dim]. Slot -1 stores nothing;
    length 0 gives zeros. Pages hold keys and values divided by `kv_scale`.
    """
    if len(out):
        body = decode_attention_triton if runs_triton(qkv) else decode_attention_torch
        body(qkv, positions, slots, rotation, keys, values, page_table, lengths, page_tokens, counters, out, kv_scale)


def decode_attention_torch(
    qkv, positions, slots, rotation, keys, values, page_table, lengths, page_tokens, counters, out, kv_scale
) -> None:
    store_kv_torch(qkv, positions, slots, rotation, keys, values, kv_scale)
    head_dim = keys.shape[2]
    query = rotated(qkv[:, : out.shape[1]].view(len(out), -1, head_dim), rotation.q_norm, positions, rotation)
    longest = max(int(lengths.max()), 1)  # on a CPU the maximum costs no wait
    at_once = max(1, GATHERED_TOKENS // longest)
    for row in range(0, len(out), at_once):
        rows = slice(row, row + at_once)
        used = page_table[rows, : -(-max(int(lengths[rows].max()), 1) // page_tokens)]
        out[rows] = _attend(query[rows], keys, values, used, lengths[rows], page_tokens, kv_scale)
    out.masked_fill_(lengths[:, None] == 0, 0.0)


def _attend(query, keys, values, used, lengths, page_tokens, kv_scale) -> Tensor:
    """Gather the pages of a few rows, query [R, heads, head_dim], and attend; [R, heads * head_dim]."""
    rows, (kv_heads, head_dim) = len(query), keys.shape[1:]
    context = used.shape[1] * page_tokens

    def gathered(pages: Tensor) -> Tensor:
        whole = pages.view(-1, page_tokens * kv_heads * head_dim).index_select(0, used.flatten())
        kv = whole.view(rows, context, kv_heads, head_dim).transpose(1, 2).to(query.dtype)
        return kv if kv_scale == 1.0 else kv * kv_scale

    visible = torch.arange(context, device=lengths.device) < lengths[:, None]
    answer = torch.nn.functional.scaled_dot_product_attention(
        query.view(rows, kv_heads, -1, head_dim),  # the heads that share a KV head take the place of query tokens
        gathered(keys),
        gathered(values),
        attn_mask=visible[:, None, None],
    )
    return answer.reshape(rows, -1)


@triton.jit
def _decode_attention(
    qkv, positions, slots, cos, sin, q_norm, k_norm, eps, keys, values, page_table, lengths, counters,
    out, part_out, part_lse, scale, kv_scale, row_stride, slot_stride, head_stride, table_stride, keys_a_part,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, HEAD_DIM: tl.constexpr,
    NORM: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, LEAST: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """Keys come BLOCK at a time; the GROUP query heads are padded to a tile of the matrix unit. Of PARTS a row uses
    one for each `keys_a_part` keys, and LEAST at least."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    follow(EARLY)
    length = tl.load(lengths + row)
    cached = tl.maximum(length - 1, 0)
    used = tl.minimum(tl.maximum(tl.cdiv(cached, keys_a_part), LEAST), PARTS)
    if part >= used:
        return
    position = tl.load(positions + row).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    g = tl.arange(0, GROUP_PADDED)[:, None]
    d = tl.arange(0, HEAD_DIM)[None, :]
    j = tl.arange(0, BLOCK)
    head = kv_head * GROUP + g
    real = g < GROUP
    projection = qkv + row * row_stride
    query = rotated_heads(
        projection + head * HEAD_DIM, d, position, cos, sin, q_norm, eps, real & (d >= 0), HEAD_DIM, NORM
    ).to(qkv.dtype.element_ty)

    # The new token comes from the projection, not from its page. The last part, the shortest, starts with it.
    owner = (part == used - 1) & (length > 0)
    one = tl.arange(0, 1)[:, None]
    source = projection + (KV_HEADS * GROUP + kv_head + one) * HEAD_DIM
    key = rotated_heads(source, d, position, cos, sin, k_norm, eps, (one == 0) & (d >= 0), HEAD_DIM, NORM)
    key = (key / kv_scale).to(keys.dtype.element_ty)
    value = (tl.load(source + KV_HEADS * HEAD_DIM + d).to(tl.float32) / kv_scale).to(values.dtype.element_ty)
    target = slot * slot_stride + kv_head * head_stride + d + one
    if owner & (slot >= 0):
        tl.store(keys + target, key)
        tl.store(values + target, value)
    score = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale
    largest = tl.where(owner, score, -float("inf"))
    total = tl.where(owner, 1.0, 0.0) + tl.zeros([GROUP_PADDED], tl.float32)
    sums = tl.where(owner, value.to(tl.float32), 0.0) + tl.zeros([GROUP_PADDED, HEAD_DIM], tl.float32)

    share = tl.cdiv(tl.cdiv(cached, BLOCK), used) * BLOCK
    end = tl.minimum((part + 1) * share, cached)
    table = page_table + row * table_stride
    for start in range(part * share, end, BLOCK):
        inside = start + j < end
        if BLOCK <= PAGE:  # a block lies in one page: one read of the table
            at = tl.load(table + start // PAGE).to(tl.int64) * PAGE + start % PAGE + j
        else:
            at = tl.load(table + (start + j) // PAGE, mask=inside, other=0).to(tl.int64) * PAGE + (start + j) % PAGE
        where = at[:, None] * slot_stride + kv_head * head_stride + d
        k = tl.load(keys + where, mask=inside[:, None], other=0.0).to(query.dtype)
        v = tl.load(values + where, mask=inside[:, None], other=0.0).to(query.dtype)
        scores = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weight = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weight, 1)
        sums = sums * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        largest = new_largest

    mean = sums / tl.where(total > 0.0, total, 1.0)[:, None]  # an empty part has no keys
    result = out + (row * KV_HEADS * GROUP + head) * HEAD_DIM + d
    if used == 1:
        tl.store(result, (mean * kv_scale).to(out.dtype.element_ty), mask=real)
    else:
        # Heads of a row lie part by part: piece [row, part, head].
        first = row * PARTS * KV_HEADS * GROUP + head
        piece = first + part * KV_HEADS * GROUP
        lse = tl.where(total > 0.0, largest + tl.log2(tl.where(total > 0.0, total, 1.0)), -float("inf"))
        tl.store(part_out + piece * HEAD_DIM + d, mean, mask=real)
        tl.store(part_lse + piece, lse[:, None], mask=real)
        tl.debug_barrier()  # the whole program has written its part before it is counted
        counter = counters + row * KV_HEADS + kv_head
        if tl.atomic_add(counter, 1, sem="acq_rel") == used - 1:
            tl.store(counter, 0)
            best = tl.full([GROUP_PADDED, 1], -float("inf"), tl.float32)
            for p in tl.static_range(PARTS):
                there = g < tl.where(used > p, GROUP, 0)
                lse_p = tl.load(
                    part_lse + first + p * KV_HEADS * GROUP, mask=there, other=-float("inf"), cache_modifier=".cg"
                )
                best = tl.maximum(best, lse_p)
            best = tl.where(best == -float("inf"), 0.0, best)  # a padded row: every part is empty
            weights = tl.zeros([GROUP_PADDED, 1], tl.float32)
            joined = tl.zeros([GROUP_PADDED, HEAD_DIM], tl.float32)
            for p in tl.static_range(PARTS):
                piece, there = first + p * KV_HEADS * GROUP, g < tl.where(used > p, GROUP, 0)
                lse_p = tl.load(part_lse + piece, mask=there, other=-float("inf"), cache_modifier=".cg")
                weight = tl.exp2(lse_p - best)
                joined += weight * tl.load(part_out + piece * HEAD_DIM + d, mask=there, other=0.0, cache_modifier=".cg")
                weights += weight
            answer = joined / tl.where(weights > 0.0, weights, 1.0)
            tl.store(result, (answer * kv_scale).to(out.dtype.element_ty), mask=real)


def parts_for(rows: int, kv_heads: int) -> tuple[int, int, int]:
    """How many parts a row has at least, so that the whole GPU has work to its end, and at most (powers of two), and
    for how many keys it has one."""
    programs = rows * kv_heads
    least, bound = PARTS_OF_FEW if programs <= PROGRAMS_WANTED else PARTS_OF_MANY
    while programs * least < PROGRAMS_WANTED and least < MOST_PARTS:
        least *= 2
    most = least
    while 2 * programs * most <= PROGRAMS_MOST and most < bound:
        most *= 2
    return least, most, KEYS_A_PART


def block_of(dtype: torch.dtype) -> int:
    """Keys that a program reads at a time."""
    return 32 if dtype == torch.float32 else 64


def decode_attention_triton(
    qkv, positions, slots, rotation, keys, values, page_table, lengths, page_tokens, counters, out, kv_scale=1.0,
    parts=None, block=None,
) -> None:  # fmt: skip
    """`parts` as `parts_for` gives them."""
    rows, (kv_heads, head_dim) = len(out), keys.shape[1:]
    heads = out.shape[1] // head_dim
    least, most, keys_a_part = parts or parts_for(rows, kv_heads)
    block = block or block_of(qkv.dtype)
    normed = rotation.q_norm is not None
    part_out = part_lse = out
    if most > 1:
        part_out = torch.empty(rows * heads * most, head_dim, dtype=torch.float32, device=out.device)
        part_lse = torch.empty(rows * heads * most, dtype=torch.float32, device=out.device)
    _decode_attention[(rows, kv_heads, most)](
        qkv, positions, slots, rotation.cos, rotation.sin, rotation.q_norm if normed else qkv,
        rotation.k_norm if normed else qkv, rotation.eps, keys, values, page_table, lengths, counters,
        out, part_out, part_lse, head_dim**-0.5 * LOG2_E * kv_scale, kv_scale,
        qkv.stride(0), keys.stride(0), keys.stride(1), page_table.stride(0), keys_a_part,
        kv_heads, heads // kv_heads, max(16, next_power_of_2(heads // kv_heads)), head_dim, normed, page_tokens,
        block, most, least, num_warps=4, num_stages=3, **early_launch(),
    )  # fmt: skip
