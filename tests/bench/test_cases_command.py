"""`bench cases`: claims are run, shown with their intervals, and a claim that does not come out fails the command."""

import json

import pytest
import typer
from typer.testing import CliRunner

from helpers.bench.cases import registry
from helpers.bench.cases.case import Case
from helpers.bench.cases.report import shown
from helpers.bench.commands import register
from helpers.errors import InputError


def two_arms(seeds):
    interval = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": len(seeds)}
    return [{"arm": "a", "goodput_per_s": interval}, {"arm": "b", "goodput_per_s": interval, "note": None}]


def case(name, holds):
    return Case(name, f"claim of {name}", "goodput_per_s", two_arms, lambda rows: holds and rows[0]["arm"] == "a")


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(registry, "CASES", {"right": case("right", True), "wrong": case("wrong", False)})
    app = typer.Typer()
    register(app)
    return lambda *words: CliRunner().invoke(app, ["bench", "cases", *words])


def test_a_claim_that_comes_out_is_shown_and_passes(run):
    result = run("right", "--seeds", "3")
    line = json.loads(result.output.splitlines()[-1])
    assert result.exit_code == 0 and line["seeds"] == [0, 1, 2]
    assert [one["name"] for one in line["cases"]] == ["right"] and line["cases"][0]["holds"] is True
    assert "right: claim of right (holds)" in result.output and "1 [0.5, 1.5]" in result.output


def test_a_claim_that_does_not_come_out_fails_the_command_after_all_were_shown(run):
    result = run("--seeds", "2")
    line = json.loads(result.output.splitlines()[-1])
    assert result.exit_code == 1
    assert [one["holds"] for one in line["cases"]] == [True, False]
    assert "wrong: claim of wrong (DOES NOT HOLD)" in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("left",), "bench cases: 'left' is no case; use one of right, wrong"),
        (("--seeds", "1"), "bench cases: 1 seeds give no interval; use 2 or more"),
    ],
)
def test_bad_input_is_one_sentence(run, words, says):
    result = run(*words)
    assert isinstance(result.exception, InputError) and str(result.exception) == says


def test_every_case_has_a_name_of_its_own_and_says_what_it_claims():
    assert len(registry.CASES) >= 8
    for name, one in registry.CASES.items():
        assert name == one.name and one.claim.endswith(".") and one.metric


def test_cells_are_written_for_people():
    assert [shown(x) for x in (None, 2.0 / 3, 3, [1, 0.25], {"prefill": 2, "decode": 0.5})] == [
        "-",
        "0.6667",
        "3",
        "1 0.25",
        "prefill 2, decode 0.5",
    ]
