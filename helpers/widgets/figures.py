"""Figures as plain Plotly dictionaries: one builder for each kind, one look, nothing computed.

A builder draws the numbers that it is given. Percentiles, shares, intervals and rates come from
`helpers.metrics`. What a builder insists on is what a reader needs: axes with units, a note with N
and the interval, where the numbers come from, and a text for those who cannot see the picture.

Standard library only: the same code runs inside a rendered page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10

from helpers.errors import InputError
from helpers.widgets.show import Figure
from helpers.widgets.style import MARK, MOST_SERIES, VEIL, axis, close_ticks, layout, look

ORIGINS = ("measured", "simulated", "predicted", "generated", "published")
TABLE_ROWS_PER_SERIES = 60
# Lines with more points than this carry no markers: they would hide the line.
MOST_MARKERS = 40


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
    """A labelled line across the figure, such as an SLO, at `value` on an axis; on y its label may be `at_start`."""

    value: float
    label: str
    axis: str = "x"
    at_start: bool = False


@dataclass(frozen=True)
class Interval:
    """One piece of work: from `start_s` to `end_s` on `lane` (a worker), of a `kind` such as "prefill"."""

    lane: str
    start_s: float
    end_s: float
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Dot:
    """One value on an axis, on a row of its own name, of a `kind` such as "bound"."""

    row: str
    kind: str
    value: float


def lines(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Lines with markers, and error bars where a series brings an interval.

    `words` are those of every builder: `title`, `alt` (what the picture shows, in a sentence or two),
    `note` (N and the interval), `origin` (one of ORIGINS), and optionally `marks` (a sequence of `Mark`)
    and `height_px`. Raises `InputError` when a series or a text is unusable.
    """
    traces = [_points(index, one, "lines+markers") for index, one in enumerate(series)]
    return _figure(traces, series, x, y, **words)


