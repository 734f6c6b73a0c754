"""The records of live runs beside simulated ones: of this code's plans, sound, and recomputable from their samples."""

import json
import re
import shlex
from pathlib import Path

import pytest

from helpers.bench.fidelity.arms import WRITTEN
from helpers.bench.fidelity.compared import compare, order
from helpers.bench.fidelity.plan import FROZEN, HELD_OUT
from helpers.bench.targets.registry import PLACES

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = sorted((ROOT / "data" / "packs").glob("cpu_*"))
FIDELITIES = [path for folder in FOLDERS for path in folder.glob("fidelity.json")]
CONTESTS = [path for folder in FOLDERS for path in folder.glob("bench_routers_live.json")]
EVERY = pytest.mark.parametrize("path", [*FIDELITIES, *CONTESTS], ids=lambda path: f"{path.parent.name}/{path.name}")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def parts(path):
    """The records in a file: one a target, or the file itself."""
    record = read(path)
    return record.get("targets", [record])


def test_there_is_one_of_each():
    assert FIDELITIES and CONTESTS


@EVERY
def test_a_record_says_how_it_was_made(path):
    record, words = read(path), shlex.split(read(path)["command"])
    called = ["fidelity"] if path in FIDELITIES else ["bench", "run"]
    assert words[: 1 + len(called)] == ["hybrid-serving", *called] and not any(word.startswith("/") for word in words)
    assert record["sound"] and record["kind"] == "measured beside simulated"
    for one in parts(path):
        assert one["hardware_key"] == path.parent.name and re.fullmatch(r"[0-9a-f]{40}(-dirty)?", one["commit"])
        assert one["repeats"] >= 3 and all(said["passed"] for said in (*one["checks"], *one["controls"]))
        assert all(len(row["conditions"]) == one["repeats"] for row in one["held_out"])


@pytest.mark.parametrize("path", FIDELITIES, ids=lambda path: path.parent.name)
def test_a_fidelity_is_of_this_plan(path):
    """Whoever changes a slice has to record anew."""
    found = {row["name"]: row["frozen_sha256"][:16] for row in read(path)["held_out"]}
    assert found == {one.name: FROZEN[one.name] for one in HELD_OUT}


@pytest.mark.parametrize("path", CONTESTS, ids=lambda path: path.parent.name)
def test_a_contest_is_of_these_arms(path):
    found = {one["target"]: {row["name"]: row["frozen_sha256"][:16] for row in one["held_out"]} for one in parts(path)}
    assert found == WRITTEN and list(found) == [name for name in PLACES if name in WRITTEN]


def samples_of(row):
    """The figures of each live run, and those of the simulator."""
    runs = range(len(row["conditions"]))
    live = [{one["name"]: one["samples"][i] for one in row["figures"]} for i in runs]
    return live, {one["name"]: one["simulated"] for one in row["figures"]}


@EVERY
def test_errors_and_verdicts_come_out_again(path):
    for row in (row for one in parts(path) for row in one["held_out"]):
        live, said = samples_of(row)
        found = [json.loads(json.dumps(one.record())) for one in compare(live, said)]
        assert found == row["figures"]
        # The control: another word of the simulator is another error.
        wrong = compare(live, {name: 1.01 * value + 0.01 for name, value in said.items()})
        assert all(a.error != b["error"] for a, b in zip(wrong, row["figures"], strict=True))


@EVERY
def test_the_order_of_policies_comes_out_again(path):
    for one in parts(path):
        rows = {row["name"]: samples_of(row) for row in one["held_out"]}
        live, said = {name: a for name, (a, _) in rows.items()}, {name: b for name, (_, b) in rows.items()}
        for pair in one["order_of_policies"]:
            a, b = pair["pair"]
            (found,) = order({k: live[k] for k in (a, b)}, {k: said[k] for k in (a, b)}, pair["figure"])
            assert json.loads(json.dumps(found)) == pair
