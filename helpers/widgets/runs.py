"""Figures and tables of runs: what `helpers.metrics` says of a `Run`, in the shapes of `helpers.widgets.figures`.

Nothing is computed here: every value comes from a metric. N, the fleet and the origin are read from the run.
"""

from collections.abc import Mapping, Sequence

from helpers.metrics.goodput import goodput
from helpers.metrics.latency import LATENCIES, defined, distribution
from helpers.metrics.percentiles import Ordered
from helpers.metrics.stats import Comparison, Interval
from helpers.serving.run import Run
from helpers.widgets.figures import Axis, Mark, Series, bars, cdf, lines
from helpers.widgets.show import Figure
from helpers.widgets.table import Table
from helpers.workload.slo import SLO

# The shares at which a cumulative distribution is drawn: even in the middle, closer in the tail.
SHARES = (*(i / 2 for i in range(198)), *(99 + i / 10 for i in range(11)))
NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E", "queue_s": "queue time"}
STABLE = {True: "below its knee", False: "past its knee", None: "undecided"}

Runs = Mapping[str, Run]


def origin(runs: Runs) -> str:
    """Where the numbers of these runs come from: `measured` when all are, else `simulated`."""
    kinds = {run.provenance.kind for run in runs.values()}
    return kinds.pop() if len(kinds) == 1 else "simulated"


def sample(runs: Runs) -> str:
    """N, the fleet and where step times come from, for the note beneath a figure."""
    counts = sorted({len(run.timelines) for run in runs.values()})
    made = next(iter(runs.values())).provenance
    fleet = f"{made.fleet['model']} on {made.fleet['workers']} x {made.fleet['hardware'].upper()}"
    shown = " or ".join(f"{n:,}" for n in counts)
    return f"N = {shown} requests a run, {fleet}, step times {made.cost or 'measured'}; one run each, so no interval."


def shares(name: str, values: Sequence[float]) -> Series:
    """The cumulative distribution of some values, by nearest rank, as a series for `cdf`."""
    ordered = Ordered({1: values})
    return Series(name, [ordered.percentile(q).value for q in SHARES], [q / 100 for q in SHARES])


def latency_cdf(runs: Runs, latency: str, bound_s: float | None = None, *, title: str, alt: str) -> Figure:
    """The cumulative distribution of a latency (`ttft_s`, `tpot_s`, `e2e_s`, `queue_s`) in each run.

    Percentiles are by nearest rank over the requests that have the latency. `bound_s` marks an SLO.
    """
    series = [shares(name, defined(LATENCIES[latency], run.timelines)) for name, run in runs.items()]
    marks = () if bound_s is None else (Mark(bound_s, f"SLO {bound_s:g} s", at_start=True),)
    x = Axis(NAMES[latency], "s", log=all(v > 0 for one in series for v in one.x))
    return cdf(series, x, title=title, alt=alt, note=sample(runs), origin=origin(runs), marks=marks)


def latency_bars(runs: Runs, latency: str, *, title: str, alt: str) -> Figure:
    """The median and the tail percentiles of a latency in each run, side by side, by nearest rank."""
    found = {name: distribution(LATENCIES[latency], run.timelines).percentiles for name, run in runs.items()}
    levels = [p.q for p in min(found.values(), key=len)]
    x = [f"p{q:g}" for q in levels]
    series = [Series(name, x, [p.value for p in mine if p.q in levels]) for name, mine in found.items()]
    y = Axis(NAMES[latency], "s", from_zero=True)
    return bars(series, Axis("percentile", ""), y, title=title, alt=alt, note=sample(runs), origin=origin(runs))


def attainment_lines(
    sweeps: Mapping[str, Mapping[float, Run]], slo: SLO, target: float, *, title: str, alt: str
) -> Figure:
    """SLO attainment against the offered rate, one line a sweep, with the target as a mark."""
    series = [
        Series(name, list(runs), [goodput(r.log, slo).attainment for r in runs.values()])
        for name, runs in sweeps.items()
    ]
    every = {f"{name} {rate}": run for name, runs in sweeps.items() for rate, run in runs.items()}
    x, y = Axis("offered rate", "requests/s"), Axis("SLO attainment", "", from_zero=True)
    marks = [Mark(target, f"target {target:.0%}", "y")]
    return lines(series, x, y, title=title, alt=alt, note=sample(every), origin=origin(every), marks=marks)


def over_intervals(name: str, found: Mapping[float, Interval]) -> Series:
    """Means with their intervals, by x, as a series."""
    means, low, high = zip(*((one.mean, one.low, one.high) for one in found.values()), strict=True)
    return Series(name, list(found), means, low, high)


def latency_table(runs: Runs, latencies: Sequence[str] = ("ttft_s", "tpot_s"), *, caption: str) -> Table:
    """Mean and percentiles of latencies, in seconds, one row a run and latency, with N."""
    found = [(name, of, distribution(LATENCIES[of], run.timelines)) for name, run in runs.items() for of in latencies]
    levels = sorted({p.q for _, _, one in found for p in one.percentiles})
    rows = []
    for name, latency, one in found:
        values = {p.q: p.value for p in one.percentiles}  # the tail is there only where N allows it
        cells = [seconds(one.mean), *(seconds(values.get(q)) for q in levels)]
        rows.append([name, NAMES[latency], *cells, f"{one.n:,}"])
    return Table(f"{caption} ({origin(runs)})", ["run", "latency", "mean", *(f"p{q:g}" for q in levels), "N"], rows)


def pace_table(paces: Mapping[str, Sequence[float]], *, caption: str) -> Table:
    """The median and p90 of each definition of the pace, with N."""
    rows = []
    for name, values in paces.items():
        ordered = Ordered({1: values})
        rows.append([name, *(seconds(ordered.percentile(q).value) for q in (50, 90)), f"{len(values):,}"])
    return Table(caption, ["definition", "p50", "p90", "N"], rows)


def difference_table(found: Mapping[str, Comparison], *, caption: str) -> Table:
    """Paired differences of a share, in points (hundredths), with interval, N and verdict, one row a comparison."""
    rows = []
    for name, one in found.items():
        mean, low, high = (f"{100 * v:+.1f}" for v in (one.difference.mean, one.difference.low, one.difference.high))
        rows.append([name, mean, f"{low} to {high}", str(one.n), one.verdict])
    return Table(caption, ["a - b", "difference (points)", "95 % interval", "seeds", "verdict"], rows)


def origin_table(runs: Runs) -> Table:
    """Where each run comes from: its kind, the workload with its repairs, the commit, and the command."""
    rows = []
    for name, run in runs.items():
        made = run.provenance
        head, _, dirty = made.commit.partition("-")
        commit = head[:12] + ("-" + dirty if dirty else "")
        repairs = "; ".join(made.repairs) or "as recorded"
        origin = f"{made.kind}, step times {made.cost or made.kind}; {made.workload}, {repairs}; commit {commit}"
        rows.append([name, origin, made.command])
    return Table("Origin of the recordings", ["run", "origin", "command"], rows)


def seconds(value: float | None) -> str:
    """A time for people: milliseconds below a second, else seconds."""
    if value is None:
        return "-"
    return f"{1e3 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
