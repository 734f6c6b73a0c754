"""The one look of every figure: colours, marker shapes, dashes, patterns, fonts and axes.

The seven colours are the blue, vermilion and green of Okabe and Ito (Color Universal Design, 2008)
and four that were searched for beside them: each has a contrast of at least 3:1 with a white and with
a dark page, and any two stay apart for the three common forms of colour blindness. The test beside
this module computes both. A colour is never alone: series also differ in marker, dash or pattern.
"""

from collections.abc import Sequence
from math import ceil, floor, inf, log10

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#917DE1", "#A04187", "#6E7468", "#B93719")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", ".", "x", "\\", "-", "+", "|")

# Past the seventh, a colour comes again with another marker, dash and pattern.
MOST_SERIES = 14

INK = "#1F2430"
PAPER = "#FFFFFF"
VEIL = "rgba(255,255,255,0.7)"
RULE = "#D5D9E0"
MARK = "#7A8088"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def look(index: int) -> dict[str, str]:
    """Colour, marker, dash and pattern of the series number `index` (from 0)."""
    return {
        "colour": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "dash": DASHES[index % len(DASHES)],
        "pattern": PATTERNS[index % len(PATTERNS)],
    }


def axis(title: str, *, log: bool = False, from_zero: bool = False, category: bool = False) -> dict:
    """A Plotly axis with a title and an explicit type; `title` already names the unit."""
    kind = "category" if category else "log" if log else "linear"
    result = {
        "title": {"text": title, "standoff": 10},
        "type": kind,
        "automargin": True,
        "gridcolor": RULE,
        "linecolor": MARK,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": MARK,
        "showline": True,
    }
    if log:
        result |= {"dtick": 1, "minor": {"ticks": "outside", "ticklen": 2, "tickcolor": MARK}}
    if from_zero and kind == "linear":
        result["rangemode"] = "tozero"
    return result


def close_ticks(values: Sequence[float]) -> dict:
    """What a logarithmic axis needs when values lie close together: twice their width, and labels at 1, 2 and 5."""
    low, high = min(values) / 2, max(values) * 2
    if not 0 < low <= high < inf:
        return {}
    return {"range": [log10(low), log10(high)], **whole_ticks((low, high))}


def whole_ticks(values: Sequence[float]) -> dict:
    """Labels at 1, 2 and 5 of each power of ten about the values (above 0), written out: Plotly's own would say `2`
    for 20."""
    decades = range(floor(log10(min(values))), ceil(log10(max(values))) + 1)
    ticks = [float(f"{m}e{e}") for e in decades for m in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def layout(title: str, note: str, x: dict, y: dict, height_px: int) -> dict:
    """A Plotly layout with the title, the note on N and intervals beneath it, and the two axes.

    The page runtime (static/figures.js) takes the colours of the page instead of these, which stay
    readable on any background because the paper is opaque.
    """
    return {
        "title": {
            "text": title,
            "subtitle": {"text": note, "font": {"size": 12}},
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "font": {"size": 16},
        },
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": list(COLOURS),
        "autosize": True,
        "height": height_px,
        "margin": {"l": 60, "r": 20, "t": 110, "b": 55},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hovermode": "closest",
        "xaxis": x,
        "yaxis": y,
    }
