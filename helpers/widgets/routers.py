"""The figures of chapter 2, each with the words that go with it; they draw what the cells and the records hand over."""

from collections.abc import Mapping, Sequence

from helpers.metrics.series import Series as Signal
from helpers.metrics.settling import Oscillation, Settling
from helpers.widgets.figures import Axis, Series, bars, lines, timeseries
from helpers.widgets.show import Figure
from helpers.widgets.table import Table

WORKERS = Axis("workers", "", from_zero=True)
GOODPUT = Axis("goodput", "requests/s", from_zero=True)


def fullest(workers: Sequence[int], found: Mapping[str, Sequence[float]], a_worker: int, seeds: int) -> Figure:
    """By how many requests the fullest worker is above the mean, against the number of workers."""
    return lines(
        [Series(name, workers, values) for name, values in found.items()],
        WORKERS,
        Axis("fullest worker above the mean", "requests", from_zero=True),
        title="Looking at one more worker removes most of the imbalance",
        note=f"{a_worker} requests a worker that never leave; means over {seeds} seeds, the formula is predicted.",
        origin="simulated",
        alt="With one random choice the excess grows with the number of workers, a little under the formula; with two "
        "choices it stays near one request; looking at all workers leaves none.",
    )


def reuse(shares: Mapping[str, float], requests: int) -> Figure:
    """The share of prompt blocks that could be found in a cache, from an endless one to what four workers hold."""
    return bars(
        [Series("share", list(shares), list(shares.values()))],
        Axis("cache", ""),
        Axis("share of prompt blocks found", "", from_zero=True),
        title="What could be reused, and what is left of it",
        note=f"Counted in the order of arrival, N = {requests:,} requests; nothing is sampled.",
        origin="simulated",
        alt="Bars: an endless cache finds most, a router controls a bit less of it; taking turns over endless caches "
        "finds less the more workers there are; the memory that four workers have finds a quarter of the most.",
    )


def side_by_side(choices: Sequence, caption: str) -> Table:
    """What each system computes for each worker before the same request, and the worker it takes.

    `choices` are those of `helpers.lessons.worked_request`.
    """
    workers = sorted(choices[0].scores)
    rows = []
    for one in choices:
        taken = f"{one.chosen}" if one.kv_source is None else f"{one.chosen}, copy of {one.kv_source}"
        rows.append([one.router, *(f"{one.scores[w]:.4g}" for w in workers), taken, one.rule])
    return Table(caption, ["system", *(f"worker {w}" for w in workers), "takes", "decides by"], rows)


def outcomes(rows: Sequence[dict], caption: str) -> Table:
    """The arms of a case: goodput with its interval and paired difference, how uneven, how much was found cached."""
    table = []
    for row in rows:
        values = [_interval(row["goodput_per_s"]), _interval(row["difference_per_s"])]
        table.append([row["arm"], *values, f"{row['imbalance']:.2f}", f"{row['hit_rate']:.1%}"])
    columns = ["router", "goodput (requests/s)", "against round_robin", "most loaded / mean", "tokens found cached"]
    return Table(caption, columns, table)


def herd(signals: Sequence[Signal], period_s: float) -> Figure:
    """The requests on each worker over time when everybody follows reports that are up to `period_s` old."""
    return timeseries(
        [Series(f"worker {w}", one.times_s, one.values) for w, one in enumerate(signals)],
        Axis("time", "s"),
        Axis("requests on the worker", "", from_zero=True),
        title="A herd: between two reports everybody joins the same queue",
        note=f"least_requests, reports every {period_s:g} s, equal requests at equal gaps; one run, so no interval.",
        origin="simulated",
        alt="The four workers fill one after the other, each once in four seconds, and drain while the others fill.",
    )


def responses(found: Mapping[str, Mapping[float, tuple]], caption: str) -> Table:
    """How a fleet answered a step, by router and report period: settling time, and how its first worker swings."""
    periods = list(next(iter(found.values())))
    columns = [f"{what}, T = {period:g} s" for what in ("settles in", "swings every") for period in periods]
    rows = []
    for name, answers in found.items():
        settled = [_settled(answers[period][0]) for period in periods]
        rows.append([name, *settled, *(_swinging(answers[period][1]) for period in periods)])
    return Table(caption, ["router", *columns], rows)


def _settled(one: Settling) -> str:
    return "never" if one.settling_s is None else f"{one.settling_s:.1f} s"


def _swinging(one: Oscillation) -> str:
    return "steady" if one.period_s is None else f"{one.period_s:.1f} s by {one.amplitude:.0f}"


def price_of_age(points: Sequence[float], differences: Mapping[str, Sequence[dict]], note: str) -> Figure:
    """Goodput lost to old reports, each router against itself with live views."""
    return lines(
        _differences(points, differences),
        Axis("reports every", "ms"),
        Axis("goodput won or lost", "requests/s"),
        title="What old views cost",
        note=note,
        origin="simulated",
        alt="Differences of goodput against the period of reports: round_robin and prefix_exact, which read none, "
        "stay at zero; least_tokens, which reads nothing else, falls furthest.",
    )


