"""Pages of KV from one pool into another, whatever their order, in one launch: keys and values of many layers at once.

Reads and writes each page once. The other pool may be memory of another GPU that is mapped here: a few programs are
enough to fill a link, and what runs beside them keeps the other processors.
"""

import numpy as np
import torch
from torch import Tensor

from helpers.engine.kernels.backend import next_power_of_2, runs_triton, tl, triton
from helpers.engine.seats import to_device
from helpers.errors import InputError

PROGRAMS = 32  # of 256 threads, each of which has 128 bytes on their way: 1 MiB in all
BLOCK_BYTES = 32 * 1024  # what a program copies at a time
WORDS = (torch.int32, torch.int16, torch.int8)


def sides(pool: Tensor) -> Tensor:
    """A pool [layers, 2, pages, ...] as [2 * layers, pages, words of a page], a view of the same memory.

    Words are as wide as a page allows; what they hold is not looked at. Raises `RuntimeError` for a pool that is not
    contiguous, as a copy would take the pages and forget them.
    """
    pages = pool.view(-1, pool.shape[2], pool[0, 0, 0].numel())
    size = pages.shape[2] * pages.element_size()
    return pages.view(next(word for word in WORDS if size % word.itemsize == 0))


def copy_pages(source: Tensor, target: Tensor, mine: list[int], theirs: list[int]) -> None:
    """Copy pages `mine` of `source` [sides, pages, words] to pages `theirs` of `target` [sides, other pages, words].

    On a GPU it is launched on the current stream, which belongs to the device of `source`; the host waits for nothing.
    Raises `InputError` for a page that is not there: nobody else would notice what was read or written beside a pool.
    """
    for pool, pages in ((source, mine), (target, theirs)):
        if pages and not 0 <= min(pages) <= max(pages) < pool.shape[1]:
            raise InputError(f"pages {min(pages)} to {max(pages)} are not all in a pool of {pool.shape[1]}")
    (copy_pages_triton if runs_triton(source) else copy_pages_torch)(source, target, mine, theirs)


def copy_pages_torch(source: Tensor, target: Tensor, mine: list[int], theirs: list[int]) -> None:
    target.index_copy_(1, torch.tensor(theirs, dtype=torch.int64), source[:, mine])


@triton.jit
def _copy_pages(source, target, table, source_side, target_side, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    # how many there are is in the table: as a number of the call, some values of it would be compiled for themselves
    sides, count = tl.load(table), tl.load(table + 1)
    parts = (WORDS + BLOCK - 1) // BLOCK
    for place in range(tl.program_id(0), sides * count * parts, tl.num_programs(0)):
        part, page, side = place % parts, place // parts % count, place // parts // count
        here = tl.load(table + 2 + page).to(tl.int64) * WORDS + side.to(tl.int64) * source_side
        there = tl.load(table + 2 + count + page).to(tl.int64) * WORDS + side.to(tl.int64) * target_side
        column = part * BLOCK + tl.arange(0, BLOCK)
        inside = column < WORDS
        tl.store(target + there + column, tl.load(source + here + column, mask=inside), mask=inside)


def copy_pages_triton(source: Tensor, target: Tensor, mine: list[int], theirs: list[int]) -> None:
    count, words = len(mine), source.shape[2]
    table = to_device(np.array([len(source), count, *mine, *theirs], np.int32), source.device)
    block = min(BLOCK_BYTES // source.element_size(), next_power_of_2(words))
    programs = max(1, min(PROGRAMS, len(source) * count * -(-words // block)))
    _copy_pages[(programs,)](source, target, table, source.stride(0), target.stride(0), words, block, num_warps=8)
