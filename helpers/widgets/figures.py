"""Figures as plain Plotly dictionaries: one builder for each kind, one look, nothing computed.

A builder draws the numbers that it is given. Percentiles, shares, intervals and rates come from
`helpers.metrics`. What a builder insists on is what a reader needs: axes with units, a note with N
and the interval, where the numbers come from, and a text for those who cannot see the picture.

Standard library only: the same code runs inside a rendered page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from helpers.errors import InputError
from helpers.widgets.drawing import (
    TABLE_ROWS_PER_SERIES,
    Axis,
    Mark,
    Series,
    figure_of,
    rounded,
    rounded_all,
    table_of,
    thinned,
)
from helpers.widgets.show import Figure
from helpers.widgets.style import MARK, close_ticks, look

__all__ = [
    "Axis",
    "Dot",
    "Interval",
    "Mark",
    "Series",
    "bars",
    "cdf",
    "dots",
    "gantt",
    "lines",
    "scatter",
    "timeseries",
]

# Lines with more points than this carry no markers: they would hide the line.
MOST_MARKERS = 40
# Heights of what surrounds rows, and of a row.
FRAME_PX, BAR_ROW_PX, DOT_ROW_PX = 180, 24, 36


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
    return figure_of(traces, series, x, y, **words)


def scatter(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Separate points, one marker shape for each series. `words` as in `lines`."""
    traces = [_points(index, one, "markers") for index, one in enumerate(series)]
    return figure_of(traces, series, x, y, **words)


def timeseries(series: Sequence[Series], x: Axis, y: Axis, **words) -> Figure:
    """Values that hold until the next one (queue lengths, occupancy): steps, no markers. `words` as in `lines`."""
    traces = [_points(index, one, "lines", shape="hv") for index, one in enumerate(series)]
    return figure_of(traces, series, x, y, **words)


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
    return figure_of(traces, series, x, y, y_axis={"range": [0, 1.01]}, **words)


def bars(series: Sequence[Series], x: Axis, y: Axis, *, horizontal: bool = False, **words) -> Figure:
    """Bars in groups: x holds category names, the same for every series. `words` as in `lines`.

    `horizontal` bars suit many categories: each name stands on a row, the first on top, and values run to the
    right, so that a mark on a value is one on the axis x.
    """
    for one in series:
        if list(one.x) != list(series[0].x) or any(not isinstance(name, str) for name in one.x):
            raise InputError(f"figure series {one.name!r}: bars need the same category names in every series")
    traces = [_bar(index, one, horizontal) for index, one in enumerate(series)]
    drawing = {"bar_layout": {"barmode": "group", "bargap": 0.25}}
    if not horizontal:
        return figure_of(traces, series, x, y, categories=True, **drawing, **words)
    names = list(dict.fromkeys(name for one in series for name in one.x))
    drawing |= {"y_axis": _rows(names), "table": table_of(series, x, y)}
    words = {"height_px": FRAME_PX + BAR_ROW_PX * len(names)} | words
    return figure_of(traces, [replace(one, x=one.y, y=one.x) for one in series], y, x, **drawing, **words)


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
    table = ((lane, "kind", "start (s)", "end (s)", "label"), *thinned(rows, TABLE_ROWS_PER_SERIES))
    drawing = {
        "y_axis": _rows(lanes),
        "bar_layout": {"barmode": "overlay", "bargap": 0.2},
        "table": table,
    }
    return figure_of(traces, series, x, Axis(lane, ""), **drawing, **words)


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
        "y_axis": _rows(rows),
        "x_axis": close_ticks([one.value for one in values]) if x.log else {},
        "table": ((rows_are, "kind", x.title), [(one.row, one.kind, one.value) for one in values], 0),
    }
    words = {"height_px": FRAME_PX + DOT_ROW_PX * len(values)} | words
    return figure_of(traces, series, x, Axis(rows_are, ""), **drawing, **words)


def _rows(names: Sequence[str]) -> dict:
    return {"type": "category", "categoryarray": list(names), "autorange": "reversed"}


def _bar(index: int, one: Series, horizontal: bool) -> dict:
    style = look(index)
    marker = {"color": style["colour"], "pattern": {"shape": style["pattern"], "solidity": 0.25}}
    trace = {"type": "bar", "name": one.name, "marker": marker}
    names, values = list(one.x), rounded_all(one, one.y)
    if horizontal:
        return trace | {"orientation": "h", "x": values, "y": names} | _error_bars(one, "error_x")
    return trace | {"x": names, "y": values} | _error_bars(one)


def _gantt_trace(index: int, kind: str, intervals: Sequence[Interval], quiet: bool) -> dict:
    style = {"colour": MARK, "pattern": ""} if quiet else look(index)
    mine = [one for one in intervals if one.kind == kind]
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "y": [one.lane for one in mine],
        "base": [rounded(one.start_s) for one in mine],
        "x": [rounded(one.end_s - one.start_s) for one in mine],
        "hovertext": [one.label or kind for one in mine],
        "marker": {"color": style["colour"], "pattern": {"shape": style["pattern"], "solidity": 0.25}},
        "opacity": 0.25 if quiet else 1.0,
    }


def _points(index: int, one: Series, mode: str, shape: str = "linear") -> dict:
    style = look(index)
    if mode == "lines+markers" and len(one.x) > MOST_MARKERS:
        mode = "lines"
    trace = {
        "type": "scatter",
        "mode": mode,
        "name": one.name,
        "x": rounded_all(one, one.x),
        "y": rounded_all(one, one.y),
    }
    if "lines" in mode:
        trace["line"] = {"color": style["colour"], "dash": style["dash"], "width": 2, "shape": shape}
    if "markers" in mode:
        trace["marker"] = {"color": style["colour"], "symbol": style["marker"], "size": 8}
    return trace | _error_bars(one)


def _error_bars(one: Series, direction: str = "error_y") -> dict:
    """Plotly wants distances from the value; an interval is given by its two ends."""
    if one.low is None and one.high is None:
        return {}
    if one.low is None or one.high is None:
        raise InputError(f"figure series {one.name!r}: an interval needs both its low and its high ends")
    ends = list(zip(rounded_all(one, one.low), rounded_all(one, one.y), rounded_all(one, one.high), strict=False))
    if any(None not in end and not end[0] <= end[1] <= end[2] for end in ends):
        raise InputError(f"figure series {one.name!r}: each value must lie inside its own interval")
    above = [None if None in (y, high) else high - y for _, y, high in ends]
    below = [None if None in (y, low) else y - low for low, y, _ in ends]
    return {direction: {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.5}}
