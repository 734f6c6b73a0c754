"""The interface of every explorer: controls that refuse what does not fit, replies that are plain JSON."""

import json

import pytest

from helpers.cost.calibration import COEFFICIENTS
from helpers.errors import InputError
from helpers.widgets import Axis, Series, lines
from helpers.widgets.explorer import Answer, Explorer, Readout, answer, checked, choice, description, number
from helpers.widgets.explorers.registry import EXPLORERS, find, reply

RECORD = {"hardware_key": "cpu_epyc_2c", "coefficients": dict.fromkeys(COEFFICIENTS, 1e-5)}


def compute(values, record):
    drawn = lines(
        [Series("a", [1, 2], [0.5, values["x"]])],
        Axis("time", "s"),
        Axis("rate", "1/s"),
        title="A title",
        note="N = 2.",
        origin="simulated",
        alt="A line with <two> points, drawn for the test.",
    )
    return Answer((drawn,), (Readout("x", f"{values['x']} s"),), "One sentence.")


SMALL = Explorer(
    "small",
    "Small",
    "An intro.",
    (
        number("x", "length", 1.5, (0.5, 10.0), 0.1, "s", help="How long."),
        number("n", "count", 3, (1, 9), 1),
        choice("hardware", "hardware", "h100", {"h100": "H100", "h200": "H200"}),
    ),
    compute,
)


def test_defaults_fill_what_is_not_given():
    assert checked(SMALL, {"n": 4}) == {"x": 1.5, "n": 4, "hardware": "h100"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"y": 1}, r"^unknown control 'y'; known: x, n, hardware$"),
        ({"x": 0.4}, r"^length: give a number from 0.5 to 10 s, not 0.4$"),
        ({"x": 10.1}, r"^length: "),
        ({"x": "2"}, r"^length: .* not '2'$"),
        ({"x": True}, r"^length: "),
        ({"x": None}, r"^length: "),
        ({"x": float("nan")}, r"^length: "),
        ({"n": 2.5}, r"^count: give a number from 1 to 9, a whole one, not 2.5$"),
        ({"hardware": "a100"}, r"^unknown hardware 'a100'; known: h100, h200$"),
        ({"hardware": "mine"}, r"^unknown hardware 'mine'"),
        ({"hardware": 1}, r"^unknown hardware '1'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(InputError, match=sentence):
        checked(SMALL, values)


def test_the_ends_of_a_range_and_a_whole_number_written_as_a_float_pass():
    assert checked(SMALL, {"x": 0.5, "n": 9.0}) == {"x": 0.5, "n": 9, "hardware": "h100"}
    assert type(checked(SMALL, {"n": 9.0})["n"]) is int


def test_a_calibration_adds_the_readers_own_hardware():
    assert checked(SMALL, {"hardware": "mine"}, RECORD)["hardware"] == "mine"
    assert description(SMALL, RECORD)["controls"][2]["options"][-1] == ["mine", "Mine: cpu_epyc_2c, measured"]
    assert len(description(SMALL)["controls"][2]["options"]) == 2


def test_a_control_stands_at_first_where_a_cell_put_it():
    plain, asked = description(SMALL)["controls"], description(SMALL, values={"n": 9})["controls"]
    assert [one["value"] for one in plain] != [one["value"] for one in asked] == [1.5, 9, "h100"]


def test_a_description_and_an_answer_are_plain_json():
    told = description(SMALL)
    assert json.loads(json.dumps(told)) == told
    assert told["controls"][0] == {
        "name": "x",
        "label": "length",
        "kind": "range",
        "value": 1.5,
        "help": "How long.",
        "minimum": 0.5,
        "maximum": 10.0,
        "step": 0.1,
        "unit": "s",
        "log": False,
    }
    found = answer(SMALL, {"x": 2.0})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"values", "summary", "readouts", "figures"}
    assert found["readouts"] == [{"label": "x", "text": "2.0 s"}]
    (figure,) = found["figures"]
    assert set(figure) == {"key", "title", "note", "alt", "spec", "columns", "rows", "rows_left_out"}
    assert figure["spec"]["data"][0]["y"] == [0.5, 2.0]
    assert figure["rows"] == [["a", "1", "0.5"], ["a", "2", "2"]]
    assert "<two>" in figure["alt"]  # not escaped: whoever writes it into a page does that
    assert figure["key"] != answer(SMALL, {"x": 2.1})["figures"][0]["key"]


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_explorer_is_described_and_answers_its_defaults(name):
    told = description(find(name))
    assert told["name"] == name and told["title"] and told["intro"]
    names = [one["name"] for one in told["controls"]]
    assert len(set(names)) == len(names) and "hardware" in names
    found = json.loads(reply(json.dumps({"explorer": name, "values": {}, "cost": None})))
    assert found["values"] == {one["name"]: one["value"] for one in told["controls"]}
    assert found["figures"] and found["readouts"] and found["summary"].endswith(".")
    words = found["summary"] + "".join(figure["note"] for figure in found["figures"])
    assert "imulated" in words or "redicted" in words


# What a setting needs beside it: enough workers, a part that has the format; and few requests, to be quick.
BESIDE = {
    "serving": lambda name, value: (
        {"requests": 200, "rate_per_s": 20.0} | ({"workers": 64} if name == "prefill_workers" else {})
    ),
    "timeline": lambda name, value: {"workers": 12} if name == "prefill_workers" else {},
    "roofline": lambda name, value: {"hardware": "b200"} if value == "fp4" else {},
    "split": lambda name, value: {"gpus": 16, "link": "pcie"} if name in ("model", "hardware") else {},
}
EVERY = [(name, one) for name, explorer in EXPLORERS.items() for one in explorer.controls]


@pytest.mark.parametrize(("name", "control"), EVERY, ids=[f"{name}-{one.name}" for name, one in EVERY])
def test_every_option_and_both_ends_of_every_control_compute(name, control):
    options = [value for value, _ in control.options] or [control.minimum, control.maximum]
    for value in options:
        found = answer(find(name), BESIDE[name](control.name, value) | {control.name: value})
        assert found["values"][control.name] == value
        assert found["figures"]
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "request_json",
    [
        "",
        "[]",
        "{",
        "null",
        "{}",
        None,
        '{"explorer": 1}',
        '{"explorer": "none"}',
        '{"explorer": "serving", "values": []}',
        '{"explorer": "serving", "values": {"nothing": 1}}',
        '{"explorer": "serving", "values": {"rate_per_s": NaN}}',
        '{"explorer": "serving", "values": {"rate_per_s": 1e400}}',
        '{"explorer": "serving", "values": {"hardware": "mine"}}',
        '{"explorer": "serving", "values": {"hardware": ["h100"]}}',
        '{"explorer": "serving", "cost": {}}',
        '{"explorer": "serving", "cost": 3}',
        '{"explorer": "serving", "other": 3}',
    ],
)
def test_bad_input_gives_one_sentence_and_never_raises(request_json):
    found = json.loads(reply(request_json))
    assert set(found) == {"error"}
    assert found["error"] and "\n" not in found["error"]


def test_an_unknown_explorer_is_refused():
    with pytest.raises(InputError, match=r"^unknown explorer 'x'; known: serving"):
        find("x")
