"""A claim that can be run: who against whom, on what, and how it came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Rows = list[dict]


@dataclass(frozen=True)
class Case:
    """`run(seeds)` gives one row an arm, as plain values; `claim` is the sentence that the rows bear out or not.

    The primary metric, `metric`, is named before the run. `holds(rows)` says whether the claim came out.
    """

    name: str
    claim: str
    metric: str
    run: Callable[[Sequence[int]], Rows]
    holds: Callable[[Rows], bool]
