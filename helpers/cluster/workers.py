"""The worker processes of a cluster: started, told, listened to, and ended in every case.

They are processes of this machine, or under torchrun one of each rank (`launch`). What they share has no name any more
by the time that they serve.
"""

import os
import signal
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from subprocess import Popen

import zmq

from helpers.cluster import folder
from helpers.cluster.hosts import launch
from helpers.cluster.launch import LOOPBACK, Seat
from helpers.cluster.messages import Message, pack
from helpers.cluster.movers import mover
from helpers.cluster.orders import Part, WorkerSetup
from helpers.cluster.process import end, gpu_count, start
from helpers.cluster.sockets import FRONT, arrived, opened, socket
from helpers.errors import InputError, WorkerError
from helpers.scheduling.limits import Limits

CPU_KV_GIB = 1 / 16  # of a worker, when nobody says: several of them share the memory of a laptop
PINGS = 16  # by the shortest of which the clock of another machine is set


@dataclass(frozen=True)
class WorkersSpec:
    """So many equal workers, each with one engine. `device` cuda gives each the next GPU, as long as there are any.

    `stage_mib` is memory through which KV can be handed over packed. An idle worker says every `beat_s` that it is
    there.
    """

    count: int
    model: str = "tiny"
    device: str = "cpu"
    dtype: str | None = None
    block_tokens: int = 64
    token_budget: int = 2048
    max_batch: int = 64
    kv_gib: float | None = None
    stage_mib: float = 16.0
    beat_s: float = 0.25
    start_limit_s: float = 120.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"a cluster of {self.count} workers serves nothing; give 1 or more")
        if not self.stage_mib > 0:
            raise InputError(f"stage_mib is {self.stage_mib}; give more than 0")

    def setup(self, index: int, place: Path, seat: Seat, front: str, host: str = "") -> WorkerSetup:
        """What worker `index` is told.

        Raises `InputError` for workers that share a GPU with no share of its memory, and for more KV than there is
        memory in this machine.
        """
        gpus = max(seat.gpus, 1)
        if self.device.startswith("cuda") and seat.local_ranks > gpus and not self.kv_gib:
            raise InputError(f"{seat.local_ranks} workers share {gpus} GPUs; say how much KV each gets (kv_gib)")
        device = f"cuda:{seat.local_rank % gpus}" if self.device == "cuda" and gpus > 1 else self.device
        kv_gib = self.kv_gib or (CPU_KV_GIB if self.device == "cpu" else 0.0)
        if self.device == "cpu" and seat.local_ranks * kv_gib > (there_gib := memory_bytes() / 2**30):
            raise InputError(
                f"{kv_gib:g} GiB of KV for each of {seat.local_ranks} workers are more than the {there_gib:.1f} GiB of "
                "memory that this machine has; give less (kv_gib)"
            )
        return WorkerSetup(
            index, self.count, str(place), self.model, device, self.dtype, self.block_tokens, self.token_budget,
            self.max_batch, kv_gib, int(self.stage_mib * 2**20), self.beat_s, front, host,
        )  # fmt: skip


