"""Part 3 of lab 2: four reports about routers and admission, three of them wrong in a way that can be found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from helpers.lessons import help_desk as desk
from helpers.lessons.matching import match
from helpers.metrics.goodput import goodput, hit_rate, outcomes
from helpers.metrics.latency import queue_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.stats import compare
from helpers.metrics.timeline import Timeline
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.hygiene import find_ticks, quantise
from helpers.workload.request import Workload
from helpers.workload.slo import SLOs

FLAWS = ("ticks", "repeated prefills", "self-fed estimate", "none")
ANSWERS = {"A": "self-fed estimate", "B": "none", "C": "repeated prefills", "D": "ticks"}
WHERE = {
    "A": "hold what is turned away in the second half against the wait of those let in, and look at the run without it",
    "B": "test it for each of the three flaws in turn",
    "C": "compare the two ways to count a hit, and look at what was computed twice",
    "D": "look at when its requests arrive",
}
TICK_S = 3.0
SOUND_PER_S, TICKED_PER_S, REFUSED_PER_S = 3.0, 3.0, 8.0
SOUND_DRAWS = (1, 2, 3, 4, 5)
MEMORIES_GIB = (40, 10)


@dataclass(frozen=True)
class Report:
    """What somebody claims, and the runs behind it, by name; each run with the workload that was sent."""

    claim: str
    runs: Mapping[str, tuple[Workload, Run]]
    slos: SLOs = field(default_factory=lambda: desk.SLOS)


def reports() -> dict[str, Report]:
    """The four reports. Every figure in a claim is that of its runs: what is wrong is what it is taken to mean."""
    return {"A": refused(), "B": compared(), "C": smaller(), "D": replayed()}


def replayed() -> Report:
    """A replay whose arrival times were rounded to a tick, so that a dozen requests come at once."""
    recorded = quantise(at_rate(desk.draw(1), TICKED_PER_S), TICK_S)
    run = _serve(recorded, "least_tokens")
    claim = (
        f"Replayed as recorded, at {TICKED_PER_S:g} requests/s, least_tokens keeps the promise for "
        f"{_met(run):.0%} only: the fleet is too small."
    )
    return Report(claim, {"replay": (recorded, run)})


def smaller() -> Report:
    """Two memories; a hit rate that counts the prefills after a preemption too, which find what was computed before."""
    lengths = {"prompt_tokens": "lognormal:2000:0.6", "output_tokens": "lognormal:1200:0.5"}
    answers = generate(
        "poisson", rate_per_s=6, requests=1000, seed=1, block_tokens=64, shared_tokens=600, blocks=True, **lengths
    )
    runs, slo = {}, desk.SLOS["question"]
    for gib in MEMORIES_GIB:
        fleet = Fleet(workers=2, kv_gib=gib)
        runs[f"{gib} GiB"] = answers, Experiment(answers, fleet, "prefix_exact", slo=slo).run()
    high, low = (lookup_hit_rate(run.timelines) for _, run in runs.values())
    claim = (
        f"A quarter of the KV memory does: {low:.0%} of the prompt tokens that are looked up come out of the cache, "
        f"with all of it {high:.0%}."
    )
    return Report(claim, runs, slo)


def refused() -> Report:
    """An admission whose estimate is fed with its own estimates, which contain the queue."""
    workload = at_rate(desk.draw(2), REFUSED_PER_S)
    run = _serve(workload, desk.ROUTER, "self_exciting", **desk.ROUTER_PARAMETERS)
    turned_away = fmean(t.status == "rejected" for t in run.timelines)
    claim = (
        f"At {REFUSED_PER_S:g} requests/s admission has to turn away {turned_away:.0%}, or they would miss their TTFT: "
        "the fleet has to be doubled."
    )
    return Report(claim, {"with admission": (workload, run)})


def compared() -> Report:
    """Two routers on the same five draws, below the knee of either, with the interval of the paired difference."""
    met: dict[str, dict[int, float]] = {"prefix_exact": {}, "least_tokens": {}}
    runs = {}
    for seed in SOUND_DRAWS:
        workload = at_rate(desk.draw(seed), SOUND_PER_S)
        for router, of in met.items():
            run = _serve(workload, router)
            of[seed] = _met(run)
            runs[f"{router}, draw {seed}"] = workload, run
    found = compare(met["prefix_exact"], met["least_tokens"]).difference
    points = [f"{100 * value:.0f}" for value in (found.mean, found.low, found.high)]
    claim = (
        f"At {SOUND_PER_S:g} requests/s prefix_exact keeps the promise for {points[0]} points more of the requests "
        f"than least_tokens ({points[1]} to {points[2]}, {found.n} draws)."
    )
    return Report(claim, runs)


def at_rate(workload: Workload, rate_per_s: float) -> Workload:
    """The workload coming at a rate."""
    return workload.at_rate(rate_per_s / offered_per_s(workload))


def _serve(workload: Workload, router: str, admission: str = "none", **parameters: object) -> Run:
    return Experiment(workload, desk.FLEET, router, admission, desk.SLOS, router_parameters=parameters).run()


def _met(run: Run) -> float:
    return goodput(run.log, desk.SLOS).attainment


# What can be found out about a run


def lookup_hit_rate(timelines: Sequence[Timeline]) -> float:
    """The share of prompt tokens that were not computed, of all that were looked up, at every admission to a batch.

    A request that is preempted is looked up again, and finds what it computed itself: `metrics.goodput.hit_rate`
    counts each request once, at its first admission.
    """
    looked_up = sum(t.prompt_tokens * (1 + t.preemptions) for t in timelines)
    return 1 - sum(t.prefilled_tokens for t in timelines) / looked_up


@dataclass(frozen=True)
class Findings:
    """Facts about one run, the same for every report.

    `tick_s` is the tick of the arrival times (None: none), `turned_away` the shares of the first and the second half of
    the requests that were rejected, `wait_p90_s` the time from arrival to prefill of those accepted in the second half,
    `twice_tokens` were computed without need. `met` is the share that met its SLO.
    """

    requests: int
    tick_s: float | None
    turned_away: tuple[float, float]
    wait_p90_s: float
    preemptions: int
    twice_tokens: int
    lookup_hits: float
    first_hits: float
    met: float


def findings_of(report: Report) -> dict[str, Findings]:
    """What can be said of each run of a report; behind an admission, also of the same requests without it."""
    found = {}
    for name, (workload, run) in report.runs.items():
        found[name] = findings(workload, run, report.slos)
        if run.provenance.policy["admission"] != "none":
            bare = _serve(workload, desk.ROUTER, **desk.ROUTER_PARAMETERS)
            found["the same without it"] = findings(workload, bare, report.slos)
    return found


def findings(workload: Workload, run: Run, slos: SLOs) -> Findings:
    """What can be said of a run."""
    timelines = run.timelines
    half = len(timelines) // 2
    halves = timelines[:half], timelines[half:]
    waits = [wait for t in halves[1] if (wait := queue_s(t)) is not None]
    ended = outcomes(timelines)
    return Findings(
        len(timelines),
        find_ticks([r.arrival_s for r in workload]).tick_s,
        tuple(fmean(t.status == "rejected" for t in part) for part in halves),
        percentile(waits, 90).value,
        ended.preemptions,
        ended.wasted_prefill_tokens,
        lookup_hit_rate([t for t in timelines if t.status == "finished"]),
        hit_rate(timelines) or 0.0,
        goodput(run.log, slos).attainment,
    )


def judge_flaws(given: Mapping[str, str]) -> str | None:
    """Whether each report is matched with its flaw, one of `FLAWS`."""
    return match(given, ANSWERS, FLAWS, WHERE)
