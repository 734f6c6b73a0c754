"""Every lab: unsolved nothing passes, solved everything does, each wrong answer gets its hint, files are current."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import nbformat
import pytest

from helpers.errors import InputError
from helpers.lessons import exercises
from helpers.lessons.building import LABS, build, drift, source_paths, strays
from helpers.lessons.exercises import Exercise, exercises_of
from helpers.lessons.rehearsal import mutants, verdicts
from helpers.lessons.source import Source, read_source
from helpers.lessons.verdict import UNANSWERED
from helpers.lessons.versions import learner_cells, slide_cells, solution_cells, versions

PATHS = source_paths()
LABS_FOUND = pytest.mark.parametrize("name", [path.stem for path in PATHS])
MUTANTS = [(path.stem, cell.name) for path in PATHS for cell in read_source(path).mutants]
FIRST = "01_load_and_latency_lab"


@cache
def source_of(name: str) -> Source:
    return read_source(LABS / "source" / f"{name}.py")


@cache
def learners_verdicts(name: str):
    return verdicts(learner_cells(source_of(name)))


@cache
def solution_verdicts(name: str):
    return verdicts(solution_cells(source_of(name)))


@cache
def mutant_problems(name: str) -> dict[str, str]:
    return {one.cell.name: one.problem for one in mutants(source_of(name))}


def not_open(found, known) -> list[str]:
    """Exercises that the unsolved notebook does not leave open."""
    return [name for name in known if [one.text for one in found.get(name, ())] != [UNANSWERED]]


def not_passed(found, known) -> list[str]:
    """Exercises that the solution does not pass, once each."""
    return [name for name in known if [one.passed for one in found.get(name, ())] != [True]]


def test_there_are_labs():
    assert FIRST in [path.stem for path in PATHS] and len(MUTANTS) >= 2 * len(PATHS)


@LABS_FOUND
def test_unsolved_every_check_says_not_yet(name):
    found = learners_verdicts(name)
    known = exercises_of(name)
    assert known and set(found) == set(known)
    assert not_open(found, known) == []


@LABS_FOUND
def test_the_solution_passes_every_check(name):
    found = solution_verdicts(name)
    assert set(found) == set(exercises_of(name))
    assert not_passed(found, found) == []


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=[f"{lab}-{mutant}" for lab, mutant in MUTANTS])
def test_a_wrong_answer_is_turned_down_with_its_hint(name, mutant):
    assert mutant_problems(name)[mutant] == ""


@LABS_FOUND
def test_each_exercise_has_two_wrong_answers_or_more(name):
    solution_verdicts(name)
    spoiled = [cell.exercise for cell in source_of(name).mutants]
    assert {one: spoiled.count(one) for one in exercises_of(name) if spoiled.count(one) < 2} == {}
    assert set(spoiled) == set(exercises_of(name))


@LABS_FOUND
def test_the_slides_run_on_their_own(name):
    assert slide_cells(source_of(name))
    verdicts(slide_cells(source_of(name)))


@LABS_FOUND
def test_the_files_are_what_the_source_makes(name):
    assert list(drift(source_of(name))) == []


def test_no_file_is_without_a_source():
    assert list(strays()) == []


@LABS_FOUND
def test_every_notebook_is_a_valid_one(name):
    for path, text in versions(source_of(name)).items():
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.reads(text, as_version=4))


@LABS_FOUND
def test_no_solution_and_no_note_for_instructors_is_in_the_learners_file(name):
    hidden = [cell.text for cell in source_of(name).cells if cell.kind in ("solution", "instructor", "mutant")]
    text = versions(source_of(name))[Path(f"{name}.ipynb")]
    shown = {cell.source for cell in nbformat.reads(text, as_version=4).cells}
    assert hidden and shown.isdisjoint(hidden)


# Controls: each proof above notices what it is there for.


def with_judge(monkeypatch, judge) -> None:
    """Let every exercise of the first lab be judged by `judge`."""
    solution_verdicts(FIRST)  # the lab's module is in, its exercises are known
    kept = {name: replace(one, judge=judge) for name, one in exercises._known.items()}
    monkeypatch.setattr(exercises, "_known", kept)


def test_a_judge_that_accepts_everything_is_caught(monkeypatch):
    with_judge(monkeypatch, lambda *answers: None)
    problems = [one.problem for one in mutants(source_of(FIRST))]
    assert problems and all("lets it pass" in problem for problem in problems)


def test_a_judge_with_one_hint_for_all_is_caught(monkeypatch):
    with_judge(monkeypatch, lambda *answers: "look again")
    assert all("is not in the hint: look again" in one.problem for one in mutants(source_of(FIRST)))
    assert not_passed(verdicts(solution_cells(source_of(FIRST))), exercises_of(FIRST)) == list(exercises_of(FIRST))


def test_a_mutant_that_no_check_follows_is_caught():
    source = source_of(FIRST)
    cells = tuple(cell for cell in source.cells if cell.name != "part-2-check" and "wait_verdict" not in cell.text)
    problems = {one.cell.name: one.problem for one in mutants(replace(source, cells=cells))}
    assert "no cell below checks 'the wait'" in problems["wait-of-equal-prompts"]
    assert problems["knee-with-much-to-spare"] == ""


def test_a_planted_error_in_the_solution_is_caught():
    planted = [
        replace(cell, text=cell.text.replace("(1 + c2)", "(1 - c2)")) if cell.name == "part-2-answer" else cell
        for cell in solution_cells(source_of(FIRST))
    ]
    assert not_passed(verdicts(planted), exercises_of(FIRST)) == ["the wait"]


def test_a_learners_file_with_an_answer_in_it_is_caught():
    solved = {cell.name: cell for cell in solution_cells(source_of(FIRST))}
    leaked = [solved[cell.name] if cell.name == "part-1-answer" else cell for cell in learner_cells(source_of(FIRST))]
    assert not_open(verdicts(leaked), exercises_of(FIRST)) == ["TTFT", "TPOT"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("01_load_and_latency_lab.ipynb", "return NOT_YET", "return 0.0"),
        ("solutions/01_load_and_latency_lab.ipynb", "load >= 1", "load > 1"),
        ("slides/01_load_and_latency_lab.ipynb", "How many", "Which"),
        ("instructors/01_load_and_latency_lab.md", "Minute plan", "Plan"),
    ],
)
def test_a_file_that_was_changed_by_hand_is_named(tmp_path, name, old, new):
    source = read_source(LABS / "source" / f"{FIRST}.py")
    labs = tmp_path / "labs"
    (labs / "source").mkdir(parents=True)
    copy = labs / "source" / f"{FIRST}.py"
    copy.write_text(source.path.read_text(encoding="utf-8"), encoding="utf-8")
    source = read_source(copy)
    assert len(build(source, labs)) == 4 and list(drift(source, labs)) == [] and build(source, labs) == []
    changed = labs / name
    text = changed.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new, 1), encoding="utf-8")
    (sentence,) = drift(source, labs)
    assert f"labs/{name} differs" in sentence
    changed.unlink()
    (sentence,) = drift(source, labs)
    assert f"labs/{name} is missing" in sentence
    (labs / "source" / f"{FIRST}.py").unlink()
    assert len(list(strays(labs))) == 3


def test_a_rehearsal_leaves_the_learners_file_alone(learner):
    verdicts(solution_cells(source_of(FIRST))[:12])
    assert not learner.exists()


def test_an_exercise_of_a_name_that_another_lab_has_is_refused(monkeypatch):
    monkeypatch.setattr(exercises, "_known", {})
    exercises.register(Exercise("planted", lambda value: None, "98_a_lab", 1, 1, 5))
    with pytest.raises(InputError, match=r"98_a_lab has one of that name"):
        exercises.register(Exercise("planted", lambda value: None, "99_b_lab", 1, 1, 5))
