"""Whether the engine gives every request the same tokens however it is run: batched, overlapped, as graphs,
after a preemption, from the prefix cache. On a GPU this is where captured graphs are held to account."""

import warnings
from collections.abc import Callable

import torch

from helpers.engine.config import preset
from helpers.engine.engine import Engine, EngineError
from helpers.engine.error_bounds import Check
from helpers.engine.mixed import MixedGraph, MixedRows
from helpers.engine.model import Decoder
from helpers.engine.runner import DecodeGraph, DecodeRows, Launched
from helpers.engine.sampling import Sampling
from helpers.engine.weights import random_weights
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Step
from helpers.workload.request import Request

BLOCK = 16
ROOMY = Limits(512, BLOCK, 256, 32)
TIGHT = Limits(32, BLOCK, 256, 32, watermark=0.0)  # decodes outgrow the pool: some are preempted
# On a GPU another batch is another kernel, and rounding may turn a near tie; a real fault turns most sequences.
MOST_DIFFERENT = {"cpu": 0.0, "cuda": 0.10}
WAITED = "called a synchronizing CUDA operation"  # torch's words for it

Tokens = list[list[int]]


def requests(count: int = 24, shared_blocks: int = 0) -> list[Request]:
    """Requests of 5 to 97 prompt tokens; the first `shared_blocks` blocks of each are the same."""
    common = tuple(range(1, shared_blocks + 1))
    return [Request(i, 0.0, len(common) * BLOCK + 5 + (37 * i) % 93, 6 + (11 * i) % 29, common) for i in range(count)]


def serve(engine: Engine, asked: list[Request], temperature: float = 0.0, alone: bool = False) -> Tokens:
    """The tokens of each request, served all together or one after the other."""
    served = []
    for request in asked:
        served.append(engine.submit(request, sampling=Sampling(temperature, seed=request.id)))
        if alone:
            for _ in engine.stream():
                pass
    for _ in engine.stream():
        pass
    return [g.out for g in served]


def different(a: Tokens, b: Tokens) -> float:
    """The share of sequences that are not the same."""
    return sum(x != y for x, y in zip(a, b, strict=True)) / len(a)


def damage(engine: Engine, asked: list[Request], expected: Tokens) -> float:
    """`different` for an engine that a fault was planted in. What it never wrote may hold anything, numbers that are
    none among it: then the engine says so itself, and all sequences count as different."""
    try:
        return different(serve(engine, asked), expected)
    except EngineError:
        return 1.0


def bake_lengths(engine: Engine) -> None:
    """Plant a stale bucket: every decode graph keeps the lengths that it met first, as with a number baked in."""
    capture = engine.runner._capture

    def stale(bucket: int, kind: int) -> DecodeGraph:
        graph = capture(bucket, kind)
        fill, kept = graph.fill, []

        def fill_stale(rows: DecodeRows) -> None:
            fill(rows)
            kept.append(graph.inputs[3].clone())
            graph.inputs[3] = kept[0]

        graph.fill = fill_stale
        return graph

    engine.runner._capture = stale


def bake_tiles(engine: Engine) -> None:
    """Plant the same in steps with chunks: every graph keeps the tiles that it met first."""
    capture = engine.runner._capture_mixed

    def stale(bucket: int) -> MixedGraph:
        graph = capture(bucket)
        fill, kept, count = graph.fill, [], 2 * graph.sizes.tiles

        def fill_stale(rows: MixedRows) -> None:
            fill(rows)
            tiles = graph.inputs.tensor[-count:]
            kept.append(tiles.clone())
            tiles.copy_(kept[0])

        graph.fill = fill_stale
        return graph

    engine.runner._capture_mixed = stale


def waiting_launches(engine: Engine, asked: list[Request], plant: bool = False) -> float:
    """The share of steps for whose launch the host waits for the device, as torch itself notices it; with `plant`
    each launch assigns a number to a tensor there, which is a copy that waits."""
    launch, waited = engine.runner.launch, []

    def watched(step: Step) -> Launched:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                if plant:
                    engine.runner.seats.real[0, 0] = 0.0
                return launch(step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waited.append(any(WAITED in str(w.message) for w in caught))

    engine.runner.warm_up()  # a capture waits
    engine.runner.launch = watched
    serve(engine, asked)
    return sum(waited) / len(waited)


def run(device="cpu", dtype: torch.dtype = torch.float32) -> list[Check]:
    """One check a way of running, against each request alone in the plain loop without graphs."""
    config = preset("tiny")
    decoder = Decoder(config, random_weights(config, 0, device, dtype))
    plain = lambda limits=ROOMY: Engine(decoder, limits, max_context=1024, overlap=False, graphs=False)  # noqa: E731
    asked, shared = requests(), requests(12, shared_blocks=3)
    greedy = serve(plain(), asked, alone=True)
    drawn = serve(plain(), asked, 1.0, alone=True)
    cold = [serve(plain(), [r])[0] for r in shared]
    overlapped = lambda limits=ROOMY: Engine(decoder, limits, max_context=1024, overlap=True, graphs=True)  # noqa: E731
    bound = MOST_DIFFERENT[torch.device(device).type]
    found = []

    def check(name: str, tokens: Callable[[], Tokens], expected: Tokens) -> None:
        found.append(Check(f"loop: {name}", different(tokens(), expected), bound, sum(map(len, expected))))

    check("batched", lambda: serve(plain(), asked), greedy)
    check("overlapped, as graphs", lambda: serve(overlapped(), asked), greedy)
    check("preempted", lambda: serve(plain(TIGHT), asked), greedy)
    check("overlapped, as graphs, preempted", lambda: serve(overlapped(TIGHT), asked), greedy)
    check("sampled, overlapped, as graphs", lambda: serve(overlapped(), asked, 1.0), drawn)
    check("prefix hits", lambda: serve(overlapped(), shared, alone=True), cold)
    for name, plant in (("lengths", bake_lengths), ("tiles", bake_tiles)):
        stale = overlapped()
        plant(stale)
        error = damage(stale, asked, greedy)
        found.append(Check(f"control: graphs with stale {name}", error, 0.5, control=True))
    if torch.device(device).type == "cuda":
        found.append(Check("loop: launches that wait for the device", waiting_launches(overlapped(), asked), 0.0))
        share = waiting_launches(overlapped(), asked, plant=True)
        found.append(Check("control: launches with a copy that waits", share, 0.9, control=True))
    return found
