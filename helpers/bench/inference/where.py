"""Where the time of a run went, from its step log, and how far the answers of two rungs agree."""

import math
from collections.abc import Mapping, Sequence

from helpers.bench.disagg.figures import latencies
from helpers.bench.inference.rungs import Served


def figures(found: Served) -> dict[str, float | None]:
    """The latencies of a run."""
    return {"e2e_mean_s": found.e2e_mean_s, **latencies(found.run.log)}


def spent(found: Served) -> dict[str, float | int]:
    """Shares of the time from the first arrival's clock to the last token, and what the steps were.

    `in_steps`: a step was under way on the device (one launched kernel by kernel may wait for the host in between);
    `between_steps`: none was, though requests were there; `nothing_to_do`: nobody was there. Host seconds are means a
    step. `mean_batch` is over steps that decode; tokens of the prompts are `computed` or `cached`.
    """
    samples, wall_s = found.run.samples, found.run.wall_s
    busy_s, gaps_s = (math.fsum(getattr(s, name) for s in samples) for name in ("seconds", "gap_s"))
    decoding = [s.decodes for s in samples if s.decodes]
    return {
        "wall_s": wall_s,
        "in_steps": busy_s / wall_s,
        "between_steps": gaps_s / wall_s,
        "nothing_to_do": max(0.0, 1.0 - (busy_s + gaps_s) / wall_s),
        "steps": len(samples),
        "steps_with_chunks": sum(bool(s.chunks) for s in samples),
        "captured_steps": found.host.captured,
        "steps_ahead": found.host.ahead,
        "steps_joined": found.host.joined,
        "step_mean_s": busy_s / max(1, len(samples)),
        "gap_mean_s": gaps_s / max(1, len(samples)),
        **{f"host_{phase}_s": seconds for phase, seconds in found.host.per_step_s().items()},
        "mean_batch": sum(decoding) / max(1, len(decoding)),
        "computed_tokens": sum(n for s in samples for n, _ in s.chunks),
        "cached_tokens": sum(t.cached_tokens for t in found.run.timelines),
        "preemptions": sum(t.preemptions for t in found.run.timelines),
    }


def agreement(mine: Mapping[int, Sequence[int]], theirs: Mapping[int, Sequence[int]]) -> dict:
    """How many answers are equal token by token, and of the others at which token they part, sorted.

    An answer that is there on one side alone parts at its first token.
    """
    parted = sorted(at for i in sorted(mine.keys() | theirs.keys()) if (at := _parts(mine.get(i), theirs.get(i))) >= 0)
    answers = len(mine.keys() | theirs.keys())
    return {"answers": answers, "equal": answers - len(parted), "first_other_token": parted}


def _parts(mine: Sequence[int] | None, theirs: Sequence[int] | None) -> int:
    """The first place where two answers are not the same, -1 where there is none."""
    if mine is None or theirs is None:
        return 0
    for at, (a, b) in enumerate(zip(mine, theirs, strict=False)):
        if a != b:
            return at
    return -1 if len(mine) == len(theirs) else min(len(mine), len(theirs))
