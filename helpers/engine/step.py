"""What one step of the model works on."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class Rows:
    """The decode rows of a batch, or its prefill rows: fields as in `Batch`."""

    positions: Tensor
    slots: Tensor
    page_table: Tensor
    lengths: Tensor


@dataclass(slots=True)
class Batch:
    """The tokens of one step: decode rows first (one token each), then the chunks of prefill rows, packed.

    Everything that varies between steps of one shape is a device tensor, so that a captured CUDA
    graph has nothing baked in. T tokens, R rows (sequences), of which `decodes` are decode rows; P is
    the width of the page table.

    tokens       [T] int64
    positions    [T] int64  of each token in its sequence
    slots        [T] int64  where its KV goes: page * page_tokens + offset; -1 stores nothing (a padded row)
    page_table   [R, P] int32
    lengths      [R] int32  context of each row after this step's tokens are stored; 0 for a padded row
    query_starts [R - decodes + 1] int32  where each prefill row's tokens begin, from the first prefill token
    last         [R] int64  index in [0, T) of each row's last token, whose logits are wanted
    max_query    the longest prefill chunk (0 without one)
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    page_table: Tensor
    lengths: Tensor
    query_starts: Tensor
    last: Tensor
    decodes: int
    max_query: int

    def parts(self) -> tuple[Rows, Rows]:
        """Decode rows and prefill rows, as views made once a step rather than in every layer."""
        n = self.decodes
        return (
            Rows(self.positions[:n], self.slots[:n], self.page_table[:n], self.lengths[:n]),
            Rows(self.positions[n:], self.slots[n:], self.page_table[n:], self.lengths[n:]),
        )
