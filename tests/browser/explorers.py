"""Driving an explorer in a browser: move a control, wait for the answer, read what the figures hold."""

from urllib.parse import urlsplit

MOVE = """
([name, place]) => {
  const input = document.querySelector(`.hs-body input[name=${name}]`);
  input.value = place;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}
"""
DATA = """
() => [...document.querySelectorAll(".hs-body .hs-plot")]
  .filter((place) => place.data)
  .map((place) => place.data.map((trace) => [trace.name, [...trace.x], [...trace.y]]))
"""


def move(page, name: str, place: float) -> None:
    """Put the slider `name` at a place of its track, as a drag does."""
    page.evaluate(MOVE, [name, place])


def settled(page, timeout_ms: float = 20_000) -> None:
    """Wait until every explorer of the page shows what its controls say."""
    page.wait_for_function("!document.querySelector('.hs-body[aria-busy=true]')", timeout=timeout_ms)


def figure_data(page) -> list:
    """Names, x and y of every trace of every drawn figure of the explorers."""
    return page.evaluate(DATA)


def outside_requests(context, home: str) -> list[str]:
    """A list that fills with every address outside the host of `home` that is asked for; none is let through."""
    outside: list[str] = []

    def guard(route):
        address = urlsplit(route.request.url)
        if address.scheme in ("data", "blob") or address.netloc == urlsplit(home).netloc:
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    return outside
