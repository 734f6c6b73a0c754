"""Real checkpoints: a Hugging Face folder with config.json and safetensors (Llama 3.x, Qwen3, Qwen3-MoE).

Only JSON and safetensors are read, never a pickle. Each tensor is copied once, into its place in the fused
matrices on the device. Everything that is wrong with a folder ends in one `InputError`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from helpers.engine.config import ModelConfig, MoEConfig, RopeScaling
from helpers.engine.weights import Weights, build
from helpers.errors import InputError

QK_NORM = {"LlamaForCausalLM": False, "Qwen3ForCausalLM": True, "Qwen3MoeForCausalLM": True}
REQUIRED = {  # ours: Hugging Face's
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "norm_eps": "rms_norm_eps",
    "max_context": "max_position_embeddings",
}
# What the engine does not have, by the field that asks for it and the only value that it can serve.
ABSENT = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "hidden_act": "silu",
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16, layers: range | None = None
) -> tuple[ModelConfig, Weights]:
    """The config and the weights (of `layers`, all of them unless told) of a folder; raises `InputError`."""
    config = read_config(folder)
    files = Files(folder)
    try:
        return config, build(config, lambda name, *shape: files.read(name, shape, device, dtype), layers)
    finally:
        files.close()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `InputError` for a file that is missing or is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give the folder of a Hugging Face checkpoint") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; download it again")
    return found


def read_config(folder: Path) -> ModelConfig:
    """The shape that a folder's config.json describes; raises `InputError` for what the engine cannot run."""
    path = folder / "config.json"
    raw = read_json(path)
    architecture = (raw.get("architectures") or ["none"])[0]
    if architecture not in QK_NORM:
        raise InputError(f"{path}: architecture {architecture} is not one of {', '.join(QK_NORM)}")
    for field, only in ABSENT.items():
        if raw.get(field) not in (None, only):
            raise InputError(f"{path}: {field} is {raw[field]!r}; the engine can run {only!r} alone")
    if raw.get("quantization_config"):
        raise InputError(f"{path}: the weights are quantised; give a checkpoint in bfloat16, float16 or float32")
    fields: dict[str, Any] = {}
    for ours, theirs in REQUIRED.items():
        if not isinstance(raw.get(theirs), int | float):
            raise InputError(f"{path}: {theirs} is {raw.get(theirs)!r}; a number is needed")
        fields[ours] = raw[theirs]
    theta, scaling = _rope(raw, path)
    return ModelConfig(
        name=folder.name,
        head_dim=raw.get("head_dim") or fields["hidden"] // fields["heads"],
        qk_norm=QK_NORM[architecture],
        tied=bool(raw.get("tie_word_embeddings", False)),
        rope_theta=theta,
        rope_scaling=scaling,
        moe=_experts(raw, path) if architecture == "Qwen3MoeForCausalLM" else None,
        **fields,
    )


