"""How far a simulator was from live runs, as tables."""

from collections.abc import Mapping

from helpers.widgets.table import Table

GOALS = ("TTFT mean", "TPOT mean", "throughput")
TAIL = "TTFT p99"  # has a goal where there are requests enough for it
TIMES = ("TTFT, live (ms)", "TTFT, simulated", "TPOT, live (ms)", "TPOT, simulated")
TOGETHER = "\u00a0"  # no line is broken here


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
    columns = [f"{name}: error, goal {goal:.0%}" for name, goal in goals.items()]
    return Table(both_sides(caption, record["repeats"]), ["configuration", "TTFT, live (ms)", *columns], rows)


def contest(record: Mapping, caption: str) -> Table:
    """A row an arm of a target: its live figures with their intervals, and beside each the simulator's with its error.

    `record` is one of `hybrid-serving bench run --on engine`. What is in time and what was turned away, live and
    simulated in percent of all requests, has no goal.
    """
    rows = []
    for target in record["targets"]:
        question = target["target"].partition(":")[2].replace("_", " ")
        for one in target["held_out"]:
            found = {figure["name"]: figure for figure in one["figures"]}
            shares = (both(found[name]) for name in ("attainment", "rejected"))
            rows.append([f"{question}: {one['name']}", *beside(found), *shares])
    columns = ["target: arm", *TIMES, "in time, both (%)", "turned away, both (%)"]
    return Table(both_sides(caption, record["targets"][0]["repeats"]), columns, rows)


def routed(record: Mapping, caption: str) -> Table:
    """A row a router and load of a record of `helpers.lessons.records.routed_live`: live, and the simulator's error."""
    rows = []
    for one in record["held_out"]:
        found = {figure["name"]: figure for figure in one["figures"]}
        rows.append([one["name"], *beside(found), both(found["cached"], 1)])
    columns = ["router at load", *TIMES, "tokens cached, both (%)"]
    return Table(both_sides(caption, record["repeats"], record["of"]), columns, rows)


def beside(found: Mapping[str, Mapping]) -> list[str]:
    """The cells of `TIMES`: a mean TTFT and TPOT with its interval, and what is simulated with its error."""
    cells = []
    for name in ("TTFT mean", "TPOT mean"):
        cells += [live_ms(found[name]), f"{ms(found[name]['simulated'])}: {error(found[name])}"]
    return cells


def both_sides(caption: str, count: int, of: str = "runs") -> str:
    """The caption with what the numbers of a table are."""
    return f"{caption}: live (measured; mean, ± 95 %) beside simulated with its error, {count} {of} each"


def live_ms(found: Mapping) -> str:
    """The mean of the live runs in milliseconds, with half of its interval, which is even about it."""
    live = found["live"]
    return TOGETHER.join((ms(live["mean"]), "±", ms(live["high"] - live["mean"])))


def ms(seconds: float) -> str:
    """Milliseconds to a tenth, and whole ones from 100 on."""
    return f"{1e3 * seconds:.{0 if seconds >= 0.1 else 1}f}"


def both(found: Mapping, digits: int = 0) -> str:
    """A share in percent, live and simulated."""
    return f"{100 * found['live']['mean']:.{digits}f} / {100 * found['simulated']:.{digits}f}"


def error(found: Mapping, aside: str = "") -> str:
    """`+1.2%`, and what is not inside its goal says so: `noise` for what the interval of the live mean excuses."""
    said = {"inside": "", "within noise": ", noise"}.get(found["verdict"], f", {found['verdict']}")
    return f"{found['error']:+.1%}{aside}{said}"
