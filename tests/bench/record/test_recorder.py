"""`record`: the order of the parts, what is skipped, what is measured again, and what later parts learn."""

import json

import pytest

from helpers import cli
from helpers.bench.engine.report import point
from helpers.bench.record import recorder
from helpers.bench.record.files import read_record
from helpers.bench.record.parts import PARTS, Part, in_order
from helpers.bench.record.recorder import path_of, record
from helpers.bench.record.table import COLUMNS, limit_of, rows
from helpers.checkout import TOLD, commit
from helpers.cost.calibration import COEFFICIENTS
from helpers.errors import InputError


class Machine:
    """Parts that note when they run; `fails` names those that raise after their first point."""

    def __init__(self):
        self.ran, self.sessions, self.fails = [], {}, set()

    def part(self, name):
        def run(session, report):
            self.ran.append(name)
            self.sessions[name] = (dict(session.ours), session.cost)
            report.run("ceilings", lambda: iter([point("copy", 5.0, "GB/s")]))
            report.run(name, lambda: self.points(name))
            if name in self.fails:
                raise ValueError("planted")

        return Part(run, lambda _: ("ceilings", name))

    def points(self, name):
        if name == "calibrate":
            yield from (point(c, 0.5, "s") for c in COEFFICIENTS)
            return
        yield point("first", 1.0, "ms")
        if name in self.fails:
            raise ValueError("planted")
        yield point("last", 2.0, "ms")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    found = Machine()
    monkeypatch.setattr(recorder, "DATA", tmp_path / "data")
    monkeypatch.setattr(recorder, "in_order", lambda names: [(n, found.part(n)) for n, _ in in_order(names)])
    monkeypatch.setattr(recorder, "code_sha256", lambda: "b" * 64)
    monkeypatch.setenv(TOLD, "a" * 40)
    return found


def run(only=(), **how):
    return record("hybrid-serving record", "tiny", "cpu", only, **how)


def test_the_most_valuable_comes_first_whatever_the_order_of_the_names():
    assert [name for name, _ in in_order(("serve", "ceilings", "engine"))] == ["ceilings", "engine", "serve"]
    assert [name for name, _ in in_order(())] == list(PARTS)


def test_each_part_has_its_file_with_its_origin(machine, tmp_path):
    found = run(("engine", "ceilings"))
    assert machine.ran == ["ceilings", "engine"]
    key = found["engine"]["hardware_key"]
    stored = read_record(path_of(tmp_path / "data" / "packs" / key, "tiny", "engine"))
    assert key.startswith("cpu_")
    assert (stored["part"], stored["commit"], stored["command"]) == ("engine", "a" * 40, "hybrid-serving record")


def test_what_is_recorded_is_skipped_unless_again(machine):
    first = run(("engine",))
    second = run(("engine",))
    assert machine.ran == ["engine"]
    assert second["engine"]["parts"] == first["engine"]["parts"]
    run(("engine",), again=True)
    assert machine.ran == ["engine", "engine"]


@pytest.mark.parametrize("again", [True, False])
def test_an_earlier_record_stays_until_there_is_a_whole_one(machine, monkeypatch, tmp_path, capsys, again):
    """Measured again, or by other code: what fails midway lies beside it, and the next try goes on with that."""
    key = run(("engine",))["engine"]["hardware_key"]
    path = path_of(tmp_path / "data" / "packs" / key, "tiny", "engine")
    first, beside = path.read_text(), path.with_name(f"{path.name}.part")
    if not again:
        monkeypatch.setenv(TOLD, "c" * 40)
    machine.fails = {"engine"}
    run(("engine",), again=again)
    assert path.read_text() == first and "engine: not complete, so the earlier" in capsys.readouterr().err
    assert [one["name"] for one in json.loads(beside.read_text())["parts"]["engine"]["points"]] == ["first"]
    machine.fails = set()
    run(("engine",), again=again)
    assert not beside.exists() and len(read_record(path)["parts"]["engine"]["points"]) == 2
    assert path.read_text() != first and machine.ran == ["engine"] * 3  # the control: it was replaced in the end