def _rope(raw: dict[str, Any], path: Path) -> tuple[float, RopeScaling | None]:
    """Base and scaling, where transformers 5 writes them (`rope_parameters`) or where older versions did."""
    rope = raw.get("rope_parameters") or (raw.get("rope_scaling") or {}) | {"rope_theta": raw.get("rope_theta")}
    theta = float(rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise InputError(f"{path}: rope_type is {kind!r}; the engine can run 'default' and 'llama3'")
    try:
        return theta, RopeScaling(
            float(rope["factor"]),
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            int(rope["original_max_position_embeddings"]),
        )
    except KeyError as missing:
        raise InputError(f"{path}: the llama3 rope lacks {missing}") from None


def _experts(raw: dict[str, Any], path: Path) -> MoEConfig:
    try:
        return MoEConfig(
            experts=raw["num_local_experts"] if "num_local_experts" in raw else raw["num_experts"],
            top_k=raw["num_experts_per_tok"],
            intermediate=raw["moe_intermediate_size"],
            norm_topk=bool(raw.get("norm_topk_prob", False)),
        )
    except KeyError as missing:
        raise InputError(f"{path}: a model with experts needs {missing}") from None


def sources(name: str) -> list[str]:
    """The Hugging Face names whose tensors, one under the other, make the engine's tensor `name`; with
    "{expert}" in them where it holds the tensors of all experts."""
    top = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    if name in top:
        return [top[name]]
    _, number, part = name.split(".", 2)
    parts = {
        "attention_norm": ("input_layernorm",),
        "mlp_norm": ("post_attention_layernorm",),
        "wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "wo": ("self_attn.o_proj",),
        "q_norm": ("self_attn.q_norm",),
        "k_norm": ("self_attn.k_norm",),
        "w13": ("mlp.gate_proj", "mlp.up_proj"),
        "w2": ("mlp.down_proj",),
        "moe.router": ("mlp.gate",),
        "moe.w13": ("mlp.experts.{expert}.gate_proj", "mlp.experts.{expert}.up_proj"),
        "moe.w2": ("mlp.experts.{expert}.down_proj",),
    }
    return [f"model.layers.{number}.{part}.weight" for part in parts[part]]


class Files:
    """The open safetensors files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / "model.safetensors.index.json"
        if index.exists():
            where = read_json(index).get("weight_map")
            if not isinstance(where, dict):
                raise InputError(f"{index} has no weight_map; download it again")
            names = sorted(set(where.values()))
        elif (folder / "model.safetensors").exists():
            names = ["model.safetensors"]
        else:
            raise InputError(f"{folder} has no model.safetensors; other formats, pickles above all, are not loaded")
        self.files = []
        self.file_of: dict[str, Any] = {}
        try:
            for name in names:
                self._open(name)
        except InputError:
            self.close()
            raise

    def _open(self, name: str) -> None:
        path = self.folder / name
        if path.parent != self.folder:
            raise InputError(f"{self.folder}: the index points out of the folder, to {name}; do not trust it")
        if not path.is_file():
            raise InputError(f"{path} is missing, but the index names it; download it again")
        try:
            file = safe_open(path, framework="pt").__enter__()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or cut short ({error}); download it again") from None
        self.files.append(file)
        self.file_of |= dict.fromkeys(file.keys(), file)

    def close(self) -> None:
        for file in self.files:
            file.__exit__(None, None, None)
        self.files = []

    def read(self, name: str, shape: tuple[int, ...], device, dtype: torch.dtype) -> Tensor:
        """The engine's tensor `name` of `shape`, on the device and in its type; raises `InputError`."""
        out = torch.empty(shape, device=device, dtype=dtype)
        names = sources(name)
        if "{expert}" in names[0]:
            for expert, part in enumerate(out):
                self._fill(part, [n.format(expert=expert) for n in names])
        else:
            self._fill(out, names)
        return out

    def _fill(self, out: Tensor, names: list[str]) -> None:
        """Copy the tensors called `names`, one under the other, into `out`."""
        row = 0
        for name in names:
            found = self._tensor(name)
            if found.shape[1:] != out.shape[1:] or row + len(found) > len(out):
                raise self._wrong_shape(name, found, out)
            out[row : row + len(found)].copy_(found)
            row += len(found)
        if row != len(out):
            raise self._wrong_shape(names[-1], found, out)

    def _tensor(self, name: str) -> Tensor:
        if name not in self.file_of:
            raise InputError(f"{self.folder} has no tensor {name}; the checkpoint is not complete")
        try:
            found = self.file_of[name].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.folder}: {name} cannot be read ({error}); download it again") from None
        if found.dtype not in FLOATS:
            raise InputError(f"{self.folder}: {name} is {found.dtype}; give bfloat16, float16 or float32 weights")
        return found

    def _wrong_shape(self, name: str, found: Tensor, out: Tensor) -> InputError:
        return InputError(
            f"{self.folder}: {name} has shape {list(found.shape)}, which does not fit {list(out.shape)} of config.json"
        )
