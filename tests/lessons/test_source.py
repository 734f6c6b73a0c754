"""A lab's source: what it means, and one sentence with file and line for what cannot be used."""

import pytest

from helpers.errors import InputError
from helpers.lessons.source import read_source
from tests.lessons.small_lab import SMALL, small_source, write

LINES = SMALL.splitlines()


def line_of(text: str) -> int:
    """The line of the small lab that begins with the text, counted from 1."""
    return next(number for number, line in enumerate(LINES, 1) if line.startswith(text))


def test_the_cells_are_read_in_order(tmp_path):
    cells = small_source(tmp_path).cells
    assert [(cell.name, cell.kind, cell.is_code) for cell in cells] == [
        ("title", "", False),
        ("setup", "", True),
        ("guess", "", True),
        ("answer", "learner", True),
        ("answer", "solution", True),
        ("squared", "mutant", True),
        ("halved", "mutant", True),
        ("check", "", True),
        ("notes", "instructor", False),
    ]
    assert cells[0].line == line_of('# %% [markdown] name="title"')


def test_text_loses_its_marks_and_code_its_blank_ends(tmp_path):
    cells = {(cell.name, cell.kind): cell.text for cell in small_source(tmp_path).cells}
    assert cells["title", ""] == "# Lab 98: small\n\nAs in [chapter 98](../chapters/98_small.ipynb)."
    assert cells["answer", "learner"] == "def my_double(x):\n    return NOT_YET"


def test_a_mutant_knows_what_it_spoils(tmp_path):
    first, second = small_source(tmp_path).mutants
    assert (first.exercise, first.hint) == ("double", "that is the square")
    assert second.hint == "twice, not half"  # with a comma, which no key ends at


SETUP, STUB, SOLVED = '# %% name="setup"', '# %% name="answer" tags=["learner"', '# %% name="answer" tags=["solution"'
SQUARED, CHECK, TITLE = '# %% name="squared"', '# %% name="check"', '# %% [markdown] name="title"'


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ('"solution", "slide"', '"solutions", "slide"', SOLVED, "'solutions' is unknown"),
        ('name="setup"', 'title="setup"', SETUP, "title"),
        ('name="setup" ', "", SETUP, "no name"),
        ('name="setup"', 'name="Set up"', SETUP, "no name"),
        ('name="setup"', "name=setup", SETUP, "'name=setup"),
        ('name="guess"', 'name="setup"', '# %% name="guess"', "is called 'setup'"),
        ('name="guess"', 'name="answer"', STUB, "is called 'answer'"),
        ('"learner", "slide"', '"learner", "solution"', STUB, "at most one"),
        ('"slide-hidden"', '"slide-only", "instructor"', SETUP, "slide-only"),
        ('"slide-hidden"', '"slide-hidden', SETUP, "tags=["),
        ('["slide-hidden"]', '"slide"', SETUP, "list"),
        ('"instructor", "slide"', '"slide-hidden"', '# %% [markdown] name="notes"', "are code"),
        (' hint="that is the square"', "", SQUARED, "hint="),
        (' exercise="double" hint="that', ' hint="that', SQUARED, "exercise="),
        (' tags=["hide-input"]', ' exercise="double" hint="x"', CHECK, "a mutant"),
        ("    return 2 * x", "    return 2 *", "    return 2 * x", "no Python"),
        ("# As in", "As in", "# As in", 'begins with "# "'),
        ("# As in", "#As in", "# As in", 'begins with "# "'),
        ("from helpers.lessons import NOT_YET, check, predict", "", SETUP, "is empty"),
        ("# ---\n\n# %%", "# ---\n\nimport os\n# %%", TITLE, "before the first cell"),
        ("def my_double(x):\n    return NOT_YET", "x = 1\n" * 26, "def my_double", "more than 25 lines"),
    ],
)
def test_a_bad_source_is_one_sentence_with_file_and_line(tmp_path, old, new, line, word):
    assert old in SMALL
    path = write(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        read_source(path)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}:{line_of(line)}: ") and word in sentence and "\n" not in sentence


def test_a_stub_and_its_solution_stand_together(tmp_path):
    apart = SMALL.replace(
        '# %% name="answer" tags=["solution"', '# %% name="between"\nx = 1\n# %% name="answer" tags=["solution"'
    )
    with pytest.raises(InputError, match="'answer' in line"):
        small_source(tmp_path, apart)


def test_a_mutant_stands_below_a_solution(tmp_path):
    with pytest.raises(InputError, match="before any solution"):
        small_source(
            tmp_path,
            SMALL.replace('tags=["solution", "slide"]', 'tags=["slide"]').replace('name="answer"', 'name="a"', 1),
        )


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_a_source_without_cells_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="no cell"):
        small_source(tmp_path, text)


@pytest.mark.parametrize("name", ["small_lab", "98_small", "98-small_lab", "98_Small_lab"])
def test_a_source_has_the_name_of_a_lab(tmp_path, name):
    with pytest.raises(InputError, match="NN_topic_lab"):
        read_source(write(tmp_path, SMALL, name))


def test_a_source_that_is_no_text_is_refused(tmp_path):
    path = write(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_source(path)