def test_a_recording_that_goes_on_grows_in_its_file(machine, tmp_path):
    machine.fails = {"engine"}
    key = run(("engine",))["engine"]["hardware_key"]
    path = path_of(tmp_path / "data" / "packs" / key, "tiny", "engine")
    run(("engine",))
    assert [one.name for one in path.parent.iterdir() if one.suffix != ".log"] == [path.name]
    assert "ceilings" in read_record(path)["parts"]


@pytest.mark.parametrize("change", ["commit", "code"])
def test_a_record_of_other_code_is_not_skipped(machine, monkeypatch, change):
    run(("engine",))
    if change == "commit":
        monkeypatch.setenv(TOLD, "c" * 40)
    else:
        monkeypatch.setattr(recorder, "code_sha256", lambda: "d" * 64)
    run(("engine",))
    assert machine.ran == ["engine", "engine"]


def test_another_folder_gets_the_records_and_packs_are_looked_into_first(machine, tmp_path):
    found = run(("engine",), out=tmp_path / "out")
    key = found["engine"]["hardware_key"]
    assert read_record(path_of(tmp_path / "out" / key, "tiny", "engine"))
    assert not list((tmp_path / "data").rglob("*.json"))
    (tmp_path / "data" / "packs").mkdir(parents=True)
    (tmp_path / "out" / key).rename(tmp_path / "data" / "packs" / key)
    run(("engine",), out=tmp_path / "elsewhere")
    assert machine.ran == ["engine"]


def test_a_part_that_fails_keeps_its_points_and_the_next_one_runs(machine):
    machine.fails = {"engine"}
    found = run(("engine", "serve"))
    assert machine.ran == ["engine", "serve"]
    assert found["engine"]["parts"]["engine"]["failed"] == "ValueError: planted"
    assert [p["name"] for p in found["engine"]["parts"]["engine"]["points"]] == ["first"]
    machine.fails = set()
    again = run(("engine", "serve"))
    assert machine.ran == ["engine", "serve", "engine"]
    assert [p["name"] for p in again["engine"]["parts"]["engine"]["points"]] == ["first", "last"]
    assert "failed" not in again["engine"]["parts"]["engine"]


def test_a_missing_point_is_measured_again(machine, tmp_path):
    found = run(("engine",))
    path = path_of(tmp_path / "data" / "packs" / found["engine"]["hardware_key"], "tiny", "engine")
    stored = json.loads(path.read_text())
    del stored["parts"]["engine"]["points"][1]
    path.write_text(json.dumps(stored))
    run(("engine",))
    assert machine.ran == ["engine", "engine"]
    assert len(read_record(path)["parts"]["engine"]["points"]) == 2


def test_later_parts_learn_from_this_run_or_from_the_records(machine):
    run(("calibrate", "serve"))
    assert machine.sessions["serve"][1] == dict.fromkeys(COEFFICIENTS, 0.5)
    machine.sessions.clear()
    run(("serve",), again=True)
    assert machine.sessions["serve"][1] is None  # again: nothing of before counts
    machine.ran.clear()
    run(("serve", "check"))
    assert machine.ran == ["check"]
    assert machine.sessions["check"][1] == dict.fromkeys(COEFFICIENTS, 0.5)


def test_a_spent_budget_leaves_the_rest_and_says_so(machine):
    found = run(("ceilings", "engine"), budget_s=1.0)
    assert machine.ran == []
    assert "of the budget are left" in found["engine"]["parts"]["engine"]["skipped"]


