"""How far a simulator was from live runs, as tables."""

from collections.abc import Mapping

from helpers.widgets.table import Table

GOALS = ("TTFT mean", "TPOT mean", "throughput")
TAIL = "TTFT p99"  # has a goal where there are requests enough for it


def times(spread: str) -> list[str]:
    """The columns of both latencies; `spread` says what is beside a live mean."""
    return [
        f"{name}, {side}"
        for name in ("TTFT mean", "TPOT mean")
        for side in (f"live (ms, {spread})", "simulated: error")
    ]


def fidelity(record: Mapping, caption: str) -> Table:
    """A row a configuration: TTFT live, and of each figure with a goal the simulator's error and its verdict.

    `record` is one of `hybrid-serving fidelity`. In brackets, how far the live runs are from each other at most.
    """
    every = [{figure["name"]: figure for figure in one["figures"]} for one in record["held_out"]]
    goals = {name: found[name]["goal"] for found in every for name in (*GOALS, TAIL) if name in found}
    rows = []
    for one, found in zip(record["held_out"], every, strict=True):
        errors = [
            error(found[name], f" (live {found[name]['live_error']:.1%})") if name in found else "" for name in goals
        ]
        rows.append([one["name"], live_ms(found["TTFT mean"]), *errors])
    columns = [f"{name}: error (goal {goal:.0%})" for name, goal in goals.items()]
    return Table(
        both_sides(caption, record["repeats"]), ["configuration", "TTFT mean, live (ms, ± 95 %)", *columns], rows
    )


def contest(record: Mapping, caption: str) -> Table:
    """A row an arm of a target: its live figures with their intervals, and beside each the simulator's with its error.

    `record` is one of `hybrid-serving bench run --on engine`. What is in time and what was turned away, in percent of
    all requests, has no goal.
    """
    rows = []
    for target in record["targets"]:
        question = target["target"].partition(":")[2]
        for one in target["held_out"]:
            found = {figure["name"]: figure for figure in one["figures"]}
            row = [f"{question}: {one['name']}"]
            for name in ("TTFT mean", "TPOT mean"):
                row += [live_ms(found[name]), f"{1e3 * found[name]['simulated']:.1f}: {error(found[name])}"]
            row += [both(found[name]) for name in ("attainment", "rejected")]
            rows.append(row)
    shares = [f"{name}: live / simulated (%)" for name in ("in time", "turned away")]
    return Table(both_sides(caption, record["targets"][0]["repeats"]), ["target: arm", *times("± 95 %"), *shares], rows)


def routed(record: Mapping, caption: str) -> Table:
    """A row a router and load of a record of `hybrid-serving record --part routing`: live, and the simulator's error.

    In brackets, the range over the draws.
    """
    points = {one["name"]: one for one in record["parts"]["routers"]["points"]}
    rows = []
    for arm in dict.fromkeys(name.partition(": ")[0] for name in points if not name.startswith("order at ")):
        row = [arm]
        for name in ("TTFT mean", "TPOT mean"):
            found = points[f"{arm}: {name}"]
            live, low, high = (f"{1e3 * found[key]:.1f}" for key in ("value", "min", "max"))
            said = found["predicted"]["served"]
            row += [f"{live} ({low}–{high})", f"{1e3 * said:.1f}: {found['errors']['served']:+.1%}"]
        cached = points[f"{arm}: cached"]
        rows.append([*row, f"{100 * cached['value']:.1f} / {100 * cached['predicted']['served']:.1f}"])
    caption = both_sides(caption, cached["n"], "draws")
    return Table(caption, ["router at load", *times("range"), "tokens cached: live / simulated (%)"], rows)


def both_sides(caption: str, count: int, of: str = "runs") -> str:
    """The caption with what every number of a table is."""
    return f"{caption}: live (measured) beside simulated, {count} {of} each"


def live_ms(found: Mapping) -> str:
    """The mean of the live runs in milliseconds, with half of its interval, which is even about it."""
    live = found["live"]
    return f"{1e3 * live['mean']:.1f} ± {1e3 * (live['high'] - live['mean']):.1f}"


def both(found: Mapping) -> str:
    """A share, live and simulated."""
    return f"{100 * found['live']['mean']:.1f} / {100 * found['simulated']:.1f}"


def error(found: Mapping, aside: str = "") -> str:
    """`+1.2%`, and what is not inside its goal says so."""
    said = "" if found["verdict"] == "inside" else f", {found['verdict']}"
    return f"{found['error']:+.1%}{aside}{said}"
