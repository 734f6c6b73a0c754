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


class Seats:
    """`count` seats with `columns` entries of page table each; a scheduler block is `pages_per_block` pages."""

    def __init__(self, count: int, columns: int, pages_per_block: int, device: torch.device) -> None:
        self.nobody = count
        self.pages_per_block = pages_per_block
        self.table = np.zeros((count + 1, columns), np.int32)
        self.kinds = np.zeros(count + 1, np.int8)
        self.device_table = torch.zeros((count + 1, columns), dtype=torch.int32, device=device)
        self.tokens = torch.zeros(count + 1, dtype=torch.int64, device=device)  # the last token of each seat
        self.whole = torch.zeros((2, count + 1), dtype=torch.int64, device=device)  # seed, top_k
        self.real = torch.ones((2, count + 1), dtype=torch.float32, device=device)  # temperature, top_p
        self.real[0] = 0.0
        self._free = list(range(count - 1, -1, -1))
        self._changed: set[int] = set()

    @property
    def free(self) -> int:
        return len(self._free)

    def sit(self, g: Generation) -> None:
        """Give a sequence a seat, and write down its blocks and its way of sampling."""
        g.seat = self._free.pop()
        self.write_blocks(g, 0)
        kind = self.kinds[g.seat] = g.sampling.kind
        if kind:
            whole = to_device(np.array([g.sampling.seed, g.sampling.top_k]), self.whole.device)
            real = to_device(np.array([g.sampling.temperature, g.sampling.top_p], np.float32), self.real.device)
            self.whole[:, g.seat], self.real[:, g.seat] = whole, real
        else:
            self.real[0, g.seat] = 0.0

    def write_blocks(self, g: Generation, first: int) -> None:
        """Write the blocks of a sequence from its `first` on into the page table."""
        each = self.pages_per_block
        blocks = np.array(g.blocks[first:], np.int32)
        pages = blocks if each == 1 else (blocks[:, None] * each + np.arange(each, dtype=np.int32)).ravel()
        columns = self.table.shape[1] - first * each  # a last block may reach beyond the longest context
        self.table[g.seat, first * each : first * each + len(pages)] = pages[:columns]
        self._changed.add(g.seat)

    def leave(self, g: Generation) -> None:
        """Free the seat of a sequence, if it has one."""
        if g.seat >= 0:
            self._free.append(g.seat)
            g.seat = -1

    def send(self) -> None:
        """Send the rows that changed to the device."""
        if not self._changed:
            return
        seats = np.fromiter(self._changed, np.int32, len(self._changed))
        self._changed.clear()
        rows = to_device(np.concatenate([seats[:, None], self.table[seats]], axis=1), self.device_table.device)
        self.device_table.index_copy_(0, rows[:, 0].long(), rows[:, 1:])

    def kind_of(self, seats: np.ndarray) -> int:
        """What these seats together need from `sampling.sample`."""
        return int(self.kinds[seats].max(initial=0))

    def sampling_of(self, seats: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(seeds, temperature, top_p, top_k), one entry for each of `seats` [R]."""
        (seeds, top_k), (temperature, top_p) = self.whole[:, seats], self.real[:, seats]
        return seeds, temperature, top_p, top_k
