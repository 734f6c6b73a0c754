"""A process group of two for each pair of workers, so that a death costs one pair and nobody else.

gloo between CPUs, NCCL between GPUs. Waiting is bounded: a peer that is gone ends in `PairLost`, not in a hang.
"""

import socket
import time
from contextlib import suppress
from datetime import timedelta
from threading import Thread

import torch
import torch.distributed as dist
from torch import Tensor

SENDER, RECEIVER = 0, 1
TAG = 0
CONNECT_S = 60.0  # what two sides that begin at about the same time get to find each other
# NCCL gives up by itself what has not arrived after its own limit, and that looks as if it had arrived. The cluster
# notices a lost peer, or a hand-off that takes too long, well before.
NCCL_LIMIT = timedelta(minutes=30)
ABORT_S = 5.0  # what giving up a group may hold its worker up; it goes on beside it after that


class PairLost(RuntimeError):
    """The other side of a pair does not answer any more."""


class MeetingPlace:
    """Where the two sides of a group find each other: a store at `address`, in the memory of this process.

    It stays as long as the groups do, for NCCL goes on asking it. (A file that is removed once all are connected does
    not do: what asks it waits for minutes, and with it whoever ends the group.)
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        listener = socket.create_server((host, 0))
        port = listener.getsockname()[1]
        self.address = f"{host}:{port}"
        self._store = dist.TCPStore(
            host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )


class Pairs:
    """The groups of worker `index`, by (sender, receiver), those of `wanted` in which it is.

    Both sides meet at the address `place`, under the name `run`. Everybody makes its groups in the same order, so that
    nobody waits in a circle; a group that does not come about is a pair that is lost. This side listens at `host`.
    """

    def __init__(
        self,
        index: int,
        wanted: list[tuple[int, int]],
        place: str,
        cuda: bool,
        limit_s: float = 5.0,
        *,
        run: int = 0,
        host: str = "127.0.0.1",
        connect_s: float = CONNECT_S,
    ) -> None:
        self._index, self._cuda, self._host = index, cuda, host
        self._limit, self._connect_s = timedelta(seconds=limit_s), connect_s
        self._groups: dict[tuple[int, int], object] = {}
        mine = [pair for pair in sorted(map(tuple, wanted)) if index in pair]
        if not mine:
            return
        found, port = place.rsplit(":", 1)
        store = dist.TCPStore(found, int(port), wait_for_workers=False, timeout=timedelta(seconds=connect_s))
        for sender, receiver in mine:
            named = dist.PrefixStore(f"{run}/{sender}-{receiver}", store)
            with suppress(RuntimeError):
                self._groups[sender, receiver] = self._make(named, SENDER if sender == index else RECEIVER)

    def send(self, packed: Tensor, target: int) -> object:
        """Send to `target`; returns what to wait for before the memory is used again. Raises `PairLost`."""
        return self.bounded(target, lambda: self._group(self._index, target).send([packed], RECEIVER, TAG))

    def receive(self, packed: Tensor, source: int) -> None:
        """Fill `packed` with what `source` has sent; on a GPU the current stream waits for it, and nobody else.

        Raises `PairLost`.
        """
        self.bounded(source, lambda: self._wait(self._group(source, self._index).recv([packed], SENDER, TAG)))

    def bounded(self, peer: int, act) -> object:
        """What `act` returns; when it fails, the groups with `peer` are given up and `PairLost` is raised."""
        try:
            return act()
        except RuntimeError as error:
            self.abort(peer)
            raise PairLost(f"worker {peer} does not answer in its group of two ({str(error)[:80]})") from None

    def _wait(self, work) -> None:
        work.wait() if self._cuda else work.wait(self._limit)

    def _group(self, sender: int, receiver: int) -> object:
        if (sender, receiver) not in self._groups:
            raise RuntimeError("the group was given up")
        return self._groups[sender, receiver]

    def _make(self, store: object, rank: int) -> object:
        if not self._cuda:
            options = dist.ProcessGroupGloo._Options()
            options._timeout = timedelta(seconds=self._connect_s)
            options._devices = [dist.ProcessGroupGloo.create_device(hostname=self._host)]
            return dist.ProcessGroupGloo(store, rank, 2, options)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = NCCL_LIMIT
        group = dist.ProcessGroupNCCL(store, rank, 2, options)
        # The two connect at their first transfer, at which both must be: now, and not when one is told of a piece.
        hello, there = torch.zeros(1, device="cuda"), torch.cuda.Event()
        (group.send([hello], RECEIVER, TAG) if rank == SENDER else group.recv([hello], SENDER, TAG)).wait()
        there.record()
        until_s = time.monotonic() + self._connect_s
        while not there.query():
            if time.monotonic() > until_s:
                held = [group]
                del group
                _abort_aside(held)
                raise RuntimeError("the other side did not connect")
            time.sleep(1e-3)
        return group

    def abort(self, peer: int) -> None:
        """Give up the groups with a peer, whatever is under way in them."""
        for key in [key for key in self._groups if peer in key]:
            _abort_aside([self._groups.pop(key)])

    def close(self) -> None:
        """Give up all of them."""
        for peer in {p for key in self._groups for p in key}:
            self.abort(peer)


def _abort_aside(held: list) -> None:
    """Abort the one group that is `held` here and nowhere else, in a thread that nobody waits for beyond `ABORT_S`.

    To let go of a group is to wait for its own threads, which may be stuck with a device or a peer that is gone.
    """

    def give_up() -> None:
        with suppress(RuntimeError):
            held[0].abort()
        held.clear()

    thread = Thread(target=give_up, daemon=True)
    thread.start()
    thread.join(ABORT_S)
