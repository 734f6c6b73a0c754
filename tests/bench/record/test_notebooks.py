"""Notebooks as plain Python: which cells run, where one stops, and what the record says of it."""

import json

import pytest

from helpers.bench.record import notebooks


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def written(name, *cells):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [{"cell_type": kind, "source": source.splitlines(keepends=True)} for kind, source in cells]
        path.write_text(json.dumps({"cells": cells}))
        return path

    return written


class Shown:
    """Notes that it was shown."""

    seen = 0

    def _repr_html_(self):
        Shown.seen += 1
        return ""


def test_cells_share_their_names_and_the_last_value_is_shown(write, monkeypatch):
    monkeypatch.setattr("builtins.Shown", Shown, raising=False)
    cells = (("markdown", "1 / 0"), ("code", "a = 2\nShown()"), ("code", "assert a == 2\nShown()\na + 1"), ("code", ""))
    found = notebooks.run_cells(write("one.ipynb", *cells))
    assert found["cells"] == 3 and "failed" not in found
    assert Shown.seen == 1  # the last expression of its cell, not the one on the way


def test_a_cell_that_fails_is_the_last(write):
    found = notebooks.run_cells(write("one.ipynb", ("code", "a = 1"), ("code", "a / 0"), ("code", "raise OSError")))
    assert found["cells"] == 2
    assert found["failed"] == "cell 2 of 3: ZeroDivisionError: division by zero"


def test_a_value_that_cannot_be_shown_fails_its_cell(write):
    source = "class A:\n    def _repr_html_(self):\n        raise ValueError('planted')\nA()"
    assert "ValueError: planted" in notebooks.run_cells(write("one.ipynb", ("code", source)))["failed"]


def test_every_notebook_gets_a_point(write, tmp_path):
    write("chapters/a.ipynb", ("code", "print('words of its own')\n1"))
    write("chapters/b.ipynb", ("code", "raise ValueError('planted')"))
    write("labs/solutions/c.ipynb", ("code", "import os\nos._exit(3)"))
    write("labs/d.ipynb", ("code", "1"))  # the gaps of a lab are its learner's
    found = list(notebooks.run_all(tmp_path))
    assert [one["name"] for one in found] == ["chapters/a.ipynb", "chapters/b.ipynb", "labs/solutions/c.ipynb"]
    assert "failed" not in found[0] and found[0]["cells"] == 1
    assert found[1]["failed"].endswith("ValueError: planted")
    assert "code 3" in found[2]["failed"]
