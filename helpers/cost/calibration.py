"""A calibration in a file, as `hybrid-serving calibrate --json FILE` writes it: `Fleet(cost=read_cost(FILE))`.

A record of the part `serve` (`hybrid-serving record`) holds another one: the cost that was fitted to served steps.
"""

import json
from math import inf, isfinite
from pathlib import Path

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError

COEFFICIENTS = ("overhead_s", "per_prefill_token_s", "per_attention_pair_s", "per_decode_s", "per_kv_token_s")
LAUNCH = "launch_s"  # of steps with chunks; 0 in a calibration that does not have it


def read_cost(path: str | Path) -> AffineCost:
    """The fitted cost in a file; raises `InputError` when there is none."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no calibration can be read ({error}); make one with calibrate --json") from None
    return cost_in(record, str(path))


def cost_in(record: object, where: str) -> AffineCost:
    """The fitted cost in a record that was read already; raises `InputError`, which names `where`, if it has none."""
    return _cost_of(record.get("coefficients") if isinstance(record, dict) else None, where)


def served_cost_in(record: object, where: str) -> AffineCost | None:
    """The cost that a record of the part `serve` fitted to the steps of its burst and its training slice.

    None when the record ended before there was one. Raises `InputError`, which names `where`, if it is no cost.
    """
    found = _training(record).get("cost")
    return None if found is None else _cost_of(found, where)


def worst_held_out(record: object) -> float:
    """The relative error of a calibration at steps kept out of its fit: the median, of the kind that it does worst.

    Infinite when the record does not say.
    """
    found = record.get("residuals", ()) if isinstance(record, dict) else ()
    return max((one["p50"] for one in found), default=inf)


def worst_held_out_served(record: object) -> float:
    """The same of the cost that a record of the part `serve` fitted."""
    points = _training(record).get("points", ())
    return max((one["value"] for one in points if one["name"].startswith("held-out ")), default=inf)


def _training(record: object) -> dict:
    parts = record.get("parts") if isinstance(record, dict) else None
    training = parts.get("training") if isinstance(parts, dict) else None
    return training if isinstance(training, dict) else {}


def _cost_of(found: object, where: str) -> AffineCost:
    if not isinstance(found, dict) or not all(_is_time(found.get(name)) for name in COEFFICIENTS):
        raise InputError(f"{where}: the calibration lacks coefficients; make it again with `hybrid-serving calibrate`")
    if not _is_time(found.get(LAUNCH, 0.0)):
        raise InputError(f"{where}: {LAUNCH} of the calibration is no time; make it again")
    return AffineCost(**{name: float(found.get(name, 0.0)) for name in (*COEFFICIENTS, LAUNCH)})


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
