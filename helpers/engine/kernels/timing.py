"""Seconds of each kernel at the shapes of a model, with the bytes and FLOPs that bound it.

On a GPU the launches are captured into one CUDA graph, each on inputs of its own, more of them than the L2 cache
holds: what is timed is neither the launch nor a cache hit. Nothing is timed on zeros.
"""

import math
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import linear as library_linear

from helpers.engine.config import ModelConfig, MoEConfig, preset
from helpers.engine.kernels.backend import hopper
from helpers.engine.kernels.decode import decode_attention, join_counters
from helpers.engine.kernels.few_rows import linear
from helpers.engine.kernels.grouped import grouped_matmul_library, grouped_matmul_triton
from helpers.engine.kernels.norm import add_rms_norm
from helpers.engine.kernels.prefill import prefill_attention, tiles_of
from helpers.engine.kernels.rope import Rotation, rope_tables, store_kv
from helpers.engine.kernels.routing import choose_experts, group_by_expert
from helpers.engine.kernels.swiglu import swiglu

CACHE_BYTES = 256 * 2**20  # inputs that are read in turn are at least this much together
PAGE = 64
CONTEXT = 1024
Launch = Callable[[], object]


def seconds_of(launches: list[Launch], device, repeats: int = 10) -> float:
    """Median seconds of one launch, from runs of all of them."""
    if torch.device(device).type != "cuda":
        launches[0]()
        return median(_clock(launches) for _ in range(3)) / len(launches)
    for launch in launches[:3]:  # compiles what must be compiled
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    graph.replay()
    for begin, end in pairs:
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in pairs) / 1e3 / len(launches)


def _clock(launches: list[Launch]) -> float:
    start = perf_counter()
    for launch in launches:
        launch()
    return perf_counter() - start


def point(name: str, seconds: float, bytes_moved: float = 0, flops: float = 0) -> dict:
    return {"name": name, "seconds": seconds, "bytes": bytes_moved, "flops": flops}


