"""A process group of two for each pair of workers, so that a death costs one pair and nobody else.

gloo between CPUs, NCCL between GPUs. Waiting is bounded: a peer that is gone ends in `PairLost`, not in a hang.
"""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

SENDER, RECEIVER = 0, 1
TAG = 0
GPU_LIMIT = timedelta(seconds=30)  # two GPUs take seconds to connect


class PairLost(RuntimeError):
    """The other side of a pair does not answer any more."""


class Pairs:
    """The groups of worker `index`, by (sender, receiver), those of `wanted` in which it is.

    Both sides meet in `folder`. Everybody makes its groups in the same order, so that nobody waits in a circle.
    """

    def __init__(
        self, index: int, wanted: list[tuple[int, int]], folder: Path, cuda: bool, limit_s: float = 5.0
    ) -> None:
        self._index, self._cuda = index, cuda
        self._limit = timedelta(seconds=limit_s)
        self._groups: dict[tuple[int, int], object] = {}
        for sender, receiver in sorted(map(tuple, wanted)):
            if index in (sender, receiver):
                store = dist.FileStore(str(folder / f"pair-{sender}-{receiver}"), 2)
                self._groups[sender, receiver] = self._make(store, SENDER if sender == index else RECEIVER)

    def send(self, packed: Tensor, target: int) -> object:
        """Send to `target`; returns what to wait for before the memory is used again."""
        return self._bounded(target, lambda: self._group(self._index, target).send([packed], RECEIVER, TAG))

    def receive(self, packed: Tensor, source: int) -> None:
        """Fill `packed` with what `source` has sent. Raises `PairLost`."""
        self._bounded(source, lambda: self._group(source, self._index).recv([packed], SENDER, TAG).wait())

    def _bounded(self, peer: int, act) -> object:
        try:
            return act()
        except RuntimeError as error:
            self.abort(peer)
            raise PairLost(f"worker {peer} does not answer in its group of two ({str(error)[:80]})") from None

    def _group(self, sender: int, receiver: int) -> object:
        if (sender, receiver) not in self._groups:
            raise RuntimeError("the group was given up")
        return self._groups[sender, receiver]

    def _make(self, store: object, rank: int) -> object:
        if not self._cuda:
            return dist.ProcessGroupGloo(store, rank, 2, self._limit)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = max(self._limit, GPU_LIMIT)
        group = dist.ProcessGroupNCCL(store, rank, 2, options)
        # The two connect at their first transfer, at which both must be: now, and not when one is told of a piece.
        hello = torch.zeros(1, device="cuda")
        (group.send([hello], RECEIVER, TAG) if rank == SENDER else group.recv([hello], SENDER, TAG)).wait()
        torch.cuda.synchronize()
        return group

    def abort(self, peer: int) -> None:
        """Give up the groups with a peer, whatever is under way in them."""
        for key in [key for key in self._groups if peer in key]:
            self._groups.pop(key).abort()

    def close(self) -> None:
        """Give up all of them."""
        for peer in {p for key in self._groups for p in key}:
            self.abort(peer)
