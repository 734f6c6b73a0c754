"""Folders that cannot be used end in one sentence; what transformers saves is read in test_transformers.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.engine.checkpoint import load_checkpoint, read_config, sources
from helpers.engine.config import RopeScaling
from helpers.engine.weights import build, tensors
from helpers.errors import InputError

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 40,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "rope_theta": 1e6,
}


def write(folder: Path, **change) -> Path:
    """A whole checkpoint in `folder`, each tensor filled with one number of its own."""
    raw = CONFIG | change
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    config = read_config(folder)
    files: dict[str, torch.Tensor] = {}

    def make(name: str, *shape: int) -> torch.Tensor:
        names = sources(name)
        experts = range(shape[0]) if "{expert}" in names[0] else [None]
        rows = shape[1:] if experts != [None] else shape
        for expert in experts:
            for part in names:
                size = list(rows)
                size[0] = _rows(part, config, rows[0])
                files[part.format(expert=expert)] = torch.full(size, float(len(files)))
        return torch.empty(0)

    build(config, make)
    save_file(files, folder / "model.safetensors")
    return folder


def _rows(part: str, config, whole: int) -> int:
    if "q_proj" in part:
        return config.heads * config.head_dim
    if "k_proj" in part or "v_proj" in part:
        return config.kv_heads * config.head_dim
    return whole // 2 if "gate_proj" in part or "up_proj" in part else whole


def test_a_whole_folder_is_read_into_the_right_places(tmp_path):
    config, weights = load_checkpoint(write(tmp_path), dtype=torch.float32)
    stored = load_file(tmp_path / "model.safetensors")
    layer = weights.layers[1]
    assert (config.rope_theta, config.qk_norm, config.moe.norm_topk, config.tied) == (1e6, True, True, False)
    assert sum(t.numel() for t in tensors(weights)) == sum(t.numel() for t in stored.values())
    value = stored["model.layers.1.self_attn.k_proj.weight"][0, 0]
    assert (layer.wqkv[64:96] == value).all() and not (layer.wqkv[:64] == value).any()  # 64 query rows, 32 key rows
    value = stored["model.layers.1.mlp.experts.3.up_proj.weight"][0, 0]
    assert (layer.moe.w13[3, 24:] == value).all() and not (layer.moe.w13[2] == value).any()


def test_a_stage_reads_its_own_layers_only(tmp_path):
    _, weights = load_checkpoint(write(tmp_path), layers=range(1, 2))
    assert list(weights.layers) == [1] and weights.embedding is None and weights.head is not None


def test_the_rope_of_llama_in_both_spellings(tmp_path):
    llama3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    llama3["original_max_position_embeddings"] = 8192
    plain = CONFIG | {"architectures": ["LlamaForCausalLM"]}
    for raw in (plain | {"rope_scaling": llama3}, plain | {"rope_parameters": llama3 | {"rope_theta": 1e6}}):
        (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        config = read_config(tmp_path)
        assert (config.rope_theta, config.rope_scaling) == (1e6, RopeScaling(8.0, 1.0, 4.0, 8192))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM is not one of"),
        ({"architectures": None}, "architecture none"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 KV heads"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type is 'yarn'"),
        ({"num_experts": None, "moe_intermediate_size": None}, "num_experts"),
    ],
)
def test_a_config_that_the_engine_cannot_run(change, said, tmp_path):
    raw = {key: value for key, value in (CONFIG | change).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_config(tmp_path)


def test_no_config_and_no_json(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="no JSON object"):
        load_checkpoint(tmp_path)


def test_a_pickle_is_not_loaded(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 200, 0.5, 0.999])
def test_a_file_cut_short(keep, tmp_path):
    path = write(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else keep])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_checkpoint(tmp_path)


def test_a_missing_shard(tmp_path):
    write(tmp_path)
    index = {"weight_map": {"model.norm.weight": "model.safetensors", "lm_head.weight": "model-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError, match=r"model-00002.safetensors is missing"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no weight_map"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd"])
def test_an_index_that_points_out_of_the_folder(name, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder)
    (tmp_path / "elsewhere.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index = {"weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError, match="out of the folder"):
        load_checkpoint(folder)


def test_tensors_that_do_not_fit(tmp_path):
    path = write(tmp_path) / "model.safetensors"
    stored = load_file(path)
    faults = {
        "is not complete": {k: v for k, v in stored.items() if "layers.1.mlp.experts.2.down" not in k},
        r"has shape \[40, 16\]": stored | {"lm_head.weight": torch.zeros(40, 16)},
        "which does not fit": stored | {"model.norm.weight": torch.zeros(31)},
        "is torch.int8": stored | {"model.norm.weight": torch.zeros(32, dtype=torch.int8)},
    }
    for said, files in faults.items():
        save_file(files, path)
        with pytest.raises(InputError, match=said):
            load_checkpoint(tmp_path)
