"""The traffic of lab 2, questions about shared documents and now and then a long text to sum up, and runs on it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

from helpers.errors import InputError
from helpers.lessons.desk import desk
from helpers.metrics.goodput import goodput, goodput_by_class, hit_rate
from helpers.metrics.latency import ttft_s
from helpers.metrics.series import arrived
from helpers.metrics.timeline import Timeline
from helpers.policies.admission.own_rule import by_rule
from helpers.policies.scored import scored
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.knees import counted, knee_of_seed
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

FLEET = Fleet(workers=4, telemetry=Telemetry(period_s=1.0, delay_s=0.1))
SLOS = {"question": SLO(ttft_s=2.0, tpot_s=0.1), "summary": SLO(ttft_s=10.0, tpot_s=0.1)}
TARGET = 0.9
REQUESTS, SUMMARIES, WARM_UP = 1200, 60, 120
PER_S = 8.0
# What is judged, and what no check looks at: whoever tries often enough fits the first.
DRAWS, UNSEEN = (1, 2, 3, 4, 5), (11, 12, 13, 14, 15)
# The first 16 digits of each judged workload's SHA-256, so that every answer is measured on the same.
FROZEN = {
    1: "4e7268986a5ccb1c",
    2: "f381dc02e2c360ad",
    3: "1c77941bc5c38a24",
    4: "a90a41a06227db35",
    5: "2aa3fede0459636b",
}

GIVEN = ("least_requests", "least_tokens", "prefix_exact")
# Where a search for the knee begins; it ends at the same rate from anywhere.
NEAR_PER_S = {"least_requests": 3.5, "least_tokens": 4.0}

# Admission is tried on a good router, at far more than any router carries.
ROUTER, ROUTER_PARAMETERS = "prefix_exact", {"overlap_weight": 4.0}
OVERLOAD_PER_S = 14.0

PLAIN = ("met", "goodput_per_s", "hit_rate", "busiest", "accepted", "in_time")
BY_CLASS = ("met_of", "accepted_of", "in_time_of")

Router = str | Callable
Admission = str | Callable


@cache
def draw(seed: int) -> Workload:
    """One draw of the traffic: 1,140 questions and 60 summaries. Raises `InputError` when it is not the frozen one."""
    rest = REQUESTS - SUMMARIES
    documents = {"documents": 40, "document_tokens": "lognormal:5000:0.9", "skew": 0.6}
    asked = generate("documents", rate_per_s=PER_S * rest / REQUESTS, requests=rest, seed=seed, **documents)
    texts = {"prompt_tokens": "lognormal:30000:0.5", "output_tokens": "lognormal:300:0.5"}
    long = generate("poisson", rate_per_s=PER_S * SUMMARIES / REQUESTS, requests=SUMMARIES, seed=seed, **texts)
    made = desk("help desk", asked, long)
    frozen = FROZEN.get(seed)
    if frozen is not None and made.sha256[: len(frozen)] != frozen:
        raise InputError(f"draw {seed} of the help desk is not the one that was frozen; take the course's own release")
    return made


def experiment(router: Router, seed: int = DRAWS[0], admission: Admission = "none") -> Experiment:
    """One draw under a router and an admission, each a name or a function of `(request, worker)`."""
    workload = draw(seed)
    own = router if isinstance(router, str) else scored(router, workload.block_tokens)
    gate = admission if isinstance(admission, str) else by_rule(admission)
    return Experiment(workload, FLEET, own, gate, SLOS, seed)


@dataclass(frozen=True)
class AtKnee:
    """The knee of a router on one draw: the highest rate that keeps the promise (0: none), and the goodput there."""

    rate_per_s: float
    goodput_per_s: float


def knees(router: Router, seeds: Iterable[int] = DRAWS) -> dict[int, AtKnee]:
    """The knee on each draw, searched once in a session for a router that has a name."""
    search = _knee_by_name if isinstance(router, str) else _knee
    return {seed: search(router, seed) for seed in seeds}


def _knee(router: Router, seed: int) -> AtKnee:
    one = experiment(router, seed)
    near = NEAR_PER_S.get(router, PER_S) if isinstance(router, str) else PER_S
    found = knee_of_seed(one, one.workload, seed, TARGET, _warm_up_s(one.workload), near)
    return AtKnee(found.rate_per_s or 0.0, found.goodput_per_s or 0.0)


_knee_by_name = cache(_knee)


@dataclass(frozen=True)
class Look:
    """What a run says after its warm-up; shares lie in 0 to 1.

    `met` of all requests met their SLO, `accepted` were not turned away, `in_time` of these got their first token in
    time. `busiest` is the part of the requests that one worker got, over an even part. The last three by class.
    """

    met: float
    goodput_per_s: float
    hit_rate: float
    busiest: float
    accepted: float
    in_time: float
    met_of: Mapping[str, float]
    accepted_of: Mapping[str, float]
    in_time_of: Mapping[str, float]


def look(one: Experiment, rate_per_s: float) -> Look:
    """Run an experiment with its requests coming at a rate."""
    workload = one.workload.at_rate(rate_per_s / offered_per_s(one.workload))
    log = replace(one, workload=workload).run().log
    window = counted(workload, _warm_up_s(workload))
    timelines = arrived(log.timelines, window)
    classes = {name: [t for t in timelines if t.slo_class == name] for name in SLOS}
    found = goodput(log, SLOS, window)
    places = Counter(t.prefill_worker for t in timelines if t.prefill_worker is not None)
    return Look(
        found.attainment,
        found.per_s,
        hit_rate(timelines) or 0.0,
        max(places.values(), default=0) * len(FLEET.roles) / max(1, sum(places.values())),
        _accepted(timelines),
        _in_time(timelines),
        {name: one.attainment for name, one in goodput_by_class(log, SLOS, window).items()},
        {name: _accepted(of) for name, of in classes.items()},
        {name: _in_time(of) for name, of in classes.items()},
    )


def overload(admission: Admission, seed: int = DRAWS[0]) -> Look:
    """One draw at far more than any router carries, under an admission and a router that weighs reuse well."""
    one = experiment(ROUTER, seed, admission)
    return look(replace(one, router_parameters=ROUTER_PARAMETERS), OVERLOAD_PER_S)


def mean_look(looks: Sequence[Look]) -> Look:
    """The mean of each figure over several draws."""
    plain = {name: fmean(getattr(one, name) for one in looks) for name in PLAIN}
    by_class = {name: {which: fmean(getattr(one, name)[which] for one in looks) for which in SLOS} for name in BY_CLASS}
    return Look(**plain, **by_class)


def _warm_up_s(workload: Workload) -> float:
    return workload.requests[WARM_UP].arrival_s


def _accepted(timelines: Sequence[Timeline]) -> float:
    return sum(t.status != "rejected" for t in timelines) / len(timelines)


def _in_time(timelines: Sequence[Timeline]) -> float:
    """The part of those accepted whose first token was in time; 0 of none."""
    accepted = [t for t in timelines if t.status != "rejected"]
    firsts = [(ttft_s(t), SLOS[t.slo_class].ttft_s) for t in accepted]
    return sum(first is not None and first <= bound for first, bound in firsts) / max(1, len(accepted))
