"""The simulator's benchmark: what it runs and reports. How fast it is, no test asks."""

import json

import pytest

from helpers.bench import simulator_speed as speed
from helpers.cli import main
from helpers.errors import InputError
from helpers.policies.catalogue import ROUTERS
from helpers.workload.generate import open_workload
from helpers.workload.hygiene import quantise
from helpers.workload.traces import save


@pytest.fixture(autouse=True)
def no_real_traces(monkeypatch):
    monkeypatch.delenv("TRACES_DIR", raising=False)


@pytest.fixture
def short(monkeypatch):
    """Slices that end quickly."""
    few = speed.steady()
    monkeypatch.setattr(speed, "steady", lambda: type(few)(few.name, few.requests[:200], few.block_tokens))
    monkeypatch.setattr(speed, "SLICE", 50)


def test_without_real_traces_the_hour_is_the_one_that_ships():
    hour = speed.hour(None)
    assert hour.name == "conversation"
    assert hour.repairs == ()  # it has no ticks to spread


def test_the_real_hour_is_found_and_its_ticks_are_spread(tmp_path, monkeypatch):
    ticked = quantise(open_workload("conversation", max_requests=400)[0], 3.0)
    save(ticked, tmp_path / speed.REAL_HOUR, "mooncake")
    monkeypatch.setenv("TRACES_DIR", str(tmp_path))
    hour = speed.hour(None)
    assert len(hour) == 400
    assert "spread" in hour.repairs[-1]
    monkeypatch.setenv("TRACES_DIR", str(tmp_path / "elsewhere"))
    assert len(speed.hour(None)) == 12_000


def test_a_part_reports_its_runs_its_peer_and_its_goal(short):
    record = speed.measure(speed.PARTS["steady"], None, repeats=3, requests=1)
    assert record["requests"] == 200
    assert len(record["wall_s_all"]) == 3
    assert record["wall_s"] == sorted(record["wall_s_all"])[1]
    assert record["requests_per_s"] == pytest.approx(200 / record["wall_s"])
    assert record["peer"]["n"] == 3
    assert record["goal"] == {"requests_per_s": 100_000}
    assert record["met"] == (record["requests_per_s"] >= 100_000)


def test_every_router_of_the_catalogue_has_an_hour():
    every = speed.named(["hour-every-router"])
    assert [part.router for part in every] == list(ROUTERS)
    assert all(part.name == f"hour-{part.router}" and part.goal_wall_s <= 1.5 for part in every)
    # Without a name the usual parts are run, and of the hours only those that they are made of.
    assert speed.named([]) == list(speed.USUAL)
    assert speed.named(["steady", "hour-mooncake"]) == [speed.PARTS["steady"], speed.PARTS["hour-mooncake"]]
    with pytest.raises(InputError, match=r"part 'hour-nobody' is unknown; use one of .*hour-every-router, hour-ROUTER"):
        speed.named(["steady", "hour-nobody"])


def test_an_hour_runs_with_a_router_that_predicts_and_is_held_against_its_goal(monkeypatch):
    monkeypatch.setattr(speed, "hour", lambda trace: open_workload("conversation", max_requests=60)[0])
    record = speed.measure(speed.PARTS["hour-predicted_ttft"], None, repeats=2, requests=1)
    assert (record["router"], record["requests"], len(record["wall_s_all"])) == ("predicted_ttft", 60, 2)
    assert record["goal"] == {"wall_s": 1.5} and record["met"] == (record["wall_s"] <= 1.5)
    assert "peer" not in record
    slow = {**record, "wall_s": 1.51}
    assert speed._goals(speed.PARTS["hour-predicted_ttft"], slow, 1)["met"] is False


def test_a_goal_for_a_million_is_not_held_against_fewer():
    record = speed.measure(speed.PARTS["million-power_of_two"], None, repeats=1, requests=300)
    assert (record["goal"], record["met"]) == ({}, None)
    full = {"wall_s": 10.0, "peak_gb": 3.0}
    assert speed._goals(speed.PARTS["million-power_of_two"], full, 1_000_000)["met"] is False  # too much memory
    assert speed._goals(speed.PARTS["million-power_of_two"], {**full, "peak_gb": 1.0}, 1_000_000)["met"] is True


def test_the_command_ends_with_one_json_line(short, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "simulator", "--part", "steady", "--repeats", "1"])
    assert left.value.code == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [part["part"] for part in line["parts"]] == ["steady"]
    assert {"command", "wall_s", "seeds", "workload_sha256", "commit"} <= set(line)


def test_a_part_that_fails_in_its_own_process_says_why():
    with pytest.raises(InputError, match="there is no such trace file"):
        speed.in_own_process(speed.PARTS["hour-round_robin"], "nowhere.jsonl", 1, 1)


@pytest.mark.parametrize("words", [["--part", "hour"], ["--repeats", "0"], ["--requests", "0"]])
def test_bad_input_is_one_sentence(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "simulator", *words])
    told = capsys.readouterr()
    assert left.value.code == 2
    assert told.out == "" and told.err.count("\n") == 1
