"""What a notebook cell puts out for a figure: both forms, the same every time, safe in a page."""

import json
from html.parser import HTMLParser

import pytest

from helpers.widgets import Axis, Series, lines
from helpers.widgets.show import HAS_HTML, PLOTLY_MIME, BookMime

NASTY = 'a "quoted" </script><b>name</b> & more'


def figure(name="round_robin", last=0.9):
    return lines(
        [Series(name, [1, 2], [0.5, last])],
        Axis("offered rate", "requests/s"),
        Axis("TTFT", "s"),
        title="TTFT against load",
        note="N = 2 requests.",
        origin="generated",
        alt="One line that rises from left to right.",
    )


class Reader(HTMLParser):
    """Keeps the elements, the script text and the table cells of a fragment."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.script, self.cells = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)

    def one(self, tag, kind):
        return next(attrs for name, attrs in self.seen if name == tag and kind in attrs.get("class", ""))


def test_the_output_has_a_form_for_jupyterlab_one_for_the_book_and_words():
    output = figure()._repr_mimebundle_()
    assert set(output) == {PLOTLY_MIME, "text/html", "text/plain"}
    assert output[PLOTLY_MIME]["data"][0]["y"] == [0.5, 0.9]
    assert "One line that rises" in output["text/plain"]


def test_the_html_carries_the_same_numbers_in_the_picture_and_in_the_table():
    page = Reader(figure().to_html())
    assert page.open == []
    assert json.loads(page.script)["data"][0]["y"] == [0.5, 0.9]
    assert page.cells == [
        "series",
        "offered rate (requests/s)",
        "TTFT (s)",
        "round_robin",
        "1",
        "0.5",
        "round_robin",
        "2",
        "0.9",
    ]


def test_the_picture_has_a_name_for_those_who_cannot_see_it():
    page = Reader(figure().to_html())
    plot = page.one("div", "hs-plot")
    assert (plot["role"], plot["aria-label"]) == ("img", "One line that rises from left to right.")
    table = page.one("div", "hs-table")
    assert table["tabindex"] == "0" and "TTFT against load" in table["aria-label"]


def test_a_name_with_markup_stays_text():
    page = Reader(figure(NASTY).to_html())
    assert page.open == []
    assert [tag for tag, _ in page.seen if tag == "b"] == []
    assert json.loads(page.script)["data"][0]["name"] == NASTY
    assert NASTY in page.cells


def test_the_output_depends_on_the_content_alone():
    assert figure()._repr_mimebundle_() == figure()._repr_mimebundle_()
    assert figure().key != figure(last=0.8).key != figure("random").key


def test_nothing_in_the_html_reaches_for_another_machine():
    html = figure().to_html()
    assert "http" not in html and "src=" not in html


class Output:
    def __init__(self, mime_type, content):
        self.mime_type, self.content = mime_type, content


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (Output(PLOTLY_MIME, figure()._repr_mimebundle_()[PLOTLY_MIME]), []),
        (Output(PLOTLY_MIME, figure().spec), None),
        (Output(PLOTLY_MIME, {"data": []}), None),
        (Output("text/html", HAS_HTML), None),
    ],
)
def test_the_book_goes_without_the_plotly_form_of_our_figures_only(output, answer):
    assert BookMime.handle_mime(None, output, False) == answer
