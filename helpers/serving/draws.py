"""Where the workload of a seed comes from: a generator that draws it anew, or one recorded trace for all seeds."""

from dataclasses import dataclass
from functools import lru_cache

from helpers.errors import InputError
from helpers.workload.generate import GENERATED, GENERATORS, SHIPPED, open_workload
from helpers.workload.hygiene import spread_ticks
from helpers.workload.request import Workload
from helpers.workload.traces import LoadReport

KEPT = 24  # workloads of an hour take some 15 MB each
UNDRAWN = Workload("not drawn yet", ())


@dataclass(frozen=True)
class Draws:
    """A trace or generator by name, and what is done to it for each seed.

    `spread` spreads quantised timestamps over their tick, with the seed. Then the requests arrive `rate_scale` times
    as fast, or at exactly `rate_per_s` requests per second (requests over the seconds from the first to the last).
    Without `reuse_prefix` the prompts lose what they share. `block_tokens` is what a prefix block of the file has,
    `knobs` are those of a generator, as (name, value).
    """

    trace: str = "conversation"
    rate_scale: float = 1.0
    rate_per_s: float | None = None
    spread: bool = False
    max_requests: int | None = None
    skip_bad: bool = False
    max_context: int | None = None
    reuse_prefix: bool = True
    block_tokens: int = 512
    knobs: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and self.rate_scale != 1.0:
            raise InputError("a rate and a rate scale say the same thing twice; give one of them")

    @property
    def redrawn(self) -> bool:
        """Whether a seed draws arrivals, lengths and prefixes anew; else seeds move ticks and ties alone."""
        return self.trace.startswith(GENERATED) or (self.trace in GENERATORS and self.trace not in SHIPPED)

    def open(self, seed: int) -> tuple[Workload, LoadReport]:
        """The workload of a seed, and what was read; raises `InputError` for what cannot be."""
        made, report = open_workload(
            self.trace,
            seed=seed,
            skip_bad=self.skip_bad,
            max_context=self.max_context,
            max_requests=self.max_requests,
            block_tokens=self.block_tokens,
            knobs=dict(self.knobs),
        )
        made = spread_ticks(made, seed) if self.spread else made
        made = made if self.reuse_prefix else made.without_prefixes()
        scale = self.rate_scale if self.rate_per_s is None else self.rate_per_s / offered_per_s(made)
        return (made if scale == 1.0 else made.at_rate(scale)), report


@lru_cache(maxsize=KEPT)
def drawn(draws: Draws, seed: int) -> Workload:
    """The workload of a seed, made once in this process."""
    return draws.open(seed)[0]


def offered_per_s(workload: Workload) -> float:
    """Requests over the seconds from the first to the last; raises `InputError` when that is no time."""
    if not workload.span_s > 0:
        raise InputError(f"workload {workload.name} takes {workload.span_s} s, so it has no rate; give more requests")
    return len(workload) / workload.span_s
