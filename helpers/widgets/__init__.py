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
from helpers.widgets.variants import by_hardware

__all__ = [
    "Axis",
    "Dot",
    "Figure",
    "Interval",
    "Mark",
    "Series",
    "bars",
    "by_hardware",
    "cdf",
    "dots",
    "explore",
    "gantt",
    "lines",
    "scatter",
    "timeseries",
]


def explore(name: str, **values):
    """An explorer (`serving`, `roofline`, `timeline`, `split`) at some values of its controls, for the end of a cell.

    Raises `InputError` for an unknown explorer or control, and for a value that the control cannot take.
    """
    from helpers.widgets.lab import explored  # not above: the explorers import this package

    return explored(name, values)
