"""What the tests of the cluster share: a tiny decoder in this process, and workers in processes of their own."""

import pytest
import torch

from helpers.cluster.duet import duet
from helpers.engine.load import load
from helpers.scheduling.limits import Limits
from helpers.serving.cluster_backend import ClusterOptions, workers_for
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

TWO = Fleet(workers=2, chunk_tokens=128, max_batch=16, kv_gib=0.02)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def decoder():
    return load("tiny", "cpu")


@pytest.fixture(scope="module")
def pair(decoder):
    """A prefill and a decode engine in this process."""
    with duet(decoder, Limits(64, 64, 128, 8), stage_bytes=2**21) as made:
        yield made


@pytest.fixture(scope="module")
def crew():
    """Two running workers."""
    with workers_for(TWO, 64, ClusterOptions(device="cpu")) as made:
        yield made


def workload(requests=8, gap_s=0.02, output=6):
    """Prompts of one to four pages, the odd ones with a shared first page."""
    made = [
        Request(i, gap_s * i, 40 + 33 * (i % 7), output + i % 3, (1, 100 + i) if i % 2 else ()) for i in range(requests)
    ]
    return Workload("test", tuple(made), block_tokens=64)
