"""What a measured step did and how long it took: the data that `helpers.cost.fit` learns from."""

from typing import NamedTuple

KINDS = ("decode", "prefill", "mixed")


class StepSample(NamedTuple):
    """One step: `chunks` of (new tokens, context before them), `decodes` requests that together attended to
    `kv_tokens` tokens, and its `seconds`."""

    chunks: tuple[tuple[int, int], ...]
    decodes: int
    kv_tokens: int
    seconds: float

    @property
    def kind(self) -> str:
        """`decode`, `prefill` or `mixed`."""
        return KINDS[2 if self.decodes and self.chunks else 1 if self.chunks else 0]
