"""A rank that holds a worker: it starts and ends one as rank 0 says over a line of TCP, until that line ends.

What is said are lines of JSON. From rank 0: start (a setup), kill, pause and unname (of the worker of a number).
To rank 0: hello, and ended (a number, a code).
"""

import json
import select
import signal
import socket
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen

from helpers.cluster import folder
from helpers.cluster.launch import Rank, Store, line_to
from helpers.cluster.orders import WorkerSetup
from helpers.cluster.process import start

LOOK_S = 0.05  # how often a rank looks whether its worker is still there


class Lines:
    """JSON values over a socket, one a line. `said()` gives those that are there; `ended` says that no more will be."""

    def __init__(self, line: socket.socket) -> None:
        self.line, self.ended = line, False
        self._rest = b""

    def tell(self, value: dict) -> None:
        """Say something; nothing happens when nobody hears it any more."""
        if self.ended:
            return
        try:
            self.line.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            self.ended = True

    def said(self, seconds: float = 0.0) -> list[dict]:
        """What the other side has said; waits for it at most so long."""
        if self.ended or not select.select([self.line], [], [], seconds)[0]:
            return []
        try:
            found = self.line.recv(2**16)
        except OSError:
            found = b""
        if not found:
            self.ended = True
        *lines, self._rest = (self._rest + found).split(b"\n")
        return [json.loads(one) for one in lines]

    def close(self) -> None:
        """Say and hear no more."""
        self.ended = True
        self.line.close()


class Host:
    """The workers that this rank holds, by number; mostly one, or one that comes as another goes."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._address = lines.line.getsockname()[0]
        self._workers: dict[int, tuple[Popen, Path]] = {}

    def serve(self) -> None:
        """Do what is said until the line ends, and leave nothing behind."""
        try:
            while not self._lines.ended:
                for said in self._lines.said(LOOK_S if self._workers else 60.0):
                    self._do(said)
                self._look()
        finally:
            for process, place in self._workers.values():
                process.kill()
                process.wait()
                folder.remove(place)

    def _do(self, said: dict) -> None:
        number = said["number"]
        if said["do"] == "start":
            place = folder.make()
            setup = WorkerSetup(**{**said["setup"], "folder": str(place), "host": self._address})
            self._workers[number] = (start(setup), place)
        elif number in self._workers:
            process, place = self._workers[number]
            if said["do"] == "unname":
                folder.remove(place)
            else:
                process.send_signal({"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[said["do"]])

    def _look(self) -> None:
        for number, (process, place) in list(self._workers.items()):
            if process.poll() is not None:
                process.stdin.close()
                folder.remove(place)
                del self._workers[number]
                self._lines.tell({"ended": number, "code": process.returncode})


def serve(rank: Rank) -> int:
    """Hold a worker whenever rank 0 asks for one; returns the code to leave with, when rank 0 has left."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: rank 0 has it too, and ends everybody
    line = line_to(Store(), rank.rank)
    if line is None:
        return 0
    lines = Lines(line)
    lines.tell({**asdict(rank), "gpus": torch.cuda.device_count()})
    Host(lines).serve()
    return 0
