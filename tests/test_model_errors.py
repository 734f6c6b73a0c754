"""Models, shapes and tables that cannot be: one sentence each."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.models import Model, load_models, model

TINY = Model("tiny", "Tiny", layers=2, hidden=8, heads=4, vocab=16, max_context=64, kv_heads=2, head_dim=2, ffn=16)


def test_unknown_model_lists_the_known():
    with pytest.raises(InputError, match=r"unknown model 'llama-9'; known: llama-3.1-8b, .*gemma-3-27b"):
        model("llama-9")


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.prefill_flops(0),
        lambda m: m.prefill_flops(1, -1),
        lambda m: m.decode_flops(0, 10),
        lambda m: m.decode_flops(4, 3),
        lambda m: m.kv_bytes(-1),
        lambda m: m.kv_bytes_per_token(0),
        lambda m: m.kv_bytes_per_token_per_gpu(0),
        lambda m: m.decode_weight_bytes(0),
        lambda m: m.weight_bytes(expert_dtype_bytes=0),
        lambda m: m.source_of("colour"),
    ],
)
def test_impossible_arguments_are_refused(call):
    with pytest.raises(InputError):
        call(model("gpt-oss-20b"))


@pytest.mark.parametrize(
    "change",
    [
        {"attention": "linear"},
        {"window_kind": "dilated"},
        {"layers": 0},
        {"kv_heads": 0},
        {"full_attention_layers": 1},
        {"dense_layers": 1},
        {"dense_layers": 3},
        {"experts": 4, "dense_layers": 0},
        {"experts": 4, "dense_layers": 0, "experts_per_token": 5, "expert_ffn": 8},
    ],
)
def test_impossible_shapes_are_refused(change):
    with pytest.raises(InputError):
        replace(TINY, **change)


SHAPE = """
[own]
name = "Own"
[own.config]
mark = "C"
source = "by hand"
layers = 2
hidden = 8
heads = 4
kv_heads = 2
head_dim = 2
ffn = 16
vocab = 16
"""


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(SHAPE + "max_context = 64\n")
    assert load_models(path)["own"].total_parameters == TINY.total_parameters


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (SHAPE, "own.toml: own lacks 'max_context'"),
        (SHAPE + "max_context = 64\nwidth = 3\n", "own.toml: own has the unknown field 'config.width'"),
        (SHAPE + 'max_context = "64"\n', "own.toml: own.config.max_context is '64'; give a value of type int"),
    ],
)
def test_tables_with_gaps_or_unknown_fields_are_refused(tmp_path, text, sentence):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_models(path)
