"""What was measured beside a bound: only at the shape that was measured, and never faster than the device allows."""

import json

import pytest

from helpers.hardware import gpu, gpus
from helpers.models import model
from helpers.paths import data_file
from helpers.roofline.bounds import Shape, step_bound
from helpers.roofline.measured import RECORD, measured

LLAMA = model("llama-3.1-8b")
SHAPES = [
    *(Shape("decode", batch, 1024) for batch in (1, 8, 32, 128)),
    *(Shape("prefill", 1, tokens) for tokens in (512, 2048, 8192)),
]


def test_the_values_are_those_of_the_record():
    record = json.loads(data_file("packs", "h100_80gb_hbm3", RECORD).read_text())
    points = {one["name"]: one for part in record["parts"].values() for one in part["points"]}
    found = measured(gpu("h100"), Shape("decode", 32, 1024))
    assert found.device == "NVIDIA H100 80GB HBM3"
    assert found.step_s == points["batch 32 overlapped loop"]["value"] / 1e3
    assert found.n == points["batch 32 overlapped loop"]["n"]
    assert found.copy_bytes_per_s == points["copy"]["value"] * 1e9
    pair_us = points["matmul wqkv, 32 tokens"]["value"] + points["matmul wo, 32 tokens"]["value"]
    assert found.operations_s["projections"] == pytest.approx(32 * pair_us / 1e6)
    assert found.operations_s["LM head"] == pytest.approx(points["matmul head, 32 tokens"]["value"] / 1e6)
    attention_us = points["decode attention, batch 32, 1024 context"]["value"]
    assert found.operations_s["attention"] == pytest.approx(32 * attention_us / 1e6)


@pytest.mark.parametrize("key", ["h100", "h200"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.phase}-{s.batch}-{s.context}")
def test_no_measurement_beats_its_bound(key, shape):
    """What was timed came from memory, not from a cache, so the bound holds; a slip of a unit or a layer breaks it."""
    bound, found = step_bound(gpu(key), LLAMA, shape), measured(gpu(key), shape)
    assert found.step_s > bound.seconds
    assert found.step_s < 3 * bound.seconds
    by_name = {one.operation.name: one for one in bound.bounds}
    for name, seconds in found.operations_s.items():
        assert seconds > 0.99 * by_name[name].seconds, name
        assert seconds < 12 * by_name[name].seconds, name


def test_operations_make_up_most_of_a_step_and_not_more():
    """At batch 32 all four were timed: together they are less than the step, and more than two thirds of it."""
    found = measured(gpu("h100"), Shape("decode", 32, 1024))
    assert set(found.operations_s) == {"projections", "attention", "MLP", "LM head"}
    assert 2 / 3 < sum(found.operations_s.values()) / found.step_s < 1


@pytest.mark.parametrize(
    "shape",
    [Shape("decode", 32, 1023), Shape("decode", 31, 1024), Shape("prefill", 2, 2048), Shape("prefill", 1, 2049)],
)
def test_another_shape_was_not_measured(shape):
    found = measured(gpu("h100"), shape)
    assert found.step_s is None and found.n == 0 and "attention" not in found.operations_s


def test_other_parts_models_and_formats_were_not_measured():
    shape = Shape("decode", 32, 1024)
    assert [key for key in gpus() if measured(gpu(key), shape)] == ["h100", "h200"]
    assert measured(gpu("h100"), shape, "qwen3-8b") is None
    assert measured(gpu("h100"), shape, dtype="fp8") is None
