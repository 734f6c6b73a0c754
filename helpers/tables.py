"""`hybrid-serving hardware` and `hybrid-serving models`: the tables of the course, with their sources."""

import re
from typing import Annotated

import typer

from helpers.console import emit_json, emit_table
from helpers.errors import InputError
from helpers.hardware import GPU, Device, gpu, gpus, hardware_key, probe
from helpers.models import Model, model, models
from helpers.paths import data_file
from helpers.sources import MARKS, Figure, read_abbreviations

HARDWARE_COLUMNS = (
    *("key", "name", "bf16 TFLOP/s", "fp8 TFLOP/s", "fp4 TFLOP/s", "memory GB", "memory TB/s", "SMs"),
    *("ridge bf16 FLOP/B", "fabric GB/s", "host GB/s", "NIC GB/s", "TDP W"),
)
MODEL_COLUMNS = (
    *("key", "name", "total B", "active B", "active B without input embedding", "layers", "attention"),
    *("KV B/token bf16", "of these growing", "max context"),
)
# How figures are shown: (end of a base-unit name, divisor, unit). The first that fits counts.
SHOWN = (
    ("bytes_per_sm", 1024, "KiB per SM"),
    ("bytes_per_cta", 1024, "KiB per CTA"),
    ("kv_bytes_per_token", 1, "B/token"),
    ("kv_growing_bytes_per_token", 1, "B/token"),
    ("bytes_per_s", 1e9, "GB/s"),
    ("l2_bytes", 1024**2, "MiB"),
    ("_bytes", 1e9, "GB"),
    ("_hz", 1e9, "GHz"),
    ("_flops", 1e12, "TFLOP/s"),
    ("_per_clock_per_sm", 1, "FLOP/clock"),
    ("_w", 1, "W"),
)


def register(app: typer.Typer) -> None:
    """Add the commands `hardware` and `models`."""
    app.command("hardware")(show_hardware)
    app.command("models")(show_models)


def show_hardware(
    name: Annotated[str | None, typer.Argument(help="one part, such as h100; without it, all of them")] = None,
    probe_machine: Annotated[bool, typer.Option("--probe", help="show the machine at hand instead")] = False,
) -> None:
    """Accelerators: peaks, memory, links and ridge points, with the source of each figure."""
    if probe_machine:
        if name is not None:
            raise InputError(f"hardware: give {name!r} or --probe, not both")
        _show_device(probe())
    elif name is not None:
        _show_gpu(gpu(name))
    else:
        about = "Accelerators: dense peaks, links one way; GB are 10^9 bytes, usable ones where known; ?: unverified"
        emit_table(about, HARDWARE_COLUMNS, map(_gpu_row, gpus().values()))
        emit_json({"command": "hardware", "hardware": [_gpu_record(g) for g in gpus().values()]})


def show_models(
    name: Annotated[str | None, typer.Argument(help="one model, such as llama-3.1-8b; without it, all of them")] = None,
) -> None:
    """Open models: parameters, KV bytes and FLOPs from their shape, with the source of each figure."""
    if name is not None:
        _show_model(model(name))
    else:
        emit_table("Models, counts computed from the shape", MODEL_COLUMNS, map(_model_row, models().values()))
        emit_json({"command": "models", "models": [_model_record(m) for m in models().values()]})


def _gpu_row(g: GPU) -> tuple:
    peaks = [_scaled(g, f"peak_flops.{dtype}", 1e12) for dtype in ("bf16", "fp8", "fp4")]
    memory = [_scaled(g, "memory_bytes", 1e9), _scaled(g, "hbm_bytes_per_s", 1e12), _scaled(g, "sms", 1)]
    links = [_scaled(g, f"{link}_bytes_per_s", 1e9) for link in ("nvlink", "host", "nic")]
    return (g.key, g.name, *peaks, *memory, f"{g.ridge('bf16'):.0f}", *links, _scaled(g, "tdp_w", 1))


def _scaled(g: GPU, name: str, unit: float) -> str:
    """A figure for people: empty when there is none, with a question mark when it is unverified."""
    if not g.has(name):
        return ""
    return _number(g.figure(name) / unit) + ("" if g.source_of(name).verified else " ?")


def _number(value: float) -> str:
    return f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}"


def _gpu_record(g: GPU) -> dict:
    figures = {name: figure.value for name, figure in g.figures.items()}
    ridges = {dtype: round(g.ridge(dtype), 3) for dtype in g.dtypes}
    return {"key": g.key, "name": g.name, **figures, "ridge_flop_per_byte": ridges, "unverified": list(g.unverified)}


