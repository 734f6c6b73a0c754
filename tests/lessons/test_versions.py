"""What goes into which version, and that a file changed by hand is found."""

import json
from pathlib import Path

import pytest

from helpers.lessons.building import build, chosen, drift, strays
from helpers.lessons.source import read_source
from helpers.lessons.versions import versions
from tests.lessons.small_lab import NAME, SMALL, small_source, write

LEARNER, SOLUTION = Path(f"{NAME}.ipynb"), Path(f"solutions/{NAME}.ipynb")
SLIDES, INSTRUCTORS = Path(f"slides/{NAME}.ipynb"), Path(f"instructors/{NAME}.md")


def cells_of(text: str) -> dict[str, dict]:
    return {cell["id"]: cell for cell in json.loads(text)["cells"]}


@pytest.fixture
def labs(tmp_path) -> Path:
    write(tmp_path / "labs")
    return tmp_path / "labs"


@pytest.fixture
def source(labs):
    return read_source(labs / "source" / f"{NAME}.py")


def test_the_learner_gets_the_stub_and_the_solution_the_answer(source):
    made = versions(source)
    learner, solution = cells_of(made[LEARNER]), cells_of(made[SOLUTION])
    assert list(learner) == list(solution) == ["title", "setup", "guess", "answer", "check"]
    assert "NOT_YET" in "".join(learner["answer"]["source"])
    assert "2 * x" in "".join(solution["answer"]["source"])
    assert learner["check"]["metadata"] == {"tags": ["hide-input"]} and learner["title"]["metadata"] == {}


def test_the_slides_say_how_each_cell_is_shown(source):
    slides = cells_of(versions(source)[SLIDES])
    shown = {name: cell["metadata"]["slideshow"]["slide_type"] for name, cell in slides.items()}
    assert shown == {"title": "slide", "setup": "skip", "answer": "-", "answer-solution": "-", "notes": "notes"}


def test_the_instructors_page_has_notes_solutions_and_wrong_answers(source):
    page = versions(source)[INSTRUCTORS]
    assert "> **Answer key.** Twice." in page and "    return 2 * x" in page and "NOT_YET\n" not in page
    assert '"double" answers with "... that is the square ..."' in page and ">     return x * x" in page


def test_links_lead_up_from_deeper_folders(source):
    made = versions(source)
    assert "(../chapters/98_small.ipynb)" in "".join(cells_of(made[LEARNER])["title"]["source"])
    for path in (SOLUTION, SLIDES):
        assert "(../../chapters/98_small.ipynb)" in "".join(cells_of(made[path])["title"]["source"])
    assert "(../../chapters/98_small.ipynb)" in made[INSTRUCTORS]


def test_a_slide_only_cell_is_nowhere_else(tmp_path):
    made = versions(small_source(tmp_path, SMALL.replace('name="guess"', 'name="guess" tags=["slide-only"]')))
    assert "guess" in cells_of(made[SLIDES])
    assert "guess" not in cells_of(made[LEARNER]) and "guess" not in cells_of(made[SOLUTION])
    assert "the double of two" not in made[INSTRUCTORS]


def test_building_twice_gives_the_same_bytes_and_writes_once(source, labs):
    assert len(build(source, labs)) == 4 and list(drift(source, labs)) == []
    before = {path: path.read_bytes() for path in labs.rglob("*") if path.is_file()}
    assert build(source, labs) == []
    assert {path: path.read_bytes() for path in labs.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("path", [LEARNER, SOLUTION, SLIDES, INSTRUCTORS], ids=str)
def test_a_file_that_differs_or_is_missing_is_named(source, labs, path):
    build(source, labs)
    file = labs / path
    file.write_text(file.read_text(encoding="utf-8").replace("Lab 98", "Lab 99"), encoding="utf-8")
    (sentence,) = drift(source, labs)
    assert f"labs/{path.as_posix()} differs" in sentence and f"labs/source/{NAME}.py" in sentence
    file.unlink()
    (sentence,) = drift(source, labs)
    assert f"labs/{path.as_posix()} is missing" in sentence
    assert build(source, labs) == [file]


def test_an_edited_source_makes_every_version_drift_that_it_concerns(source, labs):
    build(source, labs)
    write(labs, SMALL.replace("return NOT_YET", "return  NOT_YET"))
    changed = [sentence.split()[0] for sentence in drift(read_source(source.path), labs)]
    assert changed == [f"labs/{NAME}.ipynb", f"labs/slides/{NAME}.ipynb"]


def test_a_file_without_a_source_is_named(source, labs):
    build(source, labs)
    assert list(strays(labs)) == []
    write(labs, SMALL, "99_other_lab")
    (labs / "97_old_lab.ipynb").write_text("{}", encoding="utf-8")
    (sentence,) = strays(labs)
    assert "labs/97_old_lab.ipynb has no source" in sentence


@pytest.mark.parametrize("word", [NAME, "98_small", f"labs/source/{NAME}.py", None])
def test_a_lab_is_chosen_by_its_name(labs, word):
    assert chosen(word, labs) == [labs / "source" / f"{NAME}.py"]
