"""The serving explorer: an arrival process, a fleet, its policies and an SLO, and what the requests get of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from helpers.metrics.goodput import Goodput, goodput, hit_rate
from helpers.metrics.latency import LATENCIES, defined
from helpers.metrics.occupancy import requests_on_workers
from helpers.metrics.percentiles import Ordered, tail_q
from helpers.metrics.series import Series as Load
from helpers.metrics.series import until_last_arrival
from helpers.metrics.stability import stability
from helpers.metrics.timeline import EventLog
from helpers.widgets.explorer import Answer, Explorer, Readout, Record, Value, choice, number
from helpers.widgets.explorers import simulated as shared
from helpers.widgets.explorers.hardware import hardware_control
from helpers.widgets.figures import Axis, Mark, Series, cdf, timeseries
from helpers.widgets.runs import NAMES, STABLE, seconds, shares
from helpers.widgets.show import Figure
from helpers.widgets.style import whole_ticks
from helpers.workload.slo import SLO

NOTHING = "nothing"
WINDOWS = 120
MOST_LINES = 8  # more workers than this are drawn as the busiest, the mean and the least busy one
PER_S = "requests/s"
TITLES = {"ttft_s": "Time to first token", "tpot_s": "Time per output token"}


@dataclass(frozen=True)
class Side:
    """One router's run, with the metrics that more than one figure or number is made of."""

    router: str
    log: EventLog
    good: Goodput
    latencies: Mapping[str, list[float]]
    loads: list[Load]


def compute(values: Mapping[str, Value], record: Record = None) -> Answer:
    """One run, or two on the same draw, from an empty fleet; every request counts."""
    draw = shared.draw_of(values, values["requests"])
    fleet, words = shared.fleet_of(values, record, values["staleness_s"])
    slo = SLO(values["slo_ttft_s"], values["slo_tpot_ms"] / 1e3)
    routers = dict.fromkeys(one for one in (values["router"], values["compare"]) if one != NOTHING)
    sides = [_side(one, shared.simulate(draw, fleet, one, values["admission"], slo), slo) for one in routers]
    note = f"N = {draw.requests:,} requests, {shared.split_name(fleet)}, {words}; one draw, so no interval."
    figures = (
        _latency(sides, "ttft_s", slo.ttft_s, note),
        _latency(sides, "tpot_s", slo.tpot_s, note),
        _load(sides, note),
    )
    return Answer(tuple(one for one in figures if one), _readouts(sides), _summary(sides, words))


def _side(router: str, log: EventLog, slo: SLO) -> Side:
    window = until_last_arrival(log.timelines)
    latencies = {name: defined(LATENCIES[name], log.timelines) for name in TITLES}
    return Side(router, log, goodput(log, slo, window), latencies, requests_on_workers(log, WINDOWS))


def _latency(sides: Sequence[Side], name: str, bound_s: float, note: str) -> Figure | None:
    """The distribution of a latency among the requests that have it; None when none does."""
    found = {one.router: one.latencies[name] for one in sides if one.latencies[name]}
    if not found:
        return None
    without = [f"{one.good.arrived - len(one.latencies[name]):,} of {one.router}" for one in sides]
    levels = _levels(min(map(len, found.values())))
    marks = [Mark(bound_s, f"SLO {seconds(bound_s)}", at_start=True)]
    marks += [Mark(q / 100, f"p{q}", "y", at_start=True) for q in levels]
    within = "; ".join(
        f"{router}: {sum(v <= bound_s for v in values) / len(values):.1%} within the bound"
        for router, values in found.items()
    )
    return cdf(
        [shares(router, values) for router, values in found.items()],
        Axis(NAMES[name], "s", log=True),
        title=TITLES[name],
        note=f"{note} Without a {NAMES[name]}: {', '.join(without)}.",
        origin="simulated",
        alt=f"Cumulative {NAMES[name]} on a logarithmic axis, with the SLO of {seconds(bound_s)}. {within}.",
        marks=marks,
        x_axis=whole_ticks(list(chain(*found.values()))) if name == "tpot_s" else {},  # values within a decade
    )


