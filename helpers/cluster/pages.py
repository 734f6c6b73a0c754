"""KV pages in memory that the other workers can read, with a watch on the layers.

The pool of a worker is followed by a *stage*: room through which KV can be handed over packed, where the other
side is not to read the pool itself. The pool of a GPU stays on the GPU, and only the stage is shared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from helpers.cluster.folder import create_memory, open_memory
from helpers.cluster.pieces import groups
from helpers.engine.pages import KVPages

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a worker's shared memory: a pool [layers, 2, pages, page_tokens, kv_heads, head_dim], a stage.

    Without `shared` the pool is elsewhere, and the memory is the stage alone.
    """

    shape: tuple[int, ...]
    dtype: str
    stage_bytes: int
    shared: bool

    @property
    def pool_bytes(self) -> int:
        """Bytes of the pool in this memory."""
        return DTYPES[self.dtype].itemsize * torch.Size(self.shape).numel() if self.shared else 0

    @property
    def total_bytes(self) -> int:
        """Bytes of pool and stage."""
        return self.pool_bytes + self.stage_bytes

    def views(self, memory) -> tuple[Tensor | None, Tensor]:
        """The pool (None when it is elsewhere), and the stage [bytes] uint8, in a buffer of `total_bytes`."""
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        stage = whole[self.pool_bytes :]
        return (whole[: self.pool_bytes].view(DTYPES[self.dtype]).view(self.shape) if self.shared else None), stage


class SharedPages(KVPages):
    """The `pages` of an engine, on a CPU moved to shared memory. `watch(i)` is called when layer i of a step is stored.

    On a GPU that is when it has been launched, and the device passes `marks[i]` when it is done, where a group of
    layers ends. A captured step records its marks and calls nobody: `end_of_step` tells that all of it was launched.
    """

    def __init__(self, pages: KVPages, path: Path, stage_bytes: int) -> None:
        self.page_tokens, self.scale, self.tensor = pages.page_tokens, pages.scale, pages.tensor
        on_cpu = pages.tensor.device.type == "cpu"
        dtype = str(pages.tensor.dtype).removeprefix("torch.")
        self.layout = Layout(tuple(pages.tensor.shape), dtype, stage_bytes, on_cpu)
        self._memory = create_memory(path, self.layout.total_bytes)
        pool, self.stage = self.layout.views(self._memory)
        if pool is not None:
            self.tensor = pool
        ends = () if on_cpu else groups(len(self.tensor))
        self.marks = {end - 1: torch.cuda.Event(external=True) for end in ends}  # of the last step with chunks
        self.watch: Callable[[int], None] | None = None

    def stored(self, index: int) -> None:
        if index in self.marks:
            self.marks[index].record()
        if self.watch:
            self.watch(index)

    def end_of_step(self) -> None:
        """All layers of a step are stored, or will be before anything that is launched later."""
        if self.watch:
            self.watch(len(self.tensor) - 1)


class PeerMemory:
    """The pool and the stage of another worker."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._memory = open_memory(path)
        self.pool, self.stage = layout.views(self._memory)
