"""Saying no early: whom it serves, whom it costs, and what it saves, below the knee and past it.

Conversations of two tiers on four H100s under the same cache-aware router; prompts of more than 20,000 tokens are
classes of their own, with the same SLO, so that a goodput which comes from turning the long ones away shows. And a
split fleet, in which a request that is turned away late has cost a prefill.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from helpers.bench.cases.admission import OUTPUT_TOKENS, SPLIT_SLO, split_fleet, split_traffic
from helpers.bench.targets.measures import CLASSES, GOODPUT, REJECTION, SERVICE, rejection, service
from helpers.bench.targets.target import UNDRAWN, Scenario, Target, Values, admitted
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

BASELINE = "none"
BOUNDS = SLO(ttft_s=2.0, tpot_s=0.05)
LONG_TOKENS = 20_000
CAPS = {"queue_cap": {"max_waiting": 8}}
POLICIES = (
    *("queue_cap", "token_cap", "probabilistic", "priority_tiers", "early_rejection"),
    *("predicted_slo", "measured_slo", "self_exciting"),
)


def tiers(rate_per_s: float) -> Callable[[int, int], Workload]:
    """Conversations; each request is drawn into the high or the low tier by the toss of a coin."""

    def draw(seed: int, requests: int) -> Workload:
        made = generate("conversation", requests=requests, rate_per_s=rate_per_s, seed=seed, exact_rate=True)
        rng = Random(f"tiers {seed}")
        return replace(made, requests=tuple(_classed(r, rng.randrange(2)) for r in made.requests))

    return draw


def _classed(request, tier: int):
    name = ("high", "low")[tier] + (" long" if request.prompt_tokens > LONG_TOKENS else "")
    return replace(request, slo_class=name, priority=tier)


def mixed(name: str, about: str, rate_per_s: float, predicted: dict[str, str]) -> Scenario:
    """Four mixed workers at a rate."""
    slos = dict.fromkeys(CLASSES, BOUNDS)
    asked = Experiment(UNDRAWN, Fleet(workers=4), "prefix_exact", BASELINE, slos)
    arms = admitted(asked, POLICIES, **CAPS)
    return Scenario(name, about, tiers(rate_per_s), asked, arms, BASELINE, predicted=predicted)


def reading(seed: int, requests: int) -> Workload:
    """Long prompts with short answers, more than one decode worker can take."""
    return split_traffic(requests=requests, seed=seed, exact_rate=True)


def split() -> Scenario:
    """Twelve prefill workers before one decode worker, which half of the requests would fill."""
    asked = Experiment(
        UNDRAWN, split_fleet(), "prefix_exact", "predicted_load", SPLIT_SLO,
        admission_parameters={"mode": "late"},
    )  # fmt: skip
    arms = {
        "current": replace(asked, admission_parameters={"mode": "current"}),
        "predicted": replace(asked, admission_parameters={"mode": "predicted", "guess_tokens": OUTPUT_TOKENS}),
    }
    about = "12 prefill workers before 1 decode worker: asked after the prefill, or at the arrival by a decode load"
    return Scenario(
        "split", about, reading, asked, arms, "late", scale=2.0,
        predicted={"current": "higher", "predicted": "higher"},
    )  # fmt: skip


# The draws of seed 0.
FROZEN = {
    "low load": "86e720f28b4955c7",
    "below the knee": "faa4dadf04e70a60",
    "past the knee": "b8ef122bff9985db",
    "far past the knee": "2895a2a2032a62ed",
    "split": "c9e9e70b233317e9",
}


def measure(run: Run, experiment: Experiment, scenario: Scenario) -> Values:
    """Service of all, attainment by class, and what was turned away or computed in vain."""
    return {**service(run, experiment), **rejection(run, experiment)}


TARGET = Target(
    name="early_rejection",
    group="routers",
    question="What does it gain to turn requests away before their prefill, and who pays for it?",
    hypothesis=(
        "Past the knee, rejecting what would miss its SLO gains goodput and saves prefills that come too late; below "
        "it, it costs nothing, while rules that shed the low tier lose. Caps on requests or tokens gain less, for "
        "they do not know who would be late. The long prompts pay."
    ),
    statistics=(GOODPUT, *SERVICE, *REJECTION),
    scenarios=(
        mixed(
            "low load",
            "conversations of two tiers at 1.5 requests/s",
            1.5,
            {"early_rejection": "lower", "predicted_slo": "no effect", "measured_slo": "no effect"},
        ),
        mixed(
            "below the knee",
            "the same at 3 requests/s",
            3.0,
            {"early_rejection": "lower", "probabilistic": "lower"},
        ),
        mixed(
            "past the knee",
            "the same at 4.5 requests/s",
            4.5,
            {"predicted_slo": "higher", "measured_slo": "higher"},
        ),
        mixed(
            "far past the knee",
            "the same at 7 requests/s, where without admission nobody is served in time",
            7.0,
            dict.fromkeys(POLICIES, "higher"),
        ),
        split(),
    ),
    control="low load",
    measure=measure,
    frozen=FROZEN,
)
