"""Every page of the built book, opened in a browser, in light and in dark."""

from pathlib import Path

import preview
import pytest

from tests.browser.conftest import BOOK, ROOT
from tests.browser.pages import NAMES_OF_ROWS, NARROW_PX, dead_links, look_at

TEXT_CONTRAST = 4.5
SCHEMES = ("light", "dark")

# Sets properties of the rule that lets cells stay.
CHANGE_STICKY = """(wanted) => [...document.styleSheets]
  .filter((sheet) => sheet.href?.includes("figures.css"))
  .flatMap((sheet) => [...sheet.cssRules])
  .filter((rule) => rule.style?.position === "sticky")
  .forEach((rule) => Object.assign(rule.style, wanted))"""


def pages() -> list[str]:
    """Every page of the site but those that only send the reader on (their target is checked as a link)."""
    site = ROOT / BOOK
    found = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts) if BOOK else []
    kept = [path for path in found if 'http-equiv="refresh"' not in path.read_text(encoding="utf-8").lower()]
    return [str(path.relative_to(site)) for path in kept] or ["no built book"]


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    return serve(site)


@pytest.fixture(scope="module")
def looks(browser, address, axe_file):
    """Opens each page once for each colour scheme, however many tests ask."""
    known = {}

    def look(page: str, scheme: str):
        if (page, scheme) not in known:
            known[page, scheme] = look_at(browser, f"{address}/{page}", scheme, axe_file)
        return known[page, scheme]

    return look


def test_the_build_wrote_every_page_of_the_contents(site):
    assert preview.missing_pages(ROOT, site) == []


def test_no_link_inside_the_book_is_dead(site):
    assert dead_links(site) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", pages())
def test_page_opens_with_no_error_no_outside_request_and_no_blank_figure(looks, page, scheme):
    seen = looks(page, scheme)
    assert (seen.errors, seen.outside, seen.blank) == ([], [], [])
    assert seen.smallest_contrast >= TEXT_CONTRAST
    assert seen.too_wide_px <= 0, "the page scrolls sideways on a phone"
    assert seen.cut == [], "words of a figure are cut off on a phone"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", pages())
def test_page_has_no_serious_accessibility_finding(looks, axe_file, page, scheme):
    if axe_file is None:
        pytest.skip("NO AXE: accessibility was not checked; `npm install --no-save` brings it")
    assert looks(page, scheme).axe == []


def first_page_with_a_figure(site: Path) -> Path:
    return next(
        path for path in sorted(site.rglob("*.html")) if 'class="hs-figure"' in path.read_text(encoding="utf-8")
    )


def test_a_figure_follows_the_switch_between_light_and_dark(browser, address, site):
    page = browser.new_page(color_scheme="light")
    page.goto(f"{address}/{first_page_with_a_figure(site).relative_to(site)}")
    page.locator("figure.hs-figure").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure.hs-figure[data-state=drawn] svg text")
    ink = "getComputedStyle(document.querySelector('figure.hs-figure svg .xtick text')).fill"
    light = page.evaluate(ink)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{ink} !== {light!r}", timeout=5000)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function(f"{ink} === {light!r}", timeout=5000)
    assert page.evaluate(ink) == light
    page.close()


def test_a_figure_is_drawn_when_the_page_is_opened_as_a_file(browser, site):
    page = browser.new_page()
    page.goto(first_page_with_a_figure(site).as_uri())
    page.locator("figure.hs-figure").first.scroll_into_view_if_needed()
    page.wait_for_selector("figure.hs-figure[data-state=drawn] .trace", timeout=10000)
    assert page.query_selector_all("figure.hs-figure[data-state=failed]") == []
    page.close()


def test_every_button_in_the_header_shows_that_it_has_the_focus(browser, address, site):
    page = browser.new_page()
    page.goto(f"{address}/{first_page_with_a_figure(site).relative_to(site)}")
    page.keyboard.press("Tab")
    unseen = """() => [...document.querySelectorAll('.header-article__inner .btn')]
      .filter((button) => button.checkVisibility())
      .filter((button) => (button.focus(), getComputedStyle(button).outlineStyle === 'none'))
      .map((button) => button.getAttribute('aria-label'))"""
    assert page.evaluate(unseen) == []
    page.evaluate("document.querySelector('link[href*=\"hardware.css\"]').remove()")
    assert page.evaluate(unseen), "control: the theme alone leaves some without a ring"
    page.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_names_a_row_stays_in_sight_while_a_wide_table_scrolls(browser, address, site, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": NARROW_PX, "height": 800})
    tables = 0
    for path in sorted(site.glob("chapters/*.html")):
        page.goto(f"{address}/{path.relative_to(site)}")
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        found = page.evaluate(NAMES_OF_ROWS)
        tables += len(found)
        assert [one for one in found if one[0] > 2 or one[1]] == [], path.name
    assert tables > 10
    page.goto(f"{address}/chapters/glossary.html")
    page.evaluate(CHANGE_STICKY, {"backgroundColor": "transparent"})
    assert page.evaluate(NAMES_OF_ROWS)[0][1], "control: one can see through these"
    page.evaluate(CHANGE_STICKY, {"position": "static"})
    assert page.evaluate(NAMES_OF_ROWS)[0][0] > 100, "control: without the rule the first column scrolls away"
    page.close()


def test_a_cell_that_is_folded_away_is_one_key_or_one_click_away(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/chapters/01_engine_rungs.html")
    folded = page.locator("div.cell.tag_hide-input details.hide")
    first, second = folded.nth(0), folded.nth(1)
    assert not first.locator("pre").is_visible() and not second.locator("pre").is_visible()
    page.evaluate("document.querySelector('article details summary').focus()")
    assert first.locator("summary").evaluate("(one) => one === document.activeElement"), "it takes the focus"
    page.keyboard.press("Enter")
    second.locator("summary").click()
    assert first.locator("pre").is_visible() and second.locator("pre").is_visible()
    page.close()