def scatter(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Separate points, one marker shape for each series. `words` as in `lines`."""
    traces = [_points(index, one, "markers") for index, one in enumerate(series)]
    return _figure(traces, series, x, y, **words)


def timeseries(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Values that hold until the next one (queue lengths, occupancy): steps, no markers. `words` as in `lines`."""
    traces = [_points(index, one, "lines", shape="hv") for index, one in enumerate(series)]
    return _figure(traces, series, x, y, **words)


def cdf(series: Sequence[Series], x: Axis, **words) -> Figure:
    """Cumulative shares: y[i] in [0, 1] is the share of samples at or below x[i]. `words` as in `lines`.

    Raises `InputError` for shares that fall or lie outside [0, 1].
    """
    for one in series:
        shares = list(one.y)
        if any(share is None or not 0 <= share <= 1 for share in shares) or shares != sorted(shares):
            raise InputError(f"figure series {one.name!r}: cumulative shares must lie in 0 to 1 and never fall")
    traces = [_points(index, one, "lines", shape="hv") for index, one in enumerate(series)]
    y = Axis("share at or below", "")
    return _figure(traces, series, x, y, y_axis={"range": [0, 1.01]}, **words)


def bars(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Bars in groups: x holds category names, the same for every series. `words` as in `lines`."""
    for one in series:
        if list(one.x) != list(series[0].x) or any(not isinstance(name, str) for name in one.x):
            raise InputError(f"figure series {one.name!r}: bars need the same category names in every series")
    traces = []
    for index, one in enumerate(series):
        style = look(index)
        marker = {"color": style["colour"], "pattern": {"shape": style["pattern"], "solidity": 0.25}}
        trace = {"type": "bar", "name": one.name, "x": list(one.x), "y": _numbers(one, one.y), "marker": marker}
        traces.append(trace | _error_bars(one))
    return _figure(traces, series, x, y, categories=True, bar_layout={"barmode": "group", "bargap": 0.25}, **words)


def gantt(
    intervals: Sequence[Interval],
    lanes: Sequence[str],
    x: Axis,
    *,
    lane: str = "worker",
    kinds: Sequence[str] = (),
    quiet: str = "",
    **words,
) -> Figure:
    """Bars of work over time, one lane for each worker, the first lane on top; one colour and pattern for each kind.

    `lane` says what a lane is. Colours go by `kinds` first, so that a kind keeps its own where others are missing; the
    kind `quiet` is drawn in grey. `words` as in `lines`.
    """
    for one in intervals:
        where = f"figure interval {one.kind!r} on {one.lane!r}"
        if one.lane not in lanes:
            raise InputError(f"{where}: the lane is not among {list(lanes)}")
        if not (isfinite(one.start_s) and isfinite(one.end_s) and one.start_s <= one.end_s):
            raise InputError(f"{where}: it must end at or after its start, both finite")
    drawn = dict.fromkeys(one.kind for one in intervals)
    order = [kind for kind in dict.fromkeys((*kinds, *drawn)) if kind != quiet] + [quiet]
    traces = [_gantt_trace(index, kind, intervals, kind == quiet) for index, kind in enumerate(order) if kind in drawn]
    series = [Series(kind, [0], [0]) for kind in drawn]
    rows = [(one.lane, one.kind, one.start_s, one.end_s, one.label) for one in intervals]
    table = ((lane, "kind", "start (s)", "end (s)", "label"), *_thin(rows, TABLE_ROWS_PER_SERIES))
    drawing = {
        "y_axis": {"type": "category", "categoryarray": list(lanes), "autorange": "reversed"},
        "bar_layout": {"barmode": "overlay", "bargap": 0.2},
        "table": table,
    }
    return _figure(traces, series, x, Axis(lane, ""), **drawing, **words)


def dots(values: Sequence[Dot], x: Axis, *, rows_are: str = "who says so", **words) -> Figure:
    """Values on one axis, each on its row, the first on top, a marker for each kind. `words` as in `lines`.

    `rows_are` names what the rows are, in a word or two. Raises `InputError` when two values have the same row.
    """
    rows = [one.row for one in values]
    if len(set(rows)) != len(rows):
        raise InputError(f"figure on {x.name!r}: two values are called {next(r for r in rows if rows.count(r) > 1)!r}")
    series, traces = [], []
    for index, kind in enumerate(dict.fromkeys(one.kind for one in values)):
        mine = [one for one in values if one.kind == kind]
        series.append(Series(kind, [one.value for one in mine], [None] * len(mine)))
        trace = _points(index, series[-1], "markers")
        traces.append(trace | {"y": [one.row for one in mine], "marker": trace["marker"] | {"size": 12}})
    drawing = {
        "y_axis": {"type": "category", "categoryarray": rows, "autorange": "reversed"},
        "x_axis": close_ticks([one.value for one in values]) if x.log else {},
        "table": ((rows_are, "kind", x.title), [(one.row, one.kind, one.value) for one in values], 0),
    }
    words = {"height_px": 180 + 36 * len(values)} | words
    return _figure(traces, series, x, Axis(rows_are, ""), **drawing, **words)


def _gantt_trace(index: int, kind: str, intervals: Sequence[Interval], quiet: bool) -> dict:
    style = {"colour": MARK, "pattern": ""} if quiet else look(index)
    mine = [one for one in intervals if one.kind == kind]
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "y": [one.lane for one in mine],
        "base": [_number(one.start_s) for one in mine],
        "x": [_number(one.end_s - one.start_s) for one in mine],
        "hovertext": [one.label or kind for one in mine],
        "marker": {"color": style["colour"], "pattern": {"shape": style["pattern"], "solidity": 0.25}},
        "opacity": 0.25 if quiet else 1.0,
    }


def _points(index: int, one: Series, mode: str, shape: str = "linear") -> dict:
    style = look(index)
    if mode == "lines+markers" and len(one.x) > MOST_MARKERS:
        mode = "lines"
    trace = {"type": "scatter", "mode": mode, "name": one.name, "x": _numbers(one, one.x), "y": _numbers(one, one.y)}
    if "lines" in mode:
        trace["line"] = {"color": style["colour"], "dash": style["dash"], "width": 2, "shape": shape}
    if "markers" in mode:
        trace["marker"] = {"color": style["colour"], "symbol": style["marker"], "size": 8}
    return trace | _error_bars(one)


def _error_bars(one: Series) -> dict:
    """Plotly wants distances from y; an interval is given by its two ends."""
    if one.low is None and one.high is None:
        return {}
    if one.low is None or one.high is None:
        raise InputError(f"figure series {one.name!r}: an interval needs both its low and its high ends")
    ends = list(zip(_numbers(one, one.low), _numbers(one, one.y), _numbers(one, one.high), strict=False))
    if any(None not in end and not end[0] <= end[1] <= end[2] for end in ends):
        raise InputError(f"figure series {one.name!r}: each value must lie inside its own interval")
    above = [None if None in (y, high) else high - y for _, y, high in ends]
    below = [None if None in (y, low) else y - low for low, y, _ in ends]
    return {"error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5}}


def _figure(
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
    _check_words(title, alt, note, origin)
    _check_series(series, x, y, title, categories)
    note = f"{origin.capitalize()}. {note}"
    x_drawn = axis(x.title, log=x.log, from_zero=x.from_zero, category=categories) | (x_axis or {})
    y_drawn = axis(y.title, log=y.log, from_zero=y.from_zero) | (y_axis or {})
    drawn = layout(title, note, x_drawn, y_drawn, height_px) | (bar_layout or {})
    drawn["showlegend"] = len(traces) > 1
    drawn |= _mark_shapes(marks, x, y, title)
    columns, rows, skipped = table or _table(series, x, y)
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
        sides = ("left", "top") if along == "x" else ("left" if mark.at_start else "right", "bottom")
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


def _table(series: Sequence[Series], x: Axis, y: Axis) -> tuple[tuple[str, ...], list[tuple], int]:
    intervals = any(one.low is not None for one in series)
    columns = ("series", x.title, y.title) + (("low", "high") if intervals else ())
    rows, skipped = [], 0
    for one in series:
        low, high = one.low or [None] * len(one.y), one.high or [None] * len(one.y)
        mine = [(one.name, *row[: len(columns) - 1]) for row in zip(one.x, one.y, low, high, strict=False)]
        kept, left_out = _thin(mine, TABLE_ROWS_PER_SERIES)
        rows += kept
        skipped += left_out
    return columns, rows, skipped


def _thin(rows: list[tuple], most: int) -> tuple[list[tuple], int]:
    """At most `most` rows, evenly taken with the first and the last, and how many were left out."""
    if len(rows) <= most:
        return rows, 0
    kept = [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
    return kept, len(rows) - most


def _numbers(one: Series, values: Sequence) -> list[float | None]:
    try:
        return [None if value is None else _number(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"figure series {one.name!r}: every value must be a finite number (None for a gap)") from None


def _number(value: float) -> float | int:
    """Nine significant digits: below what a picture can show, and the same text on every machine."""
    if isinstance(value, int):
        return value
    number = float(f"{float(value):.9g}")
    if not isfinite(number):
        raise ValueError(value)
    return number
