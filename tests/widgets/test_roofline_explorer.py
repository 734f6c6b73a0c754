"""The roofline explorer: points lie where the bounds say, under the roof, and measured ones look different."""

import pytest

from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.models import model
from helpers.roofline.bounds import Shape, step_bound
from helpers.roofline.measured import measured
from helpers.widgets.explorer import answer
from helpers.widgets.explorers.roofline import EXPLORER
from helpers.widgets.figures import Axis, Series
from helpers.widgets.roofs import Point, roofs

WORDS = {"title": "T", "note": "N = 1.", "origin": "predicted", "alt": "A roof with a point below it."}


def ask(**values):
    return answer(EXPLORER, values)


def traces(found):
    return {one["name"]: one for one in found["figures"][0]["spec"]["data"]}


def under_the_roof(found, part, dtype="bf16"):
    """Every predicted point lies on or below min(peak, intensity x bandwidth), every measured one below."""
    for name, trace in traces(found).items():
        if name.endswith(("predicted", "measured")):
            roof = min(part.peak_flops(dtype), trace["x"][0] * part.hbm_bytes_per_s) / 1e12
            assert trace["y"][0] <= roof * (1 + 1e-6), name
            assert name.endswith("predicted") or trace["y"][0] < roof


def test_points_lie_where_the_bounds_say_and_under_the_roof():
    found = ask()
    bound = step_bound(gpu("h100"), model("llama-3.1-8b"), Shape("decode", 32, 1024))
    drawn = traces(found)
    for one in bound.bounds:
        trace = drawn[f"{one.operation.name}, predicted"]
        assert trace["x"][0] == pytest.approx(one.operation.intensity)
        assert trace["y"][0] == pytest.approx(one.flops_per_s / 1e12)
    assert drawn["whole step, predicted"]["y"][0] == pytest.approx(bound.flops / bound.seconds / 1e12)
    under_the_roof(found, gpu("h100"))


def test_a_point_above_the_roof_is_noticed():
    found = ask()
    traces(found)["MLP, predicted"]["y"][0] *= 1.1
    with pytest.raises(AssertionError, match="MLP, predicted"):
        under_the_roof(found, gpu("h100"))


def test_measured_points_are_those_of_the_record_and_have_a_marker_of_their_own():
    drawn = traces(ask())
    seen = measured(gpu("h100"), Shape("decode", 32, 1024))
    step = drawn["whole step, measured"]
    assert step["x"] == drawn["whole step, predicted"]["x"]
    assert step["y"][0] / drawn["whole step, predicted"]["y"][0] == pytest.approx(
        step_bound(gpu("h100"), model("llama-3.1-8b"), Shape("decode", 32, 1024)).seconds / seen.step_s
    )
    for name, trace in drawn.items():
        if name.endswith(("predicted", "measured")):
            assert trace["marker"]["symbol"].endswith("-open") != name.endswith("measured")
    (own, said), other = (
        (drawn[f"MLP, {kind}"]["marker"] for kind in ("measured", "predicted")),
        drawn["attention, measured"]["marker"],
    )
    assert own["color"] == said["color"] and own["symbol"] == said["symbol"].removesuffix("-open")
    assert own["color"] != other["color"] and own["symbol"] != other["symbol"]
    assert drawn["measured ceilings, bf16"]["y"][-1] == pytest.approx(seen.matmul_flops_per_s / 1e12)


def test_the_roof_is_straight_up_to_the_ridge_and_flat_beyond():
    roof = traces(ask())["roof, bf16"]
    (low, ridge, high), (start, peak, end) = roof["x"], roof["y"]
    assert ridge == pytest.approx(989.4 / 3.35, rel=1e-3)
    assert start / low == pytest.approx(peak / ridge) == pytest.approx(3.35)
    assert peak == end == pytest.approx(989.4) and high > ridge


@pytest.mark.parametrize(
    "values",
    [{"context": 1000}, {"batch": 33, "context": 999}, {"model": "qwen3-8b"}, {"dtype": "fp8"}, {"hardware": "a100"}],
)
def test_no_measured_step_where_none_was_made(values):
    found = ask(**values)
    assert "whole step, measured" not in traces(found)
    assert not any(one["label"] == "measured step" for one in found["readouts"])
    assert any(one["label"] == "measured step" for one in ask()["readouts"])


@pytest.mark.parametrize("key", ["b200", "b300", "gb200", "gb300", "b100", "rtx5090"])
def test_blackwell_is_a_model_prediction_and_says_so(key):
    found = ask(hardware=key)
    assert found["summary"].startswith("Model prediction for ")
    assert all("Model prediction" in one["note"] for one in found["figures"])
    assert "Model prediction" not in str(ask(hardware="h100"))


def test_two_roofs_where_attention_computes_in_another_format():
    drawn = traces(ask(dtype="fp8", phase="prefill"))
    assert drawn["roof, fp8"]["y"][-1] == pytest.approx(1978.9) and drawn["roof, bf16"]["y"][-1] == pytest.approx(989.4)
    assert drawn["MLP, predicted"]["y"][0] == pytest.approx(1978.9)


def test_what_does_not_fit_says_so():
    words = {one["label"]: one["text"] for one in ask(model="llama-3.1-70b")["readouts"]}
    assert words["memory"].endswith("does not fit on one device")
    assert not {one["label"]: one["text"] for one in ask()["readouts"]}["memory"].endswith("device")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"hardware": "a100", "dtype": "fp8"}, "has no published fp8 peak"),
        ({"model": "qwen3-8b", "context": 40_961}, "has a context of 40,960 tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(**values)


def test_a_machine_without_a_data_sheet_has_no_roof():
    from helpers.cost.calibration import COEFFICIENTS

    record = {"hardware_key": "cpu_epyc_2c", "coefficients": dict.fromkeys(COEFFICIENTS, 1e-5)}
    with pytest.raises(InputError, match="no roof for it"):
        answer(EXPLORER, {"hardware": "mine"}, record)
    known = record | {"hardware_key": "h200"}
    assert "H200" in answer(EXPLORER, {"hardware": "mine"}, known)["summary"]


def test_a_kind_of_point_without_a_marker_is_refused():
    axis = Axis("x", "FLOP/byte", log=True)
    with pytest.raises(InputError, match="use predicted or measured"):
        roofs([Series("roof", [1, 2], [1, 2])], [Point("a", "guessed", 1.0, 1.0)], axis, axis, **WORDS)
    drawn = roofs([Series("roof", [1, 2], [1, 2])], [Point("a", "measured", 1.0, 1.0)], axis, axis, **WORDS)
    assert [one["mode"] for one in drawn.spec["data"]] == ["lines", "markers"]


def test_the_legend_has_each_operation_once_and_each_marker():
    told = [name for name, trace in traces(ask()).items() if trace.get("showlegend", True)]
    operations = ["projections", "attention", "MLP", "LM head", "whole step"]
    assert [name for name in told if "," in name and "roof" not in name and "ceilings" not in name] == [
        *(f"{name}, predicted" for name in operations),
        "projections, measured",
    ]
