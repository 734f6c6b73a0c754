"""Train the byte-level models that ship in data/models, on a CPU, in minutes.

    python -m helpers.engine.train_bytes dense
    python -m helpers.engine.train_bytes moe

Everything that speaks of quality or of learned gates uses them: they are small, but their logits mean
something, and the gates of the second have seen prose and code. The forward pass here is written for
gradients: whole sequences, no cache, float32.
"""

import argparse
import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot, rms_norm, scaled_dot_product_attention, silu

from helpers.checkout import commit
from helpers.engine.config import BYTE_VOCAB, ModelConfig, MoEConfig
from helpers.engine.corpus import baselines, corpus
from helpers.engine.export import save_checkpoint
from helpers.engine.kernels.rope import rope_tables
from helpers.engine.weights import LayerWeights, Weights, build
from helpers.paths import DATA

_COMMON = {"head_dim": 32, "vocab": BYTE_VOCAB, "rope_theta": 10_000.0, "max_context": 2048, "tied": True}
CONFIGS = {
    "dense": ModelConfig("book-dense", 4, 192, 6, 2, intermediate=512, **_COMMON),
    "moe": ModelConfig(
        "book-moe", 4, 128, 4, 2, intermediate=0, qk_norm=True, norm_eps=1e-6,
        moe=MoEConfig(experts=8, top_k=2, intermediate=128), **_COMMON,
    ),
}  # fmt: skip
SEQUENCE, BATCH = 256, 8
PROSE_SHARE = 0.4  # of the sequences; there is much more code than prose
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 3e-3, 50, 0.1
HELD_OUT_BYTES = 16_384  # of each domain, kept in held_out.txt beside the models, whatever the course becomes
BALANCE = 0.01  # weight of the loss that keeps the experts in use (Fedus et al., arXiv 2101.03961, equation 4)


def logits_of(config: ModelConfig, weights: Weights, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, T, vocab] of tokens [B, T], and the balance loss of the experts (zero without any)."""
    cos, sin = rope_tables(config.head_dim, config.rope_theta, tokens.shape[1])
    x = weights.embedding[tokens]
    balance = torch.zeros(())
    for layer in weights.layers.values():
        x = x + _attention(config, layer, _norm(config, x, layer.attention_norm), cos, sin)
        y = _norm(config, x, layer.mlp_norm)
        if layer.moe is None:
            x = x + _mlp(y, layer.w13, layer.w2)
        else:
            answer, loss = _experts(config.moe, layer.moe, y.flatten(0, 1))
            x, balance = x + answer.view_as(x), balance + loss
    return linear(_norm(config, x, weights.norm), weights.head), balance


def _norm(config: ModelConfig, x: Tensor, weight: Tensor) -> Tensor:
    return rms_norm(x, (x.shape[-1],), weight, config.norm_eps)


def _attention(config: ModelConfig, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = linear(x, layer.wqkv).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)  # [B, heads, T, head_dim]
    q, k, v = heads.split([config.heads, config.kv_heads, config.kv_heads], dim=1)
    if config.qk_norm:
        q, k = _norm(config, q, layer.q_norm), _norm(config, k, layer.k_norm)

    def rotate(h: Tensor) -> Tensor:
        a, b = h.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    answer = scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=True)
    return linear(answer.transpose(1, 2).flatten(2), layer.wo)


def _mlp(x: Tensor, w13: Tensor, w2: Tensor) -> Tensor:
    gate, up = linear(x, w13).chunk(2, dim=-1)
    return linear(silu(gate) * up, w2)


def _experts(moe: MoEConfig, weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """The gated sum of the chosen experts of x [N, hidden], and how uneven the choice is (1: even)."""
    scores = linear(x, weights.router).softmax(-1)
    gates, chosen = scores.topk(moe.top_k, dim=-1)
    gates = gates / gates.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for expert in range(moe.experts):
        rows, choice = (chosen == expert).nonzero(as_tuple=True)
        answer = _mlp(x[rows], weights.w13[expert], weights.w2[expert]) * gates[rows, choice, None]
        out = out.index_add(0, rows, answer)
    used = one_hot(chosen, moe.experts).float().sum(1).mean(0) / moe.top_k
    return out, moe.experts * (used * scores.mean(0)).sum()


def parameters(config: ModelConfig, seed: int) -> tuple[Weights, dict[str, Tensor]]:
    """Random weights that want gradients, as the model uses them and by name."""
    named: dict[str, Tensor] = {}

    def make(name: str, *shape: int) -> Tensor:
        drawn = torch.ones(shape) if name.endswith("norm") else 0.02 * torch.randn(shape, generator=generator)
        named[name] = drawn.requires_grad_()
        return named[name]

    generator = torch.Generator().manual_seed(seed)
    return build(config, make), named


def draw_batch(texts: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """[BATCH, SEQUENCE + 1] bytes from random places of the domains."""
    rows = []
    for _ in range(BATCH):
        text = texts["prose" if torch.rand((), generator=generator) < PROSE_SHARE else "code"]
        start = int(torch.randint(len(text) - SEQUENCE - 1, (), generator=generator))
        rows.append(text[start : start + SEQUENCE + 1])
    return torch.stack(rows)


def learning_rate(step: int, steps: int) -> float:
    """Up in a line, down in a cosine to a tenth."""
    if step < WARMUP_STEPS:
        return LEARNING_RATE * (step + 1) / WARMUP_STEPS
    share = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return LEARNING_RATE * (0.55 + 0.45 * math.cos(math.pi * share))


@torch.no_grad()
def bits_per_byte(config: ModelConfig, weights: Weights, text: bytes) -> float:
    """Mean -log2 of each byte's probability, in windows of SEQUENCE bytes that each start anew."""
    tokens = torch.tensor(list(text))
    bits, count = 0.0, 0
    for start in range(0, len(tokens) - 1, SEQUENCE):
        window = tokens[start : start + SEQUENCE + 1]
        logits, _ = logits_of(config, weights, window[None, :-1])
        bits += float(cross_entropy(logits[0], window[1:], reduction="sum")) / math.log(2)
        count += len(window) - 1
    return bits / count


