"""The explorers by name, and the one function that the worker of a page calls."""

import json

from helpers.errors import InputError
from helpers.sources import one_of
from helpers.widgets.explorer import Explorer, Record, answer
from helpers.widgets.explorers import roofline, serving, split, timeline

EXPLORERS: dict[str, Explorer] = {one.EXPLORER.name: one.EXPLORER for one in (serving, roofline, timeline, split)}
ASKED = ("explorer", "values", "cost")


def find(name: str) -> Explorer:
    """The explorer of a name; raises `InputError` listing the known ones."""
    if name not in EXPLORERS:
        raise one_of("explorer", name, EXPLORERS)
    return EXPLORERS[name]


def reply(request_json: str) -> str:
    """The answer to `{"explorer": name, "values": {...}, "cost": null or a calibration}`, as JSON.

    Bad input never raises: it gives `{"error": one sentence}`.
    """
    try:
        name, values, record = _asked(request_json)
        return json.dumps(answer(find(name), values, record), separators=(",", ":"), allow_nan=False)
    except InputError as error:
        return json.dumps({"error": str(error)})


def _asked(request_json: str) -> tuple[str, dict, Record]:
    try:
        request = json.loads(request_json)
    except (TypeError, ValueError) as error:
        raise InputError(f"the request to an explorer is not JSON ({error}); send explorer, values and cost") from None
    if not isinstance(request, dict) or not set(request) <= set(ASKED):
        raise InputError(f"the request to an explorer must be an object with {', '.join(ASKED)}")
    name, values, record = request.get("explorer"), request.get("values"), request.get("cost")
    values = {} if values is None else values
    if not isinstance(name, str) or not isinstance(values, dict):
        raise InputError("the request to an explorer needs the name of one, and its values as an object")
    return name, values, record
