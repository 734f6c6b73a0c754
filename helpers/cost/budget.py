"""The memory that is left for the KV cache of a worker."""

from math import isfinite

from helpers.errors import InputError
from helpers.hardware import GPU
from helpers.models import Model


def kv_bytes_per_gpu(model: Model, gpu: GPU, tp: int = 1, utilisation: float = 0.9) -> float:
    """Bytes of each GPU that can hold KV: `utilisation` of its memory less its share of the weights.

    Raises `InputError` when the weights alone do not fit, and for a share outside 0 to 1.
    """
    if not 0 < utilisation <= 1:
        raise InputError(f"a memory utilisation of {utilisation} is no share; give a number above 0, at most 1")
    weights = model.weight_bytes() / tp
    left = gpu.memory_bytes * utilisation - weights
    if left <= 0:
        raise InputError(
            f"{model.name} needs {weights / 1e9:.1f} GB of weights per GPU at tp={tp}, and {utilisation:.0%} of a "
            f"{gpu.name} is {gpu.memory_bytes * utilisation / 1e9:.1f} GB; raise tp or take a larger GPU"
        )
    return left


def kv_blocks(model: Model, kv_bytes: float, block_tokens: int, tp: int = 1) -> int:
    """How many blocks of `block_tokens` tokens `kv_bytes` bytes of each GPU hold; raises `InputError` for none."""
    if not isfinite(kv_bytes):
        raise InputError(f"{kv_bytes} bytes of KV memory cannot be divided into blocks; give a finite number")
    blocks = int(kv_bytes // (model.kv_bytes_per_token_per_gpu(tp) * block_tokens))
    if blocks < 1:
        raise InputError(
            f"{kv_bytes / 2**30:.2f} GiB of KV memory hold no block of {block_tokens} tokens of {model.name}; give more"
        )
    return blocks
