"""The next token of each row: greedy, or drawn by a race that only the request's seed and the position decide.

A token wins with its probability when it has the largest logit / temperature - log(e), where e is
exponential noise of its own (the Gumbel-max trick). The noise is a hash of (seed, position, token),
not the next number of a generator: the same request gives the same tokens alone or in any batch, on
any worker, after a preemption and in a replayed CUDA graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.errors import InputError

GREEDY, TEMPERATURE, NUCLEUS = 0, 1, 2  # what a step must compute, the cheapest first
NOT_FINITE = -1  # the token of a row whose logits are no numbers
LOW_32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens: temperature 0 is greedy; `top_p` and `top_k` (0: all) keep the likeliest only."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < 100:
            raise InputError(f"the temperature is {self.temperature}; give 0 (greedy) or more, below 100")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; give a share above 0, at most 1")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; give 0 for all tokens, or how many to keep")
        if not 0 <= self.seed <= LOW_32:
            raise InputError(f"the seed is {self.seed}; give a number from 0 to {LOW_32}")

    @property
    def kind(self) -> int:
        """GREEDY, TEMPERATURE or NUCLEUS."""
        if self.temperature == 0:
            return GREEDY
        return NUCLEUS if self.top_p < 1 or self.top_k else TEMPERATURE


def mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers (held in int64) that spreads every bit over all: "lowbias32" of Wellons (2018)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & LOW_32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & LOW_32  # the product wraps; its low 32 bits are right all the same
    return x ^ (x >> 16)


def exponential_noise(seeds: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """[R, vocab] float32 noise with mean 1 for seeds and positions [R] int64."""
    row = mix(mix(seeds & LOW_32) ^ (positions & LOW_32))  # one key a row
    token = mix(torch.arange(vocab, device=seeds.device) + 0x9E3779B9)
    bits = mix(row[:, None] ^ token)
    return -torch.log1p(-((bits.float() + 0.5) * 2.0**-32))  # small values, which win, keep all 32 bits


def keep_likeliest(scaled: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Logits [R, V] with all but the likeliest set to -inf: at most `top_k` (0: no bound) and the fewest
    that reach `top_p` together. Ties with the last one kept stay in."""
    ordered, _ = scaled.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    rank = torch.arange(scaled.shape[-1], device=scaled.device)
    kept = (before < top_p[:, None]) & ((top_k[:, None] == 0) | (rank < top_k[:, None]))
    kept[:, 0] = True
    last = ordered.masked_fill(~kept, torch.inf).amin(-1, keepdim=True)
    return scaled.masked_fill(scaled < last, -torch.inf)


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row [R, V] and its place. A long row is cut in 64 parts first: a GPU gives each row of a
    reduction to one multiprocessor, and one alone reads 128,000 logits for 35 us."""
    rows, vocab = logits.shape
    if vocab < 4096 or vocab % 64:
        return logits.max(-1)
    best, place = logits.view(rows, 64, -1).max(-1)
    best, part = best.max(-1)
    return best, part * (vocab // 64) + place.gather(1, part[:, None])[:, 0]


def sample(
    logits: Tensor,
    kind: int = GREEDY,
    positions: Tensor | None = None,
    seeds: Tensor | None = None,
    temperature: Tensor | None = None,
    top_p: Tensor | None = None,
    top_k: Tensor | None = None,
) -> Tensor:
    """[R] int64 tokens from logits [R, V]; NOT_FINITE where the largest logit is no finite number.

    The others have one entry a row and are not read in a greedy step; rows with temperature 0 are greedy
    in every kind. No synchronisation, nothing read on the host: it runs inside a captured graph.
    """
    best, chosen = largest(logits)
    if kind != GREEDY:
        scaled = logits.float() / temperature.clamp(min=1e-4)[:, None]
        if kind == NUCLEUS:
            scaled = keep_likeliest(scaled, top_p, top_k)
        drawn = (scaled - exponential_noise(seeds, positions.long(), logits.shape[-1]).log()).argmax(-1)
        chosen = torch.where(temperature > 0, drawn, chosen)
    return torch.where(best - best == 0, chosen, NOT_FINITE)  # inf - inf and nan - nan are not 0
