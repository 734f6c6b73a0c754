"""Seconds of work on a device, and the two ceilings that floors are made of."""

from collections.abc import Callable
from statistics import median
from time import perf_counter


def synchronize(device) -> None:
    """Wait until the device has nothing left to do."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_seconds(run: Callable[[], object], device, repeats: int = 10, warm: int = 2) -> list[float]:
    """Seconds of each of `repeats` runs after `warm` others: between events on a GPU, by the clock on a CPU."""
    import torch

    for _ in range(warm):
        run()
    synchronize(device)
    if device.type != "cuda":
        return [wall_seconds(run, device) for _ in range(repeats)]
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    synchronize(device)
    return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]


def wall_seconds(run: Callable[[], object], device) -> float:
    """Seconds of one run by the clock, the device's work included."""
    synchronize(device)
    start = perf_counter()
    run()
    synchronize(device)
    return perf_counter() - start


def copy_bytes_per_s(device) -> list[float]:
    """Bytes read and written per second by a copy much larger than any cache, one value a repeat."""
    import torch

    count = 2**31 if device.type == "cuda" else 2**26
    source = torch.empty(count, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return [2 * count / s for s in device_seconds(lambda: target.copy_(source), device, 20)]


def matmul_flop_per_s(device, dtype) -> list[float]:
    """FLOP per second of a square product of random matrices (8192 on a GPU, 1024 on a CPU), one value a repeat."""
    import torch

    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return [2 * n**3 / s for s in device_seconds(lambda: a @ b, device, 20, 3)]


def ceilings(device, dtype) -> dict[str, float]:
    """The medians of both, measured now."""
    return {
        "copy_bytes_per_s": median(copy_bytes_per_s(device)),
        "matmul_flop_per_s": median(matmul_flop_per_s(device, dtype)),
    }
