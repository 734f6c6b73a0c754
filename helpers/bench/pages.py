"""How long a reader waits for a page that is alive without a kernel, in headless Chromium, against stated budgets.

Four things are timed, each many times: the first paint with its controls at work, the start of Python in a worker with
an empty and with a filled HTTP cache, and the way from a moved control to the redrawn figure of 2,000 requests.
What the page weighs before the worker loads is counted packed, whatever the server did. Beside every time stands what
Chromium's processes computed meanwhile, which says how much of a wait is the page's and how much a busy machine's.
Playwright is imported lazily.
"""

import gzip
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import median
from time import perf_counter

from helpers.bench.site import site_server
from helpers.errors import InputError
from helpers.metrics.percentiles import Ordered

BUDGETS = {
    "first_paint_s": 1.0,
    "page_bytes": 1.5e6,
    "worker_cold_s": 4.0,
    "worker_warm_s": 4.0,
    "redraw_s": 0.25,
}
PACKABLE = ("text/", "application/json", "application/javascript", "image/svg+xml")
REQUESTS = 2000  # of the run that a control changes
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-quic")
FLAGS += ("--disable-component-update", "--disable-sync")
LONGEST_MS = 120_000
BODY = "section.hs-explorer[data-explorer=serving] .hs-body"

# When the page had painted and its controls were at work, in seconds from the start of the navigation.
FIRST = """
() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  return Math.max(paint, performance.getEntriesByName("hs-interactive")[0].startTime) / 1000;
}
"""
WORKER = """
() => {
  const at = (name) => performance.getEntriesByName(name)[0].startTime;
  return (at("hs-worker-ready") - at("hs-worker-asked")) / 1000;
}
"""
# Moves the slider of the rate to a place and waits until the figures of that rate are on the screen.
REDRAW = """
async ([body, place]) => {
  const root = document.querySelector(body);
  const input = root.querySelector("input[name=rate_per_s]");
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const start = performance.now();
  input.value = place;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  while (root.getAttribute("aria-busy") !== "false") await frame();
  await frame();
  return (performance.now() - start) / 1000;
}
"""


@dataclass
class Samples:
    """The raw measurements of one page: seconds by name, and bytes."""

    page: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    page_bytes: list[int] = field(default_factory=list)
    largest: list[tuple[str, int]] = field(default_factory=list)

    def add(self, name: str, measure: Callable[[], float]) -> None:
        """Run a measurement, and note the seconds that it gives and the processor seconds that went by."""
        before = chromium_cpu_s()
        self.seconds.setdefault(name, []).append(measure())
        self.cpu_s.setdefault(name, []).append(chromium_cpu_s() - before)


