"""Which cost of a machine is taken: the served one where there is one, the one asked for, and where it came from."""

import json

import pytest

from helpers.cost.calibration import (
    COEFFICIENTS,
    DESIGNED,
    SERVED,
    calibrations,
    calibrations_in,
    read_calibration,
    read_cost,
)
from helpers.errors import InputError

NUMBERS = dict.fromkeys(COEFFICIENTS, 0.001)
MACHINE = {"hardware_key": "x1", "device": "X1", "commit": "c" * 40, "made": "today"}
CALIBRATE = MACHINE | {"coefficients": NUMBERS, "residuals": [{"p50": 0.02}, {"p50": 0.07}]}
POINTS = [{"name": "overhead_s", "value": 9.0}, {"name": "held-out decode steps", "value": 0.03}]
SERVE = MACHINE | {"parts": {"training": {"cost": NUMBERS | {"overhead_s": 0.002}, "points": POINTS}}}


@pytest.fixture
def machine(tmp_path):
    """The two files of a machine, and of another one that was not served."""
    for name, record in {"x_calibrate": CALIBRATE, "x_serve": SERVE, "other_calibrate": CALIBRATE}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return tmp_path


@pytest.mark.parametrize("name", ["x_calibrate.json", "x_serve.json"])
@pytest.mark.parametrize(
    ("steps", "taken", "overhead_s"), [(None, SERVED, 0.002), (SERVED, SERVED, 0.002), (DESIGNED, DESIGNED, 0.001)]
)
def test_the_served_cost_is_taken_unless_the_other_is_asked_for(machine, name, steps, taken, overhead_s):
    found = read_calibration(machine / name, steps)
    assert (found.steps, found.cost.overhead_s) == (taken, overhead_s)
    assert read_cost(machine / name, steps) == found.cost
    assert found.file == {SERVED: "x_serve.json", DESIGNED: "x_calibrate.json"}[taken]


def test_without_a_served_load_the_designed_cost_is_taken_and_nobody_elses_served_one(machine):
    assert [one.steps for one in calibrations(machine / "x_calibrate.json")] == [SERVED, DESIGNED]
    assert [one.steps for one in calibrations(machine / "other_calibrate.json")] == [DESIGNED]
    assert read_calibration(machine / "other_calibrate.json").cost.overhead_s == 0.001
    own = (machine / "x_calibrate.json").rename(machine / "own.json")  # a name that says nothing of a second file
    assert [one.steps for one in calibrations(own)] == [DESIGNED]


def test_steps_that_no_cost_was_fitted_to_are_refused(machine):
    with pytest.raises(
        InputError, match=r"no cost was fitted to served steps, there or beside it; take designed ones$"
    ):
        read_calibration(machine / "other_calibrate.json", SERVED)
    with pytest.raises(InputError, match="'busy' are unknown; a cost is fitted to served or designed ones"):
        read_calibration(machine / "x_calibrate.json", "busy")


def test_a_served_load_that_ended_before_its_cost_leaves_the_designed_one(machine):
    (machine / "x_serve.json").write_text(json.dumps(MACHINE | {"parts": {"saturated": {}}}))
    assert [one.steps for one in calibrations(machine / "x_serve.json")] == [DESIGNED]


def test_a_damaged_file_beside_a_good_one_is_not_passed_over(machine):
    (machine / "x_serve.json").write_text("{")
    with pytest.raises(InputError, match=r"x_serve\.json: no calibration can be read"):
        read_cost(machine / "x_calibrate.json")


def test_the_origin_says_which_steps_of_which_file_and_how_far_the_cost_is_off(machine):
    origin = read_calibration(machine / "x_calibrate.json").origin
    assert MACHINE.items() <= origin.items()
    assert (origin["steps"], origin["file"], origin["worst_held_out"]) == (SERVED, "x_serve.json", 0.03)
    assert origin["coefficients"]["overhead_s"] == 0.002
    assert read_calibration(machine / "x_calibrate.json", DESIGNED).origin["worst_held_out"] == 0.07  # the worst kind
    assert json.loads(json.dumps(origin, allow_nan=False)) == origin


def test_a_record_that_does_not_say_how_far_it_is_off_is_endlessly_far(machine):
    for name, record in {
        "x_calibrate": MACHINE | {"coefficients": NUMBERS},
        "x_serve": MACHINE | {"parts": {"training": {"cost": NUMBERS, "points": []}}},
    }.items():
        (machine / f"{name}.json").write_text(json.dumps(record))
    for one in calibrations(machine / "x_serve.json"):
        assert one.worst_held_out == float("inf") and one.origin["worst_held_out"] is None


@pytest.mark.parametrize("residuals", [5, [5], [{}], [{"p50": None}], [{"p50": "near"}], [None]])
def test_a_record_that_says_it_in_no_number_is_endlessly_far_too(residuals):
    (designed,) = calibrations_in(CALIBRATE | {"residuals": residuals}, "x")
    assert designed.worst_held_out == float("inf")
    points = [{"name": "held-out steps", "value": one} for one in (None, "near")]
    for some in ([5], [{}], points):
        (served,) = calibrations_in({"parts": {"training": {"cost": NUMBERS, "points": some}}}, "x")
        assert served.worst_held_out == float("inf")
