"""The time of a step on a device that computes prompts the slower the more of them it has just computed.

The same step full of prompt tokens takes 46 to 48 ms after a pause and 53 ms amid others (on two H200, in the packs
`live_llama-8b_1P1D_*`): presumably a GPU that multiplies all the time lowers its clocks to stay within its power limit.
What only reads memory takes no longer, so steps of decodes alone stay as they are.
"""

from dataclasses import dataclass
from math import exp
from typing import NamedTuple

from helpers.cost.iteration import AffineCost, CostModel
from helpers.cost.samples import StepSample

# Steps with prompts of an H100, an H200 and two H200 that did all of a request's work are described best by 0.03 to
# 0.05 s, those of a worker that only prefilled by 0.07 to 0.1 s. None of them is held out anywhere.
MEMORY_S = 0.05


class Recent(NamedTuple):
    """Prompt tokens that a device has computed until `at_s`, each the less the longer ago: exp(-age / MEMORY_S)."""

    tokens: float = 0.0
    at_s: float = 0.0

    def left(self, now_s: float) -> float:
        """What of them counts at a time, not before `at_s`."""
        return self.tokens * exp((self.at_s - now_s) / MEMORY_S)

    def after(self, tokens: int, end_s: float) -> "Recent":
        """With the tokens of a step that ended then."""
        return Recent(self.left(end_s) + tokens, end_s)


@dataclass(frozen=True, slots=True)
class WarmCost(AffineCost):
    """An `AffineCost` whose steps take longer on a warm device.

    step = the affine step + per_recent_token * new tokens of all chunks * recent tokens

    `step`, which knows of no time, is that of a device at rest: `CostPredictor` predicts by it.
    """

    per_recent_token_s: float = 0.0

    def warm_s(self, chunks: tuple[tuple[int, int], ...], recent_tokens: float) -> float:
        """By how many seconds a step with these chunks is longer than at rest."""
        return self.per_recent_token_s * sum(n for n, _ in chunks) * recent_tokens


def seconds_of(cost: CostModel, sample: StepSample) -> float:
    """Seconds that a measured step takes by a cost, with what came before it where the cost asks for that."""
    seconds = cost.step(sample.chunks, sample.decodes, sample.kv_tokens)
    return seconds + cost.warm_s(sample.chunks, sample.recent_tokens) if isinstance(cost, WarmCost) else seconds
