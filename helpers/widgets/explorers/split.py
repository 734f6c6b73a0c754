"""The split calculator: prefill and decode apart, or together, at one operating point, and what would change that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from helpers.cost.service import prefill_s
from helpers.cost.split import WIRES, hand_off, moved_bytes
from helpers.models import models
from helpers.widgets.explorer import Answer, Explorer, Readout, Record, Value, choice, number
from helpers.widgets.explorers.candidates import Candidate, Point, attainment, point_of
from helpers.widgets.explorers.hardware import hardware_control
from helpers.widgets.figures import Axis, Mark, Series, bars, lines
from helpers.widgets.runs import seconds
from helpers.widgets.show import Figure
from helpers.widgets.style import whole_ticks

PER_GPU = Axis("bound", "requests/s and GPU", from_zero=True)
TOGETHER, APART = "together, best chunk", "apart, best split"
# The rivals are simulated at this share of the higher bound, so that the lower one has to give in.
LOAD = 0.85
CLOSE = 0.02  # attainments nearer than this are called equal
MORE = 1.05  # times the bound of a fleet without hand-offs that one with them must have, then
FEW_CHUNKS = (256, 512, 2048)  # along a curve
MOST_BARS = 8
TPOTS_MS = (6, 7, 8, 9, 10, 12, 14, 17, 20, 25, 30, 40, 60, 100, 200)
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
SERVED = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-30b-a3b", "qwen3-235b-a22b", "gpt-oss-20b", "gpt-oss-120b")
LINKS = {
    "network": "network card: 400 Gbit/s on H100",
    "nvlink": "NVLink, within one domain",
    "pcie": "PCIe, GPU to host",
}


def compute(values: Mapping[str, Value], record: Record = None) -> Answer:
    """The bounds of every candidate, and small runs of the rivals among them at the same rate."""
    point = point_of(values, record)
    every = (*point.together(), *point.splits())
    rivals = point.rivals()
    per_gpu = LOAD * max(one.bound for one in rivals)
    if per_gpu == 0:
        return _nothing(point, every)
    met = {one: attainment(point, one, per_gpu * point.used) for one in rivals}
    taken = _taken(met)
    tpots = [(t, *(one.bound for one in point.at(tpot_s=t / 1e3).best(FEW_CHUNKS))) for t in TPOTS_MS]
    prompts = [p for p in PROMPTS if p + point.work.output_tokens <= point.model.max_context]
    lengths = [(p, *(one.bound for one in point.at(prompt_tokens=p).best(FEW_CHUNKS))) for p in prompts]
    figures = _bounds(point, every, met, per_gpu), _over_tpot(point, tpots)
    return Answer(figures, _readouts(point, taken, met, per_gpu, tpots, lengths), _summary(point, taken, met, per_gpu))


def _taken(met: Mapping[Candidate, float]) -> Candidate:
    """The fleet that serves more requests in time; among equals the one with more room, and without a hand-off."""
    together, apart = (_better({one: met[one] for one in met if (one.split is None) == kind}) for kind in (True, False))
    if abs(met[apart] - met[together]) > CLOSE:
        return max(together, apart, key=met.get)
    return apart if apart.bound > MORE * together.bound else together


def _better(met: Mapping[Candidate, float]) -> Candidate:
    """Of one kind: who serves most in time, among equals the first with the most room."""
    return max((one for one in met if met[one] >= max(met.values()) - CLOSE), key=lambda one: one.bound)


def _note(point: Point) -> str:
    width = f", {point.tp} GPUs a worker" if point.tp > 1 else ""
    idle = f", {point.gpus - point.used} idle" if point.gpus > point.used else ""
    return f"{point.model.name} in bf16, {point.workers} workers{width}{idle}; {point.words}."


def _bounds(point: Point, every: Sequence[Candidate], met: Mapping[Candidate, float], per_gpu: float) -> Figure:
    """Bars of the bounds: all chunks, and the splits nearest to the best."""
    shown = _nearest(every)
    names = [one.label for one in shown]
    series = [Series("bound", names, [one.bound for one in shown])]
    if met:
        good = [met[one] * per_gpu if one in met else None for one in shown]
        series.append(Series(f"goodput, simulated at {per_gpu:.3g}", names, good))
    best = max(every, key=lambda one: one.bound)
    return bars(
        series,
        Axis("fleet", ""),
        Axis("requests", "requests/s and GPU", from_zero=True),
        title="What each fleet can carry",
        note=f"{_note(point)} Bounds count no queue. Goodput: N = {point.requests} requests, one draw, short enough to "
        "pass a bound for a while; only the best split and the chunk sizes next to the best bound are simulated.",
        origin="predicted",
        alt=f"Bars of the bound of {len(shown)} fleets. The highest is that of {best.name}, {best.bound:.3g} a "
        "second and GPU.",
        height_px=420,
    )


def _nearest(every: Sequence[Candidate]) -> list[Candidate]:
    """All fleets that do both, and the splits about the best one."""
    together, splits = ([one for one in every if (one.split is None) == kind] for kind in (True, False))
    first = max(0, splits.index(max(splits, key=lambda one: one.bound)) - MOST_BARS // 2)
    return [*together, *splits[first : first + MOST_BARS]]


def _over_tpot(point: Point, tpots: Sequence[tuple[float, float, float]]) -> Figure:
    x, together, apart = zip(*tpots, strict=True)
    at = _crossings(tpots)
    where = f"They cross near {', '.join(f'{t:.3g} ms' for t in at)}." if at else "They do not cross."
    return lines(
        [Series(TOGETHER, x, together), Series(APART, x, apart)],
        Axis("TPOT SLO", "ms", log=True),
        PER_GPU,
        title="The TPOT bound decides",
        note=f"{_note(point)} The best of {len(FEW_CHUNKS)} chunk sizes and of all splits at each bound.",
        origin="predicted",
        alt=f"The bound of both kinds of fleet against the TPOT SLO, rising until the SLO no longer matters. {where}",
        marks=[Mark(1e3 * point.slo.tpot_s, f"SLO {1e3 * point.slo.tpot_s:g} ms")],
        x_axis=whole_ticks(x),
    )


def _crossings(rows: Sequence[tuple[float, float, float]]) -> list[float]:
    """Where the better kind changes, along (x, together, apart): on the straight line between two rows."""
    found = []
    for (x0, a0, b0), (x1, a1, b1) in pairwise(rows):
        before, after = b0 - a0, b1 - a1
        if before * after < 0:
            found.append(x0 + (x1 - x0) * before / (before - after))
    return found


def _readouts(point: Point, taken: Candidate, met, per_gpu: float, tpots, lengths) -> tuple[Readout, ...]:
    work, alone_s = point.work, prefill_s(point.cost, point.work.prompt_tokens, 2048, point.work.cached_tokens)
    moved = hand_off(point.link, moved_bytes(point.model, work.prompt_tokens), alone_s, point.model.layers)
    evidence = "; ".join(f"{one.name}: bound {one.bound:.3g}, {share:.0%} in time" for one, share in met.items())
    pools = point.pools()
    ratio = f"{pools.ratio:.2g} to 1" if pools.decode_per_s else "nothing decodes in time"
    return (
        Readout("recommended", taken.name),
        Readout(f"evidence at {per_gpu:.3g} requests/s and GPU, simulated", evidence),
        Readout(
            "one hand-off", f"{moved.size_bytes / 1e9:.3g} GB, {_ms(moved.whole_s)}; {_ms(moved.exposed_s)} exposed"
        ),
        Readout("prefill to decode workers, both full", ratio),
        Readout("TPOT that would change it", _change(tpots, 1e3 * point.slo.tpot_s, lambda t: f"{t:.3g} ms")),
        Readout("prompt that would change it", _change(lengths, work.prompt_tokens, lambda p: f"{p:,.0f} tokens")),
        Readout("link that would change it", _link_change(point)),
    )


def _change(rows: Sequence[tuple[float, float, float]], here: float, words: Callable[[float], str]) -> str:
    """The nearest place where the better bound changes sides."""
    at = sorted(_crossings(rows), key=lambda x: max(x / here, here / x))
    return f"near {words(at[0])}" if at else f"none from {words(rows[0][0])} to {words(rows[-1][0])}"


def _link_change(point: Point) -> str:
    """The rate of the link at which the best split's bound falls to that of the best fleet without one."""
    together = max(one.bound for one in point.together())

    def bound(bytes_per_s: float) -> float:
        slower = replace(point, link=replace(point.link, bytes_per_s=bytes_per_s))
        return max(one.bound for one in slower.splits())

    low, high = 1e6, 1e13
    if bound(high) <= together:
        return "none is fast enough to lift the bound"
    if bound(low) > together:
        return "none is too slow"
    for _ in range(24):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if bound(middle) > together else (middle, high)
    return f"near {high / 1e9:.2g} GB/s; it has {point.link.bytes_per_s / 1e9:.3g}"


