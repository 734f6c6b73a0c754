"""The engine against transformers with the same weights, through a saved checkpoint."""

from dataclasses import replace

import pytest
import torch

from helpers.engine.checkpoint import load_checkpoint
from helpers.engine.checks import Playground
from helpers.engine.error_bounds import relative_error
from helpers.engine.model import Decoder
from tests.engine.against_transformers import MODELS, checks_of, expected_logits, saved


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_step_gives_the_logits_of_transformers(name, tmp_path):
    found = checks_of(name, tmp_path)
    assert [check for check in found if not check.ok] == []
    assert sum(check.tokens for check in found) == 16


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_bfloat16_stays_within_its_bound(name, tmp_path):
    found = checks_of(name, tmp_path, dtype=torch.bfloat16)
    assert [check for check in found if not check.ok] == []
    assert min(check.error for check in found) > 1e-4, "float32 by mistake"


@pytest.mark.parametrize("wrong", [{"rope_theta": 20_000.0}, {"norm_eps": 1e-2}, {"rope_scaling": None}])
def test_a_wrong_config_is_seen(wrong, tmp_path):
    """The comparison is not blind: one field off moves the logits out of the bound."""
    model = saved("llama", tmp_path)
    config, weights = load_checkpoint(tmp_path, dtype=torch.float32)
    ground = Playground(Decoder(replace(config, **wrong), weights), [100])
    logits = ground.forward(ground.batch(chunks=[(0, 100)]))[0]
    assert relative_error(logits, expected_logits(model, ground)[0][99]) > 1e-4


def test_a_model_in_many_shards_is_the_same_model(tmp_path):
    saved("qwen3-moe", tmp_path / "one")
    saved("qwen3-moe", tmp_path / "many", shard="200KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    one, many = (load_checkpoint(tmp_path / name, dtype=torch.float32)[1] for name in ("one", "many"))
    for layer in (0, 1):
        assert torch.equal(one.layers[layer].wqkv, many.layers[layer].wqkv)
        assert torch.equal(one.layers[layer].moe.w13, many.layers[layer].moe.w13)
    assert not torch.equal(one.layers[0].moe.w13, many.layers[1].moe.w13)