def train(config: ModelConfig, texts: dict[str, bytes], steps: int, seed: int = 0, report=print) -> dict[str, Tensor]:
    """The parameters by name after `steps` steps of AdamW."""
    weights, named = parameters(config, seed)
    matrices = [p for name, p in named.items() if p.dim() > 1]
    vectors = [p for name, p in named.items() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    generator = torch.Generator().manual_seed(seed)
    tokens = {name: torch.tensor(list(text)) for name, text in texts.items()}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = draw_batch(tokens, generator)
        logits, balance = logits_of(config, weights, batch[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        (loss + BALANCE * balance).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            report(f"step {step}: {float(loss.detach()) / math.log(2):.3f} bits per byte")
    return {name: p.detach() for name, p in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("kind", choices=CONFIGS)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=DATA / "models")
    arguments = parser.parse_args()
    config, started, texts = CONFIGS[arguments.kind], perf_counter(), corpus()
    named = train(config, {name: learn for name, (learn, _) in texts.items()}, arguments.steps)
    named = {name: p.bfloat16() for name, p in named.items()}
    folder = arguments.out / config.name
    save_checkpoint(folder, config, named)
    rounded = build(config, lambda name, *_: named[name].float())
    sample = b"".join(held[:HELD_OUT_BYTES] for _, held in texts.values())
    (arguments.out / "held_out.txt").write_bytes(sample)
    found = {name: bits_per_byte(config, rounded, held) for name, (_, held) in texts.items()}
    record = {
        "made_by": f"python -m helpers.engine.train_bytes {arguments.kind} --steps {arguments.steps}",
        "commit": commit(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "training_s": round(perf_counter() - started),
        "parameters": sum(p.numel() for p in named.values()),
        "bytes_learnt_from": {name: len(learn) for name, (learn, _) in texts.items()},
        "bytes_held_out": {name: len(held) for name, (_, held) in texts.items()},
        "sha256_learnt_from": {name: hashlib.sha256(learn).hexdigest() for name, (learn, _) in texts.items()},
        "bits_per_held_out_byte": {
            name: {"model": round(found[name], 4)} | {k: round(v, 4) for k, v in baselines(*texts[name]).items()}
            for name in texts
        },
        "bits_per_byte_of_held_out_txt": round(bits_per_byte(config, rounded, sample), 4),
    }
    (folder / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["bits_per_held_out_byte"]))


if __name__ == "__main__":
    main()