def _nothing(point: Point, every: Sequence[Candidate]) -> Answer:
    """No fleet meets the SLO for even one request."""
    alone_s = prefill_s(point.cost, point.work.prompt_tokens, 2048, point.work.cached_tokens)
    why = f"a prompt alone takes {_ms(alone_s)}, a decode step of one request {_ms(point.cost.decode(1)[0])}"
    summary = f"Predicted, {point.words}: no fleet meets this SLO; {why}."
    return Answer((_bounds(point, every, {}, 0.0),), (Readout("recommended", "none: relax the SLO"),), summary)


def _summary(point: Point, taken: Candidate, met: Mapping[Candidate, float], per_gpu: float) -> str:
    shares = ", ".join(f"{one.name} {share:.0%}" for one, share in met.items())
    return f"Simulated at {per_gpu:.3g} requests/s and GPU, {point.words}: in time are {shares}; take {taken.name}."


def _ms(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else seconds(value)


EXPLORER = Explorer(
    name="split",
    title="Split calculator",
    intro="Prefill and decode on workers of their own, or together in chunks: bounds in closed form rank the fleets, "
    "then the best split, the best chunk size and its neighbours serve the same small draw.",
    controls=(
        choice("model", "model", SERVED[0], {key: models()[key].name for key in SERVED}, "In bf16."),
        hardware_control(),
        choice("link", "link between workers", "network", {wire: LINKS[wire] for wire in WIRES}, "Layer by layer."),
        number("gpus", "GPUs", 8, (2, 16), 1, help="Workers take 1, 2, 4 or 8 each, as the model needs."),
        number("prompt_tokens", "prompt", 3600, (64, 32_000), 1, "tokens", True, "Mean ISL."),
        number("output_tokens", "output", 180, (2, 4000), 1, "tokens", True, "Mean OSL."),
        number("cached", "cached share", 0.0, (0.0, 0.95), 0.05, help="Of the prompt; it is moved, not computed."),
        number("slo_ttft_s", "TTFT SLO", 1.0, (0.05, 30.0), 0.01, "s", True, "The bound on the time to first token."),
        number(
            "slo_tpot_ms", "TPOT SLO", 15.0, (5.0, 200.0), 0.5, "ms", True, "The bound on the time per output token."
        ),
    ),
    compute=compute,
)
