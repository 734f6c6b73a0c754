"""The core under Pyodide, in Node, is the core under CPython: every decision and count, and times to a nanosecond."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import core_zip
import course_book
import pytest

from helpers.workload.generate import open_workload

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "golden_run.py"
# One that takes turns, one that counts, one that knows every cache, one that predicts.
ROUTERS = ("round_robin", "least_tokens", "prefix_exact", "predicted_ttft")
NEAR_S = 1e-9


@pytest.fixture(scope="module")
def given() -> str:
    """The first requests of the shipped hour, which is stored: nothing here depends on a generator."""
    hour, _ = open_workload("conversation")
    rows = [asdict(request) for request in hour.requests[:1500]]
    return json.dumps({"requests": rows, "block_tokens": hour.block_tokens, "routers": ROUTERS})


@pytest.fixture(scope="module")
def here(given) -> dict:
    names = {"given": given}
    exec(compile(SOURCE.read_text(encoding="utf-8"), str(SOURCE), "exec"), names)
    return json.loads(names["found"])


@pytest.fixture(scope="module")
def in_pyodide(given, tmp_path_factory) -> dict:
    if shutil.which("node") is None or "pyodide" not in course_book.node_packages():
        pytest.skip("NO NODE OR NO PYODIDE: the core was not run as a page runs it; `npm install --no-save` brings it")
    folder = tmp_path_factory.mktemp("core")
    core, asked = folder / "core.zip", folder / "given.json"
    asked.write_text(given, encoding="utf-8")
    core.write_bytes(core_zip.core_zip(course_book.ROOT))
    command = ["node", HERE / "pyodide_run.mjs", course_book.NODE_MODULES / "pyodide", core, SOURCE, asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(one: object, other: object, near: float, where: str = "") -> list[str]:
    """Where two JSON values differ: floats by more than `near` (relative above 1), all else at all."""
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return [found for key in one for found in differences(one[key], other[key], near, f"{where}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, near, f"{where}[{i}]")]
    if isinstance(one, float) and isinstance(other, float) and abs(one - other) <= near * max(1.0, abs(one)):
        return []
    return [] if type(one) is type(other) and one == other else [f"{where}: {str(one)[:80]} != {str(other)[:80]}"]


def test_the_page_runs_what_the_tests_run(here, in_pyodide):
    assert list(here["runs"]) == list(ROUTERS)
    assert all(len(run["timelines"]) == 1500 for run in here["runs"].values())
    assert differences(here["runs"], in_pyodide["runs"], NEAR_S)[:5] == []


def test_every_explorer_answers_in_the_page_as_here(here, in_pyodide):
    found = {
        name: differences(here["answers"][name], in_pyodide["answers"][name], NEAR_S)[:3] for name in here["answers"]
    }
    assert [one for each in found.values() for one in each] == []
    assert [name for name, one in here["answers"].items() if "error" in one] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["timelines"][700].update(worker=99),
        lambda run: run["timelines"][700].update(output_tokens=run["timelines"][700]["output_tokens"] + 1),
        lambda run: run["timelines"][700].update(finished_s=run["timelines"][700]["finished_s"] + 1e-5),
        lambda run: run["timelines"].reverse(),
        lambda run: run["timelines"].pop(),
        lambda run: run["counts"].update(planted=1),
    ],
)
def test_another_decision_count_or_time_is_found(here, change):
    other = json.loads(json.dumps(here["runs"]))
    assert differences(here["runs"], other, NEAR_S) == []
    change(other["prefix_exact"])
    assert differences(here["runs"], other, NEAR_S)
