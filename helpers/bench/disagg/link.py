"""What crosses between two devices at best, and what the hand-off of KV makes of it."""

from collections.abc import Iterator
from random import Random
from statistics import median
from time import perf_counter

from helpers.bench.disagg.live import BLOCK_TOKENS, Setup
from helpers.bench.engine.report import median_point, point

SIZES_MIB = (1, 8, 64, 256)
PROMPTS = (512, 2048, 6000)
REPEATS = 12
WAIT_CYCLES = 20_000_000  # of a GPU's clock: some 10 ms


def link(setup: Setup) -> Iterator[dict]:
    """Plain copies by size, then the KV of prompts, layer by layer and as a whole, however its pages lie."""
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


def _orders(count: int) -> dict[str, tuple[list[int], list[int]]]:
    """How the pages of a prompt may lie here and there, in pools of twice as many."""
    shuffled = Random(count)
    return {
        "": (list(range(count)), list(range(count, 2 * count))),
        ", every other page": (list(range(0, 2 * count, 2)), list(range(count))),
        ", in any order": tuple(shuffled.sample(range(2 * count), count) for _ in range(2)),
    }


def _hand_offs(setup: Setup, devices, best: float) -> Iterator[dict]:
    """The pages of a prompt from pool to pool, against the best plain copy, and what each piece takes the host."""
    import torch

    from helpers.cluster.pieces import Piece, groups
    from helpers.engine.config import preset
    from helpers.engine.load import dtype_of
    from helpers.engine.pages import KVPages

    config, dtype = preset(setup.model), dtype_of(None, devices[0])
    pages = [KVPages(config, 2 * -(-PROMPTS[-1] // BLOCK_TOKENS), BLOCK_TOKENS, device, dtype) for device in devices]
    pages[0].tensor.normal_()
    wires = _wires(pages, devices)
    layers = len(pages[0].tensor)
    for tokens in PROMPTS:
        for order, (mine, theirs) in _orders(-(-tokens // BLOCK_TOKENS)).items():
            for way, parts in (("in eighths of the layers", groups(layers)), ("as a whole", {layers: 0})):
                pieces = [Piece(0, first, end, 0, mine, there=theirs) for end, first in parts.items()]
                size = sum(piece.nbytes(pages[0].tensor) for piece in pieces)
                pages[1].clear()
                offers: list[float] = []
                run = lambda pieces=pieces, theirs=theirs: offers.append(_carry(wires, pieces, theirs, devices))  # noqa: E731, B023
                run()
                took = [_seconds(run, devices) for _ in range(REPEATS)]
                sent = pages[0].tensor[:, :, mine].to(devices[1])
                same = float(torch.equal(sent, pages[1].tensor[:, :, theirs]))
                name = f"KV of {tokens} tokens, {way}{order}"
                yield median_point(
                    name, [size / s / 1e9 for s in took], "GB/s", floor=best,
                    seconds=median(took), bytes=size, same=same, host_s_per_piece=median(offers[1:]) / len(pieces),
                )  # fmt: skip
                yield point(f"{name}: arrived as sent", same, "0 or 1", target=1.0)
    if devices[0].type == "cuda":
        yield from _early(wires[0], pages, devices)


def _wires(pages, devices) -> list:
    """Both ends: pools of one process on two GPUs, plain reads on a CPU."""
    from types import SimpleNamespace

    import torch

    from helpers.cluster.push import PushWire, Window
    from helpers.cluster.wires import PoolWire

    if devices[0].type == "cpu":
        shared = [SimpleNamespace(tensor=one.tensor, layout=SimpleNamespace(shared=True)) for one in pages]
        return [PoolWire(shared[0], {}), PoolWire(shared[1], {0: SimpleNamespace(pool=shared[0].tensor)})]
    windows = [Window(one.tensor) for one in pages]
    windows[0].known(1, pages[1].tensor)
    marked = [SimpleNamespace(tensor=one.tensor, marks={}) for one in pages]
    found = []
    for one, window, device in zip(marked, windows, devices, strict=True):
        with torch.cuda.device(device):
            found.append(PushWire(one, window))
    return found


def _carry(wires, pieces, theirs: list[int], devices) -> float:
    """Offer, wait as a receiver is told, take and let go; seconds of the host for what it offers."""
    import torch

    start_s = perf_counter()
    for piece in pieces:
        with torch.cuda.device(devices[0] if devices[0].type == "cuda" else -1):
            wires[0].offer(piece, 1)
    offered_s = perf_counter() - start_s
    for piece in pieces:
        while not wires[0].sent(piece):
            pass
        with torch.cuda.device(devices[1] if devices[1].type == "cuda" else -1):
            wires[1].take(piece, 0, theirs)
    while not wires[1].settled():
        pass
    return offered_s


def _early(wire, pages, devices) -> Iterator[dict]:
    """A piece that is offered while a captured step has still to store its layers: it arrives as they are stored then,
    before the step ends. Control: one that does not wait for them arrives as they were before."""
    import torch

    from helpers.cluster.pieces import Piece

    (here, there), last = (one.tensor for one in pages), len(pages[0].tensor) - 1
    with torch.cuda.device(devices[0]):
        value, side = torch.zeros((), dtype=here.dtype, device=here.device), torch.cuda.Stream()
        wire._pages.marks[last] = torch.cuda.Event(external=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            torch.cuda._sleep(WAIT_CYCLES)
            here[:, :, 0] = value
            wire._pages.marks[last].record()
            torch.cuda._sleep(WAIT_CYCLES)
        for number, early in enumerate((True, True, False), 1):
            value.fill_(number)
            torch.cuda.synchronize()
            piece, end = Piece(0, 0, last + 1, 0, [0], there=[1], early=early), torch.cuda.Event()
            graph.replay()
            end.record()
            wire.offer(piece, 1)
            while not piece.landed.query():
                pass
            within = not end.query()
            fresh = bool((there[:, :, 1] == number).all())
            told = {"target": 1.0} if early else {"target": 0.0, "at_least": False}
            name = "a piece of a step under way" if early else "control: one that does not wait for its layers"
            yield point(f"{name}, {number}: arrived as stored", float(fresh), "0 or 1", within_the_step=within, **told)
        torch.cuda.synchronize()
