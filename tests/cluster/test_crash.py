"""A worker that fails says so in one sentence; its traceback is in a file."""

import re
from pathlib import Path

import pytest

from helpers.cluster import crash, process
from helpers.cluster.orders import WorkerSetup
from helpers.cluster.workers import Workers, WorkersSpec
from helpers.errors import WorkerError
from helpers.serving.cluster_backend import ClusterOptions
from helpers.serving.experiment import Experiment
from helpers.workload.request import Request, Workload
from tests.cluster.conftest import TWO

SETUP = WorkerSetup(3, 4, "/nowhere", "tiny", "cuda:1", None, 64, 128, 8, 0.1, 1, 0.25, "front")
# A worker in which a fault is planted before it begins.
PLANTED = "import helpers.cluster.worker as worker\n{}\nworker.main()"
AT_START = "def limits_for(*_): raise {}\nworker.limits_for = limits_for"
# Worker 1 fails in its first step with requests, after the one that warms it up.
IN_A_STEP = """
begin = worker.Worker._begin
def planted(self, part):
    begin(self, part)
    def advance(): raise IndexError('planted in a step')
    if self.setup.index == 1: self.engine.advance = advance
worker.Worker._begin = planted
"""


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Workers that carry a fault from now on; their tracebacks go to `tmp_path`."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda fault: monkeypatch.setattr(process, "COMMAND", PLANTED.format(fault))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "ValueError('planted\\nand more lines')",
            r"worker 0 \(tiny on cpu\) failed as it started: ValueError: planted; its",
        ),
        (
            "worker.torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has less.')",
            r"worker 0 ran out of memory on cpu as it started \(2\.50 GiB more were asked for\); give KV less of it",
        ),
    ],
)
def test_a_worker_that_fails_as_it_starts_is_one_sentence(planted, capfd, fault, said):
    planted(AT_START.format(fault))
    with pytest.raises(WorkerError, match=said) as failed:
        Workers(WorkersSpec(1, kv_gib=0.005))
    assert capfd.readouterr() == ("", "")  # it is the command that says it
    assert "\n" not in str(failed.value)
    assert "in limits_for" in Path(re.search(r"traceback is in (\S+\.log)$", str(failed.value))[1]).read_text()


def test_without_a_fault_such_a_worker_starts(planted):
    planted("")
    with Workers(WorkersSpec(1, kv_gib=0.005)) as crew:
        assert crew.broken == {}


def test_a_worker_that_fails_in_a_run_is_quoted_once_and_its_requests_go_elsewhere(planted, capfd):
    planted(IN_A_STEP)
    asked = Workload("asked", tuple(Request(i, 0.02 * i, 60, 6) for i in range(6)), 64)
    run = Experiment(asked, TWO).run(on="engine", engine=ClusterOptions(device="cpu", limit_s=300, hang_s=120))
    assert [t.status for t in run.timelines] == ["finished"] * 6 and run.log.counts["workers_lost"] == 1
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(
        "hybrid-serving: worker 1 (tiny on cpu) failed while it served: IndexError: planted in a step"
    )


def test_what_no_file_can_hold_is_said_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = crash.sentence(RuntimeError("CUDA error: out of memory"), SETUP, False)
    assert kept.startswith("worker 3 ran out of memory on cuda:1 as it started; give KV less") and kept.endswith(".log")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    lost = crash.sentence(KeyError(), SETUP, True)
    assert (
        lost
        == "worker 3 (tiny on cuda:1) failed while it served: KeyError; its traceback could not be written anywhere"
    )
