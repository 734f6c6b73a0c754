"""Step times that were measured, in place of the data sheet's: what `--cost FILE` and `--cost-steps` say.

A cost is of one model on one accelerator, and says nothing of any other. What a command was told (`named`) has to agree
with that; what it was not told is taken from the file.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from helpers.cost.calibration import Calibration, read_calibration
from helpers.engine.config import PRESETS
from helpers.errors import InputError
from helpers.hardware import gpu, gpu_of
from helpers.models import Model, model, models
from helpers.serving.fleet import Fleet


def calibrated(fleet: Fleet, cost: Path | None, steps: str | None, named: Collection[str] = ()) -> tuple[Fleet, dict]:
    """The fleet with the cost of a file, and what a record is to say of it: nothing where there is no file.

    `named` has those of `model` and `hardware` that a person chose. Raises `InputError` for a cost that is not there,
    for one of another model or accelerator than those, and for `steps` of no file.
    """
    if cost is None:
        if steps is not None:
            raise InputError(f"--cost-steps {steps} says which cost of a record is taken; give --cost FILE too")
        return fleet, {}
    found = read_calibration(cost, steps)
    fleet = measured(fleet, found, named)
    return fleet, {"calibration": {**found.origin, "memory_and_links": fleet.hardware}}


def measured(fleet: Fleet, found: Calibration, named: Collection[str] = ()) -> Fleet:
    """The fleet with that cost, its model and, where the table has it, its accelerator; raises `InputError`."""
    key = gpu_of(str(found.record.get("hardware_key")))
    if key and "hardware" in named and gpu(fleet.hardware).key != key:
        raise InputError(
            f"{found.file}: its steps are of {found.machine}, and {fleet.hardware} is simulated; "
            f"take a file of {fleet.hardware}, or leave --hardware out"
        )
    shape, name = _shape_of(found), found.model_name
    if "model" in named and name and fleet.model != name and not same_shape(shape, _known(fleet.model)):
        raise InputError(
            f"{found.file}: its steps are of {name}, and {fleet.model} is simulated; take a file of {fleet.model}"
        )
    if fleet.tp != 1:
        raise InputError(f"{found.file}: its steps are of one accelerator a worker, and tp is {fleet.tp}; take tp 1")
    if shape and fleet.model != name:
        fleet = replace(fleet, model=next((m.key for m in models().values() if same_shape(shape, m)), name))
    known = fleet.model in models()
    return replace(fleet, cost=found.cost, hardware=key or fleet.hardware, shape=None if known else shape)


def served(fleet: Fleet, cost: Path | None, steps: str | None, model_name: str) -> tuple[Fleet, dict]:
    """The fleet with the cost of a file for the policies of live workers that serve a model, and `calibrated`'s record.

    Raises `InputError` as `calibrated` does, and for the cost of another model.
    """
    fleet, told = calibrated(fleet, cost, steps)
    one = told.get("calibration", {})
    if one.get("model", model_name) not in (model_name, None):
        raise InputError(
            f"{one['file']}: its steps are of {one['model']}, and {model_name} is served; calibrate it here"
        )
    return fleet, told


def note_for_policies(told: dict, hardware_key: str) -> str:
    """For people: whose steps policies predict with, and whether they are those of the machine that serves."""
    one = told["calibration"]
    said = (
        f"policies predict with {one['steps']} steps of {one['file']}"  # beside it may lie the file of the other kind
    )
    if one["hardware_key"] == hardware_key:
        return said
    return f"{said}, measured on {one['device'] or one['hardware_key'] or 'an unnamed machine'} and not here"


def same_shape(one: Model, other: Model) -> bool:
    """Whether two models take the same steps: all is equal but what they are called and how far they see."""
    called = {name: getattr(other, name) for name in ("key", "name", "aliases", "figures", "max_context")}
    return replace(one, **called) == other


def note_of(told: dict) -> str:
    """For people: whose steps were taken, and what the fleet has of another part; empty without a cost."""
    if not told:
        return ""
    one = told["calibration"]
    said = f"{one['steps']} steps of {one['file']}"
    about = list(filter(None, (one["model"], one["device"] or one["hardware_key"])))
    said += f" ({' on '.join(about)})" if about else " (which does not say of what)"
    sheet = one["memory_and_links"]
    return (
        said if gpu_of(str(one["hardware_key"])) == sheet else f"{said}; memory and links of the data sheet of {sheet}"
    )


def _known(name: str) -> Model:
    return PRESETS[name].shape if name in PRESETS else model(name)


def _shape_of(found: Calibration) -> Model | None:
    """The shape of the model that a cost is of; None where the file names none. Raises `InputError`."""
    name = found.model_name
    if found.shape is not None:
        return found.shape
    if name in PRESETS:
        return PRESETS[name].shape
    if name:
        raise InputError(f"{found.file}: it does not say of which shape {name} is; make it again with calibrate --json")
    return None
