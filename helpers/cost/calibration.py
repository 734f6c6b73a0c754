"""A calibration in a file: `Fleet(cost=read_cost(FILE))` simulates the machine that it is of.

Of a machine there may be two costs of a step, each in a record of its own: fitted to `designed` steps, run one by one
(`hybrid-serving calibrate --json FILE`, or the part `calibrate` of `hybrid-serving record`), and to the steps of a
`served` load (the part `serve`). **The served one is taken where there is one**, unless the other is asked for: it
knows the steps of a busy worker (`helpers/widgets/hardware.py` has the figures). The record of one part is found from
the file of the other, beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf, isfinite
from pathlib import Path

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.models import Model

COEFFICIENTS = ("overhead_s", "per_prefill_token_s", "per_attention_pair_s", "per_decode_s", "per_kv_token_s")
LAUNCH = "launch_s"  # of steps with chunks; 0 in a calibration that does not have it
SERVED, DESIGNED = "served", "designed"
# How the files of a machine are called that hold one or the other.
ENDINGS = {SERVED: "_serve.json", DESIGNED: "_calibrate.json"}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted cost, the `steps` that it was fitted to (`SERVED` or `DESIGNED`), and the record that has it."""

    cost: AffineCost
    steps: str
    record: Mapping
    file: str = ""

    @property
    def model_name(self) -> str:
        """The model whose steps these are; empty when the record does not say."""
        return str(self.record.get("preset") or self.record.get("model") or "")

    @property
    def shape(self) -> Model | None:
        """The shape of that model, where the record has it (`shape_record`); raises `InputError` for a wrong one."""
        found = self.record.get("shape")
        if found is None:
            return None
        try:
            return Model(key=self.model_name, name=self.model_name, **found)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.file}: its shape of a model is none ({error}); make it again") from None

    @property
    def machine(self) -> str:
        """What the steps were measured on, in the words of the record."""
        return str(self.record.get("device") or self.record.get("hardware_key") or "an unnamed machine")

    @property
    def worst_held_out(self) -> float:
        """Its relative error at steps kept out of its fit: the median, of the kind that it does worst.

        Infinite when the record does not say.
        """
        try:
            if self.steps == DESIGNED:
                return max((float(one["p50"]) for one in self.record.get("residuals", ())), default=inf)
            points = _training(self.record).get("points", ())
            return max((float(one["value"]) for one in points if one["name"].startswith("held-out ")), default=inf)
        except (AttributeError, KeyError, TypeError, ValueError):  # a record that was made or changed by hand
            return inf

    @property
    def origin(self) -> dict:
        """Where it is from, as plain values for a record of what was simulated with it."""
        told = {name: self.record.get(name) for name in ("device", "hardware_key", "commit", "made")}
        told["model"] = self.model_name or None
        off = self.worst_held_out
        said = {"file": self.file, "steps": self.steps, "worst_held_out": off if isfinite(off) else None}
        return said | told | {"coefficients": asdict(self.cost)}


def shape_record(model: Model) -> dict:
    """The shape of a model as plain values, for `Calibration.shape`: what a table would hold of it."""
    named = ("key", "name", "aliases", "figures")
    return {
        f.name: value for f in fields(model) if f.name not in named and (value := getattr(model, f.name)) != f.default
    }


def calibrations(path: str | Path) -> list[Calibration]:
    """Those in a file and, where it is called like one of `ENDINGS`, in the other one beside it; the served one first.

    Raises `InputError` when the file cannot be read, or holds a cost that is none.
    """
    path = Path(path)
    stems = {path.name.removesuffix(ending) for ending in ENDINGS.values() if path.name.endswith(ending)}
    beside = {path.with_name(stem + ending) for stem in stems for ending in ENDINGS.values()} - {path}
    files = [path, *(file for file in beside if file.is_file())]
    found = [one for file in files for one in calibrations_in(_read(file), str(file))]
    return sorted(found, key=lambda one: one.steps != SERVED)


def read_calibration(path: str | Path, steps: str | None = None) -> Calibration:
    """The calibration of a machine: of the `steps` that are asked for, else the served one where there is one.

    Raises `InputError` when there is none.
    """
    if steps not in (None, *ENDINGS):
        raise InputError(f"steps {steps!r} are unknown; a cost is fitted to {' or '.join(ENDINGS)} ones")
    found = calibrations(path)
    for one in found:
        if steps in (None, one.steps):
            return one
    if found:
        raise InputError(f"{path}: no cost was fitted to {steps} steps, there or beside it; take {found[0].steps} ones")
    raise _lacks(str(path))


def read_cost(path: str | Path, steps: str | None = None) -> AffineCost:
    """The cost of `read_calibration`; raises `InputError` when there is none."""
    return read_calibration(path, steps).cost


def calibrations_in(record: object, where: str) -> list[Calibration]:
    """Those in a record that was read already, the served one first; raises `InputError`, which names `where`."""
    served = served_cost_in(record, where)
    found = [] if served is None else [Calibration(served, SERVED, record, Path(where).name)]
    if isinstance(record, dict) and "coefficients" in record:
        found.append(Calibration(cost_in(record, where), DESIGNED, record, Path(where).name))
    return found


def cost_in(record: object, where: str) -> AffineCost:
    """The cost fitted to designed steps in a record that was read already.

    Raises `InputError`, which names `where`, if it has none.
    """
    return _cost_of(record.get("coefficients") if isinstance(record, dict) else None, where)


def served_cost_in(record: object, where: str) -> AffineCost | None:
    """The cost that a record of the part `serve` fitted to the steps of its burst and its training slice.

    None when the record ended before there was one. Raises `InputError`, which names `where`, if it is no cost.
    """
    found = _training(record).get("cost")
    return None if found is None else _cost_of(found, where)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no calibration can be read ({error}); make one with calibrate --json") from None


def _training(record: object) -> dict:
    parts = record.get("parts") if isinstance(record, dict) else None
    training = parts.get("training") if isinstance(parts, dict) else None
    return training if isinstance(training, dict) else {}


def _cost_of(found: object, where: str) -> AffineCost:
    if not isinstance(found, dict) or not all(_is_time(found.get(name)) for name in COEFFICIENTS):
        raise _lacks(where)
    if not _is_time(found.get(LAUNCH, 0.0)):
        raise InputError(f"{where}: {LAUNCH} of the calibration is no time; make it again")
    return AffineCost(**{name: float(found.get(name, 0.0)) for name in (*COEFFICIENTS, LAUNCH)})


def _lacks(where: str) -> InputError:
    return InputError(
        f"{where}: the calibration lacks coefficients that are times of 0 s or more; make it again with "
        "`hybrid-serving calibrate`"
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
