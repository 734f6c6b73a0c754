"""Tables of live hand-offs: the ladder, what became of requests when something failed, and what was exact."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from helpers.widgets.fidelity import fidelity
from helpers.widgets.table import Table, Tables

MACHINES = {
    "cores": "Two CPU cores: a tiny model, 300 tokens in, 16 out",
    "gpus": "Two H100: Llama-3.1-8B, 1,800 tokens in, 110 out",
}
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
    n: int


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


def ladders(found: Mapping[str, Mapping[str, Rung]]) -> Tables:
    """The ladders of `MACHINES`, each with what lies around its means."""
    tables = []
    for name, rungs in found.items():
        draws = {one.over("ttft_mean_s").n for one in rungs.values()}
        around = "95 % intervals" if min(draws) > 2 else "the range"
        tables.append(ladder(rungs, f"{MACHINES[name]} (measured), {min(draws)} draws, in brackets {around}"))
    return Tables(tables)


def in_ms(found: Spread | None, digits: int) -> str:
    """A mean and the ends of what lies around it, in milliseconds."""
    if found is None:
        return "–"
    if not found.low and not found.high:
        return "0"
    mean, low, high = (f"{1e3 * one:.{digits}f}" for one in (found.mean, found.low, found.high))
    return f"{mean} ({low}–{high})"


def beside_simulated(records: Mapping[str, Mapping]) -> Tables:
    """Records of a fidelity by the machine that they are of."""
    return Tables([fidelity(one, name) for name, one in records.items()])


def faults_and_exact(cases: Sequence[Mapping], checked: Sequence[Checked]) -> Tables:
    """What became of requests under faults, and of their KV and answers without any."""
    return Tables([faults(cases), exact(checked)])


def faults(cases: Sequence[Mapping]) -> Table:
    """A row a fault: what became of the requests that were sent."""
    caption = "Requests under faults, on processes of one CPU (measured)"
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


def exact(rows: Sequence[Checked]) -> Table:
    """A row a group of runs: pages, logits, tokens."""
    caption = "Against the same requests without a hand-off, float32 (measured)"
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
