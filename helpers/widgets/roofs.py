"""A roofline as a figure: roofs as lines, operations as points. Colour and shape say which; open ones are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from helpers.errors import InputError
from helpers.widgets.figures import Axis, Series, lines
from helpers.widgets.show import Figure
from helpers.widgets.style import look

FILLS = {"predicted": "-open", "measured": ""}
SIZE = 11
LEGEND = {"orientation": "h", "x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"}


@dataclass(frozen=True, slots=True)
class Point:
    """An operation at (x, y); `kind` is `predicted` or `measured`."""

    name: str
    kind: str
    x: float
    y: float


def marker_of(index: int, kind: str) -> dict:
    """The marker of the series number `index`, filled when its points were measured, open when they are predicted."""
    style = look(index)
    return {"color": style["colour"], "symbol": style["marker"] + FILLS[kind], "size": SIZE}


def roofs(roof_lines: Sequence[Series], points: Sequence[Point], x: Axis, y: Axis, **words) -> Figure:
    """Lines without markers, and points of which those of one name share colour and shape, those of one kind the fill.

    The legend stands below, with the first point of each name and of each kind. `words` as in
    `figures.lines`. Raises `InputError` for a kind of point that has no fill.
    """
    for one in points:
        if one.kind not in FILLS:
            raise InputError(f"figure point {one.name!r}: its kind is {one.kind!r}; use {' or '.join(FILLS)}")
    drawn = lines([*roof_lines, *(Series(f"{p.name}, {p.kind}", [p.x], [p.y]) for p in points)], x, y, **words)
    names = list(dict.fromkeys(one.name for one in points))
    traces = [{k: v for k, v in one.items() if k != "marker"} | {"mode": "lines"} for one in drawn.spec["data"]]
    told: set[str] = set()
    for trace, one in zip(traces[len(roof_lines) :], points, strict=True):
        trace["mode"] = "markers"
        trace["marker"] = marker_of(len(roof_lines) + names.index(one.name), one.kind)
        trace["showlegend"] = not {one.name, one.kind} <= told
        told |= {one.name, one.kind}
        del trace["line"]
    layout = drawn.spec["layout"] | {"legend": LEGEND}
    return replace(drawn, spec={"data": traces, "layout": layout})
