"""One matmul for each expert on its own rows: rows [R, K] sorted by expert, weights [experts, N, K].

With few rows an expert the time is that of reading the weights of the experts hit, and torch's
grouped_mm reads them fastest; with many the own kernel's large tiles keep the matrix unit busier (both
measured on an H100: `hybrid-serving bench engine`). `ends` stays on the device, so nothing waits for the
host and a graph can hold it.
"""

import torch
from torch import Tensor

from helpers.engine.kernels.backend import next_power_of_2, runs_triton, tl, triton

FEW_ROWS = 64  # mean rows an expert up to which grouped_mm is taken
TILE, FLOAT32_TILE = (128, 256, 64), (32, 64, 32)  # rows, columns and depth of a program's tile


def grouped_matmul(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """[R, K] and [experts, N, K] to [R, N]; ends [experts] int32, where each expert's rows end."""
    if not runs_triton(rows):
        return grouped_matmul_torch(rows, weights, ends)
    few = rows.dtype == torch.bfloat16 and len(rows) <= FEW_ROWS * len(weights)
    return (grouped_matmul_library if few and rows.is_cuda else grouped_matmul_triton)(rows, weights, ends)


def grouped_matmul_library(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """torch's own grouped GEMM (bfloat16)."""
    return torch.nn.functional.grouped_mm(rows, weights.transpose(-2, -1), offs=ends)


def grouped_matmul_torch(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    out = rows.new_empty(len(rows), weights.shape[1])
    begin = 0
    for expert, end in enumerate(ends.tolist()):
        if end > begin:
            torch.mm(rows[begin:end], weights[expert].T, out=out[begin:end])
        begin = end
    return out


@triton.jit
def _grouped_matmul(
    rows, weights, ends, out, EXPERTS: tl.constexpr, EXPERTS_PADDED: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program a tile of BLOCK_M rows of one expert and BLOCK_N columns; columns vary fastest, so that the
    programs that run together share rows and experts in the L2 cache."""
    column_tiles = tl.cdiv(N, BLOCK_N)
    tile = tl.program_id(0) // column_tiles
    # Which expert the tile belongs to: each program adds up the tiles of all experts for itself.
    e = tl.arange(0, EXPERTS_PADDED)
    end = tl.load(ends + e, mask=e < EXPERTS, other=0)
    begin = tl.load(ends + e - 1, mask=(e > 0) & (e < EXPERTS), other=0)
    tiles = tl.cdiv(end - begin, BLOCK_M)
    upto = tl.cumsum(tiles, 0)
    expert = tl.sum(tl.where((upto <= tile) & (e < EXPERTS), 1, 0), 0)
    if expert < EXPERTS:
        mine = e == expert
        first = tl.sum(tl.where(mine, begin + (tile - upto + tiles) * BLOCK_M, 0), 0)
        last = tl.sum(tl.where(mine, end, 0), 0)
        row = first + tl.arange(0, BLOCK_M)
        column = tl.program_id(0) % column_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
        k = tl.arange(0, BLOCK_K)
        real = row < last
        inside = column < N
        x = rows + row.to(tl.int64)[:, None] * K + k[None, :]
        w = weights + expert.to(tl.int64) * N * K + column[None, :] * K + k[:, None]
        sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for start in range(0, K, BLOCK_K):
            x_block = tl.load(x + start, mask=real[:, None] & (start + k < K)[None, :], other=0.0)
            w_block = tl.load(w + start, mask=inside[None, :] & (start + k < K)[:, None], other=0.0)
            sums = tl.dot(x_block, w_block, sums, input_precision="ieee")
        target = out + row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(target, sums.to(out.dtype.element_ty), mask=real[:, None] & inside[None, :])


def grouped_matmul_triton(
    rows: Tensor, weights: Tensor, ends: Tensor, tile: tuple[int, int, int] | None = None
) -> Tensor:
    (count, k), (experts, n, _) = rows.shape, weights.shape
    tile = tile or (FLOAT32_TILE if rows.dtype == torch.float32 else TILE)
    out = rows.new_empty(count, n)
    most_tiles = min(count, triton.cdiv(count, tile[0]) + experts)  # each expert may end in a partial tile
    _grouped_matmul[(most_tiles * triton.cdiv(n, tile[1]),)](
        rows, weights, ends, out, experts, next_power_of_2(experts), n, k, *tile,
        num_warps=8 if tile[0] * tile[1] > 64 * 64 else 4, num_stages=3,
    )  # fmt: skip
    return out
