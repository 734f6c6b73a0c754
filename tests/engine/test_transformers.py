"""The engine against transformers with the same weights, through a saved checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from helpers.engine.checkpoint import load_checkpoint
from helpers.engine.checks import LENGTHS, Playground, compare, play
from helpers.engine.kernel_checks import BOUNDS, relative_error
from helpers.engine.model import Decoder

SIZE = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 352,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "norm_topk_prob": True}
MODELS = {
    "llama": lambda: transformers.LlamaConfig(**SIZE, rope_parameters=LLAMA3),
    "llama, tied": lambda: transformers.LlamaConfig(**SIZE, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**SIZE),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(**SIZE, **EXPERTS),
    "qwen3-moe, gates not normed": lambda: transformers.Qwen3MoeConfig(**SIZE, **EXPERTS | {"norm_topk_prob": False}),
}


def saved(name: str, folder: Path, shard: str = "50GB") -> torch.nn.Module:
    """A small random model, its norms not all ones, saved to `folder`."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name](), attn_implementation="eager").eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def expected_logits(model: torch.nn.Module, ground: Playground) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [model(tokens[None]).logits[0] for tokens in ground.tokens]


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_step_gives_the_logits_of_transformers(name, tmp_path):
    model = saved(name, tmp_path)
    config, weights = load_checkpoint(tmp_path, dtype=torch.float32)
    ground = Playground(Decoder(config, weights), LENGTHS)
    found = play(ground)
    expected = expected_logits(model, ground)
    checks = [compare(kind, rows, expected, BOUNDS[torch.float32]) for kind, rows in found.items()]
    assert [check for check in checks if not check.ok] == []
    assert sum(check.tokens for check in checks) == 16


def test_bfloat16_stays_within_its_bound(tmp_path):
    model = saved("qwen3", tmp_path).bfloat16().float()  # the same rounded weights, computed in float32
    config, weights = load_checkpoint(tmp_path, dtype=torch.bfloat16)
    ground = Playground(Decoder(config, weights), LENGTHS)
    checks = [compare(k, r, expected_logits(model, ground), 2e-2) for k, r in play(ground).items()]
    assert [check for check in checks if not check.ok] == []
    assert max(check.error for check in checks) > 1e-4, "float32 by mistake"


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
