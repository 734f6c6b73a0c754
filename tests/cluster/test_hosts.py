"""A rank that holds a worker does what rank 0 says, over a line whose end is the end of both."""

import socket
import subprocess
import threading
import time
from dataclasses import replace
from itertools import count

import pytest

from helpers.cluster import folder, host
from helpers.cluster.host import Host, Lines
from helpers.cluster.hosts import LOST, Hosts
from helpers.cluster.orders import WorkerSetup

SETUP = WorkerSetup(1, 2, "", "tiny", "cpu", None, 64, 128, 8, 0.01, 2**20, 0.25, "tcp://a:1")
PATIENCE_S = 60.0


@pytest.fixture
def held(monkeypatch):
    """Rank 0, a rank in a thread whose workers are processes that sleep, and those, with what they were told."""
    made = []

    def start(setup):
        process = subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE)
        made.append((process, setup))
        return process

    monkeypatch.setattr(host, "start", start)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    hosts = Hosts.__new__(Hosts)
    hosts._lines, hosts._processes, hosts._numbers = {1: Lines(here)}, {}, count()
    rank = threading.Thread(target=Host(Lines(there)).serve)
    rank.start()
    yield hosts, made, rank
    hosts._lines[1].close()
    rank.join(PATIENCE_S)
    there.close()


def started(hosts, made):
    """A worker that runs."""
    number = len(made)
    one = hosts.start(SETUP)
    until(lambda: len(made) > number)
    assert one.poll() is None
    return one


def until(true):
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_worker_is_started_killed_and_started_again(held):
    hosts, made, _ = held
    first = started(hosts, made)
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.1)  # control: it runs until then
    assert made[0][1] == replace(SETUP, folder=made[0][1].folder, host="127.0.0.1")  # the folder is one of that machine
    first.kill()
    assert first.wait(PATIENCE_S) == first.poll() == -9
    second = started(hosts, made)
    second.kill()
    assert (second.wait(PATIENCE_S), first.returncode) == (-9, -9)
    assert not any(folder.Path(setup.folder).exists() for _, setup in made)


def test_names_are_removed_while_a_worker_runs(held):
    hosts, made, _ = held
    one = started(hosts, made)
    place = folder.Path(made[0][1].folder)
    assert place.exists()
    one.unname()
    until(lambda: not place.exists())
    assert one.poll() is None


def test_the_end_of_the_line_is_the_end_of_the_worker(held):
    hosts, made, rank = held
    started(hosts, made)
    hosts._lines[1].close()  # rank 0 is gone
    rank.join(PATIENCE_S)
    assert not rank.is_alive()
    assert made[0][0].poll() == -9
    assert not folder.Path(made[0][1].folder).exists()


def test_a_rank_that_is_gone_has_lost_its_worker(held):
    hosts, made, _ = held
    one = started(hosts, made)
    hosts._lines[1].line.shutdown(socket.SHUT_RDWR)
    assert one.wait(PATIENCE_S) == LOST
    one.kill()  # nobody hears it
    made[0][0].wait(PATIENCE_S)


def test_what_is_said_comes_whole_however_it_is_cut():
    near, far = socket.socketpair()
    lines = Lines(far)
    assert lines.said() == []
    near.sendall(b'{"number": 1}\n{"num')
    assert lines.said(PATIENCE_S) == [{"number": 1}]
    near.sendall(b'ber": 2}\n')
    assert lines.said(PATIENCE_S) == [{"number": 2}]
    near.close()
    assert lines.said(PATIENCE_S) == [] and lines.ended
    far.close()
