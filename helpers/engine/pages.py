"""The memory of keys and values: equal pages on the device, and how many of them fit."""

import torch
from torch import Tensor

from helpers.engine.config import ModelConfig
from helpers.errors import InputError

UTILISATION = 0.9  # share of the GPU that weights, KV and work space may take together
WORK_BYTES_PER_TOKEN = 24  # work space of a step: bytes per token and unit of the widest activation
CPU_KV_BYTES = 256 * 2**20  # what a laptop gives when nobody says


class KVPages:
    """Keys and values of every cached token of `layers` layers.

    `tensor` [layers, 2, pages, page_tokens, kv_heads, head_dim]. Token `offset` of page `page` is
    slot `page * page_tokens + offset` of every layer. Pages start as zeros, never as whatever the
    memory held: a masked score of zero times not-a-number would still be not-a-number. What is stored
    is divided by `scale`: float8_e4m3fn, half the bytes of bfloat16, ends at 448 and keeps three bits.
    """

    def __init__(
        self,
        config: ModelConfig,
        pages: int,
        page_tokens: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        layers: int | None = None,
        scale: float = 1.0,
    ) -> None:
        self.page_tokens = page_tokens
        self.scale = scale
        shape = (layers or config.layers, 2, pages, page_tokens, config.kv_heads, config.head_dim)
        self.tensor = torch.zeros(shape, device=device, dtype=dtype)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer of this stage (the first is 0), each [slots, kv_heads, head_dim]."""
        keys, values = self.tensor[index].flatten(1, 2)
        return keys, values

    def stored(self, index: int) -> None:
        """What a step with chunks computes of a layer has just been launched or stored; nobody here cares."""

    def clear(self) -> None:
        """Forget everything that was stored."""
        self.tensor.zero_()

    @property
    def pages(self) -> int:
        return self.tensor.shape[2]

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()


def physical_page_tokens(block_tokens: int, page_tokens: int = 64) -> int:
    """Tokens of a page under scheduler blocks of `block_tokens`: a large block is a run of whole pages."""
    if block_tokens <= page_tokens:
        return block_tokens
    if block_tokens % page_tokens:
        raise InputError(f"blocks of {block_tokens} tokens are not whole pages of {page_tokens}; change one of them")
    return page_tokens


def kv_bytes_for(config: ModelConfig, device: torch.device, token_budget: int) -> float:
    """Bytes that KV may take now: on a GPU what is free below `UTILISATION` less work space, else a fixed size."""
    if device.type != "cuda":
        return CPU_KV_BYTES
    free, total = torch.cuda.mem_get_info(device)
    widest = max(config.intermediate, config.hidden, config.qkv_heads * config.head_dim)
    if config.moe:
        widest = max(widest, config.moe.intermediate * config.moe.top_k)
    return free - (1 - UTILISATION) * total - token_budget * widest * WORK_BYTES_PER_TOKEN


def blocks_in(kv_bytes: float, config: ModelConfig, dtype: torch.dtype, block_tokens: int) -> int:
    """How many blocks `kv_bytes` hold; raises `InputError` for none."""
    block_bytes = config.shape.kv_bytes_per_token(dtype.itemsize) * block_tokens
    blocks = int(kv_bytes // block_bytes)
    if blocks < 1:
        raise InputError(
            f"{max(0.0, kv_bytes) / 2**20:.1f} MiB for KV hold no block of {block_tokens} tokens of {config.name} "
            f"({block_bytes / 2**20:.1f} MiB); give more memory or take a smaller model"
        )
    return blocks
