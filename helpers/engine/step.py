"""What one step of the model works on."""

from dataclasses import dataclass

from torch import Tensor

from helpers.engine.kernels.prefill import Tiles


@dataclass(slots=True)
class Rows:
    """The decode rows of a batch: fields as in `Batch`."""

    positions: Tensor
    slots: Tensor
    page_table: Tensor
    lengths: Tensor


@dataclass(slots=True)
class Batch:
    """The tokens of one step: decode rows first (one token each), then the chunks of prefill rows, packed.

    Everything that varies between steps of one shape is a device tensor, so that a captured CUDA
    graph has nothing baked in. T tokens, R rows (sequences), P the width of the page table. The first D rows
    and tokens go through decode attention: a captured step has more of them than decodes, the rest with
    length 0, and prefill attention, which comes after it, writes over what belongs to chunks.

    tokens          [T] int64
    positions       [T] int64  of each token in its sequence
    slots           [T] int64  where a chunk's KV goes: page * page_tokens + offset; -1 stores nothing
    page_table      [R, P] int32
    lengths         [R] int32  context of each row after this step's tokens are stored; 0 for a padded row
    query_starts    [R + 1] int32  index in [0, T) of each row's first token
    last            [R] int64  index in [0, T) of each row's last token, whose logits are wanted
    decode_slots    [D] int64  where a decode's KV goes; -1 stores nothing
    decode_lengths  [D] int32  context of each decode; 0 for a row that is none
    tiles           what prefill attention works on; None for a step without chunks
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    page_table: Tensor
    lengths: Tensor
    query_starts: Tensor
    last: Tensor
    decode_slots: Tensor
    decode_lengths: Tensor
    tiles: Tiles | None = None

    def decode_rows(self) -> Rows | None:
        """What decode attention works on, as views made once a step rather than in every layer."""
        n = len(self.decode_lengths)
        if not n:
            return None
        return Rows(self.positions[:n], self.decode_slots, self.page_table[:n], self.decode_lengths)
