"""The choices of hardware: data sheets, shipped calibrations, and a file of one's own."""

import json
from pathlib import Path

import pytest

from helpers.cost.calibration import COEFFICIENTS, cost_in, read_cost
from helpers.errors import InputError
from helpers.hardware import gpus
from helpers.widgets.hardware import choices, chosen, mine

PACKS = Path(__file__).resolve().parent.parent.parent / "data" / "packs"
RECORD = {"hardware_key": "cpu_epyc_2c", "coefficients": dict.fromkeys(COEFFICIENTS, 0.001)}


def test_the_default_is_first_and_every_calibrated_machine_is_there():
    found = choices()
    assert found[0].key == "h100" and found[0].kind == "predicted" and found[0].cost is None
    folders = {path.parent.name for path in PACKS.glob("*/engine_*_calibrate.json")}
    assert {c.key for c in found if c.kind == "measured"} == {f"measured_{folder}" for folder in folders} != set()
    assert len({c.key for c in found}) == len({c.label for c in found}) == len(found)


@pytest.mark.parametrize("choice", [c for c in choices() if c.kind == "measured"], ids=lambda c: c.key)
def test_a_measured_choice_has_the_cost_of_its_file_and_the_part_it_ran_on(choice):
    (file,) = (PACKS / choice.key.removeprefix("measured_")).glob("engine_*_calibrate.json")
    assert choice.cost == read_cost(file)
    assert json.loads(file.read_text())["device"] in gpus()[choice.gpu].device_names


def test_a_file_of_the_reader_is_a_choice():
    own = chosen("mine", RECORD)
    assert own == mine(RECORD)
    assert (own.key, own.kind, own.gpu, own.cost.overhead_s) == ("mine", "measured", None, 0.001)
    assert own.label == "Mine: cpu_epyc_2c, measured"


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        None,
        "words",
        {"coefficients": 1},
        {"coefficients": {"overhead_s": 0.001}},
        *({"coefficients": RECORD["coefficients"] | {"overhead_s": bad}} for bad in ("1", None, True, -1.0)),
        {"coefficients": RECORD["coefficients"] | {"per_kv_token_s": float("inf")}},
    ],
)
def test_a_record_without_a_cost_is_refused_in_one_sentence(record):
    with pytest.raises(InputError, match=r"^your file: the calibration lacks coefficients"):
        mine(record)
    with pytest.raises(InputError, match=r"^x: "):
        cost_in(record, "x")


@pytest.mark.parametrize("key", ["h100_sxm", "measured_", "", "mine"])
def test_an_unknown_choice_is_refused(key):
    with pytest.raises(InputError):
        chosen(key)


def test_what_no_measurement_stands_behind_is_called_a_model_prediction():
    labels = {c.key: c.label for c in choices()}
    assert labels["b200"].endswith(", model prediction") and labels["h200"].endswith(", predicted")
