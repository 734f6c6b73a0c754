"""`bench list-targets` and `bench run`: words, files, exit codes, the last line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from helpers.bench import commands
from helpers.bench.decision_trace import read_trace
from helpers.bench.runner import Plan
from helpers.bench.target_tables import cell_text, said_text
from helpers.bench.targets import commands as target_commands
from helpers.bench.targets import registry
from helpers.bench.targets.commands import line_of, sorted_words
from helpers.errors import InputError
from helpers.paths import ROOT

SMALL = ("--seeds", "2", "--jobs", "2")


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    places = {"routers:planted": "planted:SOUND", "moe:blind": "planted:BLIND", "moe:dying": "planted:DYING"}
    known = dict(registry.PLACES)
    _fill(places)
    app = typer.Typer()
    commands.register(app)
    target_commands.register(app)
    yield lambda *words: CliRunner().invoke(app, ["bench", *words])
    _fill(known)


def _fill(places):
    """Let these be all targets, in this order: it is the order of tables, and tests that come later look at it."""
    registry.PLACES.clear()
    registry.PLACES.update(places)


def test_a_sound_run_prints_tables_and_one_line_and_exits_with_0(run, tmp_path):
    result = run("run", "--targets", "routers", *SMALL, "--json", str(tmp_path / "r.json"))
    line = json.loads(result.output.splitlines()[-1])
    assert result.exit_code == 0 and line["sound"] and line["complete"]
    assert {"command", "wall_s", "seeds", "workload_sha256", "commit"} <= set(line)
    assert line["seeds"] == [0, 1] and line["wall_s"] > 0 and len(line["workload_sha256"]) == 64
    said = result.output
    assert 0 <= said.index("# hypothesis: It does.") < said.index("# one: short requests")  # declared before it is run
    assert "damaged event logs are rejected" in result.output
    assert "samples" not in result.output.splitlines()[-1]
    whole = json.loads((tmp_path / "r.json").read_text())
    arms = whole["targets"][0]["scenarios"][0]["arms"]
    assert [len(arm["samples"]["goodput_per_s"]) for arm in arms] == [2, 2, 2, 2]
    assert whole["targets"][0]["order"][-1] == "repeated"


def test_a_control_that_fails_and_a_process_that_dies_exit_with_1(run):
    blind = run("run", "--targets", "blind", *SMALL)
    assert blind.exit_code == 1 and "FAILED\tthe baseline on workers 4 times as slow: lower" in blind.output
    dying = run("run", "--targets", "moe:dying", *SMALL)
    assert dying.exit_code == 1 and "# FAILED: planted, dies, seeds 0 to 1" in dying.output
    assert json.loads(dying.output.splitlines()[-1])["sound"] is False


def test_traces_go_to_a_file_or_a_folder(run, tmp_path):
    result = run("run", "--targets", "planted", *SMALL, "--requests", "20", "--trace", str(tmp_path / "all.jsonl"))
    runs = read_trace(tmp_path / "all.jsonl")
    assert len(runs) == 2 * 4 and {one.head["seed"] for one in runs} == {0}  # two scenarios, four arms
    assert {one.head["arm"] for one in runs} == {"baseline", "worse", "least_requests", "random"}
    assert all(len(one.decisions) == 20 for one in runs)
    assert "passed\ttraced runs decide as the measured ones\t8 runs" in result.output
    packed = run("run", "--targets", "planted", *SMALL, "--requests", "20", "--trace", str(tmp_path / "all.jsonl.gz"))
    assert packed.exit_code in (0, 1)
    again = read_trace(tmp_path / "all.jsonl.gz")  # by another commit, perhaps
    assert [(one.head["arm"], one.decisions) for one in again] == [(one.head["arm"], one.decisions) for one in runs]
    run("run", "--targets", "planted", *SMALL, "--requests", "20", "--trace", str(tmp_path / "each"))
    assert len(list((tmp_path / "each").iterdir())) == 8


def test_targets_are_listed_with_their_questions(run):
    result = run("list-targets")
    assert "routers:planted\tDoes the harness work?\tgoodput_per_s\t2\tround_robin" in result.output
    line = json.loads(result.output.splitlines()[-1])
    assert [one["scenarios"][0]["name"] for one in line["targets"]] == ["one", "only", "only"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--targets", "plantedd"), "target 'plantedd' is unknown; see `hybrid-serving bench list-targets`"),
        ((), "bench run: name targets with --targets"),
        (("--targets", "planted", "--seeds", "1"), "bench run: 1 seeds give no interval; use 2 or more"),
        (("--targets", "planted", "--trace", "a.jsonl", "b.jsonl"), "cannot go to a.jsonl and b.jsonl; give one place"),
        (("--targets", "planted", "a.jsonl"), "target 'a.jsonl' is unknown"),
        (("--targets", "planted", "--json", "/nowhere/at/all.json"), "nothing can be written there"),
    ],
)
def test_bad_input_is_one_sentence(run, words, says):
    result = run("run", *words)
    assert isinstance(result.exception, InputError) and says in str(result.exception)


def test_words_are_targets_unless_they_look_like_places(run, tmp_path):
    assert sorted_words(["planted", "out/"], True) == (["planted"], Path("out/"))
    assert sorted_words([str(tmp_path)], True) == ([], tmp_path)
    assert sorted_words(["plantd", "t.jsonl.gz"], True) == (["plantd"], Path("t.jsonl.gz"))  # is refused as a target
    assert sorted_words(["out/"], False) == (["out/"], None)


def test_cells_are_written_for_people():
    assert cell_text({"mean": 2 / 3, "low": -1.0, "high": 1234.5678}) == "0.6667 [-1, 1235]" and cell_text(None) == "-"
    arm = {"verdict": "lower", "predicted": None, "as_predicted": None}
    assert said_text({}) == "baseline" and said_text(arm) == "lower"
    assert said_text({**arm, "predicted": "lower", "as_predicted": True}) == "lower (as predicted)"
    assert said_text({**arm, "predicted": "higher", "as_predicted": False}) == "lower (predicted higher)"


INTERRUPTED = """
import sys
sys.path.insert(0, {here!r})
from helpers.bench.targets import registry
registry.PLACES["routers:hanging"] = "planted:HALF_HANGING"
from helpers.cli import main
main(["bench", "run", "--targets", "hanging", "--seeds", "2", "--json", {file!r}])
"""


def test_an_interrupted_run_keeps_what_was_finished(tmp_path):
    """One arm hangs. When another has given its samples the run is interrupted, and the file has them."""
    here, file, seen = Path(__file__).parent, tmp_path / "r.json", tmp_path / "seen"
    parent = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(here=str(here), file=str(file))],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PLANTED_SEEN": str(seen)},
    )
    try:
        end = time.monotonic() + 60
        while not seen.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert seen.exists()  # the hanging arm is at work; in this order it is the last
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode == 130 and "Traceback" not in errors
    record = json.loads(file.read_text())
    assert record["complete"] is False and record["sound"] is False
    arms = {arm["arm"]: arm["samples"] for arm in record["targets"][0]["scenarios"][0]["arms"]}
    assert arms["hangs"] == {} and any(samples for name, samples in arms.items() if name != "hangs")


def test_who_measured_is_told_and_nobody_where_nothing_was_measured():
    records = {kind: {"target": "t", "workload_sha256": "0", "kind": kind, "commit": "c", "wall_s": 1.0, "sound": True}
               for kind in ("measured", "simulated")}  # fmt: skip
    plan = Plan((0, 1))
    live, simulated = (line_of([records[kind]], plan, ((1.0,), (2.0,))) for kind in ("measured", "simulated"))
    assert live["hardware_key"].startswith("cpu_") and live["load_average"] == {"before": [1.0], "after": [2.0]}
    assert "torch" in live["versions"] and live["made"]
    assert not {"hardware_key", "load_average", "versions"} & simulated.keys()
