"""The process of a worker, on this machine: started, and seen out in every case.

It holds the reading end of a pipe whose other end is here. When this process ends, however it does, the pipe ends, and
with it the worker.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

import zmq

from helpers.cluster import folder
from helpers.cluster.orders import WorkerSetup

# The interrupt of a terminal goes to its whole group of processes; workers leave it to this one.
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from helpers.cluster.worker import main; main()"
ROOT = Path(__file__).resolve().parents[2]
# One thread each. When a group of two is given up, NCCL is to clean it up, and neither to end the process nor to wait
# for others to write down what they were doing.
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
}
GRACE_S = 2.0  # what a worker gets to leave by itself


def start(setup: WorkerSetup) -> Popen:
    """A process that is this worker."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, **ALONE, "PYTHONPATH": path}
    process = Popen([sys.executable, "-c", COMMAND], stdin=PIPE, env=environment)
    process.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
    process.stdin.flush()
    return process


def end(processes: Sequence[Popen], place: Path, context: zmq.Context, pipe: tuple[int, int]) -> None:
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


def gpu_count() -> int:
    """GPUs that torch can use."""
    import torch

    return torch.cuda.device_count()
