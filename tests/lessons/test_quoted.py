"""Numbers for the text: handed over as they stand, and shown in the notebook."""

import ast
import sys

from helpers.lessons import quoted


def handed_over(monkeypatch) -> list[tuple[str, object]]:
    calls = []
    glue = type(sys)("myst_nb")
    glue.glue = lambda name, value, display: calls.append((name, value))
    monkeypatch.setitem(sys.modules, "myst_nb", glue)
    return calls


def test_a_text_arrives_with_its_comma(monkeypatch, capsys):
    calls = handed_over(monkeypatch)
    quoted.quote(requests="12,000", rate="3.31 requests/s")
    assert [name for name, _ in calls] == ["requests", "rate"]
    # MyST-NB reads the plain text of the value as a Python literal: "12,000" must not become the pair (12, 0).
    assert ast.literal_eval(repr(calls[0][1])) == "12,000"
    assert "requests: 12,000" in capsys.readouterr().out


def test_without_the_books_packages_the_list_is_still_shown(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    quoted.quote(rate="3.31 requests/s")
    assert "rate: 3.31 requests/s" in capsys.readouterr().out


def test_without_ipython_the_list_is_printed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    quoted.quote(rate="3.31 requests/s")
    assert capsys.readouterr().out == "rate: 3.31 requests/s\n"


def test_the_list_escapes_markup():
    assert "&lt;b&gt;" in quoted.Quoted(x="<b>")._repr_html_()
