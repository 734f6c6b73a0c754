"""The `hardware` control of every explorer: the choices of the page, and the other parts of data/hardware.toml."""

from functools import lru_cache

from helpers.hardware import gpu, gpus
from helpers.widgets.explorer import Control, Record, choice
from helpers.widgets.hardware import DEFAULT, Choice, choices, chosen, forecast, of_data_sheet


@lru_cache(maxsize=1)
def options() -> dict[str, str]:
    """The label of every choice by its key."""
    first = {one.key: one.label for one in choices()}
    return first | {key: of_data_sheet(key).label for key in gpus() if key not in first}


def hardware_control() -> Control:
    """The control `hardware`."""
    text = "Step times from the data sheet, or fitted to steps that were measured on the machine."
    return choice("hardware", "hardware", DEFAULT, options(), text)


def hardware_of(key: str, record: Record = None) -> Choice:
    """The hardware at the control. Raises `InputError` for an unknown key, and for `mine` without a record."""
    if key in gpus():
        return of_data_sheet(key)
    return chosen(key, record)


def step_times(hardware: Choice) -> str:
    """Where step times come from, in words, for the note beneath a figure."""
    if hardware.cost is None:
        what = ", a model prediction" if forecast(hardware.gpu) else ""
        return f"step times predicted from the data sheet of {gpu(hardware.gpu).name}{what}"
    return f"step times calibrated on {hardware.name}" + (f", {hardware.steps}" if hardware.steps else "")
