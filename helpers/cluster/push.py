"""Between GPUs: the sender writes pages where they belong in the receiver's pool, past both processors.

Each worker on a GPU opens its pool to its peers (CUDA IPC). A receiver that has room says which pages it has reserved;
the sender copies runs of pages there on a stream of its own, once their layers are stored. The copy engines do that:
nobody's computation waits for it or shares the processors with it, and nothing is packed or unpacked.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from helpers.cluster.pages import SharedPages
from helpers.cluster.pieces import Piece
from helpers.cluster.wires import Wire
from helpers.errors import InputError


class Window:
    """The pool of a worker on a GPU as its peers see it, and theirs as it sees them; nothing on a CPU."""

    def __init__(self, pool: Tensor, shared: bool = True) -> None:
        self._pool = pool if pool.device.type == "cuda" and shared else None
        self._theirs: dict[int, Tensor] = {}

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
        self._theirs[peer] = pool

    def of(self, peer: int) -> Tensor:
        """The pool of a peer. Raises `InputError` where it cannot be written into."""
        if peer not in self._theirs:
            raise InputError("this peer's GPU cannot be written into; use the mover bounce or group")
        return self._theirs[peer]


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


def flat(pool: Tensor) -> Tensor:
    """Keys and values of layers one after the other, [2 * layers, pages, ...]; a view, or it fails."""
    return pool.view(-1, *pool.shape[2:])


class PushWire(Wire):
    """Both ends of the copies. `stored`, `sent` and `reserved` are about the device, and nothing waits for it."""

    writes = True

    def __init__(self, pages: SharedPages, window: Window) -> None:
        self._pool, self._window = pages.tensor, window
        self._stream = torch.cuda.Stream(self._pool.device)
        self._marks: dict[int, torch.cuda.Event] = {}  # layer -> when the last step has stored it

    # -- at the sender

    def stored(self, layer: int) -> None:
        self._marks[layer] = torch.cuda.Event()
        self._marks[layer].record()

    def offer(self, piece: Piece, target: int) -> bool:
        layers = slice(piece.first_layer, piece.end_layer)
        here, there = flat(self._pool[layers]), flat(self._window.of(target)[layers])
        piece.landed = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            if piece.early:
                self._stream.wait_event(self._marks[piece.end_layer - 1])
            for mine, theirs, count in runs(piece.pages, piece.there):
                sides = zip(there.narrow(1, theirs, count).unbind(), here.narrow(1, mine, count).unbind(), strict=True)
                for to, pages in sides:  # the host's time a copy is what a hand-off takes: views of all sides at once
                    to.copy_(pages, non_blocking=True)
            piece.landed.record()
        return True

    def sent(self, piece: Piece) -> bool:
        return piece.landed.query()

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
