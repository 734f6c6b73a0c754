"""Steps with prefill chunks: all that varies in one array of numbers, as long as the step or as its bucket.

Launched kernel by kernel such a step costs the host 13 to 20 ms on an H100's machine, more than a chunk of 500
tokens costs the device. So it is captured too, once for each bucket of tokens: chunks and decodes of any number
and any lengths that have so many tokens together run in the same graph.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers.engine.kernels.prefill import Tiles, TileShape, tile_places
from helpers.engine.seats import Seats, Staged
from helpers.engine.step import Batch
from helpers.scheduling.scheduler import Step

# Matmuls work on 64 or 128 rows at a time: a bucket in between would save nothing. Below about 256 tokens the
# weights are what takes the time, so a padded token there is free.
TOKEN_BUCKETS = (*range(64, 1025, 64), *range(1152, 2049, 128))
NAMES = (
    *("seats", "lengths", "last", "query_starts", "decode_slots", "decode_lengths"),
    *("positions", "slots", "known", "tiles"),
)


def token_bucket(tokens: int) -> int | None:
    """The captured number of tokens that runs a step of `tokens`; None beyond the largest."""
    return next((bucket for bucket in TOKEN_BUCKETS if tokens <= bucket), None)


class Sizes(NamedTuple):
    """How many tokens, rows (sequences), decode rows and prefill tiles there is room for."""

    tokens: int
    rows: int
    decodes: int
    tiles: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of each part of the array, in the order of `NAMES`."""
        t, r, d = self.tokens, self.rows, self.decodes
        return (r, r, r, r + 1, d, d, t, t, t, 2 * self.tiles)


def bucket_sizes(tokens: int, rows: int, queries: int) -> Sizes:
    """Room for any step of at most so many tokens and rows, in tiles of `queries` tokens."""
    return Sizes(tokens, rows, min(rows, tokens), -(-tokens // queries) + rows)


@dataclass(slots=True)
class MixedRows:
    """A step in numpy: what `Batch` says, and `seats` [R] and `known` [T], the tokens of the chunks."""

    seats: np.ndarray
    lengths: np.ndarray
    last: np.ndarray
    query_starts: np.ndarray
    decode_slots: np.ndarray
    decode_lengths: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    known: np.ndarray
    tiles: np.ndarray

    @property
    def sizes(self) -> Sizes:
        """Room for this step alone."""
        return Sizes(len(self.known), len(self.seats), len(self.decode_slots), len(self.tiles))

    def fill(self, numbers: np.ndarray, sizes: Sizes, nobody: int) -> None:
        """Write the step into `numbers` [sum of sizes.lengths]; padded rows sit on the seat of `nobody`, padded
        tokens store nothing, and padded tiles have no row."""
        padding = {"seats": nobody, "decode_slots": -1, "slots": -1, "tiles": -1}
        at = 0
        for name, room in zip(NAMES, sizes.lengths, strict=True):
            values = getattr(self, name).ravel()
            numbers[at : at + len(values)] = values
            numbers[at + len(values) : at + room] = padding.get(name, 0)
            at += room


def mixed_rows(step: Step, decode, slots_of: Callable[..., np.ndarray], queries: int) -> MixedRows:
    """A step's rows: `decode` as the runner has them (seats, positions, slots), then its chunks."""
    decodes, chunks = len(step.decode), len(step.chunks)
    counts = np.fromiter((n for _, n in step.chunks), np.int64, chunks)
    contexts = np.fromiter((g.computed for g, _ in step.chunks), np.int64, chunks)
    seats = np.fromiter((g.seat for g, _ in step.chunks), np.int64, chunks)
    starts = np.concatenate([[0], counts.cumsum()])
    positions = np.arange(starts[-1]) + np.repeat(contexts - starts[:-1], counts)
    return MixedRows(
        seats=np.concatenate([decode.seats, seats]),
        lengths=np.concatenate([decode.positions + 1, contexts + counts]),
        last=np.concatenate([np.arange(decodes), decodes + starts[1:] - 1]),
        query_starts=np.concatenate([np.arange(decodes), decodes + starts]),
        decode_slots=decode.slots,
        decode_lengths=decode.positions + 1,
        positions=np.concatenate([decode.positions, positions]),
        slots=np.concatenate([np.full(decodes, -1), slots_of(np.repeat(seats, counts), positions)]),
        known=np.concatenate([np.zeros(decodes, np.int64), *(g.known(g.computed, n) for g, n in step.chunks)]),
        tiles=tile_places(counts, contexts, decodes, queries),
    )


def batch_of(numbers: Tensor, sizes: Sizes, seats: Seats, shape: TileShape, columns: int) -> tuple[Batch, Tensor]:
    """The batch that `MixedRows.fill` wrote, now on the device, and the seats [R] of its rows.

    Decodes take the last token of their seat. Page tables are cut to `columns`.
    """
    long = dict(zip(NAMES, numbers.split(sizes.lengths), strict=True))
    short = dict(zip(NAMES, numbers.int().split(sizes.lengths), strict=True))
    n, tokens = sizes.decodes, long["known"]
    if n:
        decoded = torch.where(long["decode_lengths"] > 0, seats.tokens[long["seats"][:n]], tokens[:n])
        tokens = torch.cat([decoded, tokens[n:]])
    batch = Batch(
        tokens=tokens,
        positions=long["positions"],
        slots=long["slots"],
        page_table=seats.device_table[long["seats"], :columns],
        lengths=short["lengths"],
        query_starts=short["query_starts"],
        last=long["last"],
        decode_slots=long["decode_slots"],
        decode_lengths=short["decode_lengths"],
        tiles=Tiles(short["tiles"].view(-1, 2), shape) if sizes.tiles else None,
    )
    return batch, long["seats"]


class MixedGraph:
    """One captured step of at most `sizes`: `fill` it, `replay`, and `logits` [rows, vocab] are there, with the
    `lengths` and `seats` [rows] of their rows. Tokens are chosen outside: whatever way, one graph serves."""

    def __init__(self, sizes: Sizes, nobody: int, device: torch.device) -> None:
        self.sizes, self.nobody = sizes, nobody
        self.inputs = Staged((sum(sizes.lengths),), device)
        self.replay: Callable[[], object] = lambda: None
        self.logits = self.lengths = self.seats = None  # Tensors, made with the capture

    def fill(self, rows: MixedRows) -> None:
        """Send the rows of a step that fits."""
        rows.fill(self.inputs.next(), self.sizes, self.nobody)
        self.inputs.send()


def empty_rows() -> MixedRows:
    """A step of nothing: what a graph is captured on."""
    nothing = np.zeros(0, np.int64)
    return MixedRows(**dict.fromkeys(NAMES, nothing))


def padding_share(tokens: Iterator[int]) -> float:
    """Padded tokens of steps with chunks over their real ones, for steps of so many tokens each."""
    real = padded = 0
    for count in tokens:
        bucket = token_bucket(count)
        real, padded = real + count, padded + ((bucket or count) - count)
    return padded / max(1, real)
