"""A group of two, stage by stage, each told with its time on the error stream: one that hangs is the first not told.

    python -m tests.cluster.group_stages [cpu|cuda] [MiB of a piece]

Two processes, with cuda on a GPU each: connect, send pieces, stand idle until the threads of the group have asked where
the two met, give the group up, connect again, and wait for a sender that is killed meanwhile.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import time

import torch

from helpers.cluster.pairs import MeetingPlace, PairLost, Pairs

PIECES, IDLE_S, HANG_S = 32, 2.5, 25.0
ROLES = ("sender", "receiver")
START_S = time.monotonic()


def say(role, text):
    print(f"{time.monotonic() - START_S:6.2f} s  {role}: {text}", file=sys.stderr, flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, index, place, device, size):
        self.index, self.place, self.cuda = index, place, device == "cuda"
        self.role = ROLES[index]
        if self.cuda:
            torch.cuda.set_device(index)
        self.stream = torch.cuda.Stream() if self.cuda else None
        where = f"cuda:{index}" if self.cuda else "cpu"
        self.memory = [torch.empty(size, dtype=torch.uint8, device=where) for _ in range(PIECES)]
        say(self.role, f"memory of {PIECES} x {size >> 20} MiB on {where}")

    def connect(self, run):
        began = time.monotonic()
        self.pairs = Pairs(self.index, [(0, 1)], self.place, self.cuda, run=run)
        say(self.role, f"run {run}: connected in {time.monotonic() - began:.2f} s")

    def move(self, pieces):
        """Send or receive; the host waits on a CPU and polls the device on a GPU."""
        began, works = time.monotonic(), []
        with torch.cuda.stream(self.stream):
            for number, piece in enumerate(self.memory[:pieces]):
                if self.index == 0:
                    works.append(self.pairs.send(piece.fill_(number + 1), 1))
                else:
                    self.pairs.receive(piece, 0)
        launched = time.monotonic() - began
        for work in works:
            work.wait()
        if self.cuda:
            torch.cuda.synchronize()
        took, size = time.monotonic() - began, sum(piece.nbytes for piece in self.memory[:pieces])
        right = all(bool((piece == n + 1).all()) for n, piece in enumerate(self.memory[:pieces]))
        say(self.role, f"{pieces} pieces in {1e3 * took:.1f} ms ({size / took / 1e9:.1f} GB/s), launched in "
            f"{1e3 * launched:.1f} ms, {'right' if right else 'WRONG'}")  # fmt: skip

    def close(self):
        time.sleep(IDLE_S)
        began = time.monotonic()
        self.pairs.close()
        say(self.role, f"given up in {time.monotonic() - began:.2f} s")

    def wait_for_the_dead(self):
        """The sender is killed; the receiver's host stays free, and its device is free once the pair is given up."""
        if self.index == 0:
            time.sleep(1.0)
            say(self.role, "killed")
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        try:
            with torch.cuda.stream(self.stream):
                self.pairs.receive(self.memory[0], 0)
        except PairLost as error:
            say(self.role, f"PairLost after {time.monotonic() - began:.2f} s: {error}")
            return
        say(self.role, f"waits on the device; the host was free after {time.monotonic() - began:.2f} s")
        time.sleep(2.0)
        began = time.monotonic()
        self.pairs.abort(0)
        say(self.role, f"given up in {time.monotonic() - began:.2f} s")
        torch.cuda.synchronize()
        say(self.role, f"the device is free {time.monotonic() - began:.2f} s after that")


def side(index, place, device, size):
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    one = Side(index, place, device, size)
    for run in (1, 2):
        one.connect(run)
        one.move(4)
        one.move(PIECES)
        if run == 1:
            one.close()
    one.wait_for_the_dead()
    say(one.role, "all stages done")
    os._exit(0)


def main(device="cpu", mib="8"):
    place = MeetingPlace()
    command = [sys.executable, "-m", "tests.cluster.group_stages", "side"]
    environment = {**os.environ, "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2", "TORCH_NCCL_DUMP_ON_TIMEOUT": "0"}
    sides = [subprocess.Popen([*command, str(i), place.address, device, mib], env=environment) for i in (0, 1)]
    codes = [one.wait() for one in sides]
    say("both", f"codes {codes}, {'as wanted' if codes == [-signal.SIGKILL, 0] else 'NOT as wanted'}")
    return int(codes != [-signal.SIGKILL, 0])


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        side(int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]) << 20)
    sys.exit(main(*sys.argv[1:]))
