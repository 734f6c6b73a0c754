"""Explorers in a page of the book: live without a kernel, by keyboard, in the dark, and polite when they cannot be.

The page is one of the built book, with its head, header and scripts, and every explorer in place of its text.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from helpers.cost.calibration import COEFFICIENTS
from helpers.widgets import Axis, Series, by_hardware, lines
from helpers.widgets.explorers.registry import EXPLORERS
from helpers.widgets.page import explorer_html
from tests.browser.explorers import figure_data, move, outside_requests, settled
from tests.browser.pages import look_at

LIVE_MS = 90_000  # Python starts in a few seconds, on a machine that is not busy
PAGE = "chapters/explorers.html"
RECORD = {"hardware_key": "h200", "device": "NVIDIA H200", "coefficients": dict.fromkeys(COEFFICIENTS, 1e-5)}
# A worker that answers the second request before the first, each with its number and nothing else.
LATE = """
const kept = [];
self.onmessage = ({ data }) => {
  if (data.core) return self.postMessage({ ready: true });
  kept.push(data);
  if (kept.length < 2) return;
  for (const { place, number, request } of kept.reverse()) {
    const { values } = JSON.parse(request);
    const answer = { values, summary: `answer ${number}`, readouts: [], figures: [] };
    self.postMessage({ place, number, reply: JSON.stringify(answer) });
  }
};
"""
GUARD = "if (number <= this.#shown) return;"


def plain_figure(last: float):
    return lines(
        [Series("a", [1, 2], [1.0, last])],
        Axis("rate", "requests/s"),
        Axis("TTFT", "s"),
        title="A figure",
        note="N = 2.",
        origin="generated",
        alt="One line that rises from left to right.",
    )


def with_explorers(site: Path, folder: Path, names=tuple(EXPLORERS), changed: dict[str, str] | None = None) -> Path:
    """A site whose one page holds the explorers; `changed` gives other texts to files of _static."""
    page = (site / "chapters/intro.html").read_text(encoding="utf-8")
    figures = [
        by_hardware({"h100": plain_figure(2.0), "measured_h100_80gb_hbm3": plain_figure(3.0)}),
        plain_figure(4.0),
    ]
    parts = [*map(explorer_html, names), *(figure.to_html() for figure in figures)]
    article = f'<article class="bd-article"><h1>Explorers</h1>{"".join(parts)}</article>'
    page = re.sub(r'<article class="bd-article".*?</article>', lambda _: article, page, flags=re.DOTALL)
    assert article in page
    (folder / PAGE).parent.mkdir(parents=True)
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / "_static").mkdir()
    for path in (site / "_static").iterdir():
        if path.name in (changed or {}):
            (folder / "_static" / path.name).write_text(changed[path.name], encoding="utf-8")
        else:
            (folder / "_static" / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def address(site, serve, tmp_path_factory) -> str:
    return f"{serve(with_explorers(site, tmp_path_factory.mktemp('explorers')))}/{PAGE}"


@pytest.fixture
def opened(browser):
    """A function that opens an address in a fresh context and gives the page; its errors must be none at the end."""
    contexts, errors = [], []

    def start(url: str, **words):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **words)
        context.set_default_timeout(LIVE_MS)
        contexts.append((context, outside_requests(context, url)))
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url, wait_until="load")
        return page

    yield start
    for context, outside in contexts:
        context.close()
        assert outside == []
    assert errors == []


def explorer(page, name: str):
    """The section of one explorer, scrolled to, so that its figures are drawn."""
    section = page.locator(f"section.hs-explorer[data-explorer={name}]")
    section.scroll_into_view_if_needed()
    return section


def live(page) -> None:
    page.wait_for_selector(".hs-body[data-state=live]", timeout=LIVE_MS)


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_slider_changes_the_data_of_the_figures(opened, site, serve, tmp_path, name):
    page = opened(f"{serve(with_explorers(site, tmp_path, [name]))}/{PAGE}")
    page.wait_for_selector(".hs-body figure[data-state=drawn]")
    assert page.locator(".hs-body").get_attribute("data-state") in ("precomputed", "loading", "live")
    before, said = figure_data(page), page.text_content(".hs-summary")
    slider = page.locator(".hs-body input[type=range]").first
    move(page, slider.get_attribute("name"), slider.get_attribute("min"))
    settled(page, LIVE_MS)
    assert figure_data(page) != before
    assert page.text_content(".hs-summary") != said
    page.click(".hs-reset")
    settled(page, LIVE_MS)
    assert page.text_content(".hs-summary") == said
    assert page.text_content(".hs-status").startswith("Live")


def test_the_keyboard_moves_a_control_and_opens_the_table(opened, address):
    page = opened(address)
    slider = explorer(page, "serving").locator("input[name=rate_per_s]")
    slider.focus()
    said = explorer(page, "serving").locator(".hs-summary").text_content()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    settled(page, LIVE_MS)
    assert explorer(page, "serving").locator(".hs-summary").text_content() != said
    assert slider.get_attribute("aria-valuetext") == explorer(page, "serving").locator("output").first.text_content()
    summary = explorer(page, "serving").locator("figure details summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert explorer(page, "serving").locator("figure details tbody tr").count() > 2


def test_what_makes_no_sense_is_said_and_the_figures_stay(opened, address):
    page = opened(address)
    explorer(page, "serving")
    page.wait_for_selector(".hs-body figure[data-state=drawn]")
    before = figure_data(page)
    move(page, "prefill_workers", 63)
    settled(page, LIVE_MS)
    assert "none decodes" in page.locator(".hs-trouble:visible").text_content()
    assert figure_data(page) == before
    answer = "[data-explorer=serving] .hs-body > :is(.hs-readouts, .hs-compared, .hs-summary)"
    pale = f"[...document.querySelectorAll('{answer}')].map((one) => Number(getComputedStyle(one).opacity))"
    assert max(page.evaluate(pale)) < 0.5  # they are of another setting
    explorer(page, "serving").locator(".hs-reset").click()
    settled(page, LIVE_MS)
    assert min(page.evaluate(pale)) == 1  # control


def test_two_routers_stand_in_a_table_and_one_in_pairs_whether_or_not_python_computed_them(
    opened, site, serve, tmp_path
):
    folder = with_explorers(site, tmp_path, ["serving"])
    text = (folder / PAGE).read_text(encoding="utf-8")
    compared = explorer_html("serving", {"compare": "dynamo", "requests": 400})
    (folder / PAGE).write_text(text.replace(explorer_html("serving"), compared), encoding="utf-8")
    page = opened(f"{serve(folder)}/{PAGE}")
    page.wait_for_selector(".hs-controls input")
    static = compared.partition('<table class="hs-compared">')[2].partition("</table>")[0]
    table = page.locator("table.hs-compared")
    assert table.evaluate("(one) => one.innerHTML") == static, "page.py and explorer.js write different tables"
    assert table.locator("thead th[scope=col]").all_text_contents() == ["measure", "round_robin", "dynamo"]
    page.select_option(".hs-controls select[name=compare]", index=0)
    settled(page, LIVE_MS)
    assert table.count() == 0 and page.locator("dl.hs-readouts dt").count() == static.count("<tr>") - 1
    page.click(".hs-reset")  # back to what the cell asked for, not to the defaults of the explorer
    settled(page, LIVE_MS)
    assert table.locator("thead th[scope=col]").all_text_contents() == ["measure", "round_robin", "dynamo"]
    assert page.input_value(".hs-controls input[name=requests]") == "400"


@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "control: without the guard"])
def test_a_stale_reply_is_dropped(browser, site, serve, tmp_path, guarded):
    changed = {"worker.js": LATE}
    if not guarded:
        source = (site / "_static/page.js").read_text(encoding="utf-8")
        assert GUARD in source
        changed["page.js"] = source.replace(GUARD, "")
    page = browser.new_page()
    page.goto(f"{serve(with_explorers(site, tmp_path, ['serving'], changed))}/{PAGE}")
    page.wait_for_selector(".hs-controls input")
    move(page, "rate_per_s", 20)
    move(page, "rate_per_s", 40)
    page.wait_for_function("document.querySelector('.hs-summary').textContent.startsWith('answer')")
    page.wait_for_timeout(100)
    assert page.text_content(".hs-summary") == ("answer 2" if guarded else "answer 1")
    page.close()


def test_a_page_whose_worker_fails_keeps_the_precomputed_state_and_says_why(browser, site, serve, tmp_path):
    changed = {"worker.js": "self.onmessage = () => self.postMessage({ trouble: 'a planted fault' });"}
    page = browser.new_page()
    page.goto(f"{serve(with_explorers(site, tmp_path, ['serving'], changed))}/{PAGE}")
    page.wait_for_selector(".hs-body figure[data-state=drawn]")
    before, said = figure_data(page), page.text_content(".hs-summary")
    move(page, "rate_per_s", 20)
    page.wait_for_selector(".hs-body[data-state=stuck]")
    assert "a planted fault" in page.text_content(".hs-status")
    assert figure_data(page) == before and page.text_content(".hs-summary") == said
    assert page.locator(".hs-controls input").first.is_disabled()
    page.close()


def test_a_page_opened_as_a_file_shows_the_precomputed_state_and_says_why(browser, site, tmp_path):
    page = browser.new_page()
    page.goto((with_explorers(site, tmp_path) / PAGE).as_uri())
    page.locator(".hs-explorer figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".hs-explorer figure[data-state=drawn] .trace")
    assert "opened as a file" in page.locator(".hs-status").first.text_content()
    assert page.locator(".hs-explorer input").count() == 0
    page.close()


def switch_to(page, key: str) -> None:
    page.click(".hs-hardware summary")
    page.check(f".hs-hardware input[value={key}]")
    page.keyboard.press("Escape")
    assert page.get_attribute(".hs-hardware", "open") is None


def badges(page) -> list[str]:
    return page.locator(".hs-badge").all_text_contents()


def test_the_hardware_switch_redraws_every_figure_and_is_remembered(opened, address):
    page = opened(address)
    explorer(page, "serving")
    page.wait_for_selector(".hs-body figure[data-state=drawn]")
    before = figure_data(page)
    assert set(badges(page)) == {"H100 SXM, predicted"}
    switch_to(page, "measured_h100_80gb_hbm3")
    assert set(badges(page)) == {"H100 80GB HBM3, measured under load"}
    settled(page, LIVE_MS)
    assert figure_data(page) != before
    variant = page.locator("figure[data-hardware=measured_h100_80gb_hbm3]")
    variant.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('figure[data-hardware] .hs-plot').data?.[0].y.at(-1) === 3")
    assert page.locator(".hs-unswitched:visible").count() == 1

    page.reload()
    assert set(badges(page)) == {"H100 80GB HBM3, measured under load"}
    switch_to(page, "h200")
    assert "Nothing is shown here for H200 SXM, predicted." in page.locator(".hs-unswitched").all_text_contents()
    switch_to(page, "h100")
    assert page.locator(".hs-unswitched:visible").count() == 0
    live(page)


def test_a_file_of_the_reader_becomes_a_choice_and_a_bad_one_changes_nothing(opened, address, tmp_path):
    page = opened(address)
    good, bad, broken = (tmp_path / name for name in ("good.json", "bad.json", "broken.json"))
    good.write_text(json.dumps(RECORD))
    bad.write_text(json.dumps(RECORD | {"coefficients": {"overhead_s": 1.0}}))
    broken.write_text("{")
    for file, why in ((bad, "it holds no cost"), (broken, "it is not JSON")):
        page.set_input_files(".hs-hardware input[type=file]", file)
        page.wait_for_selector(".hs-hardware .hs-trouble:visible")
        assert why in page.text_content(".hs-hardware .hs-trouble") and file.name in page.text_content(
            ".hs-hardware .hs-trouble"
        )
        assert set(badges(page)) == {"H100 SXM, predicted"}
    page.set_input_files(".hs-hardware input[type=file]", good)
    page.wait_for_function("document.querySelector('.hs-badge').textContent === 'Mine: H200, measured'")
    assert page.locator(".hs-hardware .hs-trouble:visible").count() == 0
    settled(page, LIVE_MS)
    assert "calibrated on H200" in explorer(page, "serving").locator(".hs-summary").text_content()
    page.reload()
    page.wait_for_function("document.querySelector('.hs-badge').textContent === 'Mine: H200, measured'")
    live(page)


DROP = """
(text) => {
  const data = new DataTransfer();
  data.items.add(new File([text], "dropped.json", { type: "application/json" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}
"""


def test_a_file_can_be_dropped_anywhere(opened, address):
    page = opened(address)
    page.evaluate(DROP, "[]")
    page.wait_for_selector(".hs-hardware .hs-trouble:visible")
    assert page.text_content(".hs-hardware .hs-trouble").startswith("dropped.json was not taken")
    page.evaluate(DROP, json.dumps(RECORD))
    page.wait_for_function("document.querySelector('.hs-hardware-now').textContent === 'Mine: H200, measured'")
    live(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_explorers_are_accessible_readable_and_within_a_phone(browser, address, axe_file, scheme):
    seen = look_at(browser, address, scheme, axe_file)
    assert (seen.errors, seen.outside, seen.blank, seen.axe) == ([], [], [], [])
    assert seen.figures >= 2 + len(EXPLORERS) and seen.smallest_contrast >= 4.5 and seen.too_wide_px <= 0
    if axe_file is None:
        pytest.skip("NO AXE: accessibility was not checked; `npm install --no-save` brings it")


SHIFTS = "window.shifted = 0; new PerformanceObserver((list) => list.getEntries().forEach((e) => (shifted += e.value)))"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_moves_when_the_explorer_comes_to_life(browser, address, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.add_init_script(SHIFTS + ".observe({ type: 'layout-shift', buffered: true })")
    page = context.new_page()
    page.goto(address)
    live(page)
    page.wait_for_timeout(300)
    assert page.evaluate("shifted") < 0.05
    # The measure sees a shift: text that is put in above the explorers.
    page.evaluate("document.querySelector('article').insertAdjacentHTML('afterbegin', '<p style=height:300px></p>')")
    page.wait_for_timeout(300)
    assert page.evaluate("shifted") > 0.05
    context.close()


def test_a_copy_of_the_site_that_lacks_python_says_so(browser, site, serve, tmp_path):
    folder = with_explorers(site, tmp_path, ["serving"])
    for path in folder.glob("_static/pyodide-*"):
        path.unlink()
    page = browser.new_page()
    page.goto(f"{serve(folder)}/{PAGE}")
    page.wait_for_selector(".hs-controls input")
    move(page, "rate_per_s", 20)
    page.wait_for_selector(".hs-body[data-state=stuck]", timeout=LIVE_MS)
    assert "Python did not start in this page" in page.text_content(".hs-status")
    page.close()
    shutil.rmtree(folder)
