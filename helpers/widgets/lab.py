"""An explorer in a notebook: a live widget with a kernel and anywidget, HTML for the book, words for the rest.

`helpers.widgets.explore` is what a cell calls. JupyterLab runs the very module that the book runs (static/explorer.js);
the difference is who computes: here the kernel does.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from helpers.errors import InputError
from helpers.widgets.explorer import Explorer, Value, answer, description
from helpers.widgets.explorers.registry import find
from helpers.widgets.page import badge, section_html

STATIC = Path(__file__).resolve().parent / "static"
# Set by _ext/course_book.py while it builds the book, whose pages bring the HTML to life without a kernel.
IN_BOOK = "HYBRID_SERVING_BOOK"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Exploration:
    """An explorer at some values. As the last value of a notebook cell it shows itself.

    The HTML and the words depend on the explorer and the values alone.
    """

    explorer: Explorer
    answered: dict = field(repr=False)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        words = [self.explorer.title, *map(_words, self.answered["readouts"])]
        html = section_html(description(self.explorer, values=self.answered["values"]), self.answered)
        bundle = {"text/html": html, "text/plain": "\n".join([*words, self.answered["summary"]])}
        return bundle | self._widget_view()

    def _widget_view(self) -> dict:
        if IN_BOOK in os.environ or not has_kernel():
            return {}
        try:
            made = widget_class()(self.explorer, self.answered)
        except ImportError:
            return {}
        return {WIDGET_MIME: {"version_major": 2, "version_minor": 0, "model_id": made.model_id}}


def _words(readout: dict) -> str:
    whose = f", {readout['of']}" if "of" in readout else ""
    return f"{readout['label']}{whose}: {readout['text']}"


def explored(name: str, values: Mapping[str, Value]) -> Exploration:
    """The explorer `name` at `values`. Raises `InputError` for an unknown explorer, control or value."""
    explorer = find(name)
    return Exploration(explorer, answer(explorer, values))


def has_kernel() -> bool:
    """Whether this runs in a kernel, which a front end may be attached to."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


@lru_cache(maxsize=1)
def widget_class() -> type:
    """The widget; made when it is first asked for. Raises ImportError without anywidget."""
    import anywidget
    import traitlets

    def read(*names: str) -> str:
        return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)

    class ExplorerWidget(anywidget.AnyWidget):
        """Observes `values`, sets `answer`; what it syncs is what static/explorer.js reads."""

        _esm = read("draw.js", "explorer.js")
        _css = read("figures.css", "explorer.css")
        description = traitlets.Dict().tag(sync=True)
        values = traitlets.Dict().tag(sync=True)
        answer = traitlets.Dict().tag(sync=True)
        status = traitlets.Dict().tag(sync=True)
        badge = traitlets.Unicode().tag(sync=True)

        def __init__(self, explorer: Explorer, answered: dict) -> None:
            self._explorer = explorer
            described = description(explorer, values=answered["values"])
            super().__init__(
                description=described,
                values=answered["values"],
                answer=answered,
                status={"kind": "live", "text": "Live: the kernel of this notebook computes."},
                badge=badge(described, answered["values"]),
            )
            self.observe(self._compute, "values")
            self.on_msg(self._hand_over_plotly)

        def _compute(self, change: Mapping) -> None:
            try:
                self.answer = answer(self._explorer, self.values)
            except InputError as error:
                self.answer = {"error": str(error), "values": self.values}
            self.badge = badge(self.description, self.values)

        def _hand_over_plotly(self, _, content: object, buffers: list) -> None:
            # The bundle that ships with the Python package, once a page: no other machine is asked.
            if content == {"wants": "plotly"}:
                self.send({"plotly": True}, [plotly_bundle()])

    return ExplorerWidget


def plotly_bundle() -> bytes:
    """The script of Plotly inside the Python package."""
    import plotly

    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
