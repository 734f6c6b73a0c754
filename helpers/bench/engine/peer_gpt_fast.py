"""gpt-fast as a peer: batch-1 decode of its own model, compiled as its own `generate.py` does; random weights.

Run by `peers` in a process of its own: `python -m helpers.bench.engine.peer_gpt_fast PRESET DEVICE DIR`. The rate is
150 tokens over the time of 200 tokens less the time of 50, so that prefill and compilation are out of it.
"""

import json
import sys
from importlib import import_module
from time import perf_counter

SHAPES = {"llama-8b": "llama-3-8b"}  # our preset: its name for the same shape


def decode_rates(preset: str, device: str, folder: str, repeats: int = 3) -> list[float]:
    """Tokens per second of batch-1 decode at a context of about 1,024, one value a repeat."""
    import torch

    sys.path.insert(0, folder)
    generate, theirs = import_module("generate"), import_module("model")
    with torch.device(device):
        model = theirs.Transformer(theirs.ModelArgs.from_name(SHAPES[preset])).to(torch.bfloat16).eval()
        model.setup_caches(max_batch_size=1, max_seq_length=1280)
    generate.decode_one_token = torch.compile(generate.decode_one_token, mode="reduce-overhead", fullgraph=True)

    def seconds(count: int) -> float:
        token = torch.zeros(1, 1, dtype=torch.int, device=device)
        position = torch.tensor([960], dtype=torch.int, device=device)
        torch.cuda.synchronize()
        start = perf_counter()
        generate.decode_n_tokens(model, token, position, count, temperature=0.8, top_k=200)
        torch.cuda.synchronize()
        return perf_counter() - start

    with torch.no_grad():
        seconds(10)
        return [150 / (seconds(200) - seconds(50)) for _ in range(repeats)]


def main(preset: str, device: str, folder: str) -> None:
    """Print one JSON line."""
    record = {"name": "gpt-fast compiled, batch 1", "batch": 1}
    try:
        record["samples"] = decode_rates(preset, device, folder)
    except Exception as error:
        record["failed"] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
