"""Write weights as a Hugging Face folder, the inverse of checkpoint.py: what ships in data/models was written so."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from helpers.engine.checkpoint import sources
from helpers.engine.config import ModelConfig


def save_checkpoint(folder: Path, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """config.json and model.safetensors for tensors by the names that `weights.build` gives them.

    Llama where heads are not normed, Qwen3 or Qwen3-MoE where they are; nothing else has a name over there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hugging_face_config(config), indent=2) + "\n", encoding="utf-8")
    files: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = sources(name)
        if "{expert}" in names[0]:
            for expert, part in enumerate(tensor):
                files |= _parts([n.format(expert=expert) for n in names], part, config)
        else:
            files |= _parts(names, tensor, config)
    save_file(files, folder / "model.safetensors", metadata={"format": "pt"})


def _parts(names: list[str], tensor: Tensor, config: ModelConfig) -> dict[str, Tensor]:
    """The rows of a fused tensor under the names of its parts."""
    sizes = {1: [len(tensor)], 2: [len(tensor) // 2] * 2}.get(len(names))
    sizes = sizes or [n * config.head_dim for n in (config.heads, config.kv_heads, config.kv_heads)]
    return {name: part.contiguous() for name, part in zip(names, tensor.split(sizes), strict=True)}


def hugging_face_config(config: ModelConfig) -> dict:
    """The fields of config.json that this engine and transformers read."""
    fields = {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if config.qk_norm else "llama",
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate,
        "vocab_size": config.vocab,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_context,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "dtype": "bfloat16",
    }
    if config.moe is not None:
        fields |= {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": config.moe.experts,
            "num_experts_per_tok": config.moe.top_k,
            "moe_intermediate_size": config.moe.intermediate,
            "norm_topk_prob": config.moe.norm_topk,
        }
    return fields
