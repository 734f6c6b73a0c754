"""What crosses at once: some layers of some pages of one request."""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

MOST_PIECES = 8  # in which the layers of a prompt go: each costs both hosts some time


def groups(layers: int) -> dict[int, int]:
    """The layers that go together: the first one of each group by its end."""
    step = -(-layers // MOST_PIECES)
    return {min(first + step, layers): first for first in range(0, layers, step)}


@dataclass(slots=True)
class Piece:
    """Layers [first_layer, end_layer) of the pages number `first`, `first` + 1, … of the request behind `ticket`.

    `pages` are where they lie at the sender. `at` is where they lie packed in its stage, -1 when they do not.
    `sums` holds a digest for each (layer, page), layer by layer, when the transfer is to be checked.
    """

    ticket: int
    first_layer: int
    end_layer: int
    first: int
    pages: list[int]
    at: int = -1
    sums: list[int] | None = None
    there: list[int] | None = None  # at the sender: the pages that its receiver has reserved for it
    early: bool = False  # at the sender: its layers were launched, and may not have been computed yet
    begun: object = None  # at the sender: the events around its copy, where a device makes it
    landed: object = None
    offered_s: float = 0.0  # at the sender: when its copy was launched

    def values(self) -> list:
        """As it is sent."""
        return [self.ticket, self.first_layer, self.end_layer, self.first, self.pages, self.at, self.sums]

    def shape(self, pool: Tensor) -> tuple[int, ...]:
        """Of the packed piece: [layers, 2, pages, page_tokens, kv_heads, head_dim]."""
        return (self.end_layer - self.first_layer, 2, len(self.pages), *pool.shape[3:])

    def nbytes(self, pool: Tensor) -> int:
        """Bytes of the packed piece."""
        return torch.Size(self.shape(pool)).numel() * pool.element_size()

    def read(self, pool: Tensor) -> Tensor:
        """The piece packed, out of the sender's pool."""
        return pool[self.first_layer : self.end_layer].index_select(2, _index(self.pages, pool))

    def write(self, pool: Tensor, pages: list[int], packed: Tensor) -> None:
        """Store the packed piece in the receiver's pool, where `pages` are all pages of the request."""
        there = pages[self.first : self.first + len(self.pages)]
        pool[self.first_layer : self.end_layer].index_copy_(2, _index(there, pool), packed)


def _index(pages: list[int], pool: Tensor) -> Tensor:
    """Indices on the device of the pool; the host waits for nothing that was launched there."""
    found = torch.tensor(pages, dtype=torch.int64)
    return found.pin_memory().to(pool.device, non_blocking=True) if pool.device.type == "cuda" else found


def digests(pool: Tensor, layers: range, pages: list[int]) -> list[int]:
    """A 64-bit digest of keys and values for each (layer, page), layer by layer."""
    found = []
    for layer in layers:
        packed = pool[layer].index_select(1, _index(pages, pool)).transpose(0, 1).contiguous().cpu()
        rows = packed.view(torch.uint8).flatten(1).numpy()
        found += [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows]
    return found
