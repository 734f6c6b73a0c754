"""What crosses between two devices at best, and what the hand-off of KV makes of it."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter

from helpers.bench.disagg.live import BLOCK_TOKENS, Setup
from helpers.bench.engine.report import median_point, point

SIZES_MIB = (1, 8, 64, 256)
PROMPTS = (512, 2048, 6000)
REPEATS = 12


def link(setup: Setup) -> Iterator[dict]:
    """Plain copies by size, then the KV of prompts: packed, carried, unpacked, layer by layer and as a whole."""
    import torch

    cuda = setup.device == "cuda"
    if cuda and torch.cuda.device_count() < 2:
        raise RuntimeError("a link needs two GPUs")
    devices = [torch.device("cuda", i) if cuda else torch.device("cpu") for i in range(2)]
    if cuda:
        reachable = torch.cuda.can_device_access_peer(0, 1)
        yield point("peer access", float(reachable), "0 or 1", target=1.0)
    best = 0.0
    for mib in SIZES_MIB:
        rates = _copies(devices, mib * 2**20)
        best = max(best, median(rates))
        yield median_point(f"copy of {mib} MiB", rates, "GB/s")
    yield from _hand_offs(setup, devices, best)


def _seconds(run, devices) -> float:
    """Of one run, with everything on both devices."""
    import torch

    def rest() -> None:
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    rest()
    start_s = perf_counter()
    run()
    rest()
    return perf_counter() - start_s


def _copies(devices, size: int) -> list[float]:
    """GB/s of each of some copies, a batch of them between two looks at the clock so that launches do not count."""
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=devices[0])
    target = torch.zeros(size, dtype=torch.uint8, device=devices[1])
    batch = max(1, 2 ** (28 if devices[0].type == "cuda" else 26) // size)

    def run() -> None:
        for _ in range(batch):
            target.copy_(source, non_blocking=True)

    run()
    return [batch * size / _seconds(run, devices) / 1e9 for _ in range(REPEATS)]


def _hand_offs(setup: Setup, devices, best: float) -> Iterator[dict]:
    """The pages of a prompt from pool to pool, against the best plain copy."""
    import torch

    from helpers.cluster.pieces import Piece
    from helpers.engine.config import preset
    from helpers.engine.load import dtype_of
    from helpers.engine.pages import KVPages

    config, dtype = preset(setup.model), dtype_of(None, devices[0])
    pages = [KVPages(config, 2 * -(-PROMPTS[-1] // BLOCK_TOKENS), BLOCK_TOKENS, device, dtype) for device in devices]
    pages[0].tensor.normal_()
    wires = _wires(pages, devices)
    layers = len(pages[0].tensor)
    for tokens in PROMPTS:
        count = -(-tokens // BLOCK_TOKENS)
        row, other = list(range(count)), list(range(count, 2 * count))
        every_other = list(range(0, 2 * count, 2))
        for name, step, mine, theirs in (
            ("in eighths of the layers", max(1, layers // 8), row, other),
            ("as a whole", layers, row, other),
            ("as a whole, every other page", layers, every_other, row),
        ):
            starts = range(0, layers, step)
            pieces = [Piece(0, first, min(first + step, layers), 0, mine, there=theirs) for first in starts]
            size = sum(piece.nbytes(pages[0].tensor) for piece in pieces)
            pages[1].clear()
            run = lambda pieces=pieces, theirs=theirs: _carry(wires, pieces, theirs, devices)  # noqa: E731
            run()
            took = [_seconds(run, devices) for _ in range(REPEATS)]
            sent, come = pages[0].tensor[:, :, mine].cpu(), pages[1].tensor[:, :, theirs].cpu()
            same = float(torch.equal(sent, come))
            yield median_point(
                f"KV of {tokens} tokens, {name}", [size / s / 1e9 for s in took], "GB/s", floor=best,
                seconds=median(took), bytes=size, same=same,
            )  # fmt: skip
            yield point(f"KV of {tokens} tokens, {name}: arrived as sent", same, "0 or 1", target=1.0)


def _wires(pages, devices) -> list:
    """Both ends: pools of one process on two GPUs, plain reads on a CPU."""
    from types import SimpleNamespace

    from helpers.cluster.push import PushWire, Window
    from helpers.cluster.wires import PoolWire

    if devices[0].type == "cpu":
        shared = [SimpleNamespace(tensor=one.tensor, layout=SimpleNamespace(shared=True)) for one in pages]
        return [PoolWire(shared[0], {}), PoolWire(shared[1], {0: SimpleNamespace(pool=shared[0].tensor)})]
    windows = [Window(one.tensor) for one in pages]
    windows[0].known(1, pages[1].tensor)
    return [PushWire(one, window) for one, window in zip(pages, windows, strict=True)]


def _carry(wires, pieces, theirs: list[int], devices) -> None:
    """Offer, wait as a receiver is told, take and let go."""
    import torch

    for piece in pieces:
        with torch.cuda.device(devices[0] if devices[0].type == "cuda" else -1):
            wires[0].offer(piece, 1)
    for piece in pieces:
        while not wires[0].sent(piece):
            pass
        with torch.cuda.device(devices[1] if devices[1].type == "cuda" else -1):
            wires[1].take(piece, 0, theirs)
    while not wires[1].settled():
        pass
