"""y = x W^T where x has few rows, as in a decode step: the time is that of reading W once, N * K * bytes-per-element.

Up to `MOST_ROWS` rows of bfloat16 on a Hopper GPU run here, everything else in the library. A program multiplies a
block of W's rows, the large side of the tile, with all of x. A matrix with few such blocks is split along K as well;
of the programs of a block the one that ends last adds up their sums, in a fixed order: the same input gives the same
output. Steps of Llama-3.1-8B on an H200 take 4.22, 4.57 and 5.40 ms at batch 1, 8 and 32, and 4.56, 4.89 and
5.73 with the library's products and without early launch (`backend.early_launch`); alone, each of the two gives less.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear as library_linear

from helpers.engine.kernels.backend import early_launch, follow, hopper, next_power_of_2, tl, triton

MOST_ROWS = 32  # 64 gained another 0.9 % at batch 64, and were not checked against float64 on a GPU
BLOCK_N, BLOCK_K = 64, 128  # rows and columns of W in a tile: 64 are what the matrix unit takes from four warps
FEW_BLOCKS = 96  # fewer leave too many of 132 multiprocessors without work: then two programs share a block's K
MULTIPROCESSORS = 132
# Tiles that a program has under way. With 4 two programs fit on a multiprocessor, which pays where there are more than
# multiprocessors (w13 on an H200: a step is 0.8 to 1.2 % shorter); one alone hides more with 6.
STAGES, STAGES_OF_TWO = 6, 4


def linear(x: Tensor, weight: Tensor, counters: Tensor) -> Tensor:
    """x [T, K] times weight [N, K], transposed: [T, N]; counters, see `decode.join_counters`."""
    (n, k), few = weight.shape, len(x) <= MOST_ROWS and x.is_cuda and x.dtype == torch.bfloat16
    if few and hopper() and n % BLOCK_N == 0 and k % (splits_for(n) * BLOCK_K) == 0:
        return linear_triton(x, weight, counters)
    return library_linear(x, weight)


def splits_for(rows: int) -> int:
    """In how many parts the columns of a matrix with so many rows are split."""
    return 2 if rows // BLOCK_N < FEW_BLOCKS else 1


def stages_for(programs: int) -> int:
    """How many tiles each of so many programs has under way."""
    return STAGES_OF_TWO if programs > MULTIPROCESSORS else STAGES


@triton.jit(do_not_specialize=["count"])
def _linear_few_rows(
    x, weight, out, part_out, counters, count, N, K, SPLITS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """One program a block of BLOCK_N rows of the weight and a part of K; `count` rows of x, padded to BLOCK_M."""
    block = tl.program_id(0)
    split = tl.program_id(1)
    follow(EARLY)
    n = (block * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    m = tl.arange(0, BLOCK_M)[None, :]
    k = tl.arange(0, BLOCK_K)
    share = K // SPLITS
    w = weight + n.to(tl.int64) * K + split * share + k[None, :]
    columns = x + m * K + split * share + k[:, None]
    sums = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, share, BLOCK_K):
        w_block = tl.load(w + start)
        x_block = tl.load(columns + start, mask=m < count, other=0.0)
        sums = tl.dot(w_block, x_block, sums, input_precision="ieee")
    at = m * N + n
    real = m < count
    if SPLITS == 1:
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=real)
    else:
        tl.store(part_out + split * count * N + at, sums, mask=real)
        tl.debug_barrier()  # the whole program has written its part before it is counted
        if tl.atomic_add(counters + block, 1, sem="acq_rel") == SPLITS - 1:
            tl.store(counters + block, 0)
            total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
            for part in tl.static_range(SPLITS):
                total += tl.load(part_out + part * count * N + at, mask=real, other=0.0, cache_modifier=".cg")
            tl.store(out + at, total.to(out.dtype.element_ty), mask=real)


def linear_triton(x: Tensor, weight: Tensor, counters: Tensor) -> Tensor:
    """For N a multiple of BLOCK_N, and K one of BLOCK_K times the splits."""
    (count, k), n = x.shape, len(weight)
    splits = splits_for(n)
    out = x.new_empty(count, n)
    part_out = out if splits == 1 else torch.empty(splits, count, n, dtype=torch.float32, device=x.device)
    _linear_few_rows[(n // BLOCK_N, splits)](
        x, weight, out, part_out, counters, count, n, k, splits, max(16, next_power_of_2(count)), BLOCK_N, BLOCK_K,
        num_warps=4, num_stages=stages_for(n // BLOCK_N * splits), **early_launch(),
    )  # fmt: skip
    return out
