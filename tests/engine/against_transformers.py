"""Small models of transformers, and the engine's steps held against them; needs no test framework:

PYTHONPATH=. python tests/engine/against_transformers.py cuda
"""

import sys
import tempfile
from pathlib import Path

import torch
import transformers

from helpers.engine.checkpoint import load_checkpoint
from helpers.engine.checks import LENGTHS, Playground, compare, play, table
from helpers.engine.error_bounds import BOUNDS, Check
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
    "initializer_range": 0.06,  # with 0.1 scores are so sharp that bfloat16 in transformers itself is off by 3e-2
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
        return [model(tokens[None].to(model.device)).logits[0] for tokens in ground.tokens]


def checks_of(name: str, folder: Path, device="cpu", dtype: torch.dtype = torch.float32) -> list[Check]:
    """Every kind of step of one model; transformers computes in float32 with the very weights of the engine."""
    model = saved(name, folder).to(dtype).float().to(device)
    config, weights = load_checkpoint(folder, device, dtype)
    ground = Playground(Decoder(config, weights), LENGTHS)
    found = play(ground)
    expected = expected_logits(model, ground)
    return [compare(f"{name}, {dtype}: {kind}", rows, expected, BOUNDS[dtype]) for kind, rows in found.items()]


def run(device="cpu") -> list[Check]:
    """All models in float32, and in bfloat16 those whose experts cannot be too close to tell apart."""
    cases = [(name, torch.float32) for name in MODELS]
    cases += [(name, torch.bfloat16) for name in MODELS if "moe" not in name]
    found = []
    for name, dtype in cases:
        with tempfile.TemporaryDirectory() as folder:
            found += checks_of(name, Path(folder), device, dtype)
    return found


if __name__ == "__main__":
    print(table(run(sys.argv[1] if len(sys.argv) > 1 else "cpu")))
