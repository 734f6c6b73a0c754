"""From a scheduler's step to tensors, through the model, to sampled tokens.

A step of decodes alone runs as a captured CUDA graph of the next larger batch (`cost.roofline.GRAPH_BATCHES`),
one with prefill chunks as that of the next larger number of tokens (`mixed.TOKEN_BUCKETS`); what is larger than
both is launched kernel by kernel. Sampled tokens stay on the device, where the next step finds them by seat;
the host may read them a step later.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from helpers.cost.roofline import GRAPH_BATCHES, graph_batch
from helpers.engine.device_clock import DeviceClock
from helpers.engine.generation import Generation
from helpers.engine.kernels.prefill import tile_shape
from helpers.engine.mixed import TOKEN_BUCKETS, MixedGraph, batch_of, bucket_sizes, empty_rows, mixed_rows, token_bucket
from helpers.engine.pages import KVPages
from helpers.engine.sampling import GREEDY, sample
from helpers.engine.seats import Seats, Staged, to_device
from helpers.engine.step import Batch
from helpers.scheduling.blocks import blocks_for
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Step

TABLE_COLUMNS = 16  # page tables of eager steps are cut to a multiple of this, so that few shapes occur


@dataclass(slots=True)
class Launched:
    """A step on its way: its tokens [R] on the host (decodes first, then chunks) once the device has passed `end`.

    `begin` and `end` are marks of the device clock. `kv_tokens` is the context that its decodes attend to, their
    own tokens included. `graph` says which captured step it is, None for one launched kernel by kernel.
    """

    tokens: Tensor
    clock: DeviceClock
    begin: object
    end: object
    kv_tokens: int
    graph: tuple[str, int] | None

    @property
    def landed(self) -> bool:
        """Whether its tokens are there, to be read without waiting."""
        return self.clock.landed(self.end)

    def read(self) -> list[int]:
        """Wait for the step and return its tokens."""
        self.clock.wait(self.end)
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

    What varies is `inputs` [4, bucket] int64: seats, positions, slots, and lengths (as int32).
    """

    def __init__(self, bucket: int, nobody: int, device: torch.device) -> None:
        self.bucket, self.nobody = bucket, nobody
        self._staged = Staged((4, bucket), device)
        self.inputs = self._staged.tensor
        self.replay: Callable[[], object] = lambda: None
        self.tokens: Tensor | None = None

    def fill(self, rows: DecodeRows) -> None:
        """Send the rows; the padded ones sit on nobody's seat, store nothing and attend to nothing."""
        values, n = self._staged.next(), len(rows.decode)
        seats, positions, slots, lengths = values
        lengths = lengths.view(np.int32)[: self.bucket]
        seats[:n], positions[:n], slots[:n] = rows.seats, rows.positions, rows.slots
        np.add(rows.positions, 1, out=lengths[:n], casting="unsafe")
        if n < self.bucket:
            seats[n:], positions[n:], slots[n:], lengths[n:] = self.nobody, 0, -1, 0
        self._staged.send()


