"""How the bytes of a piece cross between two workers. What is told beside them goes by messages."""

from collections import deque
from contextlib import suppress
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from helpers.cluster.pages import PeerMemory, SharedPages
from helpers.cluster.pairs import PairLost, Pairs
from helpers.cluster.pieces import Piece
from helpers.cluster.stage import Stage
from helpers.errors import InputError


class Wire(Protocol):
    """Both ends of a way to move pieces."""

    def offer(self, piece: Piece, target: int) -> bool:
        """At the sender: make a piece ready for `target`; False when it must wait until something is `freed`."""
        ...

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        """At the receiver: store a piece of `source` in the own pool, where `pages` are all pages of the request."""
        ...

    def skip(self, piece: Piece, source: int) -> None:
        """At the receiver: nobody waits for a piece any more."""
        ...

    def settled(self, ticket: int | None = None) -> bool:
        """At the receiver: whether everything that was taken, or all of one request, is in the pool by now."""
        ...

    def freed(self, at: int) -> None:
        """At the sender: the receiver has taken what lay packed `at`."""
        ...

    def lost(self, peer: int) -> None:
        """The other side is gone."""
        ...

    most_bytes = inf  # of a piece
    packs = False  # whether `offer` takes the host as long as the bytes take

    # what only a wire has that a device works off by itself

    writes = False  # whether the sender writes into the receiver's pages, perhaps still after a request was cancelled

    def sent(self, piece: Piece) -> bool:
        """At the sender: whether the receiver may be told of a piece that was offered."""
        return True

    def took_s(self, piece: Piece) -> float | None:
        """At the sender: seconds that a device copied a piece that was `sent`; None where no device does."""
        return None

    def told(self, piece: Piece, target: int) -> None:
        """At the sender: the receiver has just been told of a piece."""

    def reserved(self) -> object:
        """At the receiver: pages were reserved; returns an event after which nothing reads what was in them before,
        None where the sender does not write into them."""
        return None


class PoolWire(Wire):
    """The receiver reads the sender's pool: nothing to do for the sender, one copy from pages to pages."""

    def __init__(self, pages: SharedPages, peers: dict[int, PeerMemory]) -> None:
        if not pages.layout.shared:
            raise InputError("the KV of a GPU cannot be read by another process; use the mover bounce or group")
        self._pool, self._peers = pages.tensor, peers

    def offer(self, piece: Piece, target: int) -> bool:
        return True

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        piece.write(self._pool, pages, piece.read(self._peers[source].pool))

    def skip(self, piece: Piece, source: int) -> None:
        pass

    def settled(self, ticket: int | None = None) -> bool:
        return True

    def freed(self, at: int) -> None:
        pass

    def lost(self, peer: int) -> None:
        pass


class StageWire(Wire):
    """The sender packs a piece into its stage, the receiver unpacks it from there."""

    packs = True

    def __init__(self, pages: SharedPages, peers: dict[int, PeerMemory]) -> None:
        self._pool, self._peers = pages.tensor, peers
        self._stage = Stage(pages.stage)
        self.most_bytes = self._stage.most_bytes
        self._spans: dict[int, int] = {}  # start of a span -> for whom it is

    def offer(self, piece: Piece, target: int) -> bool:
        size = piece.nbytes(self._pool)
        if size > self.most_bytes:
            raise InputError(f"a page of KV, {size / 2**20:.1f} MiB, does not fit in the stage; give it more stage_mib")
        at = self._stage.take(size)
        if at is None:
            return False
        self._spans[at] = target
        piece.at = at
        self._packed(self._stage.memory, piece).copy_(piece.read(self._pool))
        return True

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        packed = self._packed(self._peers[source].stage, piece)
        piece.write(self._pool, pages, packed.to(self._pool.device))

    def skip(self, piece: Piece, source: int) -> None:
        pass

    def settled(self, ticket: int | None = None) -> bool:
        return True

    def _packed(self, memory: Tensor, piece: Piece) -> Tensor:
        span = memory[piece.at : piece.at + piece.nbytes(self._pool)]
        return span.view(self._pool.dtype).view(piece.shape(self._pool))

    def freed(self, at: int) -> None:
        self._stage.free(at)
        self._spans.pop(at, None)

    def lost(self, peer: int) -> None:
        for at in [at for at, target in self._spans.items() if target == peer]:
            self.freed(at)


