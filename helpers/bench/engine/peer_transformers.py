"""transformers as a peer: eager, continuous batching on sdpa, static cache with compile; random weights.

Run by `peers` in a process of its own: `python -m helpers.bench.engine.peer_transformers PRESET DEVICE`.
"""

import json
import sys
from collections.abc import Iterator
from time import perf_counter


def shapes(device: str) -> tuple[int, int, int]:
    """Requests, prompt tokens, output tokens: those of `serving.end_to_end`."""
    from helpers.bench.engine.serving import LONG, SHORT

    return SHORT if device == "cpu" else LONG


def model_of(preset: str, device: str):
    """A Llama of the preset's shape with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from helpers.engine.config import preset as preset_of

    c = preset_of(preset)
    config = LlamaConfig(
        vocab_size=c.vocab, hidden_size=c.hidden, intermediate_size=c.intermediate, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}, tie_word_embeddings=c.tied,
        attn_implementation="sdpa", bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


class Peer:
    """One model and the ways to run it; each method gives output tokens per second, one value a repeat."""

    def __init__(self, preset: str, device: str) -> None:
        import torch

        self.device, self.requests_prompt_output = device, shapes(device)
        self.model = model_of(preset, device)
        requests, prompt, _ = self.requests_prompt_output
        self.prompts = torch.randint(1, self.model.config.vocab_size, (requests, prompt), device=device)

    def generate(self, batch: int, repeats: int, warm: int, **how) -> list[float]:
        import torch
        from transformers import GenerationConfig

        output = self.requests_prompt_output[2]
        wanted = GenerationConfig(
            max_new_tokens=output, min_new_tokens=output, do_sample=False, pad_token_id=0, eos_token_id=None, **how
        )
        prompts, rates = self.prompts[:batch], []
        for _ in range(warm + repeats):
            self.wait()
            start = perf_counter()
            with torch.no_grad():
                self.model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=wanted)
            self.wait()
            rates.append(batch * output / (perf_counter() - start))
        return rates[warm:]

    def continuous_batching(self) -> list[float]:
        """Output tokens over the time from the first request's creation to the last one's end, by its own stamps:
        the wall time of the call also holds the sizing of its cache. A first call warms up."""
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        _, _, output = self.requests_prompt_output
        self.model.set_attn_implementation("paged|sdpa")
        wanted = GenerationConfig(max_new_tokens=output, do_sample=False, pad_token_id=0, eos_token_id=None)
        batching = ContinuousBatchingConfig(allow_block_sharing=False, num_blocks=160, max_batch_tokens=8192)
        rates = []
        for _ in range(3):
            results = self.model.generate_batch(
                inputs=self.prompts.tolist(),
                generation_config=wanted,
                continuous_batching_config=batching,
                record_timestamps=True,
            )
            done = list(results.values())
            begin = min(r.created_time for r in done)
            end = max(r.lifespan[1] for r in done)
            rates.append(sum(len(r.generated_tokens) for r in done) / (end - begin))
        self.model.set_attn_implementation("sdpa")
        return rates[1:]

    def wait(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()


def measurements(peer: Peer) -> Iterator[tuple[str, int, object]]:
    """(name, batch, how to measure), the quickest first: compiling takes minutes."""
    batch = peer.requests_prompt_output[0]
    yield f"transformers eager, batch {batch}", batch, lambda: peer.generate(batch, 2, 1)
    yield "transformers eager, batch 1", 1, lambda: peer.generate(1, 1, 0)
    name = f"transformers continuous batching, paged|sdpa, batch {batch}"
    yield name, batch, peer.continuous_batching
    name = f"transformers static cache + compile, batch {batch}"
    yield name, batch, lambda: peer.generate(batch, 2, 2, cache_implementation="static")


def main(preset: str, device: str) -> None:
    """Print one JSON line a measurement, also for one that failed."""
    peer = Peer(preset, device)
    for name, batch, measure in measurements(peer):
        record = {"name": name, "batch": batch}
        try:
            record["samples"] = measure()
        except Exception as error:
            record["failed"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
