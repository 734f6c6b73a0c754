"""Between GPUs: the sender writes packed pieces into a window of the receiver's memory, past both processors.

Each worker on a GPU opens a *window* in its device memory to its peers (CUDA IPC), divided among them. The sender packs
a piece and copies it across on a stream of its own, once the layer is stored; nobody's computation waits for that. The
receiver is told when the bytes are there, and unpacks on a stream of its own.
"""

import torch
from torch import Tensor

from helpers.cluster.pages import SharedPages
from helpers.cluster.pieces import Piece
from helpers.cluster.stage import Stage
from helpers.cluster.wires import Wire
from helpers.errors import InputError


class Window:
    """Memory [bytes] uint8 of worker `index` of `workers` into which its peers write; none on a CPU."""

    def __init__(self, index: int, workers: int, device: torch.device, size: int) -> None:
        self.index, self.workers = index, workers
        on_gpu = device.type == "cuda" and workers > 1 and size > 0
        self.memory = torch.empty(size, dtype=torch.uint8, device=device) if on_gpu else None
        self._theirs: dict[int, Tensor] = {}

    def handle(self) -> list:
        """What a peer needs to open it, in plain values; nothing where there is none."""
        return [] if self.memory is None else list(self.memory.untyped_storage()._share_cuda_())

    def open(self, peer: int, handle: list) -> None:
        """Open that of a peer."""
        if handle:
            storage = torch.UntypedStorage._new_shared_cuda(*handle)
            self.known(peer, torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage))

    def known(self, peer: int, memory: Tensor) -> None:
        """The window of a peer is this memory."""
        self._theirs[peer] = memory

    def mine_at(self, peer: int) -> Tensor:
        """The part of a peer's window in which this worker may write. Raises `InputError` where there is none."""
        if peer not in self._theirs:
            raise InputError("the KV of a GPU cannot be written into this peer; use the mover bounce or group")
        return self._part(self._theirs[peer], self.index)

    def of(self, peer: int) -> Tensor:
        """The part of the own window in which a peer writes."""
        return self._part(self.memory, peer)

    def _part(self, memory: Tensor, writer: int) -> Tensor:
        size = len(memory) // self.workers // 256 * 256
        return memory[writer * size : (writer + 1) * size]


class PushWire(Wire):
    """Both ends of the copies. `stored`, `sent` and `settled` are about the device, and nothing waits for it."""

    def __init__(self, pages: SharedPages, window: Window) -> None:
        self._pool, self._window = pages.tensor, window
        self._stream = torch.cuda.Stream(self._pool.device)
        self._marks: dict[int, torch.cuda.Event] = {}  # layer -> when the last step has stored it
        self._stages: dict[int, Stage] = {}  # target -> its window, as far as it is this worker's
        self._copies: list[tuple[Piece, torch.cuda.Event, torch.cuda.Event]] = []
        self._reserved: torch.cuda.Event | None = None
        self._taken: dict[int, torch.cuda.Event] = {}  # by request, after what was taken of it last

    # -- at the sender

    def stored(self, layer: int) -> None:
        """All of a layer's KV of the step under way has been launched."""
        self._marks[layer] = torch.cuda.Event()
        self._marks[layer].record()

    def offer(self, piece: Piece, target: int) -> bool:
        stage = self._stage(target)
        size = piece.nbytes(self._pool)
        if size > stage.size:
            raise InputError(f"{size / 2**20:.0f} MiB of KV at once do not fit in the window; give it more window_mib")
        at = stage.take(size)
        if at is None:
            return False
        piece.at = target * stage.size + at  # so that it says to whom, too
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(self._stream):
            if piece.early:
                self._stream.wait_event(self._marks[piece.end_layer - 1])
            begun.record()
            self._packed(stage.memory, piece).copy_(piece.read(self._pool), non_blocking=True)
            ended.record()
        self._copies.append((piece, begun, ended))
        piece.landed = ended
        return True

    def _stage(self, target: int) -> Stage:
        if target not in self._stages:
            self._stages[target] = Stage(self._window.mine_at(target))
        return self._stages[target]

    def sent(self, piece: Piece) -> bool:
        """Whether the bytes of a piece are at the receiver."""
        return piece.landed.query()

    def freed(self, at: int) -> None:
        for target, stage in self._stages.items():
            if at // stage.size == target:
                stage.free(at % stage.size)

    def copies(self) -> list[tuple[float, int]]:
        """(seconds, bytes) of each copy that has ended since the last call, packing included."""
        ended = [one for one in self._copies if one[2].query()]
        self._copies = [one for one in self._copies if not one[2].query()]
        return [(begun.elapsed_time(end) / 1e3, piece.nbytes(self._pool)) for piece, begun, end in ended]

    # -- at the receiver

    def reserved(self) -> None:
        """Pages were reserved: steps launched until now may still read what was in them."""
        self._reserved = torch.cuda.Event()
        self._reserved.record()

    def take(self, piece: Piece, source: int, pages: list[int]) -> None:
        packed = self._packed(self._window.of(source), piece)
        with torch.cuda.stream(self._stream):
            if self._reserved:
                self._stream.wait_event(self._reserved)
            piece.write(self._pool, pages, packed)
            self._taken[piece.ticket] = torch.cuda.Event()
            self._taken[piece.ticket].record()

    def skip(self, piece: Piece, source: int) -> None:
        """Nobody waits for a piece any more."""

    def settled(self, ticket: int | None = None) -> bool:
        self._taken = {one: event for one, event in self._taken.items() if not event.query()}
        return ticket not in self._taken if ticket is not None else not self._taken

    def lost(self, peer: int) -> None:
        self._stages.pop(peer, None)

    def _packed(self, memory: Tensor, piece: Piece) -> Tensor:
        at = piece.at % len(memory)
        span = memory[at : at + piece.nbytes(self._pool)]
        return span.view(self._pool.dtype).view(piece.shape(self._pool))
