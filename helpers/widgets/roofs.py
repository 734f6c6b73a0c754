"""A roofline as a figure: roofs as lines, operations as points; colour says which, the marker says how it is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from helpers.errors import InputError
from helpers.widgets.figures import Axis, Series, lines
from helpers.widgets.show import Figure
from helpers.widgets.style import look

MARKERS = {"predicted": "circle-open", "measured": "star"}
SIZE = 11
LEGEND = {"orientation": "h", "x": 0, "y": -0.2, "xanchor": "left", "yanchor": "top"}


@dataclass(frozen=True, slots=True)
class Point:
    """An operation at (x, y); `kind` is `predicted` or `measured`."""

    name: str
    kind: str
    x: float
    y: float


def roofs(roof_lines: Sequence[Series], points: Sequence[Point], x: Axis, y: Axis, **words) -> Figure:
    """Lines without markers, and points of which those of one name share a colour, those of one kind a marker.

    The legend stands below, with the first point of each name and of each kind. `words` as in
    `figures.lines`. Raises `InputError` for a kind of point that has no marker.
    """
    for one in points:
        if one.kind not in MARKERS:
            raise InputError(f"figure point {one.name!r}: its kind is {one.kind!r}; use {' or '.join(MARKERS)}")
    drawn = lines([*roof_lines, *(Series(f"{p.name}, {p.kind}", [p.x], [p.y]) for p in points)], x, y, **words)
    names = list(dict.fromkeys(one.name for one in points))
    traces = [{k: v for k, v in one.items() if k != "marker"} | {"mode": "lines"} for one in drawn.spec["data"]]
    told: set[str] = set()
    for trace, one in zip(traces[len(roof_lines) :], points, strict=True):
        colour = look(len(roof_lines) + names.index(one.name))["colour"]
        trace["mode"] = "markers"
        trace["marker"] = {"color": colour, "symbol": MARKERS[one.kind], "size": SIZE}
        trace["showlegend"] = not {one.name, one.kind} <= told
        told |= {one.name, one.kind}
        del trace["line"]
    layout = drawn.spec["layout"] | {"legend": LEGEND}
    return replace(drawn, spec={"data": traces, "layout": layout})
