"""The rows of a runner: which sequence sits where, its page table and how its tokens are chosen.

Each table exists twice, in numpy for the host that writes it and as a tensor that the graphs read;
a step sends the rows that changed, mostly none. The seat after the last is nobody's: padded rows of
a graph sit there.
"""

import numpy as np
import torch
from torch import Tensor

from helpers.engine.generation import Generation


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device that the host does not wait for (torch keeps the pinned memory until it has been read)."""
    if device.type != "cuda":
        return torch.from_numpy(values.copy())
    pinned = torch.empty(values.shape, dtype=torch.from_numpy(values).dtype, pin_memory=True)
    pinned.numpy()[...] = values
    return pinned.to(device, non_blocking=True)


class Staged:
    """A device tensor [shape] int64 for what the host sends with every step: write into `next`, then `send`.

    The host writes one of two pinned buffers while the copy out of the other may still wait for the step before.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._buffers = [torch.zeros(shape, dtype=torch.int64, pin_memory=device.type == "cuda") for _ in range(2)]
        self._views = [buffer.numpy() for buffer in self._buffers]
        self.tensor = torch.zeros(shape, dtype=torch.int64, device=device)
        self._turn = 0

    def next(self) -> np.ndarray:
        """The buffer to write the next step into."""
        self._turn = 1 - self._turn
        return self._views[self._turn]

    def send(self) -> None:
        self.tensor.copy_(self._buffers[self._turn], non_blocking=True)


class Seats:
    """`count` seats with page tables of `blocks` scheduler blocks each, of `pages_per_block` pages."""

    def __init__(self, count: int, blocks: int, pages_per_block: int, device: torch.device) -> None:
        columns = blocks * pages_per_block
        self.nobody = count
        self.pages_per_block = pages_per_block
        self._within = np.arange(pages_per_block, dtype=np.int32)  # the pages of a block
        self.table = np.zeros((count + 1, columns), np.int32)
        self.kinds = np.zeros(count + 1, np.int8)
        self.device_table = torch.zeros((count + 1, columns), dtype=torch.int32, device=device)
        self.tokens = torch.zeros(count + 1, dtype=torch.int64, device=device)  # the last token of each seat
        self.whole = torch.zeros((2, count + 1), dtype=torch.int64, device=device)  # seed, top_k
        self.real = torch.ones((2, count + 1), dtype=torch.float32, device=device)  # temperature, top_p
        self.real[0] = 0.0
        self._free = list(range(count - 1, -1, -1))
        self._changed: list[int] = []

    @property
    def free(self) -> int:
        return len(self._free)

    def sit(self, g: Generation) -> None:
        """Give a sequence a seat, and write down its blocks and its way of sampling."""
        g.seat = self._free.pop()
        pages = self._pages(np.array(g.blocks, np.int32))
        self.table[g.seat, : pages.size] = pages.ravel()
        self._changed.append(g.seat)
        before, kind = self.kinds[g.seat], g.sampling.kind
        self.kinds[g.seat] = kind
        if kind:
            whole = to_device(np.array([g.sampling.seed, g.sampling.top_k]), self.whole.device)
            real = to_device(np.array([g.sampling.temperature, g.sampling.top_p], np.float32), self.real.device)
            self.whole[:, g.seat], self.real[:, g.seat] = whole, real
        elif before:
            self.real[0, g.seat].fill_(0.0)  # a number assigned would be copied, and the host would wait for the step

    def grow(self, seats: np.ndarray, numbers: np.ndarray, blocks: list[int]) -> None:
        """Write one new block for each of `seats` [n], the `numbers`-th of its sequence."""
        columns = numbers[:, None] * self.pages_per_block + self._within
        self.table[seats[:, None], columns] = self._pages(np.array(blocks, np.int32))
        self._changed += seats.tolist()

    def _pages(self, blocks: np.ndarray) -> np.ndarray:
        """The pages [n, pages_per_block] of blocks [n]."""
        return blocks[:, None] * self.pages_per_block + self._within

    def leave(self, g: Generation) -> None:
        """Free the seat of a sequence, if it has one."""
        if g.seat >= 0:
            self._free.append(g.seat)
            g.seat = -1

    def send(self) -> None:
        """Send the rows that changed to the device."""
        if not self._changed:
            return
        device = self.device_table.device
        seats, self._changed = np.array(self._changed), []
        self.device_table.index_copy_(0, to_device(seats, device), to_device(self.table[seats], device))

    def kind_of(self, seats: np.ndarray) -> int:
        """What these seats together need from `sampling.sample`."""
        return int(self.kinds[seats].max(initial=0))

    def sampling_of(self, seats: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(seeds, temperature, top_p, top_k), one entry for each of `seats` [R]."""
        (seeds, top_k), (temperature, top_p) = self.whole[:, seats], self.real[:, seats]
        return seeds, temperature, top_p, top_k
