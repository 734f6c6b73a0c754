"""Main effects and interactions of a full factorial of two-level factors, with intervals over paired replicates.

Box, Hunter and Hunter, *Statistics for Experimenters* (Wiley, 2nd edition 2005), chapter 5: with levels -1 and +1, the
effect of a set of factors is the mean of the values where the product of their levels is +1, less the mean where it is
-1. For one factor that is what changing it brings, averaged over all settings of the others. For two it is half the
difference between what the first brings at the high and at the low level of the second. It is computed for each
seed, on the same draw in every cell, and the interval is over seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.stats import Interval, mean_interval

Levels = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a set of `factors` does: one factor is a main effect, several are an interaction."""

    factors: tuple[str, ...]
    interval: Interval

    @property
    def name(self) -> str:
        """The factors as words, `routing x split`."""
        return " x ".join(self.factors)

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return 0 not in self.interval


def effects(
    factors: Sequence[str], cells: Mapping[Levels, Mapping[float, float]], level: float = 0.95
) -> tuple[Effect, ...]:
    """All effects, main ones first, of `cells`: the value of each seed at each combination of levels -1 and +1.

    Raises `InputError` when a combination is missing, or the cells do not hold the same seeds, at least two.
    """
    wanted = set(product((-1, 1), repeat=len(factors)))
    if not factors or set(cells) != wanted:
        raise InputError(
            f"a factorial of {len(factors)} factors has {len(wanted)} cells, each a combination of -1 and 1; "
            f"got {len(cells)}"
        )
    seeds = sorted(next(iter(cells.values())))
    if any(sorted(values) != seeds for values in cells.values()):
        raise InputError("the cells of the factorial were not run on the same seeds; pair each draw with itself")
    sets = [chosen for size in range(1, len(factors) + 1) for chosen in combinations(range(len(factors)), size)]
    return tuple(_effect(factors, cells, seeds, chosen, level) for chosen in sets)


def _effect(factors: Sequence[str], cells, seeds: Sequence[float], chosen: tuple[int, ...], level: float) -> Effect:
    high = [at for at in cells if prod(at[i] for i in chosen) > 0]
    low = [at for at in cells if at not in high]
    by_seed = [fmean(cells[at][s] for at in high) - fmean(cells[at][s] for at in low) for s in seeds]
    return Effect(tuple(factors[i] for i in chosen), mean_interval(by_seed, level))