class Workers:
    """Running worker processes; close them, or use them as a context. They can play several runs one after another.

    `startup_s` is what they took to start. `facts[i]` is what worker i says of itself: its pid, its KV blocks. `broken`
    has the last words of workers that failed.
    Raises `InputError` for a setup that a worker refuses.
    """

    def __init__(self, spec: WorkersSpec) -> None:
        start_s = time.perf_counter()
        self.spec = spec
        self.facts: list[Message] = [{} for _ in range(spec.count)]
        self.gone = [False] * spec.count
        self.broken: dict[int, str] = {}
        self._hosts = launch()
        self._runs, self._meeting = 0, None
        self._context = zmq.Context()
        self._socket = socket(self._context, zmq.ROUTER)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        self._poller.register(self._woken, zmq.POLLIN)
        self.processes: list[Popen] = []
        place = folder.make()
        self._ended = weakref.finalize(self, end, self.processes, place, self._context, (self._woken, self._waker))
        try:
            self._start(place)
            self._introduce()
            self._clocks_s = [self._clock_s(index) for index in range(spec.count)]
        except BaseException:
            self.close()
            raise
        folder.remove(place)  # everybody has opened everything
        self.startup_s = time.perf_counter() - start_s

    def _start(self, place: Path) -> None:
        """Start all of them, and hear what each says of itself."""
        hosts, count = self._hosts, self.spec.count
        if hosts:
            hosts.check(count)
            self._seats = [hosts.seat(index) for index in range(count)]
        else:
            gpus = gpu_count() if self.spec.device == "cuda" else 0
            self._seats = [Seat(0, index, count, gpus) for index in range(count)]
        host = hosts.host if hosts else ""
        front = opened(self._socket, place, FRONT, host)
        for index, seat in enumerate(self._seats):
            setup = self.spec.setup(index, place, seat, front, host)
            self.processes.append(hosts.start(setup) if hosts and index else start(setup))
        for index, message in self._from_all("ready"):
            self.facts[index] = message

    def _introduce(self) -> None:
        """Let each worker know the doors of the others, and open the memory of those on its machine."""
        stage = int(self.spec.stage_mib * 2**20)
        known = {
            i: [f["memory"], [f["shape"], f["dtype"], stage, f["shared"]], f["window"]]
            for i, f in enumerate(self.facts)
        }
        for index, seat in enumerate(self._seats):
            doors = {i: f["door"] for i, f in enumerate(self.facts) if i != index} if self._hosts else {}
            near = {i: one for i, one in known.items() if i != index and self._seats[i].node == seat.node}
            self.tell(index, {"kind": "peers", "doors": doors, "peers": near})
        for _ in self._from_all("met"):
            pass
        if self._hosts:
            for process in self.processes[1:]:
                process.unname()

    def _clock_s(self, worker: int) -> float:
        """How far the clock of a worker is ahead of this one's: nothing on one machine, else as half of the shortest
        round trip says."""
        if self._seats[worker].node == self._seats[0].node:
            return 0.0
        shortest_s, ahead_s = inf, 0.0
        for _ in range(PINGS):
            asked_s = time.perf_counter()
            self.tell(worker, {"kind": "ping"})
            ((_, pong),) = self._from_all("pong", [worker])
            took_s = time.perf_counter() - asked_s
            if took_s < shortest_s:
                shortest_s, ahead_s = took_s, pong["at_s"] - asked_s - took_s / 2
        return ahead_s

    @property
    def limits(self) -> Limits:
        """The limits of each worker."""
        spec = self.spec
        return Limits(self.facts[0]["kv_blocks"], spec.block_tokens, spec.token_budget, spec.max_batch)

    @property
    def whole(self) -> bool:
        """Whether all of them are still there."""
        return not (any(self.gone) or self.dead())

    # -- talking

    def begin(self, parts: list[Part]) -> None:
        """Let the first workers forget everything and begin their parts of a run; returns when all have."""
        self._runs += 1
        self._check_ways(parts)
        pairs, place = (), ""
        if any(mover(part.mover).wire == "group" for part in parts):
            pairs, place = pairs_of(parts), self._meeting_place()
        for index, part in enumerate(parts):
            self.tell(index, replace(part, pairs=pairs, meeting_place=place, run=self._runs).message())
        for _ in self._from_all("begun", range(len(parts))):
            pass

    def _check_ways(self, parts: list[Part]) -> None:
        """Raise `InputError` for a hand-off between two machines that needs memory which both sides share."""
        for sender, receiver in pairs_of(parts):
            how = mover(parts[sender].mover)
            if how.wire != "group" and self._seats[sender].node != self._seats[receiver].node:
                raise InputError(
                    f"the mover {how.name} goes through memory that both sides share, and workers {sender} and "
                    f"{receiver} are on two machines; use the mover group"
                )

    def _meeting_place(self) -> str:
        """The address at which groups of two meet; torch is needed for it, and only then."""
        if self._meeting is None:
            from helpers.cluster.pairs import MeetingPlace

            self._meeting = MeetingPlace(self._hosts.host if self._hosts else LOOPBACK)
        return self._meeting.address

    def start_clocks(self, origin_s: float, workers: int) -> None:
        """Let the times of the first workers count from `origin_s`, by the clock of this process."""
        for index in range(workers):
            self.tell(index, {"kind": "clock", "origin_s": origin_s + self._clocks_s[index]})

    def tell(self, worker: int, message: Message) -> None:
        """Send to a worker; nothing happens when it is gone."""
        if not self.gone[worker]:
            self._socket.send_multipart([str(worker).encode(), pack(message)])

    def receive(self, seconds: float) -> Iterator[tuple[int, Message]]:
        """What workers have said; waits for the first message or for `wake`, at most so long."""
        ready = dict(self._poller.poll(int(1e3 * seconds)))
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._socket in ready:
            for index, message in arrived(self._socket):
                if message["kind"] == "broken":
                    self.broken[index] = message["reason"]
                yield index, message

    def wake(self) -> None:
        """End the wait of whoever is in `receive`; from any thread."""
        os.write(self._waker, b"!")

    def _from_all(self, kind: str, who: Iterable[int] | None = None) -> Iterator[tuple[int, Message]]:
        """One message of a kind from each worker, or from those of `who`.

        Raises `InputError` or `WorkerError` for one that fails instead.
        """
        waiting = set(range(self.spec.count) if who is None else who)
        until_s = time.perf_counter() + self.spec.start_limit_s
        while waiting:
            for index, message in self.receive(0.05):
                if message["kind"] == "refused":
                    raise InputError(message["reason"])
                if message["kind"] == "broken":
                    raise WorkerError(message["reason"])
                if message["kind"] == kind:
                    waiting.discard(index)
                    yield index, message
            for index in waiting & set(self.dead()):
                raise WorkerError(f"worker {index} ended with code {self.processes[index].returncode} as it started")
            if time.perf_counter() > until_s:
                raise WorkerError(f"workers {sorted(waiting)} did not say {kind} in {self.spec.start_limit_s:g} s")

    # -- ending

    def dead(self) -> list[int]:
        """The workers whose process has ended."""
        return [i for i, process in enumerate(self.processes) if process.poll() is not None]

    def kill(self, worker: int) -> None:
        """End a worker at once, as a crash would."""
        self.processes[worker].kill()

    def pause(self, worker: int) -> None:
        """Let a worker hang: its process stands still until it is killed."""
        self.processes[worker].send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End all workers and free everything; can be called twice."""
        for index in range(len(self.processes)):
            if self._ended.alive:
                self.tell(index, {"kind": "stop"})
        self._ended()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def memory_bytes() -> int:
    """All of the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def pairs_of(parts: list[Part]) -> tuple[tuple[int, int], ...]:
    """Every (sender, receiver) that a hand-off can have."""
    receivers = [i for i, part in enumerate(parts) if part.role != "prefill"]
    return tuple((i, j) for i, part in enumerate(parts) if part.role == "prefill" for j in receivers)
