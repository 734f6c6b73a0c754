"""The time of a step where the first rows cost more than further ones.

A row is a token that a step computes: of a prompt, or the next one of a request. On a CPU the matrix products of a few
rows are done row by row, those of many in blocks, so that the first rows of a step cost more each than what a further
one adds. A cost that is affine in the rows and was learnt from small steps then makes large ones too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.cost.iteration import AffineCost

FIRST = 2  # rows that cost more


@dataclass(frozen=True, slots=True)
class FirstRowsCost(AffineCost):
    """An `AffineCost` with `per_first_row_s` on top for each of the first two rows of a step.

    step = the affine step + per_first_row * min(prompt tokens + decodes, 2)

    At a fixed batch a decode-only step stays affine in its KV tokens.
    """

    per_first_row_s: float = 0.0

    def step(self, chunks: Sequence[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
        rows = decodes + sum(n for n, _ in chunks)
        further_s = self.per_first_row_s * (min(rows, FIRST) - min(decodes, FIRST))  # those of decodes are in already
        return AffineCost.step(self, chunks, decodes, kv_tokens) + further_s

    def decode(self, decodes: int) -> tuple[float, float]:
        base_s, slope_s = AffineCost.decode(self, decodes)
        return base_s + self.per_first_row_s * min(decodes, FIRST), slope_s
