"""Tables of live hand-offs: the ladder, what became of requests when something failed, and what was exact."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from helpers.widgets.table import Table

COLUMNS = {
    "exposed_mean_s": "exposed",
    "hidden_mean_s": "hidden",
    "ttft_mean_s": "TTFT",
    "longest_gap_s": "longest gap",
}


class Spread(Protocol):
    """A mean and what lies around it."""

    mean: float
    low: float
    high: float


class Rung(Protocol):
    """An arm of a ladder."""

    def over(self, figure: str) -> Spread | None:
        """A figure in seconds over the draws, None where it has none."""
        ...


class Checked(Protocol):
    """What digests, logits and tokens said of some runs."""

    name: str
    pages_checked: int
    pages_wrong: int
    logits_error: float
    tokens_equal: int
    requests: int


def ladder(rungs: Mapping[str, Rung], caption: str, digits: int = 1) -> Table:
    """A row a rung, in milliseconds: exposed and hidden transfer, TTFT, the longest gap between two tokens."""
    rows = [[name, *(in_ms(rung.over(figure), digits) for figure in COLUMNS)] for name, rung in rungs.items()]
    return Table(caption, ["hand-off", *(f"{name} (ms)" for name in COLUMNS.values())], rows)


def in_ms(found: Spread | None, digits: int) -> str:
    """A mean and the ends of what lies around it, in milliseconds."""
    if found is None:
        return "–"
    mean, low, high = (f"{1e3 * one:.{digits}f}" for one in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def faults(cases: Sequence[Mapping], caption: str) -> Table:
    """A row a fault: what became of the requests that were sent."""
    rows = [
        [
            f"{one['case']} ({one['split']})",
            f"{one['finished']} of {one['sent']}",
            "; ".join(f"{count}: {reason}" for reason, count in one["reasons"].items()) or "0",
            str(one["rerouted"]),
            f"{one['lost']} / {one['twice']}",
            f"{one['same']} of {one['finished']}",
        ]
        for one in cases
    ]
    columns = ["fault (split)", "answered", "failed, with the reason", "tried again", "lost / answered twice", "right"]
    return Table(caption, columns, rows)


def exact(rows: Sequence[Checked], caption: str) -> Table:
    """A row a group of runs: pages, logits, tokens."""
    shown = [
        [
            one.name,
            f"{one.pages_wrong:,} of {one.pages_checked:,}",
            f"{one.logits_error:.0e}",
            f"{one.tokens_equal} of {one.requests}",
        ]
        for one in rows
    ]
    return Table(caption, ["runs", "(layer, page)s that differ", "error of logits", "answers equal"], shown)
