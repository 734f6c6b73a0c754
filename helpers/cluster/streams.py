"""A wire between two engines of one process on one GPU: events order the streams, and the host waits for nothing.

On a CPU there are no streams, and a piece is copied when it is taken.
"""

from collections import deque

import torch
from torch import Tensor

from helpers.cluster.pieces import Piece
from helpers.cluster.wires import Wire


class StreamWire(Wire):
    """Copies from `source` pool to `target` pool on a stream of its own, after what the sender's stream had launched.

    The receiver's stream waits, on the device, for the copies that were taken before it goes on (`join`).
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._source, self._target = source, target
        self._copying = torch.cuda.Stream(source.device) if source.device.type == "cuda" else None
        self._stored: deque[tuple[Piece, torch.cuda.Event]] = deque()  # offered, and when the sender has stored it
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event, int]] = []

    def offer(self, piece: Piece, target: int) -> bool:
        """Remember that the piece is complete once the current stream has come to here."""
        if self._copying:
            event = torch.cuda.Event()
            event.record()
            self._stored.append((piece, event))
        return True

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        """Copy a piece; pieces are taken in the order in which they were offered."""
        if not self._copying:
            piece.write(self._target, pages, piece.read(self._source))
            return
        _, stored = self._stored.popleft()
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(stored)
            begun.record()
            piece.write(self._target, pages, piece.read(self._source))
            ended.record()
        torch.cuda.current_stream().wait_event(ended)
        self._spans.append((begun, ended, piece.nbytes(self._source)))

    def settle(self) -> None:
        """Let the current stream, the sender's, wait for the copies so far: what they have read may now be written."""
        if self._spans:
            torch.cuda.current_stream().wait_event(self._spans[-1][1])

    def skip(self, piece: Piece, source: int) -> None:
        """Nobody waits for a piece any more."""
        if self._copying:
            self._stored.popleft()

    def settled(self, ticket: int | None = None) -> bool:
        """The receiver's stream waits by itself."""
        return True

    def freed(self, at: int) -> None:
        """Nothing lies packed."""

    def lost(self, peer: int) -> None:
        """Both ends are in this process."""

    def copies(self) -> list[tuple[float, int]]:
        """(seconds, bytes) of each copy on the device, after it has come to rest; empty on a CPU."""
        if self._copying:
            self._copying.synchronize()
        return [(begun.elapsed_time(ended) / 1e3, size) for begun, ended, size in self._spans]