def _load(sides: Sequence[Side], note: str) -> Figure:
    """Requests on each worker over time: each worker where they are few and alone, else the ends and the mean."""
    each = len(sides) == 1 and len(sides[0].loads) <= MOST_LINES
    series = [line for one in sides for line in (_workers(one) if each else _ends(one))]
    peaks = [f"at most {max(max(load.values) for load in one.loads):.0f} under {one.router}" for one in sides]
    return timeseries(
        series,
        Axis("time", "s"),
        Axis("requests on the worker", "", from_zero=True),
        title="Load of the workers over time",
        note=f"{note} Waiting and running, averaged over {WINDOWS} windows.",
        origin="simulated",
        alt=f"Requests on {'each worker' if each else 'the busiest and the least busy worker'} over time: "
        f"{'; '.join(peaks)}.",
    )


def _workers(side: Side) -> list[Series]:
    return [
        Series(f"{number} {worker.role}", load.times_s, load.values)
        for number, (worker, load) in enumerate(zip(side.log.workers, side.loads, strict=True))
    ]


def _ends(side: Side) -> list[Series]:
    """The busiest worker, the mean and the least busy one at each time, for each role."""
    series = []
    for role in dict.fromkeys(worker.role for worker in side.log.workers):
        pool = [load.values for load, worker in zip(side.loads, side.log.workers, strict=True) if worker.role == role]
        columns = list(zip(*pool, strict=True))
        ways = {"busiest": max, "mean": fmean, "least busy": min} if len(pool) > 1 else {"alone": max}
        name = side.router if role == "mixed" else f"{side.router}, {role}"
        series += [
            Series(f"{name}: {way}", side.loads[0].times_s, [of(c) for c in columns]) for way, of in ways.items()
        ]
    return series


def _readouts(sides: Sequence[Side]) -> tuple[Readout, ...]:
    """What each run comes to; of two runs each number says whose it is."""
    return tuple(
        Readout(name, text, one.router if len(sides) > 1 else "")
        for one in sides
        for name, text in _measures(one).items()
    )


def _measures(side: Side) -> dict[str, str]:
    good, timelines = side.good, side.log.timelines
    rejected = sum(t.status == "rejected" for t in timelines)
    cached = hit_rate(timelines)
    return {
        "goodput": f"{good.per_s:.2f} {PER_S} of {good.arrived / good.duration_s:.2f} offered",
        "SLO attainment": f"{good.attainment:.1%}",
        **{NAMES[name]: _percentiles(values) for name, values in side.latencies.items()},
        "prompt tokens found cached": "none" if cached is None else f"{cached:.0%}",
        "rejected": f"{rejected:,} of {good.arrived:,}",
        "stability": STABLE[stability(side.log).stable],
    }


def _levels(requests: int) -> tuple[int, ...]:
    """The percentiles to name: p99 only where so many requests allow it."""
    return tuple(dict.fromkeys((50, 90, tail_q(requests))))


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return "no request has one"
    ordered = Ordered({1: values})
    return ", ".join(f"p{q} {seconds(ordered.percentile(q).value)}" for q in _levels(len(values)))


def _summary(sides: Sequence[Side], words: str) -> str:
    parts = [f"{one.router} meets the SLO for {one.good.attainment:.1%}, {one.good.per_s:.2f} {PER_S}" for one in sides]
    return f"Simulated, {words}: {'; '.join(parts)}."


EXPLORER = Explorer(
    name="serving",
    title="A fleet under load",
    intro="Llama-3.1-8B in bf16 on equal workers. Every control runs the simulator again, from empty caches.",
    controls=(
        shared.WORKLOAD,
        shared.RATE,
        shared.BURSTINESS,
        number("requests", "requests", 2000, (200, 3000), 100, help="p99 is named from 3,000 requests up."),
        shared.WORKERS,
        shared.PREFILL,
        shared.ROUTER,
        choice(
            "compare", "compare with", NOTHING, {NOTHING: "nothing"} | shared.ROUTERS, "Drawn beside, on the same draw."
        ),
        choice("admission", "admission", "none", shared.ADMISSIONS, "Who is turned away at the door."),
        number("staleness_s", "workers report every", 0.0, (0.0, 10.0), 0.1, "s", help="0: routers see live state."),
        number("slo_ttft_s", "TTFT SLO", 2.0, (0.05, 30.0), 0.01, "s", True, "The bound on the time to first token."),
        number(
            "slo_tpot_ms", "TPOT SLO", 50.0, (5.0, 500.0), 0.5, "ms", True, "The bound on the time per output token."
        ),
        hardware_control(),
        shared.SEED,
    ),
    compute=compute,
)
