"""The time of one scheduler step: the interface, and the model with fitted coefficients.

`AffineCost` is a sum of measured (or chosen) coefficients; `helpers.cost.roofline.RooflineCost`
predicts from the hardware and model tables. In every model a decode-only step at a fixed batch is
affine in the KV tokens it reads; the simulator's fast-forward rests on that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Protocol

from helpers.errors import InputError


class CostModel(Protocol):
    """Seconds of a step; `kind` is `predicted` (from tables) or `fitted` (from measured steps)."""

    kind: str

    def step(self, chunks: Sequence[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
        """Seconds of a step with prefill `chunks` of (new tokens, context before them) and `decodes`
        requests that together attend to `kv_tokens` tokens."""
        ...

    def steps(self, tokens: int, contexts: Iterable[int], decodes: int, kv_tokens: int) -> list[float]:
        """Seconds of one step for each of the `contexts`, with a chunk of `tokens` new tokens there, as `step` says."""
        ...

    def decode(self, decodes: int) -> tuple[float, float]:
        """(seconds, seconds per KV token) of a decode-only step with that many requests."""
        ...


@dataclass(frozen=True, slots=True)
class AffineCost:
    """Seconds of a step as a sum; all coefficients in seconds.

    step = overhead + per_decode * decodes + per_kv_token * kv_tokens
         + sum over chunks of n new tokens after c of context: per_prefill_token * n + per_attention_pair * n * (c + n)

    A step with chunks takes `launch_s` at least: what the host needs to launch it kernel by kernel, 0 where steps are
    captured.

    Raises `InputError` for a negative coefficient or no overhead.
    """

    overhead_s: float
    per_prefill_token_s: float
    per_attention_pair_s: float
    per_decode_s: float
    per_kv_token_s: float
    launch_s: float = 0.0
    kind: str = "fitted"

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "kind"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(
                    f"the cost coefficient {name} is {getattr(self, name)}; it cannot be negative or endless"
                )
        if self.overhead_s <= 0:
            raise InputError("the cost coefficient overhead_s is 0; a step takes time, give a positive one")

    def step(self, chunks: Sequence[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
        base, slope = self.decode(decodes)
        seconds = base + slope * kv_tokens
        for n, context in chunks:
            seconds += self.per_prefill_token_s * n + self.per_attention_pair_s * (n * (context + n))
        return max(seconds, self.launch_s) if chunks else seconds

    def steps(self, tokens: int, contexts: Iterable[int], decodes: int, kv_tokens: int) -> list[float]:
        return [self.step([(tokens, context)], decodes, kv_tokens) for context in contexts]

    def decode(self, decodes: int) -> tuple[float, float]:
        return self.overhead_s + self.per_decode_s * decodes, self.per_kv_token_s
