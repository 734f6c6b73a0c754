"""In which order the arms of a target are run: blocks of seeds, the arms of each in random order.

A machine that warms up, or that somebody else begins to use, then harms all arms alike. The order is drawn from a
seed of its own and recorded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from helpers.bench.targets.target import Scenario, Target

BASELINE = "baseline"
IDENTICAL, SLOW = "control: identical", "control: slow"
SLOW_FACTOR = 4.0
SEEDS_A_PROCESS = 5


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of work of a process: an arm of a scenario under a seed.

    `kind`: `run`; `again` (a run of which only the digests count); `corrupt` (the faults that must be noticed).
    """

    arm: str
    scenario: str
    seed: int
    kind: str = "run"


@dataclass(frozen=True, slots=True)
class Task:
    """What one fresh process does: the cells of one arm under a block of seeds, in this order."""

    label: str
    cells: tuple[Cell, ...]


def blocks_of(seeds: Sequence[int], size: int = SEEDS_A_PROCESS) -> list[tuple[int, ...]]:
    """The seeds in blocks of `size`, the last one shorter."""
    return [tuple(seeds[i : i + size]) for i in range(0, len(seeds), size)]


def ordered(target: Target, seeds: Sequence[int], order_seed: int, size: int = SEEDS_A_PROCESS) -> list[Task]:
    """The tasks of a target. In each block of seeds every arm has its turn, and every cell in its arm, at random.

    A last task repeats one cell of each arm, drawn at random, in yet another process.
    """
    rng = Random(f"order/{target.full_name}/{order_seed}")
    tasks = []
    effects = (IDENTICAL, SLOW) if target.timing else ()
    arms = (BASELINE, *target.variants, *effects)
    for block in blocks_of(seeds, size):
        turn = rng.sample(arms, len(arms))
        for arm in turn:
            cells = list(cells_of(target, arm, block))
            rng.shuffle(cells)
            if cells:
                tasks.append(Task(f"{arm}, seeds {block[0]} to {block[-1]}", tuple(cells)))
    again = []
    for arm in (BASELINE, *target.variants):
        exact = [cell for cell in cells_of(target, arm, seeds) if not target.scenario(cell.scenario).timed]
        if exact:
            drawn = rng.choice(exact)
            again.append(Cell(arm, drawn.scenario, drawn.seed, "again"))
    again.append(Cell(BASELINE, target.control, seeds[0], "corrupt"))
    return [*tasks, Task("repeated", tuple(again))]


def cells_of(target: Target, arm: str, block: Sequence[int]) -> Iterator[Cell]:
    """What an arm runs under some seeds."""
    for scenario in target.scenarios:
        if arm in (IDENTICAL, SLOW) and scenario.name != target.control:
            continue
        if has(scenario, arm):
            for seed in block:
                yield Cell(arm, scenario.name, seed)


def has(scenario: Scenario, arm: str) -> bool:
    """Whether a scenario has this arm."""
    return arm in (BASELINE, IDENTICAL, SLOW) or arm in scenario.variants
