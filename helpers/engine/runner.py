"""From a scheduler's step to tensors, through the model, to sampled tokens.

A step of decodes alone runs as a captured CUDA graph of the next larger batch (`cost.roofline.GRAPH_BATCHES`);
a step with prefill chunks is launched kernel by kernel. Sampled tokens stay on the device, where the
next step finds them by seat; the host may read them a step later.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helpers.cost.roofline import GRAPH_BATCHES, graph_batch
from helpers.engine.generation import Generation
from helpers.engine.pages import KVPages
from helpers.engine.sampling import GREEDY, sample
from helpers.engine.seats import Seats, to_device
from helpers.engine.step import Batch
from helpers.scheduling.blocks import blocks_for
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Step

TABLE_COLUMNS = 16  # page tables of eager steps are cut to a multiple of this, so that few shapes occur


@dataclass(slots=True)
class Launched:
    """A step on its way: its tokens [R] on the host (decodes first, then chunks) once `ready` has passed.

    `kv_tokens` is the context that its decodes attend to, their own tokens included.
    """

    tokens: Tensor
    ready: "torch.cuda.Event | None"
    kv_tokens: int

    def read(self) -> list[int]:
        """Wait for the step and return its tokens."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.tokens.tolist()


@dataclass(slots=True)
class DecodeRows:
    """The decodes of a step in numpy [n]: where they sit, which position they compute, which slot that is.

    Mostly the next step has the same decodes, each one position further: then nothing is gathered again.
    """

    decode: list[Generation]
    seats: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    kind: int = GREEDY


def no_rows() -> DecodeRows:
    """The rows of a step without decodes."""
    return DecodeRows([], *(np.zeros(0, np.int64) for _ in range(3)))


class DecodeGraph:
    """One captured decode step: `fill` what varies, `replay`, and `tokens` [bucket] are those that were sampled.

    What varies is `inputs` [4, bucket] int64: seats, positions, slots, and lengths (as int32). The host fills
    one of two pinned buffers while the copy out of the other may still wait for the step before.
    """

    def __init__(self, bucket: int, nobody: int, device: torch.device) -> None:
        self.bucket, self.nobody = bucket, nobody
        pinned = device.type == "cuda"
        self._buffers = [torch.empty((4, bucket), dtype=torch.int64, pin_memory=pinned) for _ in range(2)]
        self._views = [buffer.numpy() for buffer in self._buffers]
        self.inputs = torch.empty((4, bucket), dtype=torch.int64, device=device)
        self.replay: Callable[[], object] = lambda: None
        self.tokens: Tensor | None = None
        self._turn = 0

    def fill(self, rows: DecodeRows) -> None:
        """Send the rows; the padded ones sit on nobody's seat, store nothing and attend to nothing."""
        self._turn = 1 - self._turn
        values, n = self._views[self._turn], len(rows.decode)
        seats, positions, slots, lengths = values
        lengths = lengths.view(np.int32)[: self.bucket]
        seats[:n], positions[:n], slots[:n] = rows.seats, rows.positions, rows.slots
        np.add(rows.positions, 1, out=lengths[:n], casting="unsafe")
        if n < self.bucket:
            seats[n:], positions[n:], slots[n:], lengths[n:] = self.nobody, 0, -1, 0
        self.inputs.copy_(self._buffers[self._turn], non_blocking=True)


