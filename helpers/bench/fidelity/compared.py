"""What a simulator said beside what live runs gave: errors, the spread of the live runs, verdicts against the goal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.goodput import goodput, throughput
from helpers.metrics.latency import distribution, tpot_s, ttft_s
from helpers.metrics.stats import Interval, mean_interval
from helpers.serving.run import Run
from helpers.workload.slo import SLOs

GOALS = {"TTFT mean": 0.05, "TPOT mean": 0.03, "throughput": 0.02, "TTFT p99": 0.10}
INSIDE, NOISE, MISSED, SHOWN = "inside", "within noise", "missed", "no goal"
SHARE = "share"

Figures = Mapping[str, float]
UNITS = {"throughput": "output tok/s", "rejected": SHARE, "attainment": SHARE, "cached": SHARE}


def unit_of(name: str) -> str:
    """The unit of a figure."""
    return UNITS.get(name, "s")


def figures(run: Run, slo: SLOs | None = None) -> dict[str, float]:
    """What a fidelity is stated on, over the requests that finished; the tail is p99 from 3,000 requests on, else p90.

    With an SLO also the share that was rejected and the share of all requests that met it.
    """
    finished = [t for t in run.timelines if t.status == "finished"]
    ttft, tpot = distribution(ttft_s, finished), distribution(tpot_s, finished)
    shares = {f"TTFT p{p.q:g}": p.value for p in ttft.percentiles if p.q != 95}
    found = {"TTFT mean": ttft.mean, **shares, "TPOT mean": tpot.mean, "throughput": throughput(run.log).tokens_per_s}
    if slo is not None:
        found["rejected"] = sum(t.status == "rejected" for t in run.timelines) / len(run.timelines)
        found["attainment"] = goodput(run.log, slo).attainment
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Compared:
    """One figure of one configuration. `error` is (simulated - live) / live, for shares the difference.

    `live_error` is the same of each live run, held against the mean of the others, the largest of them.
    """

    name: str
    unit: str
    live: Interval
    samples: tuple[float, ...]
    simulated: float
    error: float
    live_error: float
    goal: float | None
    verdict: str

    def record(self) -> dict:
        """As JSON."""
        return asdict(self)


def error_of(name: str, said: float, found: float) -> float:
    """How far a figure is from another, relative to that one; a difference for shares."""
    return said - found if unit_of(name) == SHARE else (said - found) / found


def compare(live: Sequence[Figures], simulated: Figures) -> list[Compared]:
    """Each figure that all runs have. Raises `InputError` for fewer than two live runs."""
    if len(live) < 2:
        raise InputError(f"{len(live)} live runs show no spread; repeat each at least twice")
    names = [name for name in live[0] if name in simulated and all(name in one for one in live)]
    return [_compared(name, [one[name] for one in live], simulated[name]) for name in names]


def _compared(name: str, samples: Sequence[float], simulated: float) -> Compared:
    interval = mean_interval(samples, unit="repeat")
    error, goal = error_of(name, simulated, interval.mean), GOALS.get(name)
    others = [fmean([*samples[:i], *samples[i + 1 :]]) for i in range(len(samples))]
    spread = max(abs(error_of(name, one, other)) for one, other in zip(samples, others, strict=True))
    said = SHOWN if goal is None else judged(error, goal, simulated, interval)
    return Compared(name, unit_of(name), interval, tuple(samples), simulated, error, spread, goal, said)


def judged(error: float, goal: float, simulated: float, live: Interval) -> str:
    """`inside` the goal, outside it but in the interval of the live mean (`within noise`), or `missed`."""
    if not isfinite(error):
        return MISSED
    if abs(error) <= goal:
        return INSIDE
    return NOISE if simulated in live else MISSED


def order(live: Mapping[str, Sequence[Figures]], simulated: Mapping[str, Figures], name: str) -> list[dict]:
    """Each pair of policies that the live runs tell apart on a figure, and whether the simulator ranks it likewise.

    Live runs of a repeat are a pair; they tell two policies apart when the interval of the difference excludes 0.
    """
    found = []
    if not all(name in one for runs in live.values() for one in runs) or not all(
        name in one for one in simulated.values()
    ):
        return found
    for a, b in combinations(live, 2):
        difference = mean_interval([x[name] - y[name] for x, y in zip(live[a], live[b], strict=True)], unit="repeat")
        if 0.0 in difference:
            continue
        said = simulated[a][name] - simulated[b][name]
        found.append(
            {
                "figure": name,
                "unit": unit_of(name),
                "pair": [a, b],
                "live": asdict(difference),
                "simulated": said,
                "same": (said > 0) == (difference.mean > 0),
            }
        )
    return found
