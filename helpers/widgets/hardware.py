"""The hardware that a page can show: parts predicted from data sheets, machines that were measured, and one's own.

The switch in the header of the book and the `hardware` control of every explorer offer the same choices, and figures
that have a variant for each are keyed by them.

Of a machine there may be two costs of a step: fitted to designed steps, run one by one (`engine_*_calibrate.json`),
and to the steps of a served load (`engine_*_serve.json`). **The served one is taken where there is one**, and the
label says which it is. Against slices of load that neither was fitted to, on one H100 and one H200 (both 2026-11-26),
its TPOT is at most 2.2 % and 1.9 % off where the designed one is 6 to 8 % and 11 to 15 % low, and its mean TTFT 3 to
14 % and 2 to 19 % low where that is 16 to 63 % and 19 to 86 %. Why: a full step of about 2,048 tokens takes 52 ms in
a busy H100 and 44 ms alone, on a GPU that rests between steps. The price: of the designed steps of the H100 the
served cost finds prefills alone 10 % too long on average (up to 33 %: their lengths are multiples of a tile, the
kindest there are) and decodes 3 % too short (8 % for 128 requests with hardly any context, a step that a load never
has). The switch drives figures of loads, so the load decides. `tests/widgets/test_hardware.py` holds both.

A cost that misses steps kept out of its own fit by more than `MOST_OFF` is not offered at all. An H200 was once
recorded before the device timed its steps: its cost missed prefills by 30 % in the median, had no term for attention,
and would have taken a prompt of 32,000 tokens for half as long as the data sheet says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers.cost.calibration import DESIGNED, SERVED, calibrations, cost_in
from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.hardware import gpu, gpu_of
from helpers.paths import DATA

PREDICTED = ("h100", "h200", "b200")
DEFAULT = PREDICTED[0]
MINE = "mine"
# Nothing of this generation was measured for the course.
FORECAST = "Blackwell"
# The steps that a cost was fitted to, in the words of a label.
UNDER_LOAD, STEP_BY_STEP = "under load", "step by step"
FITTED_TO = {SERVED: UNDER_LOAD, DESIGNED: STEP_BY_STEP}
MOST_OFF = 0.2


@dataclass(frozen=True, slots=True)
class Choice:
    """One piece of hardware: `kind` is "predicted" (`cost` is None: by roofline from the data sheet) or "measured".

    `gpu` is its key in data/hardware.toml, None for a part that is not there, such as a CPU. `steps` says which steps
    the cost was fitted to, where that is known.
    """

    key: str
    label: str
    kind: str
    gpu: str | None
    cost: AffineCost | None = None
    steps: str = ""

    @property
    def name(self) -> str:
        """The part or the device alone, without how its step times are known."""
        return self.label.removeprefix("Mine: ").rpartition(", ")[0]


@lru_cache(maxsize=1)
def choices() -> tuple[Choice, ...]:
    """The predicted parts, the default first, then every machine with a sound calibration among the packs."""
    predicted = [of_data_sheet(key) for key in PREDICTED]
    files = {file.parent.name: file for file in sorted((DATA / "packs").glob("*/engine_*_calibrate.json"))}
    return (*predicted, *filter(None, (_recorded(f"measured_{name}", file) for name, file in files.items())))


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
    cost = cost_in(record, "your file")
    model = str(record.get("preset") or record.get("model") or "")  # pages show Llama-3.1-8B, whatever was measured
    return _measured(MINE, record, cost, f"with {model}" if model else "")


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


def _recorded(key: str, file: Path) -> Choice | None:
    """A machine among the packs: with the cost of steps under load where a load was served, else of designed ones.

    None when neither is sound.
    """
    best = next((one for one in calibrations(file) if one.worst_held_out <= MOST_OFF), None)
    return best and _measured(key, best.record, best.cost, FITTED_TO[best.steps])


def _measured(key: str, record: Mapping, cost: AffineCost, steps: str = "") -> Choice:
    named = record.get("hardware_key", "unnamed")
    device = str(record.get("device", named)).removeprefix("NVIDIA ")
    label = f"{device}, measured {steps}".strip()
    return Choice(key, f"Mine: {label}" if key == MINE else label, "measured", gpu_of(str(named)), cost, steps)
