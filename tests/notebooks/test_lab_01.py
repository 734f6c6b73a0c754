"""Lab 1: the learner's file runs and passes nothing, the solution passes everything, mutants are turned down."""

from pathlib import Path

import nbformat
import pytest

from helpers.lessons.check import UNANSWERED, Verdict

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = "labs/01_load_and_latency_lab.ipynb"
SOLUTION = "labs/solutions/01_load_and_latency_lab.ipynb"
CHECKS = ("part-1-check-ttft", "part-1-check-tpot", "part-2-check", "part-3-check", "part-4-check")


def verdicts(values: dict[str, object]) -> dict[str, Verdict]:
    return {ident: value for ident, value in values.items() if isinstance(value, Verdict)}


def test_the_learners_file_runs_and_every_check_says_not_yet(run_notebook):
    found = verdicts(run_notebook(LAB))
    assert tuple(found) == CHECKS
    assert {v.passed for v in found.values()} == {False} and {v.text for v in found.values()} == {UNANSWERED}


def test_the_solution_passes_every_check(run_notebook):
    found = verdicts(run_notebook(SOLUTION))
    assert tuple(found) == CHECKS
    assert [ident for ident, verdict in found.items() if not verdict.passed] == []


MUTANTS = {
    "TTFT from the send": (
        "part-1-answer",
        """
def my_ttft_s(t):
    return None if t.first_token_s is None else t.first_token_s - t.dispatched_s
def my_tpot_s(t):
    return NOT_YET
""",
        "part-1-check-ttft",
        "from the send",
    ),
    "TPOT over n": (
        "part-1-answer",
        """
def my_ttft_s(t):
    return NOT_YET
def my_tpot_s(t):
    return (t.finished_s - t.first_token_s) / t.output_tokens if t.status == "finished" else None
""",
        "part-1-check-tpot",
        "n - 1 gaps",
    ),
    "the wait of equal prompts": (
        "part-2-answer",
        "def my_wait_s(r, s, c2):\n    return r * s * s / (2 * (1 - r * s)) if r * s < 1 else float('inf')\n",
        "part-2-check",
        "c2 is missing",
    ),
    "a wait past load 1": (
        "part-2-answer",
        "def my_wait_s(r, s, c2):\n    return r * s * s * (1 + c2) / 2 / (1 - r * s) if r * s != 1 else 0.0\n",
        "part-2-check",
        "never ends",
    ),
    "the capacity for the knee": ("part-3-answer", "my_knee_per_s = 2.6", "part-3-check", "too high"),
    "a timid knee": ("part-3-answer", "my_knee_per_s = 1.0", "part-3-check", "too low"),
    "no flaw anywhere": (
        "part-4-answer",
        "my_flaws = dict.fromkeys('ABCD', 'none')",
        "part-4-check",
        "3 of 4 do not fit",
    ),
}


@pytest.mark.parametrize(("cell", "source", "judged", "hint"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_answer_is_turned_down_with_its_hint(run_notebook, cell, source, judged, hint):
    verdict = run_notebook(LAB, {cell: source}, until=judged)[judged]
    assert not verdict.passed and hint in verdict.text


def test_lab_and_solution_have_the_same_cells():
    first, second = (nbformat.read(ROOT / name, as_version=4).cells for name in (LAB, SOLUTION))
    assert [(c.id, c.cell_type) for c in first] == [(c.id, c.cell_type) for c in second]
