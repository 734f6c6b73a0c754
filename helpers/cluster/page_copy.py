"""Pages of KV from one pool into another, by the copy engines: keys and values of all layers of a run of pages at once.

What lies between keys and values of two layers is the same everywhere in a pool, so a run is a rectangle with a row for
each: one pitched copy. A kernel would copy any order of pages in one launch, but take processors from the computation.
"""

import ctypes
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from helpers.errors import InputError

DEFAULT = 4  # cudaMemcpyDefault: the addresses say where what is
MOST_PITCH = 2**31 - 1  # bytes between two rows of one copy (cudaDevAttrMaxPitch)


def sides(pool: Tensor) -> Tensor:
    """A pool [layers, 2, pages, ...] as [2 * layers, pages, numbers of a page], a view of the same memory.

    Raises `RuntimeError` for a pool that is not contiguous: a copy of it would take the pages and forget them.
    """
    return pool.view(-1, pool.shape[2], pool[0, 0, 0].numel())


def runs(mine: list[int], theirs: list[int]) -> Iterator[tuple[int, int, int]]:
    """(start here, start there, length) of the runs of pages that lie side by side on both sides, in whatever order a
    request has them: a pool may give them out from its end."""
    pairs = sorted(zip(mine, theirs, strict=True))
    start = 0
    for i in range(1, len(pairs) + 1):
        (here, there), before = pairs[i] if i < len(pairs) else (-1, -1), pairs[i - 1]
        if (here - before[0], there - before[1]) != (1, 1):
            yield *pairs[start], i - start
            start = i


def copy_pages(source: Tensor, target: Tensor, mine: list[int], theirs: list[int]) -> None:
    """Copy pages `mine` of some `sides` of a pool to pages `theirs` of the same sides of another.

    On a GPU on its current stream, and the host waits for nothing. Raises `InputError` for a page that is not there, as
    nobody else would notice what was read or written beside a pool, and `RuntimeError` when the device refuses a copy.
    """
    for pool, pages in ((source, mine), (target, theirs)):
        if pages and not 0 <= min(pages) <= max(pages) < pool.shape[1]:
            raise InputError(f"pages {min(pages)} to {max(pages)} are not all in a pool of {pool.shape[1]}")
    copy = _by_device() if source.is_cuda else _by_host
    stream = torch.cuda.current_stream(source.device).cuda_stream if source.is_cuda else 0
    size, page = source.element_size(), source.stride(1) * source.element_size()
    pitch, other = source.stride(0) * size, target.stride(0) * size
    rows = max(1, len(source) if max(pitch, other) <= MOST_PITCH else 1)
    for at, to, count in runs(mine, theirs):
        for row in range(0, len(source), rows):
            here = source.data_ptr() + row * pitch + at * page
            there = target.data_ptr() + row * other + to * page
            if error := copy(there, other, here, pitch, count * page, rows, DEFAULT, stream):
                raise RuntimeError(f"the device refused a copy of {count} pages with error {error}")


@cache
def _by_device() -> Callable[..., int]:
    """`cudaMemcpy2DAsync` of the library that torch has loaded."""
    found = ctypes.CDLL(f"libcudart.so.{torch.version.cuda.partition('.')[0]}").cudaMemcpy2DAsync
    address, size = ctypes.c_void_p, ctypes.c_size_t
    found.argtypes = [address, size, address, size, size, size, ctypes.c_int, address]
    return found


def _by_host(there: int, other: int, here: int, pitch: int, width: int, rows: int, kind: int, stream: int) -> int:
    """The same in memory of the host."""
    for row in range(rows):
        ctypes.memmove(there + row * other, here + row * pitch, width)
    return 0
