"""Every lab: unsolved nothing passes, solved everything does, each wrong answer gets its hint, files are current."""

import ast
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from helpers.lessons import routers
from helpers.lessons.building import LABS, drift, source_paths, strays
from helpers.lessons.exercises import exercises_of
from helpers.lessons.rehearsal import mutants, verdicts
from helpers.lessons.source import Source, read_source
from helpers.lessons.verdict import UNANSWERED
from helpers.lessons.versions import learner_cells, slide_cells, solution_cells, versions

PATHS = source_paths()
EVERY_LAB = pytest.mark.parametrize("name", [path.stem for path in PATHS])
MUTANTS = [(path.stem, cell.name) for path in PATHS for cell in read_source(path).mutants]
NOTEBOOKS = [*LABS.glob("*.ipynb"), *(LABS.parent / "chapters").glob("*.ipynb")]


@pytest.fixture(scope="module", autouse=True)
def a_score_is_served_live_once():
    """A score of the same code is served once, though each run of a lab makes a function of its own."""
    patch, served, serve = pytest.MonkeyPatch(), {}, routers.live

    def once(score):
        key = getattr(score, "__code__", score)
        if key not in served:
            served[key] = serve(score)
        return served[key]

    patch.setattr(routers, "live", once)
    yield
    patch.undo()


@cache
def source_of(name: str) -> Source:
    return read_source(LABS / "source" / f"{name}.py")


@cache
def solution_verdicts(name: str):
    return verdicts(solution_cells(source_of(name)))


@cache
def mutant_problems(name: str) -> dict[str, str]:
    return {one.cell.name: one.problem for one in mutants(source_of(name))}


# What only the book's builder draws: a fenced directive, or a role. JupyterLab, where labs are done, shows its source.
FOR_THE_BUILDER = re.compile(r"^(?:```|:::)\{|\{[a-z:]+\}`", re.MULTILINE)


@EVERY_LAB
def test_a_lab_reads_the_same_in_jupyterlab(name):
    made = [cell.text for make in (learner_cells, solution_cells, slide_cells) for cell in make(source_of(name))]
    assert [text for text in made if FOR_THE_BUILDER.search(text)] == []


def test_what_only_the_builder_draws_is_noticed():
    note, term = "# Lab\n\n```{admonition} This lab\n:class: note\n\nFour parts.\n```", "the {term}`knee` of a fleet"
    assert all(map(FOR_THE_BUILDER.search, (note, term)))
    assert not any(map(FOR_THE_BUILDER.search, ("> **This lab**\n>\n> Four parts.", "```python\nx = {1}\n```")))


def guesses_asked(paths) -> list[str]:
    """The name of each `predict(...)` in notebooks."""
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [call.args[0].value for call in calls if getattr(call.func, "id", "") == "predict"]


def test_there_are_labs():
    assert "01_load_and_latency_lab" in [path.stem for path in PATHS] and len(MUTANTS) >= 2 * len(PATHS)


@EVERY_LAB
def test_unsolved_every_check_says_not_yet(name):
    found = verdicts(learner_cells(source_of(name)))
    assert exercises_of(name)
    assert {one: [v.text for v in shown] for one, shown in found.items()} == {
        one: [UNANSWERED] for one in exercises_of(name)
    }


@EVERY_LAB
def test_the_solution_passes_every_check(name):
    found = solution_verdicts(name)
    assert {one: [v.passed for v in shown] for one, shown in found.items()} == {
        one: [True] for one in exercises_of(name)
    }


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=[f"{lab}-{mutant}" for lab, mutant in MUTANTS])
def test_a_wrong_answer_is_turned_down_with_its_hint(name, mutant):
    assert mutant_problems(name)[mutant] == ""


@EVERY_LAB
def test_each_exercise_has_two_wrong_answers_or_more(name):
    solution_verdicts(name)
    spoiled = [cell.exercise for cell in source_of(name).mutants]
    assert set(spoiled) == set(exercises_of(name))
    assert [one for one in exercises_of(name) if spoiled.count(one) < 2] == []


@EVERY_LAB
def test_the_slides_run_on_their_own(name):
    cells = slide_cells(source_of(name))
    assert cells
    verdicts(cells)


@EVERY_LAB
def test_the_instructor_has_a_plan_misconceptions_questions_and_a_key(name):
    notes = "\n".join(cell.text for cell in source_of(name).cells if cell.kind == "instructor")
    wanted = ("Minute plan", "Usual misconceptions", "Questions to ask", "Answer key")
    assert [heading for heading in wanted if heading not in notes] == []


@EVERY_LAB
def test_the_files_are_what_the_source_makes(name):
    assert list(drift(source_of(name))) == []


def test_no_file_is_without_a_source():
    assert list(strays()) == []


@EVERY_LAB
def test_every_notebook_is_a_valid_one(name):
    made = [text for path, text in versions(source_of(name)).items() if path.suffix == ".ipynb"]
    assert len(made) == 3
    for text in made:
        nbformat.validate(nbformat.reads(text, as_version=4))


@EVERY_LAB
def test_the_learners_file_holds_no_solution_and_no_note_for_instructors(name):
    hidden = [cell.text for cell in source_of(name).cells if cell.kind in ("solution", "instructor", "mutant")]
    text = versions(source_of(name))[Path(f"{name}.ipynb")]
    shown = {cell.source for cell in nbformat.reads(text, as_version=4).cells}
    assert hidden and shown.isdisjoint(hidden)


def test_no_two_guesses_of_the_course_have_one_name():
    names = guesses_asked(NOTEBOOKS)
    assert len(names) > 3 and sorted(names) == sorted(set(names))
