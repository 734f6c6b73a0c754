"""Groups of two: what is sent arrives, and a peer that is gone or stands still ends in an error, not in a hang."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist

from helpers.cluster.pairs import MeetingPlace, PairLost, Pairs

SENDER = """
import sys, torch
from helpers.cluster.pairs import Pairs
index, place = int(sys.argv[1]), sys.argv[2]
pairs = Pairs(index, [(0, 2), (1, 2)], place, cuda=False)
for k in range(3):
    pairs.send(torch.full((4,), 10.0 * index + k), 2).wait()
sys.stdin.read()
"""
PATIENCE_S = 60.0


def started(place):
    """Two processes that send three tensors each, and then wait."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SENDER]
    return [subprocess.Popen([*command, str(i), place], env=environment, stdin=subprocess.PIPE) for i in (0, 1)]


@pytest.fixture
def senders():
    place = MeetingPlace()
    made = started(place.address)
    yield place, made
    for process in made:
        process.kill()
        process.communicate()


def received(pairs, source):
    got = torch.zeros(4)
    pairs.receive(got, source)
    return got.tolist()


def test_pieces_arrive_in_order_and_a_peer_that_is_gone_costs_its_pair_only(senders):
    place, (first, _) = senders
    pairs = Pairs(2, [(0, 2), (1, 2)], place.address, cuda=False, limit_s=2 * PATIENCE_S)
    assert received(pairs, 1) == [10.0] * 4
    assert [received(pairs, 0)[0] for _ in range(3)] == [0.0, 1.0, 2.0]
    # it dies while it is waited for
    threading.Timer(0.5, first.kill).start()
    start = time.monotonic()
    with pytest.raises(PairLost, match="worker 0"):
        received(pairs, 0)
    assert time.monotonic() - start < PATIENCE_S  # it did not wait for its limit
    with pytest.raises(PairLost):
        received(pairs, 0)
    assert received(pairs, 1) == [11.0] * 4  # the other pair goes on
    with pytest.raises(PairLost):
        pairs.send(torch.zeros(4), 0)  # control: there is no such pair
    pairs.close()


def test_a_peer_that_stands_still_is_waited_for_until_the_limit(senders):
    place, (first, _) = senders
    pairs = Pairs(2, [(0, 2), (1, 2)], place.address, cuda=False, limit_s=5.0)
    assert [received(pairs, 0)[0] for _ in range(3)] == [0.0, 1.0, 2.0]
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(PairLost, match="worker 0"):
        received(pairs, 0)
    assert [received(pairs, 1)[0] for _ in range(3)] == [10.0, 11.0, 12.0]  # the other pair goes on
    pairs.close()


def test_a_group_that_does_not_come_about_is_a_lost_pair():
    place = MeetingPlace()
    pairs = Pairs(0, [(0, 1)], place.address, cuda=False, connect_s=0.5)
    with pytest.raises(PairLost, match="given up"):
        pairs.send(torch.zeros(4), 1)


def test_groups_of_one_run_are_not_those_of_another():
    """Both sides of a pair in this process, twice at one place: the second run gets nothing of the first."""
    place = MeetingPlace()
    for run in (1, 2):
        ends = [None, None]

        def make(i, run=run, ends=ends):
            ends[i] = Pairs(i, [(0, 1)], place.address, cuda=False, run=run)

        threads = [threading.Thread(target=make, args=(i,)) for i in (0, 1)]
        [t.start() for t in threads], [t.join() for t in threads]
        sent = torch.full((4,), float(run))
        work = ends[0].send(sent, 1)
        if run == 2:  # nobody has received what the first run sent
            assert received(ends[1], 0) == [2.0] * 4
        for end in ends:
            end.close()
        del work


def answers(store):
    """Whether a store answers within a second."""
    said = threading.Event()

    def ask():
        store.check(["anything"])
        said.set()

    threading.Thread(target=ask, daemon=True).start()
    return said.wait(1.0)


def test_the_meeting_place_answers_as_long_as_groups_may_ask_it(tmp_path):
    """NCCL asks it once a second, and whoever ends a group waits for the answer. Control: a file that is removed."""
    place = MeetingPlace()
    host, port = place.address.split(":")
    assert answers(dist.TCPStore(host, int(port), wait_for_workers=False))
    file = dist.FileStore(str(tmp_path / "place"), 2)
    file.set("anything", "there")
    assert answers(file)
    os.remove(tmp_path / "place")
    assert not answers(file)
