"""Between GPUs: the sender writes pages where they belong in the receiver's pool, past both processors.

Each worker on a GPU opens its pool to its peers (CUDA IPC). A receiver that has room says which pages it has reserved;
the sender copies its pages there on a stream of its own, once their layers are stored: one copy for each run of pages
that lie side by side. The copy engines do that: nobody's computation waits for it or shares the processors with it, and
nothing is packed or unpacked.
"""

import torch
from torch import Tensor

from helpers.cluster.page_copy import copy_pages, sides
from helpers.cluster.pages import SharedPages
from helpers.cluster.pieces import Piece
from helpers.cluster.wires import Wire
from helpers.errors import InputError


class Window:
    """The pool of a worker on a GPU as its peers see it, and theirs as it sees them; nothing on a CPU."""

    def __init__(self, pool: Tensor, shared: bool = True) -> None:
        self._pool = pool if pool.device.type == "cuda" and shared else None
        self._theirs: dict[int, Tensor] = {}  # by peer, as `sides`

    def handle(self) -> list:
        """What a peer needs to open it, in plain values; nothing where there is none."""
        return [] if self._pool is None else list(self._pool.untyped_storage()._share_cuda_())

    def open(self, peer: int, handle: list, shape: list[int]) -> None:
        """Open the pool of a peer, of that shape and of the type of the own one.

        It is mapped into the address space of the own device, and is treated as memory of that: a copy to another
        device would also be put into a queue of that device, where the peer's work and this process's take turns of
        milliseconds.
        """
        if handle:
            try:
                storage = torch.UntypedStorage._new_shared_cuda(self._pool.device.index, *handle[1:-1], False)
            except RuntimeError:  # a driver that maps it for the other device alone
                storage = torch.UntypedStorage._new_shared_cuda(*handle)
            self.known(peer, torch.empty(0, dtype=self._pool.dtype, device=storage.device).set_(storage).view(shape))

    def known(self, peer: int, pool: Tensor) -> None:
        """The pool of a peer is this one."""
        self._theirs[peer] = sides(pool)

    def of(self, peer: int) -> Tensor:
        """The pool of a peer, as `sides`. Raises `InputError` where it cannot be written into."""
        if peer not in self._theirs:
            raise InputError("this peer's GPU cannot be written into; use the mover bounce or group")
        return self._theirs[peer]


class PushWire(Wire):
    """Both ends of the copies. `sent` and `reserved` are about the device, and nothing waits for it."""

    writes = True

    def __init__(self, pages: SharedPages, window: Window) -> None:
        self._pages, self._window = pages, window
        self._sides = sides(pages.tensor)
        self._stream = torch.cuda.Stream(pages.tensor.device)
        with torch.cuda.stream(self._stream):
            copy_pages(self._sides, self._sides, [], [])  # loads what it needs before anybody waits for it

    # -- at the sender

    def offer(self, piece: Piece, target: int) -> bool:
        layers = slice(2 * piece.first_layer, 2 * piece.end_layer)
        here, there = self._sides[layers], self._window.of(target)[layers]
        piece.begun, piece.landed = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            if piece.early:
                self._stream.wait_event(self._pages.marks[piece.end_layer - 1])
            piece.begun.record()
            copy_pages(here, there, piece.pages, piece.there)
            piece.landed.record()
        return True

    def sent(self, piece: Piece) -> bool:
        return piece.landed.query()

    def took_s(self, piece: Piece) -> float:
        return piece.begun.elapsed_time(piece.landed) / 1e3

    def freed(self, at: int) -> None:
        """Nothing lies packed."""

    # -- at the receiver

    def reserved(self) -> object:
        event = torch.cuda.Event()
        event.record()
        return event

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        """The bytes are where they belong."""

    def skip(self, piece: Piece, source: int) -> None:
        """Nobody waits for a piece any more."""

    def settled(self, ticket: int | None = None) -> bool:
        return True

    def lost(self, peer: int) -> None:
        """What was under way to it goes nowhere."""
