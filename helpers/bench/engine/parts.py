"""The parts of `bench engine` that are not about the whole engine: ceilings, correctness, kernels, the MoE layer."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from helpers.bench.engine.decode import Bench
from helpers.bench.engine.report import median_point, point
from helpers.bench.engine.timing import copy_bytes_per_s, device_seconds, matmul_flop_per_s

MOE_TARGET = 250.0  # TFLOP/s of a layer of 64 experts (2048 -> 1024), top-8, at 4,096 tokens on one H100
LOOP_TARGET = 2.0  # times as fast as a loop over the experts


def ceilings(device, dtype) -> Iterator[dict]:
    """Copy bandwidth and matrix product, measured in this run: what floors are made of."""
    yield median_point("copy", [b / 1e9 for b in copy_bytes_per_s(device)], "GB/s")
    yield median_point("matmul", [f / 1e12 for f in matmul_flop_per_s(device, dtype)], "TFLOP/s")


def checks(device) -> Iterator[dict]:
    """Errors of kernels and models against float64, each held against its bound; planted faults must exceed theirs."""
    import torch

    from helpers.engine import checks, loop_checks

    runs = (
        ("fp32", torch.float32, loop_checks.run),
        ("bf16", torch.bfloat16, checks.run),
        ("fp32", torch.float32, checks.run),
    )
    for name, dtype, run in runs:
        for found in run(device, dtype):
            yield point(
                f"{name} {found.name}", found.error, "error",
                target=found.bound, at_least=found.control, met=found.ok,
            )  # fmt: skip


def kernels(bench: Bench) -> Iterator[dict]:
    """Each kernel at the shapes of this model: microseconds, beside its bytes at copy speed."""
    from helpers.engine.kernels.timing import run

    for found in run(bench.engine.config, bench.device):
        seconds = found["seconds"]
        floor_s = max(found.get("bytes", 0) / bench.copy_bytes_per_s, found.get("flops", 0) / bench.matmul_flop_per_s)
        yield point(found["name"], 1e6 * seconds, "us", floor=1e6 * floor_s, of_floor=floor_s / seconds)


def moe(device, dtype, matmul_flop_per_s: float, copy_bytes_per_s: float) -> Iterator[dict]:
    """One MoE layer, router included, at many and at few tokens; on a GPU in a captured graph, as it is served.

    A loop over its experts waits for the host at each of them and cannot be captured: it runs as it is written.
    """
    import torch

    from helpers.engine.config import MoEConfig, preset
    from helpers.engine.kernels.timing import seconds_of
    from helpers.engine.moe import moe_layer
    from helpers.engine.weights import random_weights

    on_gpu = device.type == "cuda"
    config = preset("qwen3-moe-small" if on_gpu else "tiny-moe")
    config = replace(config, layers=1, vocab=512)
    experts: MoEConfig = config.moe
    weights = random_weights(config, 0, device, dtype).layers[0].moe
    for tokens in (4096, 128, 32) if on_gpu else (256, 32):
        hidden = [torch.randn(tokens, config.hidden, device=device).to(dtype) for _ in range(2)]
        with torch.inference_mode():
            grouped = [
                seconds_of([lambda x=x: moe_layer(x, weights, experts) for x in hidden], device) for _ in range(5)
            ]
            looped = device_seconds(lambda x=hidden[0]: moe_loop(x, weights, experts), device, 3, 1)
        flop = 6 * tokens * experts.top_k * config.hidden * experts.intermediate
        read = 3 * experts.experts * config.hidden * experts.intermediate * dtype.itemsize
        floor_s = max(flop / matmul_flop_per_s, read / copy_bytes_per_s)
        many = on_gpu and tokens == 4096
        name, target = f"{tokens} tokens", {"target": MOE_TARGET} if many else {}
        yield median_point(name, [flop / s / 1e12 for s in grouped], "TFLOP/s", floor=flop / floor_s / 1e12, **target)
        yield point(f"{name}, time", 1e3 * median(grouped), "ms", floor=1e3 * floor_s)
        ratio = median(looped) / median(grouped)
        yield point(f"{name}, against a loop", ratio, "x", **({"target": LOOP_TARGET} if many else {}))


def moe_loop(hidden, weights, moe):
    """The same layer the plain way: expert by expert, with the rows that chose it."""
    import torch
    from torch.nn.functional import linear

    from helpers.engine.kernels.routing import choose_experts
    from helpers.engine.kernels.swiglu import swiglu

    gates, chosen = choose_experts(linear(hidden, weights.router), moe, weights.bias)
    out = torch.zeros_like(hidden)
    for expert in range(moe.experts):
        rows, place = (chosen == expert).nonzero(as_tuple=True)
        if len(rows):
            answer = linear(swiglu(linear(hidden[rows], weights.w13[expert])), weights.w2[expert])
            out.index_add_(0, rows, answer * gates[rows, place, None].to(hidden.dtype))
    return out
