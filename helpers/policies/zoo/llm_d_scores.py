"""The scorers of llm-d's endpoint picker: a number from 0 to 1 for each worker, more is better.

Each takes and gives lists in the order of the candidates. Sources: `helpers.policies.zoo.llm_d`.
"""

from collections.abc import Sequence
from typing import NamedTuple

# Below this, headrooms count as equal (seconds).
SAME_S = 1e-9


def shares(matched: Sequence[int], blocks: int) -> list[float]:
    """matched / blocks of the prompt; 0 for a prompt without a full block."""
    return [depth / blocks if blocks else 0.0 for depth in matched]


def relative(matched: Sequence[int]) -> list[float]:
    """Matches scaled between the shortest and the longest of those that have one (1 when they are equal), 0 without."""
    some = [depth for depth in matched if depth]
    least, most = min(some, default=0), max(some, default=0)
    return [0.0 if not depth else (depth - least) / (most - least) if most > least else 1.0 for depth in matched]


def queue(waiting: Sequence[int]) -> list[float]:
    """(most - waiting) / (most - fewest); 1 when all are equal."""
    most, fewest = max(waiting), min(waiting)
    return [(most - one) / (most - fewest) if most > fewest else 1.0 for one in waiting]


def load_aware(waiting: Sequence[int], threshold: int) -> list[float]:
    """0.5 * (1 - waiting / threshold), at least 0."""
    return [0.5 * (1 - min(one / threshold, 1)) for one in waiting]


def token_load(tokens: Sequence[int], threshold: int) -> list[float]:
    """1 - tokens in flight / threshold, at least 0."""
    return [1 - min(one / threshold, 1) for one in tokens]


def least_recently_cold(workers: Sequence[int], oldest_first: Sequence[int]) -> list[float]:
    """1 - rank / (workers - 1): those that never had a cold request first, then those whose last is longest ago."""
    if len(workers) == 1:
        return [1.0]
    used = {worker: position for position, worker in enumerate(oldest_first)}
    ranked = sorted(workers, key=lambda worker: used.get(worker, -1))  # a stable sort: the unused keep their order
    rank = {worker: position for position, worker in enumerate(ranked)}
    return [1 - rank[worker] / (len(workers) - 1) for worker in workers]


class Headroom(NamedTuple):
    """What a worker has left of the SLO, in seconds (negative: predicted to miss it), and its requests in flight."""

    ttft_s: float
    tpot_s: float
    requests: int

    @property
    def met(self) -> bool:
        """Whether both are predicted to be met."""
        return self.ttft_s >= 0 and self.tpot_s >= 0


def latency(
    headrooms: Sequence[Headroom], ttft_weight: float = 0.8, tpot_weight: float = 0.2, most: bool = False
) -> list[float]:
    """Scores by headroom, 0 for the workers that are not considered.

    When some meet the SLO, only they count: each headroom is scaled to 0 … 1 between them and blended,
    and the least wins (bin packing), or the most. When none does: the idle ones if there are any; of
    those the ones that miss TPOT alone, else those that miss TTFT alone, else the rest; and there
    whoever misses by least. A headroom that is the same for all leaves the whole weight to the other.
    """
    met = [position for position, one in enumerate(headrooms) if one.met]
    chosen = met or _least_bad(headrooms)
    compared = [headrooms[position] for position in chosen]
    if not met:
        compared = [Headroom(min(one.ttft_s, 0.0), min(one.tpot_s, 0.0), one.requests) for one in compared]
    scores = [0.0] * len(headrooms)
    for position, share in zip(chosen, _blend(compared, ttft_weight, tpot_weight), strict=True):
        # Short of the SLO, the least deficit is the most headroom.
        scores[position] = share if most or not met else 1 - share
    return scores


def _least_bad(headrooms: Sequence[Headroom]) -> list[int]:
    everyone = range(len(headrooms))
    idle = [position for position in everyone if not headrooms[position].requests]
    among = idle or list(everyone)
    tpot_alone = [position for position in among if headrooms[position].ttft_s >= 0]
    ttft_alone = [position for position in among if headrooms[position].tpot_s >= 0]
    return tpot_alone or ttft_alone or among


def _blend(headrooms: Sequence[Headroom], ttft_weight: float, tpot_weight: float) -> list[float]:
    """ttft_weight * TTFT + tpot_weight * TPOT, each scaled to 0 … 1 between the workers; weights that add up to 1."""
    total = ttft_weight + tpot_weight
    ttft, tpot = (_scaled([one[part] for one in headrooms]) for part in (0, 1))
    first = ttft_weight / total if ttft and tpot else 1.0 if ttft else 0.0
    none = [0.5] * len(headrooms)
    if not ttft and not tpot:
        return none
    return [first * a + (1 - first) * b for a, b in zip(ttft or none, tpot or none, strict=True)]


def _scaled(values: Sequence[float]) -> list[float]:
    """Values scaled to 0 … 1, nothing when they are all the same."""
    least, most = min(values), max(values)
    return [(value - least) / (most - least) for value in values] if most - least > SAME_S else []
