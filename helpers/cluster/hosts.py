"""The other ranks of a launch by torchrun, as rank 0 sees them: each holds the worker of its number."""

import os
import time
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from itertools import count
from subprocess import TimeoutExpired
from types import SimpleNamespace

from helpers.cluster.host import Lines
from helpers.cluster.launch import LEADER, Rank, Seat, Store, keep_alive, listener, rank_of
from helpers.cluster.orders import WorkerSetup
from helpers.cluster.process import gpu_count
from helpers.errors import InputError

JOIN_S = 120.0  # what the other ranks get to come
END_S = 10.0  # what a rank gets to see its worker out
LOST = -1  # the code of a worker whose rank is gone, or that nobody has seen out


class Hosts:
    """The lines to the other ranks. `host` is the address at which rank 0 is reached."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self._listener = listener(rank)
        self.host, port = self._listener.getsockname()[:2]
        self._store = Store()  # kept: where torchrun has none of its own, it is the one that the others ask
        self._store.publish(f"{self.host}:{port}")
        self._lines: dict[int, Lines] = {}
        self._seats: dict[int, Seat] = {}
        self._processes: dict[int, RemoteProcess] = {}
        self._numbers = count()

    def check(self, workers: int) -> None:
        """Raise `InputError` for more workers than ranks."""
        if workers > self.rank.ranks:
            raise InputError(
                f"{workers} workers, and torchrun has started {self.rank.ranks} ranks, each of which holds one; give "
                f"--nnodes and --nproc-per-node {workers} in all, or fewer workers"
            )

    def seat(self, worker: int) -> Seat:
        """Where a worker is; waits until its rank has come. Raises `InputError` for one that does not."""
        if worker == 0:
            return Seat(self.rank.node, self.rank.local_rank, self.rank.local_ranks, gpu_count())
        self._listener.settimeout(JOIN_S)
        while worker not in self._seats:
            try:
                line, _ = self._listener.accept()
            except TimeoutError:
                raise InputError(f"rank {worker} did not come in {JOIN_S:g} s; see what its torchrun says") from None
            keep_alive(line)
            lines = Lines(line)
            said = lines.said(JOIN_S)
            while not said and not lines.ended:
                said = lines.said(JOIN_S)
            if said:
                hello = said[0]
                self._lines[hello["rank"]] = lines
                self._seats[hello["rank"]] = Seat(
                    hello["node"], hello["local_rank"], hello["local_ranks"], hello["gpus"]
                )
        return self._seats[worker]

    def start(self, setup: WorkerSetup) -> "RemoteProcess":
        """Let a rank start its worker."""
        number = next(self._numbers)
        self._lines[setup.index].tell({"do": "start", "number": number, "setup": asdict(setup)})
        self._processes[number] = made = RemoteProcess(self, setup.index, number)
        return made

    def tell(self, worker: int, do: str, number: int) -> None:
        """Let a rank do something with its worker."""
        self._lines[worker].tell({"do": do, "number": number})

    def hear(self, worker: int, seconds: float = 0.0) -> None:
        """Take in what a rank has said; waits for it at most so long."""
        lines = self._lines[worker]
        for said in lines.said(seconds):
            self._processes[said["ended"]].returncode = said["code"]
        if lines.ended:
            for process in self._processes.values():
                if process.worker == worker and process.returncode is None:
                    process.returncode = LOST

    def close(self) -> None:
        """Let all other ranks leave, those that have not come yet too."""
        with suppress(RuntimeError):  # torchrun has ended its store already
            self._store.publish("")
        for lines in self._lines.values():
            lines.close()
        self._listener.close()


class RemoteProcess:
    """A worker that another rank holds, with the methods of `Popen` that `Workers` uses."""

    def __init__(self, hosts: Hosts, worker: int, number: int) -> None:
        self._hosts, self.worker, self._number = hosts, worker, number
        self.returncode: int | None = None
        self.stdin = SimpleNamespace(close=lambda: None)

    def poll(self) -> int | None:
        """Its code, None while it runs."""
        if self.returncode is None:
            self._hosts.hear(self.worker)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its code, once it has ended; raises `TimeoutExpired`. Without a limit a rank that says nothing is let go."""
        until_s = time.monotonic() + (END_S if timeout is None else timeout)
        while self.returncode is None and (left_s := until_s - time.monotonic()) > 0:
            self._hosts.hear(self.worker, left_s)
        if self.returncode is None:
            if timeout is not None:
                raise TimeoutExpired(f"worker {self.worker}", timeout)
            self.returncode = LOST
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        self._hosts.tell(self.worker, "kill", self._number)

    def send_signal(self, number: int) -> None:
        """Let it stand still: no other signal is sent to a worker."""
        self._hosts.tell(self.worker, "pause", self._number)

    def unname(self) -> None:
        """Nobody needs the names in its folder any more."""
        self._hosts.tell(self.worker, "unname", self._number)


@cache
def launch() -> Hosts | None:
    """The ranks of this launch, None outside of torchrun. Raises `InputError` where they cannot be reached."""
    rank = rank_of()
    if rank is None:
        return None
    if os.environ.get(LEADER) != str(os.getpid()):
        raise InputError(
            "this starts its workers from a process that is no rank of torchrun, so they would all be on one machine; "
            "use it without torchrun (serve, bench exactness and bench faults work with it)"
        )
    return Hosts(rank)
