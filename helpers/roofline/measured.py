"""What this course's engine was measured to take for a step, and for its operations, on the parts that were recorded.

Read from the records in data/packs (`hybrid-serving record`, part `engine`): Llama-3.1-8B in bf16, seeded weights.
A decode step is the engine's own loop at about 1,024 tokens of context; matrix products and attention are kernels
timed alone, one layer, with inputs that no cache holds. Standard library only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from helpers.hardware import GPU, Device, hardware_key
from helpers.models import model
from helpers.paths import DATA
from helpers.roofline.bounds import Shape

MODEL, DTYPE, RECORD = "llama-3.1-8b", "bf16", "engine_llama-8b_engine.json"
CONTEXT = 1024
UNITS = {"us": 1e-6, "ms": 1e-3, "ms/step": 1e-3, "TFLOP/s": 1e12, "GB/s": 1e9}
# The matrix products of each operation, by their names in the record.
MATRICES = {"projections": ("wqkv", "wo"), "MLP": ("w13", "w2"), "LM head": ("head",)}


@dataclass(frozen=True)
class Measured:
    """Seconds of a whole step (None: not measured at this shape) over `n` steps, and of its operations, all layers.

    `copy_bytes_per_s` and `matmul_flops_per_s` are the ceilings of the same run: a device copy, and a bf16 matrix
    product of 8192 x 8192 x 8192.
    """

    device: str
    copy_bytes_per_s: float
    matmul_flops_per_s: float
    step_s: float | None = None
    n: int = 0
    operations_s: Mapping[str, float] = field(default_factory=dict)


def measured(gpu: GPU, shape: Shape, model_key: str = MODEL, dtype: str = DTYPE) -> Measured | None:
    """What was measured on a part at just this shape; None for a part, a model or a dtype that was not recorded."""
    if (model_key, dtype) != (MODEL, DTYPE):
        return None
    found = next((one for name in gpu.device_names if (one := _record(hardware_key(Device("gpu", name, 0, 0))))), None)
    if found is None:
        return None
    device, points = found
    seconds, n = points.get(_step_name(shape), (None, 0))
    ceilings = points["ceilings", "copy"][0], points["ceilings", "matmul"][0]
    return Measured(device, *ceilings, seconds, n, dict(_operations(points, shape)))


@lru_cache(maxsize=8)
def _record(folder: str) -> tuple[str, dict] | None:
    """The device of a record and (value in base units, n) of each of its points by part and name."""
    path = DATA / "packs" / folder / RECORD
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["device"], {
        (part, one["name"]): (one["value"] * UNITS[one["unit"]], one["n"])
        for part, section in record["parts"].items()
        for one in section["points"]
        if one["unit"] in UNITS
    }


def _step_name(shape: Shape) -> tuple[str, str] | None:
    if shape.phase == "decode":
        return ("decode", f"batch {shape.batch} overlapped loop") if shape.context == CONTEXT else None
    return ("prefill", f"{shape.context} tokens") if shape.batch == 1 else None


def _operations(points: dict, shape: Shape):
    """(operation, seconds) of those that were timed at this shape; what runs once a layer is taken as often."""
    layers = model(MODEL).layers
    for operation, matrices in MATRICES.items():
        rows = shape.batch if operation == "LM head" else shape.tokens
        times = [points.get(("kernels", f"matmul {one}, {rows} tokens"), (None,))[0] for one in matrices]
        if None not in times:
            yield operation, sum(times) * (1 if operation == "LM head" else layers)
    if shape.phase == "decode":
        name = f"decode attention, batch {shape.batch}, {shape.context} context"
    else:
        name = f"prefill attention, {shape.context} tokens" if shape.batch == 1 else ""
    if ("kernels", name) in points:
        yield "attention", points["kernels", name][0] * layers
