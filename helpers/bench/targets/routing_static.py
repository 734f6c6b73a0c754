"""What a decision costs beside what it is worth: microseconds of every router against its goodput near the knee."""

from functools import partial
from statistics import median

from helpers.bench.routing_decisions import conversation_like, decisions_per_second
from helpers.bench.targets.dynamic_routing import TALK, conversations
from helpers.bench.targets.measures import GOODPUT, SERVICE, service
from helpers.bench.targets.target import UNDRAWN, Sample, Scenario, Statistic, Target, Values, routed
from helpers.policies.catalogue import ROUTERS
from helpers.policies.registry import router as make_router
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.request import Workload

BASELINE = "round_robin"
COST = Statistic("decision_us", "us", "a decision with the upkeep of what it needs, median of the passes", "lower")
RATE_PER_S = 2.6
QUALITY = "quality"
SIZES = (4, 64)


def asked(workers: int = 4) -> Experiment:
    """Conversations on a fleet under round robin."""
    return Experiment(UNDRAWN, Fleet(workers=workers), BASELINE, slo=TALK)


def prompts(seed: int, requests: int) -> Workload:
    """Prompts in the manner of the Mooncake hour, for decisions alone."""
    return Workload("prompts to route", tuple(conversation_like(requests, seed)), source="conversation_like")


def cost(experiment: Experiment, workload: Workload, seed: int, iterations: int) -> Sample:
    """Microseconds a decision: `iterations` passes by fresh routers, each of which must decide as its rehearsal did."""
    workers = len(experiment.fleet.roles)
    make = partial(make_router, predictor=experiment.fleet.predictor())
    found = [
        decisions_per_second(experiment.router, workers, workload.requests, seed=seed, make=make)
        for _ in range(iterations)
    ]
    passes = tuple(1e6 / one.per_s for one in found)
    kept = {"passes_us": [round(p, 3) for p in passes]}
    return Sample({COST.name: median(passes)}, workload.sha256, {}, (), tuple(one.wall_s for one in found), kept)


def priced(workers: int) -> Scenario:
    """The cost of a decision on a fleet of a size."""
    base = asked(workers)
    others = routed(base, [name for name in ROUTERS if name != BASELINE])
    about = f"microseconds a decision on {workers} workers, on prompts like those of the Mooncake hour"
    return Scenario(f"cost, {workers} workers", about, prompts, base, others, BASELINE, timed=cost, primary=COST.name)


def valued() -> Scenario:
    """The goodput of every router near the knee of the good ones."""
    base = asked()
    others = routed(base, [name for name in ROUTERS if name != BASELINE])
    about = f"conversations at {RATE_PER_S:g} requests/s on 4 workers, between the knees of the worst and the best"
    predicted = {"random": "lower", "production_stack_kvaware": "lower", "predicted_ttft": "higher"}
    return Scenario(QUALITY, about, conversations(RATE_PER_S), base, others, BASELINE, predicted=predicted)


# The draws of seed 0.
FROZEN = {
    "quality": "7ca96ca0f4da0a87",
    "cost, 4 workers": "a3afd70d3db254b5",
    "cost, 64 workers": "a3afd70d3db254b5",
}


def measure(run: Run, experiment: Experiment, scenario: Scenario) -> Values:
    """Service of the run."""
    return service(run, experiment)


def front(record: dict) -> dict:
    """One point a router: its cost on the larger fleet and its goodput, and whether none is both cheaper and better.

    The cost is the median over the seeds: another program on the machine makes a few of them many times as long.
    """
    by_name = {one["name"]: {arm["arm"]: arm for arm in one["arms"]} for one in record["scenarios"]}
    quality, costs = by_name.get(QUALITY, {}), by_name.get(f"cost, {SIZES[-1]} workers", {})
    points = []
    for arm, found in quality.items():
        prices = [one for one in costs.get(arm, {}).get("samples", {}).get(COST.name, ()) if one is not None]
        value = found["values"].get(GOODPUT.name)
        if value and prices:
            points.append({"router": arm, COST.name: median(prices), GOODPUT.name: value["mean"]})
    for one in points:
        one["on_front"] = not any(_better(other, one) for other in points)
    return {"front": sorted(points, key=lambda one: one[COST.name])}


def _better(a: dict, b: dict) -> bool:
    """Whether `a` is no dearer and no worse than `b`, and one of the two by something."""
    dearer, worse = a[COST.name] > b[COST.name], a[GOODPUT.name] < b[GOODPUT.name]
    same = a[COST.name] == b[COST.name] and a[GOODPUT.name] == b[GOODPUT.name]
    return not (dearer or worse or same)


TARGET = Target(
    name="routing_static",
    group="routers",
    question="Which routers are worth what their decisions cost?",
    hypothesis=(
        "No decision takes a millisecond, and a request takes seconds: the cost of a decision does not matter, and the "
        "front runs from round robin over the counted requests to predicted TTFT."
    ),
    statistics=(GOODPUT, *SERVICE, COST),
    scenarios=(valued(), *(priced(workers) for workers in SIZES)),
    control=QUALITY,
    measure=measure,
    extra=front,
    frozen=FROZEN,
)