class Runner:
    """Runs steps of `decoder` on `pages`; `graphs` None captures CUDA graphs where there is CUDA.

    With `graphs` on a CPU the same padded buckets and static buffers are used, and a replay is a plain call.
    """

    def __init__(
        self, decoder, pages: KVPages, limits: Limits, max_context: int, clock: DeviceClock, graphs: bool | None = None
    ) -> None:
        self.decoder, self.pages, self.limits, self.clock = decoder, pages, limits, clock
        self.device = pages.tensor.device
        self.graphs = self.device.type == "cuda" if graphs is None else graphs
        blocks = blocks_for(max_context, limits.block_tokens)
        self.seats = Seats(limits.max_batch, blocks, limits.block_tokens // pages.page_tokens, self.device)
        self._captured: dict[tuple[int, int], DecodeGraph] = {}
        self._mixed: dict[int, MixedGraph] = {}
        self._pool = None  # memory that all graphs share: only one runs at a time
        # what libraries keep for a stream (workspaces) is then not that of another runner, whose graphs run beside
        self._side = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._logits: Tensor | None = None  # [max_batch, vocab] of the last step with chunks, likewise
        self._rows = no_rows()

    # -- a step

    @torch.inference_mode()
    def launch(self, step: Step) -> Launched:
        """Start a step; returns before the device has run it."""
        for g, _ in step.chunks:
            if g.seat < 0:
                self.seats.sit(g)
        rows = self._rows = self._advance(step.decode)
        begin = self.clock.mark()
        self.seats.send()
        if self.graphs and not step.chunks and len(step.decode) <= GRAPH_BATCHES[-1]:
            tokens, graph = self._replay(rows)
        else:
            tokens, graph = self._with_chunks(step, rows)
        kv_tokens = int(rows.positions.sum()) + len(step.decode)
        host = tokens
        if self.device.type == "cuda":
            host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            host.copy_(tokens, non_blocking=True)
        return Launched(host, self.clock, begin, self.clock.mark(), kv_tokens, graph)

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
                    self.seats.tokens[g.seat].fill_(g.out[-1])  # assigned, it would be copied: see `Seats.sit`
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

    def _choose(self, logits: Tensor, kind: int, lengths: Tensor, seats: Tensor) -> Tensor:
        """Tokens [R] from the logits of the rows at `seats` [R], which also become their last tokens."""
        tokens = sample(logits, kind, lengths, *self.seats.sampling_of(seats)) if kind else sample(logits)
        self.seats.tokens.index_copy_(0, seats, tokens.clamp(min=0))
        return tokens

    # -- with chunks

    def _with_chunks(self, step: Step, decode: DecodeRows) -> tuple[Tensor, tuple[str, int] | None]:
        """Tokens of a step, and the graph that ran it: the captured step of its bucket, or kernel by kernel."""
        config = self.decoder.config
        longest = max((n for _, n in step.chunks), default=0)
        shape = tile_shape(config.heads // config.kv_heads, self.decoder.dtype, longest)
        rows = mixed_rows(step, decode, self._slots, shape.queries)
        count, bucket = len(rows.seats), token_bucket(len(rows.known))
        if self.graphs and step.chunks and bucket:
            graph = self.mixed_graph(bucket)
            graph.fill(rows)
            graph.replay()
            logits, lengths, seats = graph.logits[:count], graph.lengths[:count], graph.seats[:count]
        else:
            bucket, numbers = None, np.empty(sum(rows.sizes.lengths), np.int64)
            rows.fill(numbers, rows.sizes, self.seats.nobody)
            pages = -(-int(rows.lengths.max()) // self.pages.page_tokens)
            columns = min(-(-pages // TABLE_COLUMNS) * TABLE_COLUMNS, self.seats.table.shape[1])
            batch, seats = batch_of(to_device(numbers, self.device), rows.sizes, self.seats, shape, columns)
            logits, lengths = self.decoder.forward(batch.tokens, batch, self.pages), batch.lengths
        tokens = self._choose(logits, self.seats.kind_of(rows.seats), lengths, seats)
        return tokens, ("mixed", bucket) if bucket else None

    def mixed_graph(self, bucket: int) -> MixedGraph:
        """The captured step of a number of tokens, chunks among them; captures it at its first use."""
        if bucket not in self._mixed:
            self._mixed[bucket] = self._capture_mixed(bucket)
        return self._mixed[bucket]

    @torch.inference_mode()
    def _capture_mixed(self, bucket: int) -> MixedGraph:
        config = self.decoder.config
        shape = tile_shape(config.heads // config.kv_heads, self.decoder.dtype, bucket)
        sizes = bucket_sizes(bucket, self.limits.max_batch, shape.queries)
        graph = MixedGraph(sizes, self.seats.nobody, self.device)
        graph.fill(empty_rows())
        if self._logits is None:
            self._logits = torch.empty(sizes.rows, config.vocab, dtype=self.decoder.dtype, device=self.device)

        def run() -> None:
            columns = self.seats.table.shape[1]
            batch, graph.seats = batch_of(graph.inputs.tensor, sizes, self.seats, shape, columns)
            graph.lengths = batch.lengths
            graph.logits = self._logits.copy_(self.decoder.forward(batch.tokens, batch, self.pages))

        graph.replay = self._captured_run(run)
        return graph

    # -- decodes alone

    def _replay(self, rows: DecodeRows) -> tuple[Tensor, tuple[str, int]]:
        graph = self.graph(graph_batch(len(rows.decode)), rows.kind)
        graph.fill(rows)
        graph.replay()
        return graph.tokens[: len(rows.decode)], ("decode", graph.bucket)

    def graph(self, bucket: int, kind: int = GREEDY) -> DecodeGraph:
        """The captured step of a bucket and a kind of sampling; captures it at its first use."""
        found = self._captured.get((bucket, kind))
        if found is None:
            found = self._captured[bucket, kind] = self._capture(bucket, kind)
        return found

    @torch.inference_mode()
    def _capture(self, bucket: int, kind: int) -> DecodeGraph:
        graph = DecodeGraph(bucket, self.seats.nobody, self.device)
        graph.fill(no_rows())
        seats, positions, slots, lengths = graph.inputs
        starts = torch.arange(bucket + 1, dtype=torch.int32, device=self.device)
        last = starts[:bucket].long()

        def run() -> None:
            table, tokens = self.seats.device_table[seats], self.seats.tokens[seats]
            length = lengths.view(torch.int32)[:bucket]
            batch = Batch(tokens, positions, slots, table, length, starts, last, slots, length)
            logits = self.decoder.forward(tokens, batch, self.pages)
            graph.tokens = self._choose(logits, kind, length, seats)

        graph.replay = self._captured_run(run)
        return graph

    # -- capture

    def warm_up(self, batches: "list[int] | None" = None) -> None:
        """Capture graphs before the first request: of all numbers of tokens and, for greedy decodes, of all batches,
        or of those that `batches` need."""
        if not self.graphs:
            return
        if self.device.type == "cuda":  # the largest first: the smaller ones fit into its memory
            most = token_bucket(min(self.limits.token_budget, TOKEN_BUCKETS[-1]))
            for bucket in reversed([b for b in TOKEN_BUCKETS if b <= most]):
                self.mixed_graph(bucket)
        largest = graph_batch(min(self.limits.max_batch, GRAPH_BATCHES[-1]))
        wanted = {b for b in GRAPH_BATCHES if b <= largest} if batches is None else {graph_batch(b) for b in batches}
        for bucket in sorted(wanted, reverse=True):
            self.graph(bucket)

    def _captured_run(self, run: Callable[[], None]) -> Callable[[], object]:
        """`run` captured as a CUDA graph; without CUDA, itself."""
        if self.device.type != "cuda":
            return run
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):  # everything that is made once (compiled kernels, workspaces) is made here
            run()
        torch.cuda.current_stream().wait_stream(self._side)
        captured = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(captured, pool=self._pool, stream=self._side):
            run()
        return captured.replay
