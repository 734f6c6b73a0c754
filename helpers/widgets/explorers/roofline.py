"""The roofline explorer: what one step of a model does, and whether arithmetic or memory bounds each part of it."""

from collections.abc import Mapping

from helpers.errors import InputError
from helpers.hardware import GPU, gpu
from helpers.models import model, models
from helpers.roofline.bounds import FORMATS, PHASES, Shape, StepBound, held_bytes, step_bound
from helpers.roofline.measured import Measured, measured
from helpers.widgets.explorer import Answer, Explorer, Readout, Record, Value, choice, number
from helpers.widgets.explorers.hardware import hardware_control, hardware_of
from helpers.widgets.figures import Axis, Mark, Series, bars
from helpers.widgets.hardware import forecast
from helpers.widgets.roofs import Point, roofs
from helpers.widgets.show import Figure

INTENSITY = Axis("arithmetic intensity", "FLOP/byte", log=True)
RATE = Axis("arithmetic", "TFLOP/s", log=True)
TERA, GIGA = 1e12, 1e9
STEP = "whole step"


def compute(values: Mapping[str, Value], record: Record = None) -> Answer:
    """The bounds of one step on one device, and what was measured there at this shape."""
    hardware = hardware_of(values["hardware"], record)
    if hardware.gpu is None:
        raise InputError(f"{hardware.label}: data/hardware.toml has no roof for it; choose a part of the table")
    part, served, dtype = gpu(hardware.gpu), model(values["model"]), values["dtype"]
    shape = Shape(values["phase"], values["batch"], values["context"])
    found = step_bound(part, served, shape, dtype)
    seen = measured(part, shape, served.key, dtype)
    note = _note(part, seen)
    figures = _roofline(part, dtype, found, seen, note), _times(found, seen, note)
    needed = held_bytes(served, shape, dtype)
    return Answer(figures, _readouts(part, dtype, found, seen, needed), _summary(part, found))


def _note(part: GPU, seen: Measured | None) -> str:
    told = f"Roofs and bounds from the data sheet of {part.name}; each operand crosses the memory once."
    if forecast(part.key):
        return f"{told} Model prediction: nothing was measured on this part."
    if seen is None:
        return f"{told} This course measured nothing on this part with this model and dtype."
    if not (seen.operations_s or seen.step_s):
        return f"{told} Nothing was measured at this shape."
    steps = f"N = {seen.n} steps" if seen.n else "the step was not"
    return f"{told} Measured: this course's engine on {seen.device}, {steps}; kernels timed alone."


def _roofline(part: GPU, dtype: str, found: StepBound, seen: Measured | None, note: str) -> Figure:
    points = [Point(one.operation.name, "predicted", *_place(one.operation, one.seconds)) for one in found.bounds]
    points.append(Point(STEP, "predicted", *_place(found, found.seconds)))
    if seen:
        by_name = {one.operation.name: one.operation for one in found.bounds}
        points += [Point(name, "measured", *_place(by_name[name], s)) for name, s in seen.operations_s.items()]
        points += [Point(STEP, "measured", *_place(found, seen.step_s))] if seen.step_s else []
    form = FORMATS[dtype]
    roofs_of = {
        f"roof, {name}": (part.hbm_bytes_per_s, part.peak_flops(name)) for name in (form.matmul, form.attention)
    }
    if seen:
        roofs_of["measured ceilings, bf16"] = seen.copy_bytes_per_s, seen.matmul_flops_per_s
    ridge = part.ridge(form.matmul)
    ends = min(one.x for one in points) / 3, max(ridge, *(one.x for one in points)) * 3
    where = "; ".join(
        f"{one.operation.name} {_count(one.operation.intensity)} FLOP/byte, bound by {one.by}" for one in found.bounds
    )
    return roofs(
        [_roof(name, *rates, ends) for name, rates in roofs_of.items()],
        points,
        INTENSITY,
        RATE,
        title="Operations under the roof",
        note=note,
        origin="predicted",
        alt=f"Arithmetic against intensity, both logarithmic; the roof bends at {ridge:,.0f} FLOP/byte. {where}.",
        marks=[Mark(ridge, f"ridge {ridge:,.0f}", at_start=True)],
        height_px=520,
    )


