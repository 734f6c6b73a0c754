"""Where two rungs answer otherwise: were the two tokens all but equally likely there, or is something wrong?

The text up to that place is computed again, alone, and the logits of both tokens are held against each other: whole,
and once more behind a prefix that is in the cache, which is the same sum in another order. By how much the distance of
the two changes is what rounding can do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from helpers.bench.inference.rungs import PREFIX, put_at
from helpers.workload.request import Request, Workload


@dataclass(frozen=True, slots=True)
class Parting:
    """A place in the answer to a request: one rung has `mine` there, the other `theirs`, after the tokens `before`."""

    request: Request
    before: tuple[int, ...]
    mine: int
    theirs: int


@dataclass(frozen=True, slots=True)
class Tie:
    """Logits there: the best less the second, the token of one rung less that of the other, by how much that is another
    number in another order of the sum, and whether both tokens are among the two best."""

    lead: float
    apart: float
    rounding: float
    best_two: bool


def partings(
    workload: Workload, mine: Mapping[int, Sequence[int]], theirs: Mapping[int, Sequence[int]]
) -> Iterator[Parting]:
    """The first place where each answer parts from the other, as far as both have a token there."""
    for request in workload:
        a, b = mine.get(request.id, ()), theirs.get(request.id, ())
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if at is not None:
            yield Parting(request, tuple(a[:at]), a[at], b[at])


def agreed(workload: Workload, answers: Mapping[int, Sequence[int]]) -> Iterator[Parting]:
    """The middle of each answer, a place that nothing is known of; both tokens are the one that is there."""
    for request in workload:
        tokens = answers.get(request.id, ())
        if len(tokens) > 1:
            at = len(tokens) // 2
            yield Parting(request, tuple(tokens[:at]), tokens[at], tokens[at])


def ties(engine, places: Iterable[Parting]) -> list[Tie]:
    """What the logits say at these places. Leaves an idle engine at the rung with a prefix cache."""
    put_at(engine, PREFIX)
    engine.decoder.keep_logits = True
    try:
        return [_tie(engine, one) for one in places]
    finally:
        engine.decoder.keep_logits, engine.decoder.logits = False, None


def _tie(engine, one: Parting) -> Tie:
    import numpy as np

    engine.abandon("the next text begins with an empty cache")
    whole, again = _logits(engine, one), _logits(engine, one)  # the second time all full blocks of the prompt are found
    first, second = np.partition(whole, -2)[-2:][::-1]
    apart, later = (float(values[one.mine] - values[one.theirs]) for values in (whole, again))
    best_two = min(whole[one.mine], whole[one.theirs]) >= second
    return Tie(float(first - second), abs(apart), abs(apart - later), bool(best_two))


def _logits(engine, one: Parting):
    """Float32 logits [vocab], in numpy, after a prompt and the tokens that followed it."""
    import numpy as np

    from helpers.engine.generation import synthetic_tokens

    block_tokens, request = engine.limits.block_tokens, one.request
    prompt = np.concatenate([synthetic_tokens(request, block_tokens, engine.config.vocab), one.before]).astype(np.int64)
    known = request.prefix_blocks[: request.prompt_tokens // block_tokens]
    g = engine.submit(Request(request.id, 0.0, len(prompt), 1, known), prompt)
    while not g.ended:
        engine.step()
    return engine.decoder.logits[-1].numpy()