def measure_pages(book: Path, loads: int = 5, changes: int = 40, tick=None) -> dict:
    """The record of all measurements on the first page of `book` (built HTML) that holds the serving explorer.

    Raises `InputError` without such a page, playwright or Chromium, and when an answer takes more than two minutes.
    """
    page = page_with_explorer(book)
    chromium, start_playwright, too_late = browser_parts()
    samples = Samples(page.relative_to(book).as_posix())
    start, load_before = perf_counter(), os.getloadavg()
    with site_server(book) as server, start_playwright() as driver:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{samples.page}"
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            for number in range(loads):
                visit(browser, address, samples, changes // loads + (number < changes % loads))
                if tick:
                    tick(number + 1)
        except too_late:
            waited = f"{samples.page}: no answer within {LONGEST_MS // 1000} s"
            raise InputError(f"{waited}; measure on a machine that does nothing else") from None
        version = browser.version
        browser.close()
        server.shutdown()
    machine = {"cores": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg(), "chromium": version}
    return {"page": samples.page, "wall_s": perf_counter() - start, "machine": machine, **report(samples)}


def page_with_explorer(book: Path) -> Path:
    """The first page, by name, that holds the serving explorer."""
    for path in sorted(book.rglob("*.html")):
        if 'data-explorer="serving"' in path.read_text(encoding="utf-8"):
            return path
    raise InputError(f"{book}: no page with the serving explorer; build the book, and name its folder with --book")


def browser_parts():
    """Chromium's path, the function that starts playwright, and what playwright raises after too long a wait."""
    from shutil import which

    chromium = os.environ.get("CHROMIUM") or which("chromium") or which("chromium-browser")
    if not chromium:
        raise InputError("bench pages needs Chromium; install it, or name it with CHROMIUM=")
    try:
        from playwright.sync_api import TimeoutError, sync_playwright
    except ImportError:
        raise InputError("bench pages needs playwright; pip install -e '.[browser]'") from None
    return chromium, sync_playwright, TimeoutError


def visit(browser, address: str, samples: Samples, changes: int) -> None:
    """One reader: an empty cache, a first load, moved controls; then the page again, from a filled cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LONGEST_MS)
    page = context.new_page()
    sizes: dict[str, int] = {}
    page.on("response", lambda answer: sizes.update({answer.url: packed_size(answer)}))
    samples.add("first_paint_s", lambda: opened(page, address))
    page.locator(BODY).scroll_into_view_if_needed()
    page.wait_for_selector(f"{BODY} figure[data-state=drawn]")
    before = {url: size for url, size in sizes.items() if not of_worker(url)}
    samples.page_bytes.append(sum(before.values()))
    samples.largest = sorted(before.items(), key=lambda one: -one[1])[:8]
    samples.add("worker_cold_s", lambda: started(page))
    page.click(f"{BODY} .hs-reset")  # one run, of 2,000 requests
    page.wait_for_selector(f"{BODY}[aria-busy=false]")
    for number in range(changes):
        # Every place is another rate, below the default, so that no answer was computed before.
        place = 60 + 50 * number // changes
        samples.add("redraw_s", lambda place=place: page.evaluate(REDRAW, [BODY, place]))
    opened(page, address)
    page.locator(BODY).scroll_into_view_if_needed()
    samples.add("worker_warm_s", lambda: started(page))
    context.close()


def opened(page, address: str) -> float:
    """Open the page; the seconds until it had painted and its controls were at work."""
    page.goto(address, wait_until="load")
    for name in ("hs-interactive", "first-contentful-paint"):
        page.wait_for_function(f"performance.getEntriesByName('{name}').length")
    return page.evaluate(FIRST)


def started(page) -> float:
    """Touch the explorer, wait for Python, and say how long it took to start."""
    page.locator(f"{BODY} input").first.focus()
    page.wait_for_selector(f"{BODY}[data-state=live]")
    return page.evaluate(WORKER)


def chromium_cpu_s() -> float:
    """Processor seconds of all Chromium processes below this one, so far; NaN where the system does not tell."""
    if not Path("/proc/self/stat").is_file():
        return nan
    parents, ticks, names = {}, {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = path.read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        fields, pid = tail.split(), int(path.parent.name)
        parents[pid], ticks[pid], names[pid] = int(fields[1]), int(fields[11]) + int(fields[12]), head.partition("(")[2]
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(ticks[pid] for pid in mine if "chrom" in names.get(pid, "")) / os.sysconf("SC_CLK_TCK")


def of_worker(url: str) -> bool:
    return any(part in url for part in ("/worker.js", "/pyodide-", "/core-"))


def packed_size(answer) -> int:
    """Bytes of a body as a host sends it: texts gzipped, the rest as it is. Nothing for what came from the cache."""
    if answer.status != 200 or of_worker(answer.url):
        return 0
    body = answer.body()
    return len(gzip.compress(body, 6)) if answer.headers.get("content-type", "").startswith(PACKABLE) else len(body)


def report(samples: Samples) -> dict:
    """Spread and verdict of every measure, p95 for redraws and the median for loads, with the raw samples."""
    measures = {}
    for name, values in {**samples.seconds, "page_bytes": samples.page_bytes}.items():
        judged = Ordered({1: values}).percentile(95).value if name == "redraw_s" else median(values)
        cpu_s = median(samples.cpu_s.get(name, [nan]))
        cpu_s = None if isnan(cpu_s) else cpu_s
        measures[name] = {
            "judged": judged,
            "of": "p95" if name == "redraw_s" else "median",
            "median": median(values),
            "min": min(values),
            "max": max(values),
            "n": len(values),
            "budget": BUDGETS[name],
            "met": judged <= BUDGETS[name],
            "cpu_s": cpu_s,
            "samples": values,
        }
    largest = [{"file": url.rpartition("/")[2], "bytes": size} for url, size in samples.largest]
    return {"measures": measures, "largest": largest, "requests": REQUESTS}
