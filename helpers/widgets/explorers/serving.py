"""The serving explorer: an arrival process, a fleet, its policies and an SLO, and what the requests get of it."""

from collections.abc import Mapping
from math import inf, nextafter
from statistics import fmean

from helpers.metrics.goodput import goodput, hit_rate
from helpers.metrics.latency import LATENCIES, Distribution, defined, distribution
from helpers.metrics.occupancy import requests_on_workers
from helpers.metrics.percentiles import tail_q
from helpers.metrics.series import Window
from helpers.metrics.stability import stability
from helpers.metrics.timeline import EventLog
from helpers.widgets.explorer import Answer, Explorer, Readout, Record, Value, choice, number
from helpers.widgets.explorers import simulated as shared
from helpers.widgets.explorers.hardware import hardware_control
from helpers.widgets.figures import Axis, Mark, Series, cdf, timeseries
from helpers.widgets.runs import NAMES, STABLE, seconds, shares
from helpers.widgets.show import Figure
from helpers.workload.slo import SLO

NOTHING = "nothing"
WINDOWS = 120
MOST_LINES = 8  # more workers than this are drawn as the busiest, the mean and the least busy one
PER_S = "requests/s"

Logs = Mapping[str, EventLog]


def compute(values: Mapping[str, Value], record: Record = None) -> Answer:
    """One run, or two on the same draw, from an empty fleet; every request counts."""
    draw = shared.draw_of(values, values["requests"])
    fleet, words = shared.fleet_of(values, record, values["staleness_s"])
    slo = SLO(values["slo_ttft_s"], values["slo_tpot_ms"] / 1e3)
    routers = [values["router"]]
    if values["compare"] not in (NOTHING, values["router"]):
        routers.append(values["compare"])
    logs = {one: shared.simulate(draw, fleet, one, values["admission"], slo) for one in routers}
    note = f"N = {draw.requests:,} requests, {shared.split_name(fleet)}, {words}; one draw, so no interval."
    latencies = (("ttft_s", slo.ttft_s), ("tpot_s", slo.tpot_s))
    figures = [_latency(logs, name, bound_s, note) for name, bound_s in latencies] + [_load(logs, note)]
    readouts = _readouts(logs, slo)
    return Answer(tuple(one for one in figures if one), readouts, _summary(logs, slo, words))


def _latency(logs: Logs, name: str, bound_s: float, note: str) -> Figure | None:
    """The distribution of a latency among the requests that have it; None when none does."""
    found = {router: defined(LATENCIES[name], log.timelines) for router, log in logs.items()}
    found = {router: values for router, values in found.items() if values}
    if not found:
        return None
    rest = [f"{len(logs[router].timelines) - len(values):,} of {router}" for router, values in found.items()]
    levels = (50, 90) if tail_q(min(map(len, found.values()))) == 90 else (50, 90, 99)
    marks = [Mark(bound_s, f"SLO {seconds(bound_s)}"), *(Mark(q / 100, f"p{q}", "y") for q in levels)]
    latency = NAMES[name]
    within = "; ".join(
        f"{router}: {sum(v <= bound_s for v in values) / len(values):.1%} within the bound"
        for router, values in found.items()
    )
    return cdf(
        [shares(router, values) for router, values in found.items()],
        Axis(latency, "s", log=True),
        title={"ttft_s": "Time to first token", "tpot_s": "Time per output token"}[name],
        note=f"{note} Without a {latency}: {', '.join(rest)}.",
        origin="simulated",
        alt=f"Cumulative {latency} on a logarithmic axis, with the SLO of {seconds(bound_s)}. {within}.",
        marks=marks,
    )


def _load(logs: Logs, note: str) -> Figure:
    """Requests on each worker over time: each worker where they are few and alone, else the ends and the mean."""
    each = len(logs) == 1 and len(next(iter(logs.values())).workers) <= MOST_LINES
    series = [one for router, log in logs.items() for one in (_workers(log) if each else _ends(router, log))]
    most = {router: max(max(one.values) for one in requests_on_workers(log, WINDOWS)) for router, log in logs.items()}
    peaks = "; ".join(f"at most {value:.0f} under {router}" for router, value in most.items())
    return timeseries(
        series,
        Axis("time", "s"),
        Axis("requests on the worker", "", from_zero=True),
        title="Load of the workers over time",
        note=f"{note} Waiting and running, averaged over {WINDOWS} windows.",
        origin="simulated",
        alt=f"Requests on {'each worker' if each else 'the busiest and the least busy worker'} over time: {peaks}.",
    )


def _workers(log: EventLog) -> list[Series]:
    found = requests_on_workers(log, WINDOWS)
    return [Series(f"{w} {log.workers[w].role}", one.times_s, one.values) for w, one in enumerate(found)]


def _ends(router: str, log: EventLog) -> list[Series]:
    """The busiest worker, the mean and the least busy one at each time, for each role."""
    found, series = requests_on_workers(log, WINDOWS), []
    for role in dict.fromkeys(worker.role for worker in log.workers):
        pool = [one.values for one, worker in zip(found, log.workers, strict=True) if worker.role == role]
        columns = list(zip(*pool, strict=True))
        label = router if role == "mixed" else f"{router}, {role}"
        ways = {"busiest": max, "mean": fmean, "least busy": min}
        if len(columns[0]) == 1:
            ways = {"alone": max}
        series += [Series(f"{label}: {way}", found[0].times_s, [of(c) for c in columns]) for way, of in ways.items()]
    return series


def _readouts(logs: Logs, slo: SLO) -> tuple[Readout, ...]:
    """What each run comes to, measure by measure, so that two runs stand beside each other."""
    measures = {router: _measures(log, slo) for router, log in logs.items()}
    names = list(next(iter(measures.values())))
    alone = len(logs) == 1
    return tuple(
        Readout(name if alone else f"{name}, {router}", measures[router][name]) for name in names for router in logs
    )


def _measures(log: EventLog, slo: SLO) -> dict[str, str]:
    met = goodput(log, slo, _arrivals(log))
    rejected = sum(t.status == "rejected" for t in log.timelines)
    found = {name: distribution(LATENCIES[name], log.timelines) for name in ("ttft_s", "tpot_s")}
    cached = hit_rate(log.timelines)
    return {
        "goodput": f"{met.per_s:.2f} {PER_S} of {met.arrived / met.duration_s:.2f} offered",
        "SLO attainment": f"{met.attainment:.1%}",
        **{NAMES[name]: _percentiles(one) for name, one in found.items()},
        "prompt tokens found cached": "none" if cached is None else f"{cached:.0%}",
        "rejected": f"{rejected:,} of {met.arrived:,}",
        "stability": STABLE[stability(log).stable],
    }


def _arrivals(log: EventLog) -> Window:
    """From 0 to the last arrival, which still counts; the drain after it does not dilute the goodput."""
    return Window(0.0, nextafter(max(t.arrival_s for t in log.timelines), inf))


def _percentiles(found: Distribution) -> str:
    return ", ".join(f"p{one.q:g} {seconds(one.value)}" for one in found.percentiles) or "no request has one"


def _summary(logs: Logs, slo: SLO, words: str) -> str:
    found = {router: goodput(log, slo, _arrivals(log)) for router, log in logs.items()}
    parts = [f"{name} meets the SLO for {one.attainment:.1%}, {one.per_s:.2f} {PER_S}" for name, one in found.items()]
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
