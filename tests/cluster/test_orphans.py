"""However the front end ends, its workers end too, and nothing of them is left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.cluster import folder

PARENT = """
import sys, time
from helpers.cluster.workers import Workers, WorkersSpec
if __name__ == "__main__":
    with Workers(WorkersSpec(2, kv_gib=0.005)) as crew:
        print(*[process.pid for process in crew.processes], flush=True)
        mode = sys.argv[1]
        if mode == "raise":
            raise SystemExit("an error in the front end")
        time.sleep(0 if mode == "leave" else 600)
"""
PATIENCE_S = 60.0  # of a busy machine


def started(mode):
    """A process that is a front end with two workers, and their numbers."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PARENT, mode]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    return parent, pids


def gone(pids):
    """Whether all of them are gone within reason."""
    until = time.monotonic() + PATIENCE_S
    while any(folder.alive(pid) and not zombie(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def zombie(pid):
    """Nobody has asked for the code of an orphan that has ended: it computes nothing and holds nothing."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return False


def left_behind(parent):
    return list(folder.base().glob(f"{folder.PREFIX}{parent.pid}-*"))


@pytest.mark.parametrize("mode", ["leave", "raise"])
def test_a_front_end_that_ends_takes_its_workers_along(mode):
    parent, pids = started(mode)
    parent.wait(PATIENCE_S)
    assert gone(pids)
    assert left_behind(parent) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_front_end_that_is_ended_takes_its_workers_along(number):
    parent, pids = started("sleep")
    assert all(folder.alive(pid) for pid in pids)  # control: they are there until then
    assert left_behind(parent) == []  # and what they share has no name any more
    os.kill(parent.pid, number)
    parent.wait(PATIENCE_S)
    assert gone(pids)
    assert left_behind(parent) == []
