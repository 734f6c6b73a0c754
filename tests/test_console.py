"""How a command speaks: piped and on a terminal, its last line, its progress."""

import io
import json
import re
import sys

import pytest

from helpers import console
from helpers.console import emit_json, emit_table, progress


def test_piped_tables_are_plain_lines_with_full_names(capsys):
    emit_table("A title", ("name", "value"), [("x" * 200, 1), ("y", None)])
    assert capsys.readouterr().out == f"# A title\nname\tvalue\n{'x' * 200}\t1\ny\t\n"


def test_the_json_line_is_one_line_and_holds_numbers_only(capsys):
    emit_json({"text": "two\nlines", "list": list(range(500))})
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out)["text"] == "two\nlines"
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit_json({"p99": float("nan")})


class Terminal(io.StringIO):
    def isatty(self):
        return True


WIDE = ("router", *(f"goodput {n} /s" for n in range(12)))
NUMBERS = [("prefix_exact", *(f"{n}.25 [1.5, 2.5]" for n in range(12))), ("round_robin", *["3.75"] * 12)]


def on_a_terminal(monkeypatch, columns, speak):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    speak()
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())  # without bold and italics


def test_a_table_wider_than_the_terminal_comes_in_parts_that_cut_no_cell(monkeypatch):
    narrow, wide = (on_a_terminal(monkeypatch, n, lambda: emit_table("T", WIDE, NUMBERS)) for n in (80, 400))
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, wide.splitlines()))
    # A part has 80 characters: 12 + 3 for the routers, 1 for the edge, then columns of 16 (17 from ten on) + 3, three.
    for text, parts in ((narrow, 4), (wide, 1)):
        assert text.count("prefix_exact") == text.count("round_robin") == parts
        assert all(text.count(f" {n}.25 [1.5, 2.5] ") == 1 for n in range(12)) and "\u2026" not in text
        assert text.splitlines()[0].strip() == "T" and sum(line.strip() == "T" for line in text.splitlines()) == 1


def test_long_words_and_brackets_of_a_table_are_folded_and_never_lost(monkeypatch):
    words = "first=[engine,serve] " + "x" * 90
    text = on_a_terminal(monkeypatch, 80, lambda: emit_table("T", ("name", "what"), [("one", words), ("two", "")]))
    assert "[engine,serve]" in text and text.count("x") == 90 and "\u2026" not in text


def test_a_column_may_have_neither_a_name_nor_a_cell(monkeypatch):
    # As the verdicts of a fidelity whose live runs tell no pair of policies apart.
    for rows in ([], [("TTFT", "")]):
        text = on_a_terminal(monkeypatch, 80, lambda rows=rows: emit_table("T", ("figure", ""), rows))
        assert "figure" in text and text.count("TTFT") == len(rows)


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (False, False)])
def test_progress_shows_on_a_terminal_after_two_seconds(terminal, shown, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("simulate", 400) as tick:
        for done in range(200):
            tick(done)
        assert stream.getvalue() == ""  # not yet two seconds
        now[0] += 3.0
        tick(200)
        tick(201)  # within a fifth of a second
        assert stream.getvalue().count("simulate: 50 % after 3 s") == (1 if shown else 0)
        assert "201" not in stream.getvalue()
    assert stream.getvalue().endswith("\r") if shown else stream.getvalue() == ""  # the line is wiped


def test_a_long_line_of_progress_is_wiped_to_its_end(monkeypatch):
    now, stream = [100.0], Terminal()
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("The price of " + "x" * 80, 4) as tick:
        now[0] += 3.0
        tick(2)
    drawn, wiped = stream.getvalue().split("\r")[1:3]
    assert len(drawn) == len("The price of ") + 80 + len(": 50 % after 3 s") and wiped == " " * len(drawn)
