"""The whole engine: output tokens a second end to end, overlapped against plain, and what scheduling costs."""

from collections.abc import Iterator
from random import Random
from statistics import median
from time import perf_counter

from helpers.bench.engine.decode import Bench
from helpers.bench.engine.report import median_point, point
from helpers.bench.engine.timing import synchronize
from helpers.workload.request import Request

END_TO_END_TARGET = 3000.0  # output tokens/s of llama-8b on one H100, batch 32, 512 in and 128 out
SCHEDULER_TARGET_MS = 0.4  # a step at batch 256
LONG, SHORT = (32, 512, 128), (32, 64, 64)  # requests, prompt, output: on a GPU, on a CPU


def serve(engine, requests: int, prompt: int, output: int) -> float:
    """Seconds from the first submission to the last token of equal requests that come all at once."""
    synchronize(engine.device)
    start = perf_counter()
    for i in range(requests):
        engine.submit(Request(i, engine.now(), prompt, output))
    count = sum(1 for _ in engine.stream())
    seconds = perf_counter() - start
    if count != requests * output:
        raise RuntimeError(f"{count} tokens came out of {requests * output}")
    return seconds


def end_to_end(bench: Bench) -> Iterator[dict]:
    """Batch 32: output tokens over the whole time, prefill included."""
    engine = bench.engine
    requests, prompt, output = LONG if bench.on_gpu else SHORT
    serve(engine, requests, prompt, 4)
    rates = [requests * output / serve(engine, requests, prompt, output) for _ in range(3)]
    shape, size = engine.config.shape, engine.decoder.dtype.itemsize
    prefill_s = requests * shape.prefill_flops(prompt).total / bench.matmul_flop_per_s
    kv_bytes = shape.kv_bytes_per_token(size) * requests * (prompt + output / 2)
    decode_s = (output - 1) * (shape.decode_weight_bytes(requests, size) + kv_bytes) / bench.copy_bytes_per_s
    held = bench.on_gpu and engine.config.name == "llama-8b"
    target = {"target": END_TO_END_TARGET} if held else {}
    floor = requests * output / (prefill_s + decode_s)
    yield median_point(f"{requests} x {prompt} in, {output} out", rates, "output tok/s", floor=floor, **target)


def loops(bench: Bench) -> Iterator[dict]:
    """The same requests through the plain and the overlapped loop, in turns."""
    engine, kept = bench.engine, bench.engine.overlap
    requests, prompt, output = LONG if bench.on_gpu else SHORT
    rates: dict[bool, list[float]] = {False: [], True: []}
    try:
        for _ in range(3):
            for overlap, found in rates.items():
                engine.overlap = overlap
                found.append(requests * output / serve(engine, requests, prompt, output))
    finally:
        engine.overlap = kept
    yield median_point("plain loop", rates[False], "output tok/s")
    yield median_point("overlapped loop", rates[True], "output tok/s")
    ratios = [b / a for a, b in zip(rates[False], rates[True], strict=True)]
    yield median_point("overlapped / plain", ratios, "x")


def scheduler(block_tokens: int = 64, blocks: int = 8192) -> Iterator[dict]:
    """Host milliseconds a step with the device left out: 256 requests of 100 to 1,024 tokens in and out.

    The workload of nano-vllm's own benchmark. A step is scheduled, its metadata is written, its tokens are
    booked; decode steps with at least 200 sequences count.
    """
    import torch

    from helpers.engine.engine import Engine
    from helpers.scheduling.limits import Limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is measured is one thread's work
    engine = Engine(_constant(), Limits(blocks, block_tokens, 16384, 256), graphs=True)
    capture = engine.runner._capture

    def empty(bucket: int, kind: int):
        """A graph that is filled as any other and runs nothing."""
        graph = capture(bucket, kind)
        graph.replay = lambda: None
        graph.tokens = torch.zeros(bucket, dtype=torch.int64)
        return graph

    engine.runner._capture = empty
    draw = Random(0)
    for i in range(256):
        engine.submit(Request(i, 0.0, draw.randint(100, 1024), draw.randint(100, 1024)))
    full = []
    while engine.busy:
        start = perf_counter()
        engine.step()
        took = 1e3 * (perf_counter() - start)
        if engine.samples[-1].decodes >= 200 and not engine.samples[-1].chunks:
            full.append(took)
    torch.set_num_threads(threads)
    yield point(
        "host time a step, >= 200 sequences", median(full), "ms", full[:200],
        target=SCHEDULER_TARGET_MS, at_least=False, steps=len(full),
    )  # fmt: skip


def _constant():
    """A decoder whose every token is 0, at no cost."""
    import torch

    from helpers.engine.config import ModelConfig

    class Constant:
        config = ModelConfig("constant", 1, 16, 1, 1, 16, 16, 320, max_context=4096)
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, inputs, batch, pages):
            return torch.ones(len(batch.lengths), 1)

    return Constant()
