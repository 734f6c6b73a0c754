"""Steps of every shape, measured one by one: what the cost model is fitted to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from helpers.cost.samples import StepSample
from helpers.engine.engine import Engine
from helpers.workload.request import Request


@dataclass(frozen=True, slots=True)
class Shape:
    """A step to measure: chunks of (new tokens, context before them), and decodes of one context each."""

    chunks: tuple[tuple[int, int], ...] = ()
    decodes: int = 0
    context: int = 0


def shapes(engine: Engine) -> list[Shape]:
    """Decodes over batch and context, prefills over length and context, and both in one step, as far as they fit."""
    batches, contexts = (1, 2, 4, 8, 16, 32, 64, 128), (32, 128, 512, 1024, 2048)
    lengths = (16, 64, 128, 256, 512, 1024, 2048)
    found = [Shape((), batch, context) for batch in batches for context in contexts]
    found += [Shape(((n, context),)) for n in lengths for context in (0, 256, 1024)]
    found += [Shape(((n, 0), (n, 128))) for n in lengths]
    found += [Shape(((n, context),), batch, 256) for n in lengths[1:] for context in (0, 512) for batch in (2, 8, 32)]
    return [shape for shape in found if fits(engine, shape)]


def fits(engine: Engine, shape: Shape) -> bool:
    """Whether the step is within the engine's limits, with half of the blocks to spare."""
    limits = engine.limits
    tokens = shape.decodes + sum(n for n, _ in shape.chunks)
    contexts = [shape.context] * shape.decodes + [n + context for n, context in shape.chunks]
    blocks = sum(-(-(c + 2) // limits.block_tokens) for c in contexts)
    rows = shape.decodes + len(shape.chunks)
    within = tokens <= limits.token_budget and rows <= limits.max_batch and max(contexts) + 4 <= engine.max_context
    return within and blocks <= limits.kv_blocks // 2


def measure(engine: Engine, shape: Shape) -> StepSample:
    """Run one step of a shape in the plain loop and return its sample; the engine is empty before and after."""
    request = lambda tokens: Request(0, 0.0, tokens, 3)  # noqa: E731
    running = [engine.adopt(request(shape.context), [1] * shape.context) for _ in range(shape.decodes)]
    running += [engine.adopt(request(n + c), [1] * (n + c), computed=c) for n, c in shape.chunks]
    engine.step()
    for g in running:
        engine.cancel(g)
    return engine.samples[-1]


def calibrate(
    engine: Engine, rounds: int = 5, seed: int = 0, tick: Callable[[int, int], None] | None = None
) -> Iterator[StepSample]:
    """Every shape `rounds` times, each round in an order of its own, so that a drift of the machine is in no shape
    alone. A first round is not counted: it compiles and captures."""
    engine.overlap = False
    draw, every = Random(seed), shapes(engine)
    for number in range(rounds + 1):
        draw.shuffle(every)
        for i, shape in enumerate(every):
            sample = measure(engine, shape)
            if number:
                yield sample
            if tick:
                tick(number * len(every) + i + 1, (rounds + 1) * len(every))
