"""The worker processes of a cluster: started, told, listened to, and ended in every case.

Each worker holds the reading end of a pipe whose other end is here. When this process ends, however it does, the
pipe ends, and with it the workers. What they share has no name any more by the time that they serve.
"""

import json
import os
import signal
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

import zmq

from helpers.cluster import folder
from helpers.cluster.messages import Message, pack
from helpers.cluster.movers import mover
from helpers.cluster.orders import Part, WorkerSetup
from helpers.cluster.sockets import FRONT, address, arrived, socket
from helpers.errors import InputError
from helpers.scheduling.limits import Limits

# The interrupt of a terminal goes to its whole group of processes; workers leave it to this one.
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from helpers.cluster.worker import main; main()"
ROOT = Path(__file__).resolve().parents[2]
CPU_KV_GIB = 1 / 16  # of a worker, when nobody says: several of them share the memory of a laptop
# One thread each. When a group of two is given up, NCCL is to clean it up and not to end the process.
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
}
GRACE_S = 2.0  # what a worker gets to leave by itself


class WorkerError(RuntimeError):
    """A worker failed in a way that the cluster cannot make good."""


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

    def setup(self, index: int, place: Path, gpus: int) -> WorkerSetup:
        """What worker `index` is told; raises `InputError` for workers that share a GPU with no share of its memory."""
        if self.device.startswith("cuda") and self.count > max(gpus, 1) and not self.kv_gib:
            raise InputError(f"{self.count} workers share {max(gpus, 1)} GPUs; say how much KV each gets (kv_gib)")
        device = f"cuda:{index % gpus}" if self.device == "cuda" and gpus > 1 else self.device
        kv_gib = self.kv_gib or (CPU_KV_GIB if self.device == "cpu" else 0.0)
        return WorkerSetup(
            index, self.count, str(place), self.model, device, self.dtype, self.block_tokens, self.token_budget,
            self.max_batch, kv_gib, int(self.stage_mib * 2**20), self.beat_s,
        )  # fmt: skip


class Workers:
    """Running worker processes; close them, or use them as a context. They can play several runs one after another.

    `startup_s` is what they took to start. `facts[i]` is what worker i says of itself: its pid, its KV blocks.
    Raises `InputError` for a setup that a worker refuses.
    """

    def __init__(self, spec: WorkersSpec) -> None:
        start_s = time.perf_counter()
        self.spec = spec
        self.facts: list[Message] = [{} for _ in range(spec.count)]
        self.gone = [False] * spec.count
        self._runs = 0
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
            self._socket.bind(address(place, FRONT))
            gpus = gpu_count() if spec.device == "cuda" else 0
            for index in range(spec.count):
                self.processes.append(start(spec.setup(index, place, gpus)))
            for index, message in self._from_all("ready"):
                self.facts[index] = message
            self._introduce()
        except BaseException:
            self.close()
            raise
        folder.remove(place)  # everybody has opened everything
        self.startup_s = time.perf_counter() - start_s

    def _introduce(self) -> None:
        """Let each worker open the memory of the others."""
        stage = int(self.spec.stage_mib * 2**20)
        layouts = {i: [f["shape"], f["dtype"], stage, f["shared"]] for i, f in enumerate(self.facts)}
        for index in range(self.spec.count):
            others = {i: one for i, one in layouts.items() if i != index}
            windows = {i: self.facts[i]["window"] for i in others}
            self.tell(index, {"kind": "peers", "peers": others, "windows": windows})
        for _ in self._from_all("met"):
            pass

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
        grouped = any(mover(part.mover).wire == "group" for part in parts)
        place = folder.make() if grouped else None
        try:
            for index, part in enumerate(parts):
                pairs = pairs_of(parts) if grouped else ()
                told = replace(part, pairs=pairs, meeting_place=str(place or ""), run=self._runs)
                self.tell(index, told.message())
            for _ in self._from_all("begun", len(parts)):
                pass
        finally:
            if place:
                folder.remove(place)

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
            yield from arrived(self._socket)

    def wake(self) -> None:
        """End the wait of whoever is in `receive`; from any thread."""
        os.write(self._waker, b"!")

    def _from_all(self, kind: str, count: int | None = None) -> Iterator[tuple[int, Message]]:
        """One message of a kind from each worker, or from the first `count`.

        Raises `InputError` or `WorkerError` for one that fails instead.
        """
        waiting = set(range(self.spec.count if count is None else count))
        until_s = time.perf_counter() + self.spec.start_limit_s
        while waiting:
            for index, message in self.receive(0.05):
                if message["kind"] == "refused":
                    raise InputError(message["reason"])
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


def start(setup: WorkerSetup) -> Popen:
    """A process that is this worker."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **ALONE, "PYTHONPATH": path}
    process = Popen([sys.executable, "-c", COMMAND], stdin=PIPE, env=environment)
    process.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
    process.stdin.flush()
    return process


def end(processes: list[Popen], place: Path, context: zmq.Context, pipe: tuple[int, int]) -> None:
    """See every process out: those that were told to stop, those that notice that nobody is here, and the rest."""
    until_s = time.perf_counter() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.05, until_s - time.perf_counter()))
        except TimeoutExpired:
            process.kill()
        process.stdin.close()
    for process in processes:
        process.wait()
    context.destroy(linger=0)
    for one in pipe:
        os.close(one)
    folder.remove(place)


def pairs_of(parts: list[Part]) -> tuple[tuple[int, int], ...]:
    """Every (sender, receiver) that a hand-off can have."""
    receivers = [i for i, part in enumerate(parts) if part.role != "prefill"]
    return tuple((i, j) for i, part in enumerate(parts) if part.role == "prefill" for j in receivers)


def gpu_count() -> int:
    """GPUs that torch can use."""
    import torch

    return torch.cuda.device_count()
