"""What engines did before they batched continuously and kept prefixes: the baselines of those two."""

from collections.abc import Sequence as Seq

from helpers.scheduling.blocks import BlockPool
from helpers.scheduling.scheduler import Scheduler, Step


class StaticBatches(Scheduler):
    """Who waits comes in together when the last of the batch before has ended, and nobody in between."""

    def _admit(self, step: Step, budget: int) -> None:
        if not self.running:
            super()._admit(step, budget)


class NoReuse(BlockPool):
    """Blocks without a prefix cache: nothing is ever found in it."""

    __slots__ = ()

    def cached(self, hashes: Seq[int], limit: int) -> int:
        return 0
