"""An explorer as HTML and as a cell's output: whole without a script, the same every time, safe in a page."""

import json
import re
import sys
from html import escape
from pathlib import Path

import pytest

from helpers.errors import InputError
from helpers.widgets import explore, lines
from helpers.widgets.explorer import Answer, Explorer, Readout, answer, choice, description, number
from helpers.widgets.figures import Axis, Series
from helpers.widgets.lab import WIDGET_MIME, Exploration, plotly_bundle
from helpers.widgets.page import A_NUMBER, explorer_html, number_text, section_html
from tests.widgets.test_show import Reader

STATIC = Path(__file__).resolve().parents[2] / "helpers" / "widgets" / "static"
NASTY = '</script><b>"nasty"</b> & more'


def compute(values, record=None):
    drawn = lines(
        [Series(NASTY, [1, 2], [1.0, values["speed"]])],
        Axis("rate", "requests/s"),
        Axis("TTFT", "s"),
        title="Speed",
        note="N = 2.",
        origin="generated",
        alt="One line that rises from left to right.",
    )
    readouts = [Readout("speed", f"{values['speed']:g} s")]
    if values["compare"] == "yes":
        readouts = [Readout(label, f"{label} of {of}", of) for of in ("one", NASTY) for label in ("speed", "way")]
    return Answer((drawn,), tuple(readouts), f"Summary of {values['speed']:g}.")


EXPLORER = Explorer(
    "toy",
    "A toy",
    NASTY,
    (
        number("speed", "speed", 1500.0, (0.0, 9000.0), 0.05, "s"),
        choice("hardware", "hardware", "h100", {"h100": "H100, predicted", "h200": NASTY}),
        choice("compare", "compare", "no", {"no": "no", "yes": "yes"}),
    ),
    compute,
)


def page(**values):
    return section_html(description(EXPLORER), answer(EXPLORER, values))


def test_a_readout_that_is_a_sentence_takes_a_line_of_its_own():
    """Among four columns of numbers a sentence was a column of words; the script draws the line at the same length."""
    answered = answer(EXPLORER, {})
    for length, shown in ((A_NUMBER, 0), (A_NUMBER + 1, 1)):
        answered["readouts"] = [{"label": "evidence", "text": "x" * length}, {"label": "speed", "text": "2 s"}]
        html = section_html(description(EXPLORER), answered)
        assert html.count('<div class="hs-line"><dt>evidence') == html.count('class="hs-line"') == shown
    script = (STATIC / "explorer.js").read_text(encoding="utf-8")
    assert f"const A_NUMBER = {A_NUMBER};" in script and ".hs-line" in (STATIC / "explorer.css").read_text()


def test_the_section_shows_settings_numbers_words_and_figures_without_any_script():
    found = Reader(page())
    assert found.open == []
    classes = [attrs.get("class", "") for _, attrs in found.seen]
    assert classes.count("hs-control") == 3 and classes.count("hs-figure") == 1
    for text in ("1,500.00 s", "1500 s", "Summary of 1500.", "H100, predicted", "1500"):
        assert text in page()
    assert [attrs for tag, attrs in found.seen if tag in ("input", "select", "button")] == [], "a dead control"


def test_the_state_in_the_section_is_what_the_module_draws_from():
    text = page(speed=2.0).partition('class="hs-state">')[2].partition("</script>")[0]
    state = json.loads(text)
    assert state == json.loads(
        json.dumps({"description": description(EXPLORER), "answer": answer(EXPLORER, {"speed": 2.0})})
    )


def test_markup_in_words_stays_text():
    assert [tag for tag, _ in Reader(page(hardware="h200")).seen if tag == "b"] == []


def test_numbers_that_are_compared_stand_in_a_table_with_a_column_for_each():
    table = page(compare="yes").partition('<table class="hs-compared">')[2].partition("</table>")[0]
    head, *rows = table.split("<tr>")[1:]
    assert re.findall(r'<th scope="col">(.*?)</th>', head) == ["measure", "one", escape(NASTY)]
    assert [re.findall(r">([^<>]+)</t[hd]>", row) for row in rows] == [
        ["speed", "speed of one", escape(f"speed of {NASTY}")],
        ["way", "way of one", escape(f"way of {NASTY}")],
    ]
    assert [row.count('<th scope="row">') for row in rows] == [1, 1]
    assert "hs-compared" not in page() and "<dl" not in page(compare="yes")


