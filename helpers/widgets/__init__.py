"""Figures for notebooks and for the book. They draw numbers that are handed to them and compute none."""

from helpers.widgets.figures import (
    Axis,
    Dot,
    Interval,
    Mark,
    Series,
    bars,
    cdf,
    dots,
    gantt,
    lines,
    scatter,
    timeseries,
)
from helpers.widgets.show import Figure

__all__ = [
    "Axis",
    "Dot",
    "Figure",
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
