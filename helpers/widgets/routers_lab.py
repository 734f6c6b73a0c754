"""The figures and tables of lab 2; they draw what its cells hand over."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from helpers.widgets.figures import Axis, Mark, Series, bars
from helpers.widgets.show import Figure
from helpers.widgets.table import Table


class Seen(Protocol):
    """What is said of a run of the lab; shares lie in 0 to 1."""

    met: float
    goodput_per_s: float
    hit_rate: float
    busiest: float
    accepted: float
    in_time: float
    met_of: Mapping[str, float]


class Row(Protocol):
    """A figure of live runs and of the simulator; `error` and `apart` are relative, for shares differences."""

    name: str
    unit: str
    live: Sequence[float]
    simulated: float
    error: float
    apart: float


class Found(Protocol):
    """Facts about a run behind a report."""

    requests: int
    tick_s: float | None
    turned_away: tuple[float, float]
    wait_p90_s: float
    preemptions: int
    twice_tokens: int
    lookup_hits: float
    first_hits: float
    met: float


def goodput_by_draw(found: Mapping[str, Mapping[int, float]], requests: int) -> Figure:
    """Goodput at the knee of several routers on the same draws."""
    series = [Series(name, [f"draw {seed}" for seed in of], list(of.values())) for name, of in found.items()]
    return bars(
        series,
        Axis("the same traffic for each router", ""),
        Axis("goodput at the knee", "requests/s", from_zero=True),
        title="What the given routers carry",
        note=f"N = {requests:,} requests a draw, 4 workers, step times predicted; one bar a draw, so no interval.",
        origin="simulated",
        alt="Bars by draw: in each, prefix_exact carries about twice what least_requests and least_tokens do.",
    )


def routed(looks: Mapping[str, Seen], requests: int) -> Table:
    """What routers do with the same requests."""
    rows = [
        [name, f"{one.met:.1%}", f"{one.hit_rate:.1%}", f"{one.busiest:.2f}", f"{one.goodput_per_s:.2f}"]
        for name, one in looks.items()
    ]
    columns = ["router", "kept the promise", "prompt tokens cached", "busiest worker / mean", "goodput (requests/s)"]
    return Table(
        f"Draw 1 at the knee of prefix_exact (simulated, N = {requests:,} requests, one run each)", columns, rows
    )


def live(rows: Sequence[Row]) -> Table:
    """What live workers and the simulator give for the same requests; seconds as milliseconds."""
    runs = len(rows[0].live) if rows else 0
    live_columns = [f"live, run {number + 1}" for number in range(runs)]
    table = []
    for one in rows:
        scale, unit = (1e3, "ms") if one.unit == "s" else (100.0, "%") if one.unit == "share" else (1.0, one.unit)
        off = (lambda value: f"{100 * value:+.1f} points") if unit == "%" else (lambda value: f"{value:+.1%}")
        values = [f"{scale * value:.3g}" for value in (*one.live, one.simulated)]
        table.append([f"{one.name} ({unit})", *values, off(one.error), off(one.apart).lstrip("+")])
    columns = ["figure", *live_columns, "simulated", "error of the simulator", "live runs apart"]
    caption = "Your router on two workers of this machine: live (measured) and simulated" if rows else "No live run yet"
    return Table(caption, columns, table)


def admitted(looks: Mapping[str, Seen], requests: int) -> Table:
    """What admissions do with the same requests."""
    rows = [
        [name, f"{one.accepted:.1%}", f"{one.in_time:.1%}", f"{one.goodput_per_s:.2f}"]
        + [f"{share:.1%}" for share in one.met_of.values()]
        for name, one in looks.items()
    ]
    columns = ["admission", "accepted", "of these in time", "goodput (requests/s)"]
    classes = [f"{name} served in time" for name in next(iter(looks.values())).met_of]
    caption = f"Draw 1 under overload (simulated, N = {requests:,} requests, one run each)"
    return Table(caption, columns + classes, rows)


def served_by_class(looks: Mapping[str, Seen], declared: float, requests: int) -> Figure:
    """The share of each class that is served within its SLO, under several admissions."""
    classes = list(next(iter(looks.values())).met_of)
    return bars(
        [Series(name, classes, [one.met_of[of] for of in classes]) for name, one in looks.items()],
        Axis("class", ""),
        Axis("served within the SLO", "", from_zero=True),
        title="Who is served under overload",
        note=f"N = {requests:,} requests, draw 1; one run each, so no interval.",
        origin="simulated",
        marks=[Mark(declared, f"declared {declared:.0%}", "y")],
        alt="Bars by class: the share served in time under each admission, with a line at the share declared.",
    )


def findings(found: Mapping[str, Found]) -> Table:
    """What can be said of the runs behind a report, one column a run."""
    facts = {
        "requests": lambda one: f"{one.requests:,}",
        "tick of the arrivals": lambda one: "none" if one.tick_s is None else f"{one.tick_s:g} s",
        "turned away, first half": lambda one: f"{one.turned_away[0]:.0%}",
        "turned away, second half": lambda one: f"{one.turned_away[1]:.0%}",
        "wait of the others there, p90": lambda one: f"{one.wait_p90_s:.2f} s",
        "preemptions": lambda one: f"{one.preemptions:,}",
        "tokens computed twice": lambda one: f"{one.twice_tokens:,}",
        "hits of all lookups": lambda one: f"{one.lookup_hits:.1%}",
        "hits of first lookups": lambda one: f"{one.first_hits:.1%}",
        "within their SLO": lambda one: f"{one.met:.0%}",
    }
    rows = [[name, *(told(one) for one in found.values())] for name, told in facts.items()]
    return Table("Behind the report (simulated, one run a column)", ["fact", *found], rows)