def price_of_fronts(points: Sequence[float], differences: Mapping[str, Sequence[dict]], note: str) -> Figure:
    """Goodput lost when several front ends share the arrivals, each router against itself alone."""
    return lines(
        _differences(points, differences),
        Axis("front ends", "", from_zero=True),
        Axis("goodput won or lost", "requests/s"),
        title="What a second router costs the first",
        note=note,
        origin="simulated",
        alt="Differences of goodput against the number of front ends: routers that read the workers do not change, "
        "those that count their own requests alone lose with every further front end.",
    )


def _differences(points: Sequence[float], differences: Mapping[str, Sequence[dict]]) -> list[Series]:
    return [
        Series(name, points, *([one[end] for one in found] for end in ("mean", "low", "high")))
        for name, found in differences.items()
    ]


def knees(drawn: Mapping[str, dict], recorded: Mapping[str, dict], note: str) -> Figure:
    """The knee of each router on redrawn traffic, with intervals, and on a recorded hour with ranges; highest first."""
    order = sorted(drawn, key=lambda name: drawn[name]["mean"], reverse=True)
    means, low, high = ([drawn[name][end] for name in order] for end in ("mean", "low", "high"))
    there, least, most = ([recorded[name][end] for name in order] for end in ("mean", "min", "max"))
    return bars(
        [Series("generated hour", order, means, low, high), Series("real hour", order, there, least, most)],
        Axis("router", ""),
        Axis("knee", "requests/s", from_zero=True),
        horizontal=True,
        title="Up to which rate each router keeps the promise",
        note=note,
        origin="simulated",
        alt="Bars of the knee of 23 routers on a generated and on a real hour: random and taking turns are among the "
        "lowest in both, routers that weigh tokens the highest, but for an oracle that no router can be.",
    )


def by_size(rows: Sequence[dict], note: str) -> Figure:
    """The knee per worker of several routers against the size of the fleet."""
    series = []
    for router in dict.fromkeys(row["router"] for row in rows):
        mine = [row for row in rows if row["router"] == router and row["knee_per_s"]]
        ends = ([row["knee_per_s"][end] for row in mine] for end in ("mean", "low", "high"))
        series.append(Series(router, [row["workers"] for row in mine], *ends))
    return lines(
        series,
        WORKERS,
        Axis("knee", "requests/s and worker", from_zero=True),
        title="What a router is worth to each worker of a larger fleet",
        note=note,
        origin="simulated",
        alt="The knee per worker against 4, 16 and 64 workers: taking turns and two random choices stay low at every "
        "size, routers that count tokens high; sglang_cache_aware climbs from the low group to the high one.",
    )


def admitted(rows: Sequence[dict], names: Sequence[str], note: str) -> Figure:
    """Goodput of each admission policy at a rate below and one past the knee, with intervals."""
    rates = sorted({row["rate_per_s"] for row in rows})
    by = {(row["rate_per_s"], row["arm"]): row["goodput_per_s"] for row in rows}
    series = []
    for rate in rates:
        ends = ([by[rate, arm][end] for arm in names] for end in ("mean", "low", "high"))
        series.append(Series(f"{rate:g} requests/s", names, *ends))
    return bars(
        series,
        Axis("admission", ""),
        GOODPUT,
        title="Past the knee, whom one refuses decides what is left",
        note=note,
        origin="simulated",
        alt="Below the knee all admission policies have the same goodput; past it caps keep almost none of it, and "
        "rejecting what is predicted to miss its bound keeps nearly all.",
    )


def by_class(rows: Sequence[dict], caption: str) -> Table:
    """Attainment of each class under each admission policy, with the paired difference to none, and who was refused."""
    table = []
    for row in rows:
        for name, one in row["classes"].items():
            difference = _interval(one.get("difference"), 100, 1)
            table.append([row["arm"], name, f"{one['attainment']:.1%}", difference, f"{one['rejected']:.0f}"])
    return Table(caption, ["admission", "class", "attainment", "against none (points)", "rejected"], table)


def decisions(choices: Sequence, caption: str) -> Table:
    """What to take on which traffic, the evidence, and what would change it, with the evidence for that.

    `choices` are those of `helpers.lessons.choice`.
    """
    rows = [[one.traffic, one.take, f"{one.because}", f"{one.change}, it {one.against}"] for one in choices]
    return Table(caption, ["your traffic", "take", "evidence", "what would change the answer"], rows)


def pools(signals: Mapping[str, Signal], rule: str) -> Figure:
    """How busy the prefill workers and how full the decode worker were, each over its own mean."""
    return timeseries(
        [Series(name, one.times_s, one.values) for name, one in signals.items()],
        Axis("time", "s"),
        Axis("load over its mean", "", from_zero=True),
        title="Two pools in anti-phase",
        note=f"12 prefill workers, 1 decode worker, rejection by {rule}; one run, so no interval.",
        origin="simulated",
        alt="The prefill load and the decode load swing about their means, one high where the other is low.",
    )


def _interval(found: Mapping[str, float] | None, scale: float = 1.0, digits: int = 2) -> str:
    if found is None:
        return "-"
    # Adding 0 to a rounded number takes the sign off a zero.
    mean, low, high = (f"{round(scale * found[end], digits) + 0.0:.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
