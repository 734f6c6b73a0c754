"""Under torchrun the ranks hold the workers: the same tokens, on one machine and on two, and nobody is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from helpers.cluster import folder
from helpers.cluster.hosts import Hosts
from helpers.cluster.launch import Rank, Seat, rank_of, run
from helpers.cluster.workers import WorkersSpec
from helpers.engine.engine import Engine
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from tests.cluster.conftest import workload
from tests.cluster.test_orphans import PATIENCE_S, gone

TOLD = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500",
}  # fmt: skip


# -- what torchrun says


def test_a_rank_knows_its_place():
    assert rank_of({}) is None
    assert rank_of({"RANK": "1", "WORLD_SIZE": "2"}) is None  # of somebody else
    assert rank_of(TOLD) == Rank(1, 4, 1, 2, 0, 2, "node-a")
    assert not rank_of(TOLD).leads and rank_of({**TOLD, "RANK": "0"}).leads


@pytest.mark.parametrize("wrong", [{"MASTER_ADDR": ""}, {"WORLD_SIZE": "two"}, {"RANK": "4"}, {"LOCAL_RANK": "2"}])
def test_an_environment_that_cannot_be_is_one_sentence(wrong):
    with pytest.raises(InputError, match=r"leave (its variables|them) alone"):
        rank_of({**TOLD, **wrong})


def test_without_torchrun_a_command_is_what_it_was():
    assert run(lambda: 7) == 7


def test_a_process_that_torchrun_has_not_started_has_no_ranks(monkeypatch):
    from helpers.cluster.hosts import launch

    for name, value in {**TOLD, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    launch.cache_clear()
    with pytest.raises(InputError, match="no rank of torchrun"):
        launch()
    for name in TOLD:
        monkeypatch.delenv(name)
    assert launch() is None  # control: outside of torchrun
    launch.cache_clear()


def test_more_workers_than_ranks_are_refused():
    hosts = Hosts.__new__(Hosts)
    hosts.rank = rank_of(TOLD)
    hosts.check(4)
    with pytest.raises(InputError, match="5 workers, and torchrun has started 4 ranks"):
        hosts.check(5)


def test_a_worker_gets_the_gpu_of_its_local_rank(tmp_path):
    spec = WorkersSpec(4, device="cuda", kv_gib=1.0)
    seats = [Seat(node, local, 2, 2) for node in (0, 1) for local in (0, 1)]
    devices = [spec.setup(i, tmp_path, seat, "tcp://a:1").device for i, seat in enumerate(seats)]
    assert devices == ["cuda:0", "cuda:1"] * 2
    shared = WorkersSpec(4, device="cuda")
    assert shared.setup(1, tmp_path, seats[1], "tcp://a:1").device == "cuda:1"
    with pytest.raises(InputError, match="2 workers share 1 GPUs"):
        shared.setup(1, tmp_path, Seat(0, 1, 2, 1), "tcp://a:1")


def test_workers_whose_kv_is_more_than_the_memory_of_the_machine_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.cluster.workers.memory_bytes", lambda: 4 * 2**30)
    spec = WorkersSpec(4, kv_gib=1.0)
    assert spec.setup(0, tmp_path, Seat(0, 0, 4, 0), "tcp://a:1").kv_gib == 1.0  # 4 GiB of 4
    with pytest.raises(InputError, match=r"1 GiB of KV for each of 5 workers are more than the 4.0 GiB"):
        spec.setup(0, tmp_path, Seat(0, 0, 5, 0), "tcp://a:1")


def test_the_clock_of_another_machine_is_set_by_the_shortest_of_some_rounds(monkeypatch):
    """Its clock is 100 s ahead and answers come after 1, 0.1, 0.01 s and so on; one way is half of the round."""
    from helpers.cluster import workers as module

    crew = module.Workers.__new__(module.Workers)
    crew._seats = [Seat(0, 0, 1, 0), Seat(1, 0, 1, 0), Seat(0, 1, 1, 0)]
    now, rounds = [50.0], [1.0, 0.1, 0.01] + [1.0] * (module.PINGS - 3)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(crew, "tell", lambda worker, message: None, raising=False)

    def pong(kind, who):
        took_s = rounds.pop(0)
        now[0] += took_s
        return [(1, {"at_s": now[0] - 0.25 * took_s + 100.0})]  # the way back takes a quarter of the round

    monkeypatch.setattr(crew, "_from_all", pong, raising=False)
    assert crew._clock_s(1) == pytest.approx(100.0 + 0.25 * 0.01)  # wrong by what one way is shorter than the other
    assert rounds == []
    assert crew._clock_s(2) == 0.0  # control: on the same machine nothing is asked


# -- launched


def agent(*options, mover="group", mode="leave"):
    """A torchrun with its ranks."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *options,
        "-m",
        "tests.cluster.torchrun_case",
        mover,
        mode,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def alone(decoder):
    """The tokens of one engine, a request at a time."""
    made = {}
    with Engine(decoder, Limits(64, 64, 128, 8)) as engine:
        for request in workload(4):
            engine.submit(request)
            made[str(request.id)] = [token.token for token in engine.stream()]
    return made


def test_two_machines_give_the_tokens_of_one_engine(alone):
    """Two torchruns, as on two machines: workers share no memory, and a mover that needs it is refused."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    agents = [agent(*told, "--node-rank", str(node)) for node in (0, 1)]
    out, said = zip(*(one.communicate(timeout=5 * PATIENCE_S) for one in agents), strict=True)
    assert [one.returncode for one in agents] == [0, 0], said
    begun, group, layerwise = lines(out[0])
    assert lines(out[1]) == []  # one rank says something, the other one holds a worker
    assert group["tokens"] == alone
    assert group["checked"] > 0 and group["wrong"] == 0
    assert all(0 <= late_s < PATIENCE_S for late_s in group["late_s"])  # by one clock
    assert "workers 0 and 1 are on two machines; use the mover group" in layerwise["refused"]
    assert gone(begun["pids"])


def started(mover):
    """One torchrun with two ranks that stay, and the numbers of all processes."""
    one = agent("--standalone", "--nproc-per-node", "2", mover=mover, mode="sleep")
    said = [json.loads(one.stdout.readline()) for _ in range(3)]
    workers = said[0]["pids"]
    ranks = children(one.pid)
    assert said[0]["rank"] in ranks and len(ranks) == 2
    assert all(folder.alive(pid) for pid in (*workers, *ranks))  # control: they are there until then
    return one, said, workers, ranks


def children(pid):
    """The ranks that a torchrun has started."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in found.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "torchrun_case" in row[-1]]


def left_behind(ranks):
    return [path for rank in ranks for path in folder.base().glob(f"{folder.PREFIX}{rank}-*")]


def test_an_interrupt_ends_everybody(alone):
    """Ranks of one machine share memory, so any mover will do there."""
    one, said, workers, ranks = started("bounce")
    assert [one["tokens"] for one in said[1:]] == [alone, alone]
    one.send_signal(signal.SIGINT)
    one.communicate(timeout=2 * PATIENCE_S)
    assert gone([*workers, *ranks])
    assert left_behind(ranks) == []


def test_a_killed_rank_leaves_nobody_behind():
    one, said, workers, ranks = started("group")
    os.kill(next(pid for pid in ranks if pid != said[0]["rank"]), signal.SIGKILL)
    one.communicate(timeout=2 * PATIENCE_S)
    assert one.returncode != 0
    assert gone([*workers, *ranks])
    assert left_behind(ranks) == []
