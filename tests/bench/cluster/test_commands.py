"""`bench exactness` and `bench faults`: what they write, and how they end."""

import json

import pytest
from typer.testing import CliRunner

from helpers.bench.cluster import exactness as exact
from helpers.bench.cluster import faults as failing
from helpers.cli import application
from helpers.errors import InputError

GOOD = exact.Verdict(exact.Arm("1P1D", "layerwise"), 8, 40, 0, 96, 1e-7, 8, 8, 0)
BAD = exact.Verdict(exact.Arm("1P1D", "layerwise"), 8, 40, 1, 96, 1e-7, 8, 8, 0)
SOUND = failing.Outcome("nothing fails", "2P2D", 40, 40, 0, 0, 0, 0, 0, 0, 40, 0, 0.5, 0.1, None, 3.0)
LOST = failing.Outcome("nothing fails", "2P2D", 40, 39, 0, 1, 0, 0, 0, 0, 39, 0, 0.5, 0.1, None, 3.0)


@pytest.fixture
def give(monkeypatch):
    """What the runs would have found; what is not given does not run at all."""

    def no_run(*_):
        raise AssertionError("nothing may run")

    def of(name, *found):
        module, run = {"exactness": (exact, "check"), "faults": (failing, "run_cases")}[name]
        monkeypatch.setattr(module, run, (lambda *told: [told[-1](one) for one in found]) if found else no_run)

    return of


@pytest.mark.parametrize(
    ("name", "rows", "right", "wrong"), [("exactness", "arms", GOOD, BAD), ("faults", "cases", SOUND, LOST)]
)
def test_the_record_says_what_was_found_and_where(give, tmp_path, name, rows, right, wrong):
    for found, code in ((right, 0), (wrong, 1)):
        give(name, found)
        place = tmp_path / f"{code}.json"
        result = CliRunner().invoke(application(), ["bench", name, "--json", str(place)])
        assert result.exit_code == code
        written = json.loads(place.read_text(encoding="utf-8"))
        assert written == json.loads(result.stdout.splitlines()[-1])
        assert written[rows] == [found.record()] and len(written["workload_sha256"]) == 64
        assert written["kind"] == "measured" and written["hardware_key"].startswith("cpu_")
        assert {"torch", "pyzmq"} <= set(written["versions"]) and written["load_average"]["before"]


@pytest.mark.parametrize("name", ["exactness", "faults"])
def test_a_place_that_is_not_there_is_refused_before_anything_runs(give, tmp_path, name):
    give(name)
    result = CliRunner().invoke(application(), ["bench", name, "--json", str(tmp_path / "no" / "a.json")])
    assert isinstance(result.exception, InputError) and "nothing can be written there" in str(result.exception)