class Timer:
    """Random inputs of one model's shapes."""

    def __init__(self, config: ModelConfig, device, dtype: torch.dtype | None = None) -> None:
        self.config, self.device = config, torch.device(device)
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.size = self.dtype.itemsize
        self.on_gpu = self.device.type == "cuda"
        cos, sin = rope_tables(config.head_dim, config.rope_theta, 8192, config.rope_scaling, self.device)
        norm = torch.ones(config.head_dim, device=self.device, dtype=self.dtype) if config.qk_norm else None
        self.rotation = Rotation(cos, sin, norm, norm, config.norm_eps)

    def copies(self, nbytes: float) -> int:
        """How many inputs of this size are more than a GPU's cache holds; at most 64, and two on a CPU."""
        return min(64, int(CACHE_BYTES // nbytes) + 2) if self.on_gpu else 2

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def paged(self, rows: int, context: int, copies: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Keys, values and `copies` page tables of rows whose pages lie in random order."""
        columns = -(-context // PAGE)
        order = torch.randperm(copies * rows * columns, device=self.device).int()
        keys, values = (
            self.draw(len(order) * PAGE, self.config.kv_heads, self.config.head_dim) * 0.5 for _ in range(2)
        )
        return keys, values, list(order.view(copies, rows, columns))

    def decode(self, contexts: list[int]) -> tuple[float, float]:
        """Seconds of the attention of one row a context, and the bytes of KV that it reads."""
        config, batch = self.config, len(contexts)
        nbytes = 2 * sum(contexts) * config.kv_heads * config.head_dim * self.size
        keys, values, tables = self.paged(batch, max(contexts), self.copies(nbytes))
        qkv = self.draw(batch, config.qkv_heads * config.head_dim)
        lengths = torch.tensor(contexts, dtype=torch.int32, device=self.device)
        positions = lengths.long() - 1
        counters = join_counters(self.device)
        out = qkv.new_empty(batch, config.heads * config.head_dim)
        row = torch.arange(batch, device=self.device)

        def launch(table: Tensor) -> Launch:
            slots = table[row, positions // PAGE].long() * PAGE + positions % PAGE
            arguments = (qkv, positions, slots, self.rotation, keys, values, table, lengths, PAGE, counters, out)
            return lambda: decode_attention(*arguments)

        return seconds_of([launch(table) for table in tables], self.device), nbytes

    def decode_point(self, batch: int) -> dict:
        return point(f"decode attention, batch {batch}, {CONTEXT} context", *self.decode([CONTEXT] * batch))

    def uneven_point(self, batch: int) -> dict:
        """Contexts as they are in a served batch: the even quantiles of an exponential distribution, cut at four
        times its mean."""
        shares = ((row + 0.5) / batch for row in range(batch))
        contexts = [max(1, min(4 * CONTEXT, round(-CONTEXT * math.log(1 - share)))) for share in shares]
        return point(f"decode attention, batch {batch}, about {CONTEXT} context, uneven", *self.decode(contexts))

    def prefill_point(self, tokens: int) -> dict:
        config = self.config
        keys, values, (table,) = self.paged(1, tokens, 1)
        qkv = self.draw(tokens, config.qkv_heads * config.head_dim)
        positions = torch.arange(tokens, device=self.device)
        lengths = torch.tensor([tokens], dtype=torch.int32, device=self.device)
        starts = torch.tensor([0, tokens], dtype=torch.int32, device=self.device)
        out = qkv.new_empty(tokens, config.heads * config.head_dim)
        tiles = tiles_of([(tokens, 0)], 0, config.heads // config.kv_heads, self.dtype, self.device)
        arguments = (qkv, positions, self.rotation, keys, values, table, lengths, starts, tiles, PAGE, out)
        seconds = seconds_of([lambda: prefill_attention(*arguments)] * 4, self.device)
        flops = 4 * config.heads * config.head_dim * tokens * (tokens + 1) / 2
        return point(f"prefill attention, {tokens} tokens", seconds, flops=flops)

    def store_point(self, tokens: int) -> dict:
        config = self.config
        keys, values, (table,) = self.paged(1, tokens, 1)
        positions = torch.arange(tokens, device=self.device)
        slots = table[0, positions // PAGE].long() * PAGE + positions % PAGE
        moved = 4 * tokens * config.kv_heads * config.head_dim * self.size
        inputs = [self.draw(tokens, config.qkv_heads * config.head_dim) for _ in range(min(8, self.copies(moved)))]
        launches = [lambda x=x: store_kv(x, positions, slots, self.rotation, keys, values) for x in inputs]
        return point(f"store KV, {tokens} tokens", seconds_of(launches, self.device), moved)

    def norm_point(self, tokens: int) -> dict:
        moved = 4 * tokens * self.config.hidden * self.size
        pairs = [(self.draw(tokens, self.config.hidden), self.draw(tokens, self.config.hidden)) for _ in range(16)]
        weight = self.draw(self.config.hidden)
        launches = [lambda x=x, r=r: add_rms_norm(x, r, weight, self.config.norm_eps) for x, r in pairs]
        return point(f"add and norm, {tokens} tokens", seconds_of(launches, self.device), moved)

    def swiglu_point(self, tokens: int, width: int) -> dict:
        moved = 3 * tokens * width * self.size
        inputs = [self.draw(tokens, 2 * width) for _ in range(16 if tokens < 1024 else 3)]
        return point(
            f"SwiGLU, {tokens} tokens", seconds_of([lambda x=x: swiglu(x) for x in inputs], self.device), moved
        )

    def linear_points(self, tokens: int) -> Iterator[dict]:
        """The products of a step as the engine computes them; beside them the library's where others may be own."""
        config, counters = self.config, join_counters(self.device)
        heads = config.heads * config.head_dim
        shapes = {"wqkv": (config.qkv_heads * config.head_dim, config.hidden), "wo": (config.hidden, heads)}
        if config.dense_layers:
            shapes["w13"] = (2 * config.intermediate, config.hidden)
            shapes["w2"] = (config.hidden, config.intermediate)
        shapes["head"] = (config.vocab, config.hidden)
        for name, (rows, columns) in shapes.items():
            weights = [self.draw(rows, columns) for _ in range(self.copies(rows * columns * self.size))]
            x = self.draw(tokens, columns)
            work = (rows * columns + tokens * (rows + columns)) * self.size, 2 * tokens * rows * columns
            seconds = seconds_of([lambda w=w, x=x: linear(x, w, counters) for w in weights], self.device)
            yield point(f"matmul {name}, {tokens} tokens", seconds, *work)
            if hopper():
                seconds = seconds_of([lambda w=w, x=x: library_linear(x, w) for w in weights], self.device)
                yield point(f"matmul {name}, {tokens} tokens, library", seconds, *work)


def grouped_points(timer: Timer, hidden: int, moe: MoEConfig, tokens: int) -> Iterator[dict]:
    """Routing, sort and the first grouped matmul of a layer of experts, own kernel and library."""
    logits = timer.draw(tokens, moe.experts)
    gates_and_choices = choose_experts(logits, moe)
    yield point(f"choose experts, {tokens} tokens", seconds_of([lambda: choose_experts(logits, moe)] * 8, timer.device))
    chosen = gates_and_choices[1]
    seconds = seconds_of([lambda: group_by_expert(chosen, moe.experts)] * 8, timer.device)
    yield point(f"group by expert, {tokens} tokens", seconds)
    rows, _, ends = group_by_expert(chosen, moe.experts)
    x = timer.draw(len(rows), hidden)
    w13 = timer.draw(moe.experts, 2 * moe.intermediate, hidden)
    hit = len(chosen.unique())
    moved = (hit * 2 * moe.intermediate * hidden + x.numel()) * timer.size
    flops = 4 * len(rows) * moe.intermediate * hidden
    ways: dict[str, Callable] = {"library": grouped_matmul_library}
    if timer.on_gpu:
        ways["own kernel"] = grouped_matmul_triton
        ways["own kernel, small tile"] = lambda x, w, ends: grouped_matmul_triton(x, w, ends, (16, 128, 64))
    for way, run_way in ways.items():
        seconds = seconds_of([lambda f=run_way: f(x, w13, ends)] * 2, timer.device)
        yield point(f"grouped matmul, {len(rows)} rows, {way}", seconds, moved, flops)


def run(config: ModelConfig, device="cuda") -> Iterator[dict]:
    """Points {name, seconds, bytes, flops} of every kernel at the shapes of `config`."""
    timer = Timer(config, device)
    many = (1, 8, 32, 128) if timer.on_gpu else (1, 8)
    for batch in many:
        yield timer.decode_point(batch)
    for batch in (32, 128) if timer.on_gpu else (8,):
        yield timer.uneven_point(batch)
    for tokens in (2048, 8192) if timer.on_gpu else (256,):
        yield timer.prefill_point(tokens)
    yield timer.store_point(2048 if timer.on_gpu else 256)
    for tokens in (1, 32, 2048) if timer.on_gpu else (1, 32):
        yield timer.norm_point(tokens)
        if config.dense_layers:
            yield timer.swiglu_point(tokens, config.intermediate)
    for tokens in (1, 32) if timer.on_gpu else (1,):
        yield from timer.linear_points(tokens)
    experts = preset("qwen3-moe-small" if timer.on_gpu else "tiny-moe")
    for tokens in (4096, 512, 32) if timer.on_gpu else (32,):
        yield from grouped_points(timer, experts.hidden, experts.moe, tokens)
