"""How far a simulator was from live runs, as a table."""

from collections.abc import Mapping

from helpers.widgets.table import Table

GOALS = ("TTFT mean", "TPOT mean", "throughput")


def fidelity(record: Mapping, caption: str) -> Table:
    """A row a configuration: TTFT live, and of each figure with a goal the simulator's error and its verdict.

    `record` is one of `hybrid-serving fidelity`. In brackets, how far the live runs are from each other at most.
    """
    names = [*GOALS, *sorted({tail for one in record["held_out"] if (tail := tail_of(one))})]
    rows = []
    for one in record["held_out"]:
        found = {figure["name"]: figure for figure in one["figures"]}
        live = found["TTFT mean"]["live"]
        shown = f"{1e3 * live['mean']:.1f} ({1e3 * live['low']:.1f} to {1e3 * live['high']:.1f})"
        rows.append([one["name"], shown, *(cell(found[name]) if name in found else "" for name in names)])
    columns = ["configuration", "TTFT mean, live (ms)", *(f"{name}: error" for name in names)]
    return Table(caption, columns, rows)


def tail_of(one: Mapping) -> str | None:
    """The tail of a configuration that has a goal: p99, where there are requests enough for it."""
    return next((f["name"] for f in one["figures"] if f["name"] == "TTFT p99"), None)


def cell(found: Mapping) -> str:
    """`+1.2 % (live 2.0 %)`, and what was missed says so."""
    said = "" if found["verdict"] == "inside" else f", {found['verdict']}"
    return f"{found['error']:+.1%} (live {found['live_error']:.1%}){said}"
