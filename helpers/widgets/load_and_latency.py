"""The figures of chapter 1 and its lab, each with the words that go with it; they draw what the cells hand over."""

from collections.abc import Mapping, Sequence

from helpers.metrics.stats import Interval
from helpers.metrics.timeline import Timeline
from helpers.serving.run import Run
from helpers.widgets.figures import Axis, Mark, Series, cdf, lines, scatter
from helpers.widgets.runs import attainment_lines, latency_bars, latency_cdf, over_intervals, shares
from helpers.widgets.show import Figure
from helpers.widgets.table import Table
from helpers.workload.slo import SLO

RATE = Axis("offered rate", "requests/s")
WAIT = Axis("mean wait", "s", from_zero=True)


def exact_waits(found: Mapping[float, Interval], theory: Sequence[float], requests: int) -> Figure:
    """The mean wait of equal prompts against the load: the simulator with intervals over seeds, and M/D/1."""
    seeds = min(one.n for one in found.values())
    return lines(
        [over_intervals("simulator", found), Series("M/D/1, closed form", list(found), theory)],
        Axis("load", ""),
        WAIT,
        title="The simulator waits as long as the formula says",
        note=f"{seeds} seeds of {requests:,} requests a point; 95 % intervals over seeds.",
        origin="simulated",
        alt="Mean wait against load: the simulated points with their intervals lie on the rising curve of M/D/1.",
    )


def bounded_waits(rates: Sequence[float], waits: Sequence[float], bound: Sequence[float], requests: int) -> Figure:
    """The mean wait of a mix of prompts routed at random, and what Pollaczek and Khinchine say of prefills alone."""
    return lines(
        [Series("simulator", rates, waits), Series("Pollaczek-Khinchine, prefill only", rates, bound)],
        RATE,
        WAIT,
        title="Prefills alone explain the wait at low load",
        note=f"Random routing, N = {requests:,} requests a point; one run each, so no interval.",
        origin="simulated",
        alt="Mean wait against offered rate: both curves agree at low rates; above, the simulated wait grows faster.",
    )


def three_speeds(runs: Mapping[str, Run]) -> Figure:
    """TTFT of one hour of traffic at several speeds."""
    return latency_cdf(
        runs,
        "ttft_s",
        title="One hour of traffic at three speeds: the time to the first token",
        alt="Cumulative TTFT on a logarithmic axis: the two slower speeds are close, the fastest is far worse.",
    )


def two_routers(runs: Mapping[str, Run], slo: SLO) -> Figure:
    """TTFT of the hour under two routers."""
    return latency_cdf(
        runs,
        "ttft_s",
        slo.ttft_s,
        title="Same requests, same GPUs: balancing tokens shortens the tail",
        alt="Cumulative TTFT on a logarithmic axis; least_tokens reaches every share earlier than round_robin.",
    )


def polite_client(ttfts: Mapping[str, Sequence[float]], times_rate: float) -> Figure:
    """TTFT of an overloaded fleet as a limited number of clients see it, and as the schedule does."""
    return cdf(
        [shares(name, values) for name, values in ttfts.items()],
        Axis("TTFT", "s", log=True),
        title="An overloaded fleet looks healthy to a client that waits",
        note=f"N = {min(map(len, ttfts.values())):,} requests at {times_rate:g} times the hour's rate, least_tokens; "
        "one run each, so no interval.",
        origin="simulated",
        alt="Cumulative TTFT: from the send nearly all take seconds, from the schedule most take far longer.",
    )


def broken_promise(sweeps: Mapping[str, Mapping[float, Run]], slo: SLO, target: float) -> Figure:
    """SLO attainment of two routers over the offered rate."""
    return attainment_lines(
        sweeps,
        slo,
        target,
        title="The promise breaks at the knee",
        alt="Attainment falls with the offered rate; round_robin crosses the target at a lower rate than least_tokens.",
    )


def ticks(runs: Mapping[str, Run]) -> Figure:
    """TTFT of one hour with true, quantised and repaired arrival times, and with a cleverer router."""
    return latency_bars(
        runs,
        "ttft_s",
        title="A 3 s tick matters more than the router, and spreading repairs it",
        alt="TTFT percentiles of one hour: highest with 3 s ticks; the other three are close to each other.",
    )


def naive_intervals(naive: Mapping[int, Interval], overall: Interval, requests: int) -> Figure:
    """The mean TTFT of several draws with intervals over their requests, which are wrong."""
    return scatter(
        [over_intervals("mean TTFT of one draw", naive)],
        Axis("seed", ""),
        Axis("mean TTFT", "s", from_zero=True),
        title="Intervals over requests promise too much",
        note=f"{requests:,} requests a draw, round_robin; 95 % intervals over requests, which is wrong.",
        origin="simulated",
        marks=[Mark(overall.mean, "mean over seeds", "y")],
        alt="Mean TTFT of each draw with its interval over requests; most intervals miss the mean over all seeds.",
    )


def cases(timelines: Sequence[Timeline]) -> Table:
    """A few requests with their times, one column each, for the lab."""
    times = ("arrival_s", "dispatched_s", "prefill_start_s", "first_token_s", "finished_s")
    rows = [[name, *(str(getattr(t, name)) for t in timelines)] for name in ("status", "output_tokens", *times)]
    return Table(f"{len(timelines)} requests", ["", *(f"request {t.id}" for t in timelines)], rows)


def own_waits(loads: Sequence[float], waits: Mapping[float, Sequence[object]], service_s: float) -> Figure:
    """The wait by a reader's own formula, for several c2, and the service for scale; what is no number is left out."""
    numbers = {c2: [w if isinstance(w, int | float) else None for w in one] for c2, one in waits.items()}
    return lines(
        [Series("the service itself", loads, [service_s] * len(loads))]
        + [Series(f"your wait, c2 = {c2:g}", loads, one) for c2, one in numbers.items()],
        Axis("load", ""),
        WAIT,
        title="The wait by your formula",
        note="No sampling; only the service is there until your function has an answer.",
        origin="predicted",
        alt="Mean wait against load for equal and very unequal service times by your function, and the service.",
    )


def tried_rates(rates: Sequence[float], found: Sequence[float], target: float, requests: int) -> Figure:
    """SLO attainment at the rates that a reader tried."""
    return lines(
        [Series("least_tokens, 2 workers", rates, found)],
        RATE,
        Axis("SLO attainment", "", from_zero=True),
        title="Where does it fall below the target?",
        note=f"N = {requests:,} requests a point; one run each, so no interval.",
        origin="simulated",
        marks=[Mark(target, f"target {target:.0%}", "y")],
        alt="Attainment against the offered rates that were tried, with a line at the target.",
    )
