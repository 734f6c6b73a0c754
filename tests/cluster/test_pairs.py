"""Groups of two: what is sent arrives, and a peer that is gone ends in an error, not in a hang."""

import os
import subprocess
import sys
import time

import pytest
import torch

from helpers.cluster.pairs import PairLost, Pairs

SENDER = """
import sys, os, torch
from pathlib import Path
from helpers.cluster.pairs import Pairs
index, folder = int(sys.argv[1]), Path(sys.argv[2])
pairs = Pairs(index, [(0, 2), (1, 2)], folder, cuda=False)
for k in range(3):
    pairs.send(torch.full((4,), 10.0 * index + k), 2).wait()
sys.stdin.read() if index else os._exit(0)
"""


def test_pieces_arrive_in_order_and_a_peer_that_is_gone_costs_its_pair_only(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SENDER]
    senders = [
        subprocess.Popen([*command, str(i), str(tmp_path)], env=environment, stdin=subprocess.PIPE) for i in (0, 1)
    ]
    pairs = Pairs(2, [(0, 2), (1, 2)], tmp_path, cuda=False, limit_s=60.0)
    got = torch.zeros(4)
    pairs.receive(got, 1)
    assert got.tolist() == [10.0] * 4
    for k in range(3):
        pairs.receive(got, 0)
        assert got.tolist() == [float(k)] * 4
    senders[0].wait(30)
    start = time.monotonic()
    with pytest.raises(PairLost, match="worker 0"):
        pairs.receive(got, 0)
    assert time.monotonic() - start < 50  # it did not wait for its limit
    with pytest.raises(PairLost):
        pairs.receive(got, 0)
    pairs.receive(got, 1)  # the other pair goes on
    assert got.tolist() == [11.0] * 4
    with pytest.raises(PairLost):
        pairs.send(got, 0)  # control: there is no such pair
    senders[1].communicate(timeout=30)
    pairs.close()
