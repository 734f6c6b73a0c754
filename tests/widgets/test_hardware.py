"""The choices of hardware: data sheets, shipped calibrations, and a file of one's own."""

import json
from pathlib import Path
from statistics import fmean, median

import pytest

from helpers.bench.record.calibrating import samples_of
from helpers.bench.record.files import read_record
from helpers.cost.calibration import COEFFICIENTS, DESIGNED, cost_in, read_calibration, read_cost, served_cost_in
from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.hardware import gpus
from helpers.widgets.hardware import MOST_OFF, STEP_BY_STEP, UNDER_LOAD, _recorded, choices, chosen, mine

PACKS = Path(__file__).resolve().parent.parent.parent / "data" / "packs"
CALIBRATE, SERVE = (PACKS / "h100_80gb_hbm3" / f"engine_llama-8b_{part}.json" for part in ("calibrate", "serve"))
RECORD = {"hardware_key": "cpu_epyc_2c", "coefficients": dict.fromkeys(COEFFICIENTS, 0.001)}


def test_the_default_is_first_and_a_calibrated_machine_is_there():
    found = choices()
    assert found[0].key == "h100" and found[0].kind == "predicted" and found[0].cost is None
    assert {"measured_h100_80gb_hbm3", "measured_h200"} <= {c.key for c in found if c.kind == "measured"}
    assert len({c.key for c in found}) == len({c.label for c in found}) == len(found)


def test_a_calibration_that_misses_its_own_held_out_steps_is_not_offered(tmp_path):
    """The H100's own file, with nothing else beside it; damaged as one that has no term for attention would be."""
    record = json.loads(CALIBRATE.read_text())
    good = tmp_path / "engine_m_calibrate.json"
    good.write_text(json.dumps(record))
    assert _recorded("measured_m", good).steps == STEP_BY_STEP
    record["residuals"][0]["p50"] = 0.3
    good.write_text(json.dumps(record))
    assert read_calibration(good, DESIGNED).worst_held_out > MOST_OFF and _recorded("measured_m", good) is None
    with pytest.raises(InputError, match="'measured_m' is unknown"):
        chosen("measured_m")


@pytest.mark.parametrize("choice", [c for c in choices() if c.kind == "measured"], ids=lambda c: c.key)
def test_a_measured_choice_has_the_cost_of_its_files_says_which_and_the_part_it_ran_on(choice):
    folder = PACKS / choice.key.removeprefix("measured_")
    (file,) = folder.glob("engine_*_calibrate.json")
    served = [json.loads(one.read_text())["parts"]["training"]["cost"] for one in folder.glob("engine_*_serve.json")]
    cost, words = (AffineCost(**served[0]), UNDER_LOAD) if served else (read_cost(file, DESIGNED), STEP_BY_STEP)
    assert (choice.cost, choice.steps) == (cost, words)
    record = json.loads(file.read_text())
    assert record["device"] in gpus()[choice.gpu].device_names
    assert (
        choice.label
        == f"{choice.name}, measured {words}"
        == f"{record['device'].removeprefix('NVIDIA ')}, measured {words}"
    )


def machine(folder, designed_off=0.1, served_off=None):
    """The files of a recorded machine whose costs are `off` so much at held-out steps; the served overhead is 2 ms."""
    machine = {"hardware_key": "x1", "device": "NVIDIA X1"}
    designed = {"coefficients": RECORD["coefficients"], "residuals": [{"p50": designed_off}]}
    (folder / "engine_m_calibrate.json").write_text(json.dumps(machine | designed))
    if served_off is not None:
        points = [{"name": "overhead_s", "value": 9.0}, {"name": "held-out decode steps", "value": served_off}]
        training = {"cost": RECORD["coefficients"] | {"overhead_s": 0.002}, "points": points}
        (folder / "engine_m_serve.json").write_text(json.dumps(machine | {"parts": {"training": training}}))
    return _recorded("measured_x1", folder / "engine_m_calibrate.json")


@pytest.mark.parametrize(
    ("off", "steps", "overhead_s"),
    [
        ({}, STEP_BY_STEP, 0.001),
        ({"served_off": 0.1}, UNDER_LOAD, 0.002),
        ({"designed_off": 0.9, "served_off": 0.1}, UNDER_LOAD, 0.002),
        ({"served_off": 0.9}, STEP_BY_STEP, 0.001),
    ],
)
def test_the_served_cost_is_taken_where_there_is_a_sound_one(tmp_path, off, steps, overhead_s):
    found = machine(tmp_path, **off)
    assert (found.label, found.name, found.steps) == (f"X1, measured {steps}", "X1", steps)
    assert found.cost.overhead_s == overhead_s


