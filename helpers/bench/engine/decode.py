"""Decode, prefill and both in one step: milliseconds a step, beside the bytes and FLOPs that bound them."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from helpers.bench.engine.report import median_point, point
from helpers.bench.engine.timing import device_seconds, synchronize
from helpers.workload.request import Request

CONTEXT, CPU_CONTEXT = 1024, 256  # on a GPU; on a CPU, where the labs' requests are short
MBU_TARGETS = {1: 0.80, 8: 0.80, 32: 0.80, 128: 0.75}  # of one H100, by batch
MFU_TARGETS = {2048: 0.70, 8192: 0.65}
MIXED = ((32, 256), (128, 512, 1024, 1984))  # decodes and the context of each, new tokens of the chunk beside them
CPU_MIXED = ((4, 64), (64, 128))
CPU_TPOT_S, CPU_TOKENS_PER_S = 0.015, 1000.0  # tiny on two cores: batch 1, batch 32


@dataclass(frozen=True)
class Bench:
    """What the parts share: an engine, and the ceilings measured in this run."""

    engine: object
    copy_bytes_per_s: float
    matmul_flop_per_s: float

    @property
    def device(self):
        return self.engine.device

    @property
    def context(self) -> int:
        return CONTEXT if self.on_gpu else CPU_CONTEXT

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def step_bytes(self, batch: int, kv_tokens: float) -> float:
        """Bytes a decode step must read: weights without the embedding table, and the KV of its tokens."""
        shape, size = self.engine.config.shape, self.engine.decoder.dtype.itemsize
        return shape.decode_weight_bytes(batch, size) + kv_tokens * shape.kv_bytes_per_token(size)

    def targets_of(self, table: dict, key: int) -> dict:
        """The target of a point, which holds for llama-8b on one H100 alone."""
        held = self.on_gpu and self.engine.config.name == "llama-8b" and key in table
        return {"target": table[key]} if held else {}


def fill_pages(engine) -> None:
    """Give the KV pages values like real ones: never time on zeros."""
    for layer in engine.pages.tensor:
        layer.normal_(0.0, 0.5)


def begin(engine, batch: int, context: int, output_tokens: int) -> list:
    """`batch` requests that decode from the next step on, with `context` tokens each in the cache."""
    requests = (Request(i, 0.0, context, output_tokens) for i in range(batch))
    return [engine.adopt(r, [7] * context) for r in requests]


def end(engine, generations: list) -> None:
    """Let them go, without clearing the pages."""
    for g in generations:
        engine.cancel(g)
    while engine.busy:  # the overlapped loop has a step under way
        engine.step()


def decode_steps(engine, batch: int, context: int, steps: int, warm: int = 4) -> list:
    """The samples of `steps` steps of the engine's own loop at this batch and about this context."""
    generations = begin(engine, batch, context - (steps + warm) // 2, steps + warm + 8)
    for _ in range(warm):
        engine.step()
    seen = len(engine.samples)
    for _ in range(steps):
        engine.step()
    samples = engine.samples[seen:]
    end(engine, generations)
    return samples


def decode(bench: Bench, batches: tuple[int, ...]) -> Iterator[dict]:
    """The engine's loop, the graph alone and the eager step, by batch, at about one context (`CONTEXT`)."""
    engine = bench.engine
    for batch in batches:
        if batch > engine.limits.max_batch:
            continue
        samples = decode_steps(engine, batch, bench.context, 40 if bench.on_gpu else 20)
        seconds = [s.period_s for s in samples]
        floor_s = bench.step_bytes(batch, fmean(s.kv_tokens for s in samples)) / bench.copy_bytes_per_s
        loop = "overlapped" if engine.overlap else "plain"
        target = {}
        if not bench.on_gpu and batch == 1:
            target = {"target": 1e3 * CPU_TPOT_S, "at_least": False}
        yield median_point(
            f"batch {batch} {loop} loop", [1e3 * s for s in seconds], "ms/step", floor=1e3 * floor_s,
            context=bench.context, **target,
        )  # fmt: skip
        yield point(f"batch {batch} MBU", floor_s / median(seconds), "of copy", **bench.targets_of(MBU_TARGETS, batch))
        rate = {"target": CPU_TOKENS_PER_S} if not bench.on_gpu and batch == 32 else {}
        yield point(f"batch {batch} rate", batch / median(seconds), "tok/s", floor=batch / floor_s, **rate)
        if bench.on_gpu:
            yield from _graph_and_eager(bench, batch, floor_s)


def _graph_and_eager(bench: Bench, batch: int, floor_s: float) -> Iterator[dict]:
    engine, runner = bench.engine, bench.engine.runner
    generations = begin(engine, batch, bench.context, 64)
    engine.step()
    graph = runner.graph(batch)
    synchronize(bench.device)
    seconds = device_seconds(graph.replay, bench.device, 30, 3)
    yield median_point(
        f"batch {batch} graph alone", [1e3 * s for s in seconds], "ms/step", floor=1e3 * floor_s,
        mbu=floor_s / median(seconds),
    )  # fmt: skip
    end(engine, generations)
    runner.graphs = False
    try:
        seconds = [s.period_s for s in decode_steps(engine, batch, bench.context, 8, warm=3)]
    finally:
        runner.graphs = True
    yield median_point(f"batch {batch} eager", [1e3 * s for s in seconds], "ms/step", floor=1e3 * floor_s)


def prefill(bench: Bench, lengths: tuple[int, ...]) -> Iterator[dict]:
    """One prompt alone in one step: what the device took for it, from its first operation to its first token."""
    engine = bench.engine
    for length in lengths:
        if length > min(engine.limits.token_budget, engine.max_context - 1):
            continue
        seconds = []
        for i in range(7 if bench.on_gpu else 4):
            engine.submit(Request(i, 0.0, length, 1))
            for _ in engine.stream():
                pass
            seconds.append(engine.samples[-1].seconds)
        seconds = seconds[2:] if bench.on_gpu else seconds[1:]
        floor_s = engine.config.shape.prefill_flops(length).total / bench.matmul_flop_per_s
        yield median_point(f"{length} tokens", [1e3 * s for s in seconds], "ms", floor=1e3 * floor_s)
        mfu = floor_s / median(seconds)
        yield point(f"{length} tokens MFU", mfu, "of matmul", **bench.targets_of(MFU_TARGETS, length))


def mixed(bench: Bench) -> Iterator[dict]:
    """One chunk beside decodes, captured and kernel by kernel: what the device takes, and the host to launch it."""
    from helpers.engine.calibrate import Shape, measure

    engine, runner = bench.engine, bench.engine.runner
    (decodes, context), chunks = MIXED if bench.on_gpu else CPU_MIXED
    kept = engine.overlap, runner.graphs
    engine.overlap = False
    try:
        for chunk in chunks:
            shape = Shape(((chunk, 0),), decodes, context)
            flops = engine.config.shape.prefill_flops(chunk).total
            floor_s = max(bench.step_bytes(decodes, decodes * context) / bench.copy_bytes_per_s,
                          flops / bench.matmul_flop_per_s)  # fmt: skip
            for graphs in (True, False) if bench.on_gpu else (False,):
                runner.graphs = graphs
                samples = [measure(engine, shape) for _ in range(12)][2:]
                name = f"{chunk} tokens beside {decodes} decodes, {'captured' if graphs else 'kernel by kernel'}"
                told = {"floor": 1e3 * floor_s, "decodes": decodes, "context": context}
                yield median_point(name, [1e3 * s.seconds for s in samples], "ms/step", **told)
                yield median_point(f"{name}, launch", [1e3 * s.launch_s for s in samples], "ms")
    finally:
        engine.overlap, runner.graphs = kept
