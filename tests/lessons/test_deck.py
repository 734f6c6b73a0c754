"""Slides as one file: figures are drawn, code is shown only where nothing came of it, failures are told."""

import shutil
from pathlib import Path

import nbformat
import pytest

from helpers.errors import InputError
from helpers.lessons.deck import _script, deck
from helpers.widgets.figures import Axis, Series, lines

nbconvert = pytest.importorskip("nbconvert")

FIGURE = lines(
    [Series("planted", [1, 2], [3, 4])],
    Axis("x", ""),
    Axis("y", ""),
    title="A title",
    note="A note.",
    origin="measured",
    alt="A line that rises from three to four, and nothing else.",
)


def slides(folder: Path, *cells) -> Path:
    made = nbformat.v4.new_notebook(cells=list(cells))
    for cell in made.cells:
        cell.metadata["slideshow"] = {"slide_type": "slide"}
    path = folder / "slides.ipynb"
    nbformat.write(made, path)
    return path


def code(source, html=None):
    outputs = [nbformat.v4.new_output("execute_result", {"text/html": html}, execution_count=1)] if html else []
    return nbformat.v4.new_code_cell(source, outputs=outputs)


@pytest.fixture
def written(tmp_path):
    stub, shown = code("def left_for_you(): ..."), code("hidden_call()", FIGURE.to_html())
    return deck(slides(tmp_path, nbformat.v4.new_markdown_cell("# Heading"), stub, shown), "reveal", run=False)


def test_code_is_shown_where_nothing_came_of_it(written):
    assert "left_for_you" in written and "hidden_call" not in written
    assert "In&nbsp;[" not in written and "Heading" in written


def test_plotly_comes_before_what_changes_how_libraries_load(written):
    assert written.index("plotly.js v") < written.index("require.min.js") < written.index("hsDraw.usePlotlyFrom(async")
    assert '"reveal/dist/reveal.js"' in written


def test_a_script_cannot_end_early():
    assert _script("a = '</script>'").count("</script") == 1


def test_a_cell_that_fails_is_told(tmp_path):
    with pytest.raises(InputError, match="a cell fails with ZeroDivisionError: division by zero"):
        deck(slides(tmp_path, code("1 / 0")))
    assert ">4<" in deck(slides(tmp_path, code("print(2 + 2)"))).replace("\n", "")  # the control: it is run


def test_the_figure_is_drawn_in_a_browser(written, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    api = pytest.importorskip("playwright.sync_api")
    if not chromium:
        pytest.skip("NO CHROMIUM")
    (tmp_path / "deck.html").write_text(written, encoding="utf-8")
    (tmp_path / "dead.html").write_text(written.replace("hsDraw.usePlotlyFrom(async", "(async"), encoding="utf-8")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("http**", lambda route: route.abort())
        page.goto((tmp_path / "deck.html").as_uri(), wait_until="load")
        page.wait_for_selector(".hs-plot .main-svg", state="attached", timeout=60_000)
        page.goto((tmp_path / "dead.html").as_uri(), wait_until="load")  # the control
        assert page.locator(".hs-plot .main-svg").count() == 0
        browser.close()
