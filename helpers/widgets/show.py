"""How a figure reaches a reader: live in JupyterLab, drawn by a script in the book, a table for everyone."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from html import escape

PLOTLY_MIME = "application/vnd.plotly.v1+json"
LAB_CONFIG = {"responsive": True, "displaylogo": False}
# Written into the Plotly dictionary of an output that also has HTML for the book.
HAS_HTML = "the book shows the HTML of this output"


@dataclass(frozen=True)
class Figure:
    """A drawn figure: `spec` is a Plotly dictionary with `data` and `layout`, the rest is what goes beside it.

    As the last value of a notebook cell it shows itself. The output holds the Plotly dictionary, which
    JupyterLab draws, and HTML, which the book shows and helpers/widgets/static/figures.js brings to life.
    The output depends on the content alone, so that a notebook run twice gives the same file.
    """

    spec: dict
    title: str
    note: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    rows_left_out: int = 0

    @property
    def key(self) -> str:
        """A short name made from the content."""
        cells = [[_cell(value) for value in row] for row in self.rows]
        content = [self.spec, self.title, self.note, self.alt, self.columns, cells]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict:
        """The figure as plain values for JSON; the cells of the table are the texts that `to_html` shows."""
        return {
            "key": self.key,
            "title": self.title,
            "note": self.note,
            "alt": self.alt,
            "spec": self.spec,
            "columns": list(self.columns),
            "rows": [[_text(value) for value in row] for row in self.rows],
            "rows_left_out": self.rows_left_out,
        }

    @classmethod
    def from_dict(cls, content: dict) -> "Figure":
        """The figure that `to_dict` gave, with texts in its table."""
        named = {name: content[name] for name in ("spec", "title", "note", "alt", "rows_left_out")}
        return cls(**named, columns=tuple(content["columns"]), rows=tuple(map(tuple, content["rows"])))

    def to_html(self) -> str:
        """A `<figure>` with the caption, a place to draw in, the Plotly dictionary, and the data as a table."""
        return self.html_with(json_script(self.spec, 'class="hs-spec"'))

    def html_with(self, scripts: str, badge: str = "", attributes: str = "") -> str:
        """The `<figure>` with these scripts to draw from, and a badge in words beside its title."""
        height_px = int(self.spec["layout"]["height"])
        pill = f' <span class="hs-badge">{escape(badge)}</span>' if badge else ""
        return (
            f'<figure class="hs-figure" id="hs-{self.key}"{attributes}>'
            f'<figcaption><span class="hs-head"><span class="hs-title">{escape(self.title)}</span>{pill}</span> '
            f'<span class="hs-note">{escape(self.note)}</span></figcaption>'
            f'<div class="hs-plot" role="img" aria-label="{escape(self.alt)}" style="min-height:{height_px}px"></div>'
            f'<noscript><p class="hs-alt">The picture needs JavaScript. {escape(self.alt)}</p></noscript>'
            f"{scripts}{self._table_html()}</figure>"
        )

    def _table_html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in self.rows)
        total = len(self.rows) + self.rows_left_out
        thinned = f" ({len(self.rows)} of {total:,} points, evenly taken)" if self.rows_left_out else ""
        label = escape(f"Data of the figure: {self.title}")
        return (
            f'<details class="hs-data"><summary>Data and description{thinned}</summary>'
            f'<p class="hs-alt">{escape(self.alt)}</p>'
            f'<div class="hs-table" role="region" aria-label="{label}" tabindex="0">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        layout = {**self.spec["layout"], "meta": HAS_HTML}
        return {
            PLOTLY_MIME: {**self.spec, "layout": layout, "config": LAB_CONFIG},
            "text/html": self.to_html(),
            "text/plain": f"{self.title}. {self.note} {self.alt}",
        }


def json_script(content: object, attributes: str) -> str:
    """A script element that holds JSON, in which "<" is an escape so that no text can end the element early."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" {attributes}>{text}</script>'


def _cell(value: object) -> str:
    return escape(_text(value))


def _text(value: object) -> str:
    if value is None:
        return "not stated"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class BookMime:
    """Tells MyST-NB, which builds the book, that the Plotly dictionary of a `Figure` may go unused.

    Only that one: a bare Plotly figure shows nothing in the book, and the warning about it must stay.
    """

    mime_priority_overrides = ()

    @staticmethod
    def handle_mime(renderer, data, inline):
        """An empty list (nothing to show, all is well) for a `Figure`, None (not mine) for any other output."""
        if data.mime_type != PLOTLY_MIME:
            return None
        return [] if data.content.get("layout", {}).get("meta") == HAS_HTML else None