@pytest.mark.parametrize("off", [{"designed_off": 0.21}, {"designed_off": 0.9, "served_off": 0.9}])
def test_without_a_sound_cost_there_is_no_choice(tmp_path, off):
    assert machine(tmp_path, **off) is None


HELD_OUT = {
    f"{folder}, {name}": section
    for folder in ("h100_80gb_hbm3", "h200")
    for name, section in read_record(PACKS / folder / SERVE.name)["parts"].items()
    if "pack" in section
}


@pytest.mark.parametrize("section", HELD_OUT.values(), ids=HELD_OUT)
def test_under_held_out_loads_the_served_cost_is_nearer_than_the_designed_one(section):
    """Why the switch takes it. The designed cost is the control: half as far off as that is not good enough."""
    errors = {one["name"]: one["errors"] for one in section["points"] if "errors" in one}
    assert "TTFT mean" in errors
    for name, limit in (("TTFT mean", 0.2), ("TPOT mean", 0.025)):
        if name in errors:
            served, designed = (abs(errors[name][kind]) for kind in ("served", "designed"))
            assert served < limit and served < designed / 2


def full_steps(samples):
    return [s for s in samples if s.chunks and 1985 <= s.decodes + sum(n for n, _ in s.chunks) <= 2048]


def bias(cost, samples):
    return fmean(cost.step(s.chunks, s.decodes, s.kv_tokens) / s.period_s - 1 for s in samples)


def test_a_full_step_takes_longer_in_a_busy_worker_and_each_cost_knows_its_own():
    serve, calibrate = read_record(SERVE), read_record(CALIBRATE)
    busy = full_steps([s for part in ("saturated", "training") for s in samples_of(serve["parts"][part]["samples"])])
    alone = full_steps(samples_of(calibrate["samples"]))
    assert len(busy) >= 80 and len(alone) >= 20
    assert median(s.period_s for s in busy) > 1.1 * median(s.period_s for s in alone)
    served, designed = served_cost_in(serve, "serve"), read_cost(CALIBRATE, DESIGNED)
    assert abs(bias(served, busy)) < 0.02 and bias(designed, busy) < -0.1
    assert abs(bias(designed, alone)) < 0.02 and bias(served, alone) > 0.1


def test_the_price_of_the_served_cost_among_designed_steps_is_what_the_docstring_says():
    samples, served = samples_of(read_record(CALIBRATE)["samples"]), served_cost_in(read_record(SERVE), "serve")
    kinds = {kind: [s for s in samples if s.kind == kind] for kind in ("decode", "prefill")}
    assert 0.09 < bias(served, kinds["prefill"]) < 0.11 and -0.04 < bias(served, kinds["decode"]) < -0.02
    short = [s for s in kinds["decode"] if (s.decodes, s.kv_tokens // s.decodes) == (128, 33)]
    assert len(short) == 5 and -0.09 < bias(served, short) < -0.07


def test_a_record_that_ended_before_its_cost_has_none():
    assert served_cost_in({"parts": {"saturated": {}}}, "x") is None
    assert served_cost_in({"parts": {"training": {"points": []}}}, "x") is None
    assert served_cost_in({}, "x") is None and served_cost_in([], "x") is None


@pytest.mark.parametrize("cost", [1, {}, RECORD["coefficients"] | {"overhead_s": "1"}])
def test_a_served_cost_that_is_none_is_refused(cost):
    with pytest.raises(InputError, match=r"^x: the calibration lacks coefficients"):
        served_cost_in({"parts": {"training": {"cost": cost}}}, "x")


def test_a_file_of_the_reader_is_a_choice():
    own = chosen("mine", RECORD)
    assert own == mine(RECORD)
    assert (own.key, own.kind, own.gpu, own.cost.overhead_s) == ("mine", "measured", None, 0.001)
    assert own.label == "Mine: cpu_epyc_2c, measured"
    assert mine(RECORD | {"preset": "tiny"}).label == "Mine: cpu_epyc_2c, measured with tiny"
    assert mine(RECORD | {"preset": "tiny"}).name == own.name == "cpu_epyc_2c"


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
