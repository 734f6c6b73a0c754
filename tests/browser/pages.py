"""What the page tests look for in a rendered page: links in its HTML, and how it behaves in a browser."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SERIOUS = ("serious", "critical")
NARROW_PX = 390

# Each drawn trace of a figure counts if something of it has an extent.
DRAWN = """
async (figure) => {
  figure.scrollIntoView({block: "center"});
  for (let i = 0; i < 200 && !["drawn", "failed"].includes(figure.dataset.state); i++)
    await new Promise((done) => setTimeout(done, 50));
  const marks = figure.querySelectorAll(".scatterlayer .trace path, .barlayer .trace path");
  const boxes = [...marks].map((mark) => mark.getBoundingClientRect());
  return figure.dataset.state === "drawn" && boxes.some((box) => box.width + box.height > 0);
}
"""

# Contrast of every text of a figure with the page behind it, the smallest one.
SMALLEST_CONTRAST = """
(figure) => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => numbers(getComputedStyle(element).backgroundColor);
  let behind = figure;
  while (ground(behind)[3] === 0 && behind.parentElement) behind = behind.parentElement;
  const [r, g, b, alpha] = ground(behind);
  const page = alpha === 0 ? 1 : light([r, g, b]);
  const contrast = (text) => {
    const ink = light(numbers(getComputedStyle(text).fill));
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  };
  return Math.min(...[...figure.querySelectorAll("svg text")].map(contrast));
}
"""

# The words of a picture that reach over its edge; a resized picture is drawn again, so it gets a moment.
CUT = """
async (figure) => {
  figure.scrollIntoView({block: "center"});
  const edge = () => figure.querySelector(".hs-plot").getBoundingClientRect();
  const over = (box) => Math.max(edge().left - box.left, box.right - edge().right, edge().top - box.top);
  const cut = () =>
    [...figure.querySelectorAll("svg text")]
      .filter((text) => text.textContent.trim() && over(text.getBoundingClientRect()) > 1)
      .map((text) => text.textContent);
  for (let i = 0; i < 40 && cut().length; i++) await new Promise((done) => setTimeout(done, 50));
  return cut();
}
"""

# Tables wider than what they are in, scrolled to their end: how far the cells that name the rows are then from its left
# edge (the furthest), and how many of these cells one can see through.
NAMES_OF_ROWS = """
() => {
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const scroller = (element) => (!element || scrolls(element) ? element : scroller(element.parentElement));
  const wide = [...document.querySelectorAll("article table")]
    .map((table) => [table, scroller(table.parentElement)])
    .filter(([table, box]) => box && table.offsetWidth > box.clientWidth + 1);
  return wide.map(([table, box]) => {
    box.scrollLeft = table.offsetWidth;
    const edge = box.getBoundingClientRect().left;
    const names = [...table.querySelectorAll("tr > :first-child")];
    const away = names.map((cell) => Math.abs(cell.getBoundingClientRect().left - edge));
    const clear = names.filter((cell) => /rgba\\(.*, (0|0\\.\\d+)\\)/.test(getComputedStyle(cell).backgroundColor));
    return [Math.max(...away), clear.length];
  });
}
"""


@dataclass
class Seen:
    """What a browser met on one page: each entry is a sentence about something wrong."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    axe: list[str] = field(default_factory=list)
    figures: int = 0
    smallest_contrast: float = 21.0
    too_wide_px: int = 0


def look_at(browser, url: str, scheme: str, axe_file: Path | None) -> Seen:
    """Open `url` with the colour scheme "light" or "dark" and report; nothing outside its own host is let through."""
    seen = Seen()
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    home = urlsplit(url).netloc

    def guard(route):
        address = urlsplit(route.request.url)
        if address.scheme in ("data", "blob") or (address.netloc == home):
            route.continue_()
        else:
            seen.outside.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on(
        "response", lambda answer: seen.errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    page.goto(url, wait_until="load")
    for figure in page.query_selector_all("figure.hs-figure"):
        seen.figures += 1
        if figure.evaluate(DRAWN):
            seen.smallest_contrast = min(seen.smallest_contrast, figure.evaluate(SMALLEST_CONTRAST))
        else:
            seen.blank.append(figure.get_attribute("id") or "a figure")
    for image in page.query_selector_all("img"):
        if not image.evaluate("(image) => image.complete && image.naturalWidth > 0"):
            seen.blank.append(image.get_attribute("src") or "an image")
    if axe_file is not None:
        seen.axe = axe_findings(page, axe_file)
    page.set_viewport_size({"width": NARROW_PX, "height": 800})
    page.wait_for_timeout(200)
    seen.too_wide_px = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    seen.cut = [words for figure in page.query_selector_all("figure.hs-figure") for words in figure.evaluate(CUT)]
    context.close()
    return seen


def axe_findings(page, axe_file: Path) -> list[str]:
    """The serious and critical findings of axe, one line for each element."""
    page.add_script_tag(path=str(axe_file))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{finding['id']}: {finding['help']}: {node['html'][:200]}"
        for finding in found
        if finding["impact"] in SERIOUS
        for node in finding["nodes"]
    ]


class _Anchors(HTMLParser):
    """Collects the addresses that a page points to and the names that it can be entered at."""

    def __init__(self):
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag, attrs):
        here = dict(attrs)
        self.names |= {here[key] for key in ("id", "name") if here.get(key)}
        self.links += [here[key] for key in ("href", "src") if here.get(key)]
        if tag == "meta" and (here.get("http-equiv") or "").lower() == "refresh":
            self.links.append((here.get("content") or "").partition("url=")[2])


def dead_links(site: Path) -> list[str]:
    """Every link inside the site whose file or whose #place does not exist, as "page -> link"."""
    pages = {path.resolve(): _anchors(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    dead = []
    for path, found in pages.items():
        for link in found.links:
            address = urlsplit(link)
            if address.scheme or address.netloc or link == "#":
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(address.fragment)
            alive = target.is_file() and (not place or target not in pages or place in pages[target].names)
            if not alive:
                dead.append(f"{path.relative_to(site.resolve())} -> {link}")
    return dead


def _anchors(path: Path) -> _Anchors:
    parser = _Anchors()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser
