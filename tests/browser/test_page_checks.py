"""The page checks can fail: each planted fault is found, and a sound page passes them all."""

import pytest

from tests.browser.pages import dead_links, look_at

SOUND = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sound</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"></head>
<body><main><h1>Sound</h1><p id="place">Words.</p>{extra}</main></body></html>"""

FIGURE = """<figure class="hs-figure" id="hs-1" data-state="{state}">
<div class="hs-plot" role="img" aria-label="A line that rises">{drawing}</div></figure>"""
LINE = (
    '<svg width="90" height="90"><text x="5" y="20" fill="{ink}">1</text><g class="scatterlayer"><g class="trace">'
    '<path d="M0 0L80 80" stroke="#000"/></g></g></svg>'
)


def seen_of(extra, browser, serve, tmp_path, axe_file=None):
    (tmp_path / "page.html").write_text(SOUND.format(extra=extra), encoding="utf-8")
    return look_at(browser, f"{serve(tmp_path)}/page.html", "light", axe_file)


def test_a_sound_page_passes(browser, serve, tmp_path, axe_file):
    figure = FIGURE.format(state="drawn", drawing=LINE.format(ink="#000"))
    seen = seen_of(figure, browser, serve, tmp_path, axe_file)
    assert (seen.errors, seen.outside, seen.blank, seen.cut, seen.axe) == ([], [], [], [], [])
    assert (seen.figures, seen.too_wide_px) == (1, 0)
    assert seen.smallest_contrast == pytest.approx(21)


@pytest.mark.parametrize(
    "fault",
    [
        "<script>console.error('planted')</script>",
        "<script>nothing.at.all</script>",
        "<script src='missing.js'></script>",
    ],
)
def test_an_error_on_the_page_is_found(fault, browser, serve, tmp_path):
    assert seen_of(fault, browser, serve, tmp_path).errors


@pytest.mark.parametrize(
    "fault",
    [
        "<script src='https://cdn.example.org/lib.js'></script>",
        "<style>@import url('https://fonts.example.org/a.css');</style>",
        "<script>fetch('https://api.example.org/v1').catch(() => {})</script>",
    ],
)
def test_a_request_to_another_host_is_found_and_stopped(fault, browser, serve, tmp_path):
    assert any("example.org" in url for url in seen_of(fault, browser, serve, tmp_path).outside)


@pytest.mark.parametrize(
    "fault",
    [
        FIGURE.format(state="drawn", drawing=""),
        FIGURE.format(state="failed", drawing=LINE.format(ink="#000")),
        FIGURE.format(state="drawn", drawing=LINE.format(ink="#000").replace("M0 0L80 80", "")),
        "<img src='gone.png' alt='gone'>",
    ],
)
def test_a_blank_figure_is_found(fault, browser, serve, tmp_path):
    assert seen_of(fault, browser, serve, tmp_path).blank


def test_figure_text_in_the_colour_of_the_page_is_found(browser, serve, tmp_path):
    figure = FIGURE.format(state="drawn", drawing=LINE.format(ink="#eee"))
    assert seen_of(figure, browser, serve, tmp_path).smallest_contrast < 1.5


def test_words_that_reach_over_the_edge_of_a_figure_are_found(browser, serve, tmp_path):
    drawing = LINE.format(ink="#000").replace('x="5"', 'x="-30"')
    assert seen_of(FIGURE.format(state="drawn", drawing=drawing), browser, serve, tmp_path).cut == ["1"]


def test_a_page_wider_than_a_phone_is_found(browser, serve, tmp_path):
    assert seen_of("<div style='width:900px'>wide</div>", browser, serve, tmp_path).too_wide_px > 400


@pytest.mark.parametrize("fault", ["<img src='data:,'>", "<p style='color:#bbb;background:#fff'>faint words</p>"])
def test_a_serious_accessibility_fault_is_found(fault, browser, serve, tmp_path, axe_file):
    if axe_file is None:
        pytest.skip("NO AXE: accessibility was not checked; `npm install --no-save` brings it")
    assert seen_of(fault, browser, serve, tmp_path, axe_file).axe


@pytest.mark.parametrize("link", ["gone.html", "page.html#gone", "#gone", "folder/", "../outside.html"])
def test_a_dead_link_is_found(link, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "page.html").write_text(SOUND.format(extra=f"<a href='{link}'>x</a>"), encoding="utf-8")
    assert dead_links(site) == [f"page.html -> {link}"]


def test_living_links_pass(tmp_path):
    links = "".join(f"<a href='{link}'>x</a>" for link in ("page.html", "page.html#place", "#place", "https://x.org/"))
    (tmp_path / "page.html").write_text(SOUND.format(extra=links), encoding="utf-8")
    assert dead_links(tmp_path) == []
