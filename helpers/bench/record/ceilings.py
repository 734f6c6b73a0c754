"""What the device can do at best: copy, triad, and matrix products by number format."""

from collections.abc import Callable, Iterator

from helpers.bench.engine import parts
from helpers.bench.engine.report import median_point, point
from helpers.bench.engine.timing import device_seconds

GPU_FORMATS = ("bf16", "fp16", "fp8", "tf32", "fp32")
CPU_FORMATS = ("fp32", "bf16")


def ceilings(session, report) -> None:
    """Fill in the sections `ceilings` (what floors are made of), `triad` and `matmul by dtype`."""
    from helpers.engine.load import device_of, dtype_of

    device = device_of(session.device)
    report.run("ceilings", lambda: parts.ceilings(device, dtype_of(None, device)))
    report.run("triad", lambda: triad(device))
    report.run("matmul by dtype", lambda: matmul_by_dtype(device))


def triad(device) -> Iterator[dict]:
    """a = b + s * c in fp32 over arrays much larger than any cache: two read, one written."""
    import torch

    count = 2**28 if device.type == "cuda" else 2**23
    a, b, c = (torch.randn(count, device=device) for _ in range(3))
    seconds = device_seconds(lambda: torch.add(b, c, alpha=0.5, out=a), device, 20)
    yield median_point("triad", [3 * a.nbytes / s / 1e9 for s in seconds], "GB/s")


def matmul_by_dtype(device) -> Iterator[dict]:
    """TFLOP/s of a square product of random matrices in each number format; one that the device lacks says why."""
    for name in GPU_FORMATS if device.type == "cuda" else CPU_FORMATS:
        try:
            n, product = _product(name, device)
            seconds = device_seconds(product, device, 10, 3)
        except (RuntimeError, AttributeError, TypeError) as error:
            yield point(f"matmul {name}", 0.0, "TFLOP/s", absent=f"{type(error).__name__}: {error}"[:200])
            continue
        yield median_point(f"matmul {name}", [2 * n**3 / s / 1e12 for s in seconds], "TFLOP/s", size=n)


def _product(name: str, device) -> tuple[int, Callable[[], object]]:
    """(size, one product) in a number format; `fp8` is e4m3 with unit scales and fp32 sums, `tf32` fp32 data."""
    import torch

    n = {"cuda": 4096 if name == "fp32" else 8192}.get(device.type, 1024)
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    if name == "fp8":
        scale = torch.ones((), device=device)
        a, b = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        return n, lambda: torch._scaled_mm(a, b, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)
    if name in ("tf32", "fp32"):
        return n, lambda: _with_tf32(name == "tf32", lambda: a @ b)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    a, b = a.to(kind), b.to(kind)
    return n, lambda: a @ b


def _with_tf32(on: bool, run: Callable[[], object]) -> object:
    """Run with or without the tensor cores' short fp32, and leave the setting as it was."""
    import torch

    was = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        return run()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = was
