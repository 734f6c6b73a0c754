"""Pages between pools by the copy engines: a pitched copy for each run, keys and values of all layers.

What lies between two sides is the same everywhere, so a run is a rectangle: a row for each side.
"""

import ctypes
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

DEFAULT = 4  # cudaMemcpyDefault: the addresses say where what is


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


@cache
def _copy():
    """`cudaMemcpy2DAsync` of the library that torch has loaded."""
    found = ctypes.CDLL(f"libcudart.so.{torch.version.cuda.partition('.')[0]}").cudaMemcpy2DAsync
    address, size = ctypes.c_void_p, ctypes.c_size_t
    found.argtypes = [address, size, address, size, size, size, ctypes.c_int, address]
    return found


def copy_pitched(source: Tensor, target: Tensor, mine: list[int], theirs: list[int]) -> None:
    """As `page_copy.copy_pages`. Raises `RuntimeError` when a copy is refused."""
    page, width = source.stride(1) * source.element_size(), source.shape[2] * source.element_size()
    here, there, stream = source.data_ptr(), target.data_ptr(), torch.cuda.current_stream().cuda_stream
    pitches = (target.stride(0) * target.element_size(), source.stride(0) * source.element_size())
    for at, to, count in runs(mine, theirs):
        places = there + to * page, pitches[0], here + at * page, pitches[1]
        if error := _copy()(*places, count * width, len(source), DEFAULT, stream):
            raise RuntimeError(f"a copy of pages was refused with error {error}")
