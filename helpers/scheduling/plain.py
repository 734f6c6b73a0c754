"""What engines did before they batched continuously and kept prefixes: the baselines of those two."""

from collections.abc import Sequence as Seq

from helpers.scheduling.blocks import BlockPool
from helpers.scheduling.scheduler import Scheduler, Step


class StaticBatches(Scheduler):
    """Who waits comes in together when the last of the batch before has ended, and nobody in between.

    As many as the batch and the blocks allow: prompts beyond the budget of a step are computed in the next ones.
    """

    def _admit(self, step: Step, budget: int) -> None:
        if self.running:
            return
        super()._admit(step, sum(s.goal for s in self.waiting))
        chunks, step.chunks = step.chunks, []
        for sequence, n in chunks:
            if budget > 0:
                step.chunks.append((sequence, min(n, budget)))
            budget -= n


class NoReuse(BlockPool):
    """Blocks without a prefix cache: nothing is ever found in it."""

    __slots__ = ()

    def cached(self, hashes: Seq[int], limit: int) -> int:
        return 0