def test_numbers_that_are_compared_say_in_words_whose_they_are():
    words = Exploration(EXPLORER, answer(EXPLORER, {"compare": "yes"}))._repr_mimebundle_()["text/plain"]
    assert words.splitlines()[1:3] == ["speed, one: speed of one", "way, one: way of one"]


def test_a_page_and_a_cell_say_where_reset_goes_back_to():
    cell = Exploration(EXPLORER, answer(EXPLORER, {"speed": 2.0}))._repr_mimebundle_()["text/html"]
    for html, name, value in ((cell, "speed", 2.0), (explorer_html("serving", {"requests": 400}), "requests", 400)):
        state = json.loads(re.search(r'<script[^>]*class="hs-state"[^>]*>(.*?)</script>', html, re.DOTALL)[1])
        assert {one["name"]: one["value"] for one in state["description"]["controls"]}[name] == value


def test_the_section_depends_on_the_content_alone():
    assert page() == page(speed=1500.0)
    assert page() != page(speed=2.0)
    assert Reader(page()).one("section", "hs-explorer")["id"] != Reader(page(speed=2.0)).one("section", "hs-")["id"]


@pytest.mark.parametrize(
    ("step", "value", "text"),
    [(1, 2000, "2,000 s"), (0.1, 12.0, "12.0 s"), (0.05, 1.5, "1.50 s"), (1, 0, "0 s"), (0.001, 0.25, "0.250 s")],
)
def test_a_number_has_the_decimals_of_its_step(step, value, text):
    assert number_text({"step": step, "unit": "s"}, value) == text
    assert number_text({"step": step, "unit": ""}, value) == text.removesuffix(" s")


def test_an_unknown_explorer_or_value_is_one_sentence():
    with pytest.raises(InputError):
        explorer_html("no such")
    with pytest.raises(InputError):
        explore("serving", no_such_control=1)


def test_a_cell_puts_out_html_and_words_and_no_widget_without_a_kernel():
    shown = Exploration(EXPLORER, answer(EXPLORER, {}))
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert bundle["text/plain"] == "A toy\nspeed: 1500 s\nSummary of 1500."
    assert bundle == Exploration(EXPLORER, answer(EXPLORER, {}))._repr_mimebundle_()


@pytest.mark.parametrize(
    ("anywidget", "book", "widget"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_kernel_with_anywidget_gets_a_widget_but_never_the_book(monkeypatch, anywidget, book, widget):
    from helpers.widgets import lab

    if anywidget:
        pytest.importorskip("anywidget", reason="NO ANYWIDGET: the widget of JupyterLab was not made")
    else:
        monkeypatch.setitem(sys.modules, "anywidget", None)
        lab.widget_class.cache_clear()
    monkeypatch.setattr(lab, "has_kernel", lambda: True)
    monkeypatch.delenv(lab.IN_BOOK, raising=False)
    if book:
        monkeypatch.setenv(lab.IN_BOOK, "1")
    assert (WIDGET_MIME in Exploration(EXPLORER, answer(EXPLORER, {}))._repr_mimebundle_()) is widget
    lab.widget_class.cache_clear()


def test_the_widget_answers_what_its_controls_say_and_keeps_its_answer_when_they_make_no_sense():
    pytest.importorskip("anywidget", reason="NO ANYWIDGET: the widget of JupyterLab was not made")
    from helpers.widgets.lab import widget_class

    widget = widget_class()(EXPLORER, answer(EXPLORER, {}))
    assert widget.badge == "H100, predicted"
    widget.values = {"speed": 3.0, "hardware": "h200", "compare": "no"}
    assert widget.answer["readouts"] == [{"label": "speed", "text": "3 s"}]
    assert widget.answer["values"] == widget.values and widget.badge == NASTY
    widget.values = {"speed": -1.0, "hardware": "h200"}
    assert "speed" in widget.answer["error"] and "figures" not in widget.answer
    widget.values = {"speed": 4.0, "hardware": "h200"}
    assert widget.answer["readouts"] == [{"label": "speed", "text": "4 s"}]


def test_the_plotly_for_jupyterlab_is_the_one_of_the_python_package():
    assert b"plotly.js v" in plotly_bundle()[:200]