class GroupWire(Wire):
    """A send and a receive of the group of the two; what a pair sends is received in the same order.

    On a GPU a group sends and receives on a stream of its own, so that nobody's computation waits for it. A transfer
    keeps processors of both sides until both have begun it, and a host that asks for memory or for a kernel that it has
    not used may have to wait for its own. So a piece is sent once it is packed, and its receiver is told right before:
    nothing that a host could wait for lies between the two. A receiver has pages ready only when nothing under way
    reads what was in them.
    """

    MOST_UNDER_WAY = 64  # sends whose memory is kept

    def __init__(self, pages: SharedPages, pairs: Pairs) -> None:
        self._pool, self._pairs = pages.tensor, pairs
        self._packed: dict[int, tuple[int, Tensor]] = {}  # pieces that their receivers are not told of, by identity
        self._sent: dict[int, deque[tuple[object, Tensor]]] = {}  # by receiver
        self._stream = torch.cuda.Stream(self._pool.device) if self._pool.device.type == "cuda" else None
        self._taken: dict[int, torch.cuda.Event] = {}  # by request, after what was taken of it last

    def offer(self, piece: Piece, target: int) -> bool:
        self._packed[id(piece)] = target, piece.read(self._pool).contiguous()
        piece.landed = self._mark()
        return True

    def sent(self, piece: Piece) -> bool:
        if self._stream is None:
            return True
        under_way = self._sent.get(self._packed[id(piece)][0], deque())
        while under_way and under_way[0][0].is_completed():
            under_way.popleft()
        return piece.landed.query() and len(under_way) < self.MOST_UNDER_WAY

    def told(self, piece: Piece, target: int) -> None:
        _, packed = self._packed.pop(id(piece))
        under_way = self._sent.setdefault(target, deque())
        with torch.cuda.stream(self._stream):  # it is packed, so nothing that was launched later need be waited for
            under_way.append((self._pairs.send(packed, target), packed))
        while self._stream is None and len(under_way) > self.MOST_UNDER_WAY:
            work, _ = under_way.popleft()
            self._pairs.bounded(target, work.wait)

    def reserved(self) -> object:
        return self._mark()

    def _mark(self) -> object:
        """An event after what was launched on the current stream; None on a CPU, where everything is there at once."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        with torch.cuda.stream(self._stream):  # None: no other stream
            piece.write(self._pool, pages, self._receive(piece, source))
            if self._stream:
                self._taken[piece.ticket] = self._mark()

    def skip(self, piece: Piece, source: int) -> None:
        with suppress(PairLost), torch.cuda.stream(self._stream):  # what comes after it can be received only then
            self._receive(piece, source)

    def settled(self, ticket: int | None = None) -> bool:
        self._taken = {one: event for one, event in self._taken.items() if not event.query()}
        return ticket not in self._taken if ticket is not None else not self._taken

    def _receive(self, piece: Piece, source: int) -> Tensor:
        packed = torch.empty(piece.shape(self._pool), dtype=self._pool.dtype, device=self._pool.device)
        self._pairs.receive(packed, source)
        return packed

    def freed(self, at: int) -> None:
        pass

    def lost(self, peer: int) -> None:
        self._pairs.abort(peer)
        self._sent.pop(peer, None)
        self._packed = {one: (target, packed) for one, (target, packed) in self._packed.items() if target != peer}


def wire_of(name: str, pages: SharedPages, peers: dict[int, PeerMemory], pairs: Pairs, window: object = None) -> Wire:
    """A wire by its name in `movers.WIRES`; `window` is what makes a pool of one GPU writable for others."""
    if name == "group":
        return GroupWire(pages, pairs)
    if name == "pool" and not pages.layout.shared and window:
        from helpers.cluster.push import PushWire

        return PushWire(pages, window)
    return {"pool": PoolWire, "stage": StageWire}[name](pages, peers)