def test_without_a_commit_nothing_is_measured(machine, monkeypatch):
    monkeypatch.delenv(TOLD)
    monkeypatch.setattr("helpers.checkout._git", lambda *_: (_ for _ in ()).throw(OSError("no git")))
    with pytest.raises(InputError, match="the commit of this code is unknown; record from a checkout, or set"):
        run(("engine",))
    assert machine.ran == []


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"only": ("pigeons",)}, "part 'pigeons' is unknown"),
        ({"peer": ("other",)}, "peer 'other'"),
        ({"budget_s": 0.0}, "a budget of 0 s"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(machine, how, sentence):
    with pytest.raises(InputError, match=sentence):
        run(**how)
    assert machine.ran == []


def test_the_commit_that_is_told_comes_first(monkeypatch):
    monkeypatch.setenv(TOLD, "0123456789" * 4 + "-dirty")
    assert commit() == "0123456789" * 4 + "-dirty"
    monkeypatch.setenv(TOLD, "")
    assert commit() != "0123456789" * 4 + "-dirty"  # empty is not told


@pytest.mark.parametrize("told", ["main", "a" * 39, "a" * 41, "g" * 40, "a" * 40 + "-wip", "A" * 40])
def test_what_is_no_commit_is_refused(monkeypatch, told):
    monkeypatch.setenv(TOLD, told)
    with pytest.raises(InputError, match=TOLD):
        commit()


def test_the_table_says_what_limits_each():
    met = point("batch 1 MBU", 0.81, "of copy", target=0.8)
    step = point("batch 1 overlapped loop", 6.0, "ms/step", [5.9, 6.1], floor=4.5)
    theirs = point("transformers eager, batch 32", 800.0, "output tok/s")
    ratio = point("ours / transformers eager, batch 32", 4.0, "x", target=3.0)
    cost = point("overhead_s", 0.006, "s", low=0.005, high=0.007, level=0.95)
    served = point("TTFT mean", 0.2, "s", predicted={"served": 0.21}, errors={"served": 0.05}, n=90)
    records = {
        "engine": {"parts": {"decode": {"points": [met, step], "failed": "planted"}}},
        "peers": {"parts": {"peer transformers": {"points": [theirs, ratio]}}},
        "calibrate": {"parts": {"calibrate": {"points": [cost]}}},
        "serve": {"parts": {"none at 0.7": {"points": [served]}}},
    }
    found = list(rows(records))
    assert all(len(row) == len(COLUMNS) for row in found)
    cells = {row[1]: dict(zip(COLUMNS, row, strict=True)) for row in found}
    assert cells["batch 1 MBU"]["met"] == "yes" and cells["batch 1 MBU"]["target"] == "0.8"
    # 4.5 ms of floor in 6.0 ms: 75 % of it
    assert cells["batch 1 overlapped loop"]["what limits it"].endswith("(75% of it)")
    assert cells["batch 1 overlapped loop"]["N and range"] == "2: 5.9 to 6.1"
    assert cells["ours / transformers eager, batch 32"]["peer"] == "800"
    assert cells["overhead_s"]["part"] == "calibrate"
    assert cells["TTFT mean"]["what limits it"] == "simulated with served cost +5.0%"
    assert cells["TTFT mean"]["N and range"] == "90"
    assert cells["failed"]["what limits it"] == "planted"
    assert limit_of("decode", point("x", 1.0, "ms", failed="why")) == "why"
    apart = point("TTFT mean", 0.2, "s", errors={"served": -0.05}, live_error=0.021)
    assert limit_of("two workers", apart) == "simulated with served cost -5.0%, live runs differ by 2.1%"


def test_the_command_prints_the_table_last_and_one_line_of_json(machine, tmp_path, capsys):
    (tmp_path / "model.py").touch()
    arguments = ["record", "--preset", "tiny", "--device", "cpu", "--part", "engine", "--peers", "transformers"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, f"gpt-fast={tmp_path}"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# tiny on this machine"
    assert lines[1].split("\t") == list(COLUMNS)
    line = json.loads(lines[-1])
    assert line["commit"] == "a" * 40 and line["missed"] == line["failed"] == []


def test_the_command_says_with_its_code_that_a_part_failed(machine, capsys):
    machine.fails.add("engine")
    with pytest.raises(SystemExit) as ended:
        cli.main(["record", "--preset", "tiny", "--device", "cpu", "--part", "engine"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["failed"] == ["engine: engine"]
