"""What a measured step did and how long it took: the data that `helpers.cost.fit` learns from."""

from typing import NamedTuple

KINDS = ("decode", "prefill", "mixed")


class StepSample(NamedTuple):
    """One step: `chunks` of (new tokens, context before them), `decodes` requests that together attended to
    `kv_tokens` tokens, and its times.

    `seconds` the device took from the step's first operation to its last, `launch_s` the host took to launch it
    (0 where a launch is the work itself, on a CPU), and for `gap_s` before it the device had nothing to do
    although requests were there. `recent_tokens` of prompts it had just computed (`helpers.cost.warm.Recent`), 0 where
    nobody counted them.
    """

    chunks: tuple[tuple[int, int], ...]
    decodes: int
    kv_tokens: int
    seconds: float
    launch_s: float = 0.0
    gap_s: float = 0.0
    recent_tokens: float = 0.0

    @property
    def kind(self) -> str:
        """`decode`, `prefill` or `mixed`."""
        return KINDS[2 if self.decodes and self.chunks else 1 if self.chunks else 0]

    @property
    def period_s(self) -> float:
        """What the step takes out of a busy worker's time."""
        return self.seconds + self.gap_s