def _place(work, seconds: float) -> tuple[float, float]:
    """(FLOP/byte, TFLOP/s) of an operation, or of a step, that takes so long."""
    return work.flops / work.bytes, work.flops / seconds / TERA


def _roof(name: str, bytes_per_s: float, flops_per_s: float, ends: tuple[float, float]) -> Series:
    """min(peak, intensity x bandwidth), which on logarithmic axes is two straight lines that meet at the ridge."""
    low, high = ends
    x = [low, flops_per_s / bytes_per_s, high]
    return Series(name, x, [min(flops_per_s, one * bytes_per_s) / TERA for one in x])


def _times(found: StepBound, seen: Measured | None, note: str) -> Figure:
    names = [one.operation.name for one in found.bounds]
    series = [
        Series("bound", [*names, STEP], [1e3 * s for s in (*(one.seconds for one in found.bounds), found.seconds)])
    ]
    if seen and (seen.operations_s or seen.step_s):
        times = [*(seen.operations_s.get(name) for name in names), seen.step_s]
        series.append(Series("measured", [*names, STEP], [None if s is None else 1e3 * s for s in times]))
    longest = max(found.bounds, key=lambda one: one.seconds)
    return bars(
        series,
        Axis("operation", ""),
        Axis("time a step", "ms", from_zero=True),
        title="What the time of a step is made of",
        note=note,
        origin="predicted",
        alt=f"Bars of the least time of each operation; the longest is {longest.operation.name} "
        f"with {_ms(longest.seconds)} of {_ms(found.seconds)}.",
        height_px=340,
    )


def _readouts(part: GPU, dtype: str, found: StepBound, seen: Measured | None, needed: float) -> tuple[Readout, ...]:
    form = FORMATS[dtype]
    room = part.memory_bytes / GIGA
    fits = "" if needed < part.memory_bytes else ": does not fit on one device"
    kind = "prompt" if found.shape.phase == "prefill" else "output"
    told = [
        Readout("bound by", found.by),
        Readout("time of the step", f"at least {_ms(found.seconds)}"),
        Readout("rate", f"at most {found.tokens_per_s:,.0f} {kind} tokens/s"),
        Readout("intensity of the step", f"{_count(found.flops / found.bytes)} FLOP/byte"),
        Readout("ridge point", f"{part.ridge(form.matmul):,.0f} FLOP/byte in {form.matmul}"),
        Readout("memory", f"{needed / GIGA:.1f} of {room:.1f} GB for weights and KV{fits}"),
    ]
    if seen and seen.step_s:
        told.append(
            Readout("measured step", f"{_ms(seen.step_s)}: the bound is {found.seconds / seen.step_s:.0%} of it")
        )
    return tuple(told)


def _summary(part: GPU, found: StepBound) -> str:
    shape = found.shape
    what = f"a prefill of {shape.batch} x {shape.context:,} tokens" if shape.phase == "prefill" else (
        f"a decode step of {shape.batch} sequences at {shape.context:,} tokens"
    )  # fmt: skip
    kind = "Model prediction" if forecast(part.key) else "Predicted"
    return f"{kind} for {part.name}: {what} takes at least {_ms(found.seconds)} and is bound by {found.by}."


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


EXPLORER = Explorer(
    name="roofline",
    title="A step under the roofline",
    intro="One step of one model on one device: the least time that arithmetic and memory allow.",
    controls=(
        hardware_control(),
        choice(
            "model", "model", "llama-3.1-8b", {key: one.name for key, one in models().items()}, "From data/models.toml."
        ),
        choice(
            "dtype", "dtype", "bf16", {name: name for name in FORMATS}, "Of the weights; attention computes in bf16."
        ),
        choice(
            "phase", "phase", "decode", {name: name for name in PHASES}, "A prompt, or one token for each sequence."
        ),
        number("batch", "batch", 32, (1, 1024), 1, "sequences", True, "Measured for decode: 1, 8, 32, 128."),
        number("context", "context", 1024, (1, 131_072), 1, "tokens", True, "Measured for decode: 1,024."),
    ),
    compute=compute,
)