class Runner:
    """Runs steps of `decoder` on `pages`; `graphs` None captures CUDA graphs where there is CUDA.

    With `graphs` on a CPU the same padded buckets and static buffers are used, and a replay is a plain call.
    """

    def __init__(self, decoder, pages: KVPages, limits: Limits, max_context: int, graphs: bool | None = None) -> None:
        self.decoder, self.pages, self.limits = decoder, pages, limits
        self.device = pages.tensor.device
        self.graphs = self.device.type == "cuda" if graphs is None else graphs
        blocks = blocks_for(max_context, limits.block_tokens)
        self.seats = Seats(limits.max_batch, blocks, limits.block_tokens // pages.page_tokens, self.device)
        self._captured: dict[tuple[int, int], DecodeGraph] = {}
        self._pool = None  # memory that all graphs share: only one runs at a time
        self._rows = no_rows()

    # -- a step

    @torch.inference_mode()
    def launch(self, step: Step) -> Launched:
        """Start a step; returns before the device has run it."""
        for g, _ in step.chunks:
            if g.seat < 0:
                self.seats.sit(g)
        rows = self._rows = self._advance(step.decode)
        self.seats.send()
        if self.graphs and not step.chunks and len(step.decode) <= GRAPH_BATCHES[-1]:
            tokens = self._replay(rows)
        else:
            tokens = self._eager(step, rows)
        kv_tokens = int(rows.positions.sum()) + len(step.decode)
        if self.device.type != "cuda":
            return Launched(tokens, None, kv_tokens)
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Launched(host, ready, kv_tokens)

    def leave(self, g: Generation) -> None:
        """A sequence finished or was preempted: its seat is free for the next step."""
        self.seats.leave(g)

    def forget(self) -> None:
        """Nothing is under way any more: the next step begins from nothing."""
        self._rows = no_rows()

    def _advance(self, decode: list[Generation]) -> DecodeRows:
        """The rows of this step's decodes; newcomers get a seat, grown page tables their new block."""
        rows, size = self._rows, self.pages.page_tokens
        if decode == rows.decode:
            rows.positions += 1
            rows.slots += 1
        else:
            for g in decode:
                if g.seat < 0:  # decoding from the start: its KV came from elsewhere
                    self.seats.sit(g)
                    self.seats.tokens[g.seat] = g.out[-1]
            seats = np.fromiter((g.seat for g in decode), np.int64, len(decode))
            positions = np.fromiter((g.computed for g in decode), np.int64, len(decode))
            rows = DecodeRows(decode, seats, positions, self._slots(seats, positions), self.seats.kind_of(seats))
        turned = np.flatnonzero(rows.positions % size == 0)  # a new page begins, and perhaps a new block
        if len(turned):
            seats, positions = rows.seats[turned], rows.positions[turned]
            grown = positions % self.limits.block_tokens == 0
            blocks = [decode[i].blocks[-1] for i in turned[grown]]
            self.seats.grow(seats[grown], positions[grown] // self.limits.block_tokens, blocks)
            rows.slots[turned] = self._slots(seats, positions)
        return rows

    def _slots(self, seats: np.ndarray, positions: np.ndarray) -> np.ndarray:
        size = self.pages.page_tokens
        return self.seats.table[seats, positions // size].astype(np.int64) * size + positions % size

    def _forward(self, batch: Batch, seats: Tensor, kind: int) -> Tensor:
        """Tokens [R] of the rows at `seats` [R], which also become their last tokens."""
        logits = self.decoder.forward(batch.tokens, batch, self.pages)
        tokens = sample(logits, kind, batch.lengths, *self.seats.sampling_of(seats)) if kind else sample(logits)
        self.seats.tokens.index_copy_(0, seats, tokens.clamp(min=0))
        return tokens

    # -- kernel by kernel

    def _eager(self, step: Step, rows: DecodeRows) -> Tensor:
        decodes, chunks = len(step.decode), len(step.chunks)
        counts = np.fromiter((n for _, n in step.chunks), np.int64, chunks)
        contexts = np.fromiter((g.computed for g, _ in step.chunks), np.int64, chunks)
        chunk_seats = np.fromiter((g.seat for g, _ in step.chunks), np.int64, chunks)
        starts = np.concatenate([[0], counts.cumsum()])
        chunk_positions = np.arange(starts[-1]) + np.repeat(contexts - starts[:-1], counts)
        chunk_slots = self._slots(np.repeat(chunk_seats, counts), chunk_positions)
        known = [g.known(g.computed, n) for g, n in step.chunks]

        all_seats = np.concatenate([rows.seats, chunk_seats])
        lengths = np.concatenate([rows.positions + 1, contexts + counts])
        parts = (
            all_seats,
            lengths,
            np.concatenate([np.arange(decodes), decodes + starts[1:] - 1]),  # last
            starts,
            np.concatenate([rows.positions, chunk_positions]),
            np.concatenate([rows.slots, chunk_slots]),
            *known,
        )
        flat = to_device(np.concatenate(parts), self.device)
        count, tokens = decodes + chunks, decodes + int(starts[-1])
        sizes = (count, count, count, chunks + 1, tokens, tokens, int(starts[-1]))
        seat, length, last, query_starts, position, slot, prompt = flat.split(sizes)
        pages = -(-int(lengths.max()) // self.pages.page_tokens)
        columns = min(-(-pages // TABLE_COLUMNS) * TABLE_COLUMNS, self.seats.table.shape[1])
        batch = Batch(
            tokens=torch.cat([self.seats.tokens[seat[:decodes]], prompt]) if decodes else prompt,
            positions=position,
            slots=slot,
            page_table=self.seats.device_table[seat, :columns],
            lengths=length.int(),
            query_starts=query_starts.int(),
            last=last,
            decodes=decodes,
            max_query=int(counts.max(initial=0)),
        )
        return self._forward(batch, seat, self.seats.kind_of(all_seats))

    # -- as a graph

    def _replay(self, rows: DecodeRows) -> Tensor:
        graph = self.graph(graph_batch(len(rows.decode)), rows.kind)
        graph.fill(rows)
        graph.replay()
        return graph.tokens[: len(rows.decode)]

    def graph(self, bucket: int, kind: int = GREEDY) -> DecodeGraph:
        """The captured step of a bucket and a kind of sampling; captures it at its first use."""
        found = self._captured.get((bucket, kind))
        if found is None:
            found = self._captured[bucket, kind] = self._capture(bucket, kind)
        return found

    def warm_up(self, batches: "list[int] | None" = None) -> None:
        """Capture the greedy graphs before the first request: of all buckets, or of those that `batches` need."""
        if not self.graphs:
            return
        largest = graph_batch(min(self.limits.max_batch, GRAPH_BATCHES[-1]))
        wanted = {b for b in GRAPH_BATCHES if b <= largest} if batches is None else {graph_batch(b) for b in batches}
        for bucket in sorted(wanted, reverse=True):  # the largest first: the smaller ones fit into its memory
            self.graph(bucket)

    @torch.inference_mode()
    def _capture(self, bucket: int, kind: int) -> DecodeGraph:
        graph = DecodeGraph(bucket, self.seats.nobody, self.device)
        graph.fill(no_rows())
        seats, positions, slots, lengths = graph.inputs
        fixed = {
            "query_starts": torch.zeros(1, dtype=torch.int32, device=self.device),
            "last": torch.arange(bucket, device=self.device),
        }

        def run() -> None:
            table, tokens = self.seats.device_table[seats], self.seats.tokens[seats]
            length = lengths.view(torch.int32)[:bucket]
            batch = Batch(tokens, positions, slots, table, length, **fixed, decodes=bucket, max_query=0)
            graph.tokens = self._forward(batch, seats, kind)

        graph.replay = self._capture_cuda(run) if self.device.type == "cuda" else run
        return graph

    def _capture_cuda(self, run: Callable[[], None]) -> Callable[[], object]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # everything that is made once (compiled kernels, workspaces) is made here
            run()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(captured, pool=self._pool):
            run()
        return captured.replay
