"""The hardware that a page can show: parts predicted from data sheets, machines that were measured, and one's own.

The switch in the header of the book and the `hardware` control of every explorer offer the same choices, and figures
that have a variant for each are keyed by them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers.cost.calibration import cost_in
from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.hardware import Device, gpu, gpus, hardware_key
from helpers.paths import DATA

PREDICTED = ("h100", "h200", "b200")
DEFAULT = PREDICTED[0]
MINE = "mine"
# Nothing of this generation was measured for the course.
FORECAST = "Blackwell"


@dataclass(frozen=True, slots=True)
class Choice:
    """One piece of hardware: `kind` is "predicted" (`cost` is None: by roofline from the data sheet) or "measured".

    `gpu` is its key in data/hardware.toml, None for a part that is not there, such as a CPU.
    """

    key: str
    label: str
    kind: str
    gpu: str | None
    cost: AffineCost | None = None


@lru_cache(maxsize=1)
def choices() -> tuple[Choice, ...]:
    """The predicted parts, the default first, then every machine with a calibration among the packs."""
    predicted = [of_data_sheet(key) for key in PREDICTED]
    files = {file.parent.name: file for file in sorted((DATA / "packs").glob("*/engine_*_calibrate.json"))}
    return (*predicted, *(_measured(f"measured_{name}", _record(file), file.name) for name, file in files.items()))


def forecast(key: str) -> bool:
    """Whether what is said of a part is a model prediction that no measurement of ours stands behind."""
    return gpu(key).architecture.startswith(FORECAST)


def of_data_sheet(key: str) -> Choice:
    """A part of data/hardware.toml, predicted by roofline."""
    word = "model prediction" if forecast(key) else "predicted"
    return Choice(key, f"{gpu(key).name}, {word}", "predicted", key)


def mine(record: Mapping) -> Choice:
    """The reader's own hardware, from what `hybrid-serving calibrate --json` wrote.

    Raises `InputError` when the record holds no cost.
    """
    return _measured(MINE, record, "your file")


def chosen(key: str, record: Mapping | None = None) -> Choice:
    """A choice by key; `record` is needed for "mine". Raises `InputError` for a key that no choice has."""
    if key == MINE:
        if record is None:
            raise InputError("hardware 'mine' needs a file; make one with `hybrid-serving calibrate --json FILE`")
        return mine(record)
    for choice in choices():
        if choice.key == key:
            return choice
    raise InputError(f"hardware {key!r} is unknown; choose one of {', '.join(c.key for c in choices())}")


def _record(file: Path) -> object:
    return json.loads(file.read_text(encoding="utf-8"))


def _measured(key: str, record: object, where: str) -> Choice:
    cost = cost_in(record, where)
    named = record.get("hardware_key", "unnamed")
    parts = {hardware_key(Device("gpu", name, 0, 0)): one.key for one in gpus().values() for name in one.device_names}
    device = str(record.get("device", named)).removeprefix("NVIDIA ")
    label = f"Mine: {device}, measured" if key == MINE else f"{device}, measured"
    return Choice(key, label, "measured", parts.get(named), cost)
