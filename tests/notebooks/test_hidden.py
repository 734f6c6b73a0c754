"""Cells that only hand numbers to the text are folded away; cells that show or set up something are not among them."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from tests.notebooks.hidden import HIDDEN, only_quoting

PAGES = sorted((Path(__file__).resolve().parent.parent.parent / "chapters").glob("*.ipynb"))


def untagged(cells):
    quoting = only_quoting(cells)
    return [cell.id for cell in cells if cell.id in quoting and HIDDEN not in cell.metadata.get("tags", [])]


def notebook(*sources, tags=()):
    """Code cells c0, c1 and so on."""
    return [new_code_cell(one, id=f"c{i}", metadata={"tags": list(tags)}) for i, one in enumerate(sources)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_cell_that_only_hands_numbers_to_the_text_is_folded_away(path):
    assert untagged(nbformat.read(path, as_version=4).cells) == [], f"tag these {HIDDEN!r}"


def test_a_chapter_has_such_cells_and_one_without_its_tag_is_found():
    page = nbformat.read(next(path for path in PAGES if path.stem == "03_disaggregated_inference"), as_version=4)
    cell = next(cell for cell in page.cells if cell.id in only_quoting(page.cells))
    del cell.metadata["tags"]
    assert untagged(page.cells) == [cell.id]


@pytest.mark.parametrize(
    "source",
    [
        'quote(a="1")',
        'x = run["a"]\nassert x > 0\nquote(a=f"{x}")\nquote(b="2")',
        'def of(k):\n    return run[k]\n\n\nfor k in "ab":\n    quote(**{k: of(k)})',
        'run = {"own": 1}\nquote(a=run["own"])',  # a name that nobody reads afterwards
    ],
)
def test_it_is_one_that_shows_nothing_but_quoted_numbers(source):
    cells = notebook("run = {}", source, "draw(0)")
    assert only_quoting([new_markdown_cell("text"), *cells]) == ["c1"] == untagged(cells)
    assert untagged(notebook("run = {}", source, tags=[HIDDEN])) == []


@pytest.mark.parametrize(
    ("source", "later"),
    [
        ('x = 1\nquote(a="1")\ndraw(x)', "0"),  # shows something
        ("x = 1", "draw(x)"),  # hands nothing to the text
        ('x = 1\nquote(a="1")', "draw(x)"),  # a cell in sight needs what it sets up
        ('x = 1\nquote(a="1")', "def f():\n    return x\n\n\ndraw(f())"),
        ('x = {}\nquote(a="1")', "x |= {1: 2}\ndraw(x)"),
        ('def x():\n    return 1\n\n\nquote(a="1")', "draw([x() for y in z])"),
        ('from a import x\nquote(a="1")', "draw(x)"),
        ('x, y = 1, 2\nquote(a="1")', 'y = y + 1\nquote(b="1")\ndraw(y)'),
    ],
)
def test_a_cell_that_a_reader_would_miss_stays_in_sight(source, later):
    assert "c0" not in only_quoting(notebook(source, later))


@pytest.mark.parametrize(
    "later",
    ["x = 2\ndraw(x)", "draw([x for x in z])", "draw(lambda x: x)", 'quote(b=f"{x}")', "x: int = 3\ndraw(x)"],
)
def test_a_name_that_is_bound_anew_or_only_quoted_is_not_missed(later):
    assert only_quoting(notebook('x = 1\nquote(a="1")', later))[0] == "c0"
