"""What all builders of figures.py share: axes, series and marks, the checks on them, and the table beside a picture.

Standard library only: the same code runs inside a rendered page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10

from helpers.errors import InputError
from helpers.widgets.show import Figure
from helpers.widgets.style import MARK, MOST_SERIES, VEIL, axis, layout

ORIGINS = ("measured", "simulated", "predicted", "generated", "published")
TABLE_ROWS_PER_SERIES = 60


@dataclass(frozen=True)
class Axis:
    """What an axis shows and in which unit (`""` only for a pure count or share)."""

    name: str
    unit: str
    log: bool = False
    from_zero: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Series:
    """Points of one name: x[i], y[i] and, where given, the interval low[i] to high[i] around y[i].

    A y of None is a gap (a value that is not stated). x holds numbers; for `bars` it holds categories.
    """

    name: str
    x: Sequence
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Mark:
    """A labelled line across the figure, such as an SLO, at `value` on an axis, its label at the end or `at_start`."""

    value: float
    label: str
    axis: str = "x"
    at_start: bool = False


def figure_of(
    traces: list[dict],
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    title: str,
    alt: str,
    note: str,
    origin: str,
    marks: Sequence[Mark] = (),
    height_px: int = 400,
    categories: bool = False,
    x_axis: dict | None = None,
    y_axis: dict | None = None,
    bar_layout: dict | None = None,
    table: tuple | None = None,
) -> Figure:
    """Traces with axes, words, marks and the table beside them: what every builder of figures.py ends with.

    `series` are what the axes and the table are checked and made from; `x_axis`, `y_axis`, `bar_layout` and `table`
    replace parts of what follows from them. Raises `InputError` when a series or a text is unusable.
    """
    _check_words(title, alt, note, origin)
    _check_series(series, x, y, title, categories)
    note = f"{origin.capitalize()}. {note}"
    x_drawn = axis(x.title, log=x.log, from_zero=x.from_zero, category=categories) | (x_axis or {})
    y_drawn = axis(y.title, log=y.log, from_zero=y.from_zero) | (y_axis or {})
    drawn = layout(title, note, x_drawn, y_drawn, height_px) | (bar_layout or {})
    drawn["showlegend"] = len(traces) > 1
    drawn |= _mark_shapes(marks, x, y, title)
    columns, rows, skipped = table or table_of(series, x, y)
    return Figure({"data": traces, "layout": drawn}, title, note, alt, tuple(columns), tuple(rows), skipped)


def _check_words(title: str, alt: str, note: str, origin: str) -> None:
    for name, text in (("title", title), ("alt", alt), ("note", note)):
        if not text.strip():
            raise InputError(f"figure {title!r}: {name} is empty; say it in words")
    if len(alt.split()) < 5:
        raise InputError(f"figure {title!r}: alt must say in a sentence what the picture shows, not {alt!r}")
    if origin not in ORIGINS:
        raise InputError(f"figure {title!r}: origin must be one of {', '.join(ORIGINS)}, not {origin!r}")


def _check_series(series: Sequence[Series], x: Axis, y: Axis, title: str, categories: bool) -> None:
    if not series or len(series) > MOST_SERIES:
        raise InputError(f"figure {title!r}: needs 1 to {MOST_SERIES} series, got {len(series)}")
    if len({one.name for one in series}) != len(series):
        raise InputError(f"figure {title!r}: two series have the same name")
    for one in series:
        lengths = {len(part) for part in (one.x, one.y, one.low, one.high) if part is not None}
        if lengths == {0} or len(lengths) > 1:
            raise InputError(f"figure series {one.name!r}: x, y, low and high must be equally long and not empty")
        for which, values in ((x, () if categories else one.x), (y, one.y)):
            if which.log and any(value is not None and value <= 0 for value in values):
                raise InputError(f"figure series {one.name!r}: {which.name} has a value <= 0 on a logarithmic axis")


def _mark_shapes(marks: Sequence[Mark], x: Axis, y: Axis, title: str) -> dict:
    shapes, labels = [], []
    for mark in marks:
        if mark.axis not in ("x", "y") or not isfinite(mark.value):
            raise InputError(f"figure {title!r}: mark {mark.label!r} needs a finite value on axis 'x' or 'y'")
        along, across = ("x", "y") if mark.axis == "x" else ("y", "x")
        ends = {f"{along}0": mark.value, f"{along}1": mark.value, f"{across}0": 0, f"{across}1": 1}
        line = {"color": MARK, "width": 1.5, "dash": "dash"}
        shapes.append({"type": "line", f"{along}ref": along, f"{across}ref": "paper", "line": line} | ends)
        if along == "x":
            sides = ("left", "bottom" if mark.at_start else "top")
        else:
            sides = ("left" if mark.at_start else "right", "bottom")
        anchor = {"xanchor": sides[0], "yanchor": sides[1]} | ({"xshift": 4} if along == "x" else {})
        logarithmic = (x if along == "x" else y).log
        labels.append(_mark_label(mark, along, across, logarithmic) | anchor)
    return {"shapes": shapes, "annotations": labels} if marks else {}


def _mark_label(mark: Mark, along: str, across: str, logarithmic: bool) -> dict:
    # On a logarithmic axis Plotly places shapes by value but annotations by the exponent.
    place = {along: log10(mark.value) if logarithmic else mark.value, across: 0 if mark.at_start else 1}
    return {
        "text": mark.label,
        f"{along}ref": along,
        f"{across}ref": "paper",
        "showarrow": False,
        "bgcolor": VEIL,
    } | place


def table_of(series: Sequence[Series], x: Axis, y: Axis) -> tuple[tuple[str, ...], list[tuple], int]:
    """Column names, the rows of all series, and how many rows were left out."""
    intervals = any(one.low is not None for one in series)
    columns = ("series", x.title, y.title) + (("low", "high") if intervals else ())
    rows, skipped = [], 0
    for one in series:
        low, high = one.low or [None] * len(one.y), one.high or [None] * len(one.y)
        mine = [(one.name, *row[: len(columns) - 1]) for row in zip(one.x, one.y, low, high, strict=False)]
        kept, left_out = thinned(mine, TABLE_ROWS_PER_SERIES)
        rows += kept
        skipped += left_out
    return columns, rows, skipped


def thinned(rows: list[tuple], most: int) -> tuple[list[tuple], int]:
    """At most `most` rows, evenly taken with the first and the last, and how many were left out."""
    if len(rows) <= most:
        return rows, 0
    kept = [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
    return kept, len(rows) - most


def rounded_all(one: Series, values: Sequence) -> list[float | None]:
    """`values` of a series as JSON holds them; raises `InputError` for what is no finite number."""
    try:
        return [None if value is None else rounded(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"figure series {one.name!r}: every value must be a finite number (None for a gap)") from None


def rounded(value: float) -> float | int:
    """Nine significant digits: below what a picture can show, and the same text on every machine."""
    if isinstance(value, int):
        return value
    result = float(f"{float(value):.9g}")
    if not isfinite(result):
        raise ValueError(value)
    return result
