"""An error that was found, and the bound that it has to keep."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@dataclass(frozen=True, slots=True)
class Check:
    """A measured error and its bound; a control is right when its error is above the bound.

    `tokens` greedy tokens were compared, `wrong` of them differ although the two best logits are further
    apart than the bound, `close` differ and are not.
    """

    name: str
    error: float
    bound: float
    tokens: int = 0
    wrong: int = 0
    close: int = 0
    control: bool = False

    @property
    def ok(self) -> bool:
        return self.error > self.bound if self.control else self.error <= self.bound and not self.wrong


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|; infinite where something is not a number."""
    error = ((found.double() - expected.double()).norm() / expected.double().norm()).item()
    return error if math.isfinite(error) else math.inf