def _show_gpu(g: GPU) -> None:
    about = f"{g.name}: {g.vendor} {g.architecture}, {g.memory_type}, fabric {g.fabric}"
    emit_table(about, ("figure", "value", "unit", "mark", "source"), _figure_rows(g.figures))
    ridges = [(d, f"{g.ridge(d):.4g}", *(_ridge(g, d, link) for link in ("nvlink", "nic"))) for d in g.dtypes]
    emit_table("Ridge points, FLOP/byte", ("format", "memory", "fabric", "NIC"), ridges)
    _explain(g.figures, "hardware.toml")
    emit_json({"command": "hardware", **_gpu_record(g), "sources": _sources(g.figures)})


def _ridge(g: GPU, dtype: str, link: str) -> str:
    return f"{g.ridge(dtype, link):,.0f}" if g.has(f"{link}_bytes_per_s") else ""


def _figure_rows(figures: dict[str, Figure]) -> list[tuple]:
    rows = []
    for name, figure in figures.items():
        divisor, unit = _shown_unit(name)
        rows.append((name, _number(figure.value / divisor), unit, figure.source.mark, figure.source.text))
    return rows


def _shown_unit(name: str) -> tuple[float, str]:
    if name.startswith("peak_flops."):
        return 1e12, "TOP/s" if name.endswith("int8") else "TFLOP/s"
    if name.startswith(("computed.", "card.")) and "bytes" not in name:
        return 1e9, "B parameters"
    return next(((divisor, unit) for end, divisor, unit in SHOWN if name.endswith(end)), (1, ""))


def _sources(figures: dict[str, Figure]) -> dict[str, str]:
    return {name: str(figure.source) for name, figure in figures.items()}


def _explain(figures: dict[str, Figure], file: str) -> None:
    """Say what the marks and the short names of the sources stand for."""
    used = {figure.source.mark for figure in figures.values()}
    print("marks: " + ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used))
    for name, meaning in read_abbreviations(data_file(file)).items():
        if any(re.search(rf"\b{name}\b", figure.source.text) for figure in figures.values()):
            print(f"{name}: {meaning}")


def _show_device(device: Device) -> None:
    cores = "SMs" if device.kind == "gpu" else "cores"
    rows = [("kind", device.kind), ("name", device.name), ("visible", device.count), (cores, device.cores)]
    rows += [("memory GB", _number(device.memory_bytes / 1e9)), ("hardware key", hardware_key(device))]
    rows += [("row of the table", device.table_key or "none")]
    emit_table("The machine at hand", ("what", "value"), rows)
    record = {"kind": device.kind, "name": device.name, "count": device.count, "cores": device.cores}
    record |= {"memory_bytes": device.memory_bytes, "l2_bytes": device.l2_bytes, "table_key": device.table_key}
    emit_json({"command": "hardware", "probe": record, "hardware_key": hardware_key(device)})


def _model_row(m: Model) -> tuple:
    billions = (m.total_parameters, m.active_parameters(), m.active_parameters(input_embedding=False))
    shown = [f"{count / 1e9:,.3f}" for count in billions]
    kv = (f"{m.kv_bytes_per_token():,}", f"{m.kv_growing_bytes_per_token():,}")
    return (m.key, m.name, *shown, m.layers, _attention(m), *kv, f"{m.max_context:,}")


def _attention(m: Model) -> str:
    kind = "MLA" if m.kv_lora else "GQA" if m.kv_heads < m.heads else "MHA"
    window = f", {m.windowed_layers} of {m.layers} layers {m.window_kind} {m.window}" if m.windowed_layers else ""
    return kind + window


def _model_record(m: Model) -> dict:
    return {
        "key": m.key,
        "name": m.name,
        "total_parameters": m.total_parameters,
        "active_parameters": m.active_parameters(),
        "active_parameters_without_input_embedding": m.active_parameters(input_embedding=False),
        "layers": m.layers,
        "hidden": m.hidden,
        "max_context": m.max_context,
        "linear_flops_per_token": m.linear_flops_per_token,
        "head_flops_per_token": m.head_flops_per_token,
        "attention_flops_per_token_context": m.attention_flops_per_token_context,
        "kv_bytes_per_token": m.kv_bytes_per_token(),
        "kv_growing_bytes_per_token": m.kv_growing_bytes_per_token(),
        "kv_window_cap_bytes": m.kv_window_cap_bytes(),
        "weight_bytes": m.weight_bytes(),
    }


def _show_model(m: Model) -> None:
    emit_table(f"{m.name}, from its shape (bf16)", ("quantity", "value"), _model_record(m).items())
    batches = (1, 8, 64, 256)
    reads = [(b, f"{m.distinct_experts(b):.1f}", f"{m.decode_weight_bytes(b) / 1e9:.2f}") for b in batches]
    columns = ("batch", "distinct experts per layer, uniform routing", "weights read GB, bf16")
    emit_table("One decode step", columns, reads)
    emit_table("Figures", ("figure", "value", "unit", "mark", "source"), _figure_rows(m.figures))
    _explain(m.figures, "models.toml")
    emit_json({"command": "models", **_model_record(m), "sources": _sources(m.figures)})
