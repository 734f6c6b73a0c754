"""Routers that react to what is going on, against the shortest queue with views of this moment and with old ones.

Conversations on four H100s at three rates, with and without shared prefixes, on one worker; dense short requests with
old views; and a step, a burst, a slow and a lost worker. Regimes in which cleverness buys nothing, or loses, are part
of the question.
"""

from collections.abc import Callable

from helpers.bench.targets.measures import GOODPUT, SERVICE, UPSETS, after_upset, series_after_upset, service
from helpers.bench.targets.target import UNDRAWN, Scenario, Target, Values, routed
from helpers.bench.targets.upset import Upset
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

BASELINE = "least_requests"
CLEVER = ("prefix_exact", "llm_d", "predicted_ttft", "feedback")
SIMPLE = ("round_robin", "power_of_two", "least_tokens")
AFTER_UPSETS = ("round_robin", "power_of_two", "predicted_ttft", "feedback")

TALK = SLO(ttft_s=2.0, tpot_s=0.05)
SHORT = SLO(ttft_s=0.5, tpot_s=0.05)
DENSE_PER_S, DENSER_PER_S = 40.0, 60.0  # of about 75 a second that four workers can serve


def conversations(rate_per_s: float) -> Callable[[int, int], Workload]:
    """Conversations in the manner of the Mooncake hour, at exactly this rate."""
    return lambda seed, requests: generate(
        "conversation", requests=requests, rate_per_s=rate_per_s, seed=seed, exact_rate=True
    )


def strangers(rate_per_s: float) -> Callable[[int, int], Workload]:
    """The same conversations with prompts that share nothing."""
    return lambda seed, requests: conversations(rate_per_s)(seed, requests).without_prefixes()


def dense(rate_per_s: float = DENSE_PER_S) -> Callable[[int, int], Workload]:
    """Short requests without shared prefixes."""
    lengths = {"prompt_tokens": "lognormal:1500:0.5", "output_tokens": "lognormal:150:0.5"}
    return lambda seed, requests: generate(
        "poisson", requests=requests, rate_per_s=rate_per_s, seed=seed, exact_rate=True, **lengths
    )


def one_prompt(seed: int, requests: int) -> Workload:
    """Prompts of 9,800 tokens of which the first 3,584 are the same for all: a third, above SGLang's threshold."""
    lengths = {"prompt_tokens": "9800", "output_tokens": "430", "shared_tokens": 3584}
    return generate("poisson", requests=requests, rate_per_s=3.0, seed=seed, exact_rate=True, **lengths)


def question(slo: SLO, workers: int = 4, period_s: float = 0.0, router: str = BASELINE) -> Experiment:
    """The baseline, by views up to `period_s` seconds old."""
    return Experiment(UNDRAWN, Fleet(workers=workers, telemetry=Telemetry(period_s)), router, slo=slo)


def steady(
    name: str, about: str, draw: Callable[[int, int], Workload], asked: Experiment, predicted: dict[str, str], **more
) -> Scenario:
    """A load that does not change, with every router."""
    others = routed(asked, [name for name in (*SIMPLE, *CLEVER) if name != asked.router])
    return Scenario(name, about, draw, asked, others, str(asked.router), predicted=predicted, **more)


def against_round_robin(
    name: str, about: str, draw: Callable[[int, int], Workload], asked: Experiment, predicted: dict[str, str]
) -> Scenario:
    """Where cleverness loses: round robin is the baseline, and those that are expected to lose are the variants."""
    others = routed(asked, tuple(predicted))
    return Scenario(name, about, draw, asked, others, "round_robin", predicted=predicted)


def upset(what: Upset, period_s: float, predicted: dict[str, str]) -> Scenario:
    """Dense requests and something that goes wrong; worker 0 is the one it happens to."""
    asked = question(SHORT, period_s=period_s)
    views = f"views up to {period_s:g} s old" if period_s else "views of this moment"
    about = {
        "step": f"the rate steps from {DENSE_PER_S:g} to {DENSE_PER_S * what.factor:g} requests/s",
        "burst": f"{what.factor:g} times the rate for {what.lasts:.0%} of the time",
        "slow worker": f"one of four workers takes {what.factor:g} times as long from then on",
        "lost worker": "one of four workers is lost",
    }[what.kind]
    return Scenario(
        f"{what.kind}, {'old' if period_s else 'live'} views",
        f"{about}; {views}",
        dense(),
        asked,
        routed(asked, AFTER_UPSETS),
        BASELINE,
        scale=3.0,
        upset=what,
        predicted=predicted,
    )


OLD_S = 0.5
HERD = {"round_robin": "higher", "predicted_ttft": "higher", "feedback": "higher", "power_of_two": "higher"}
LEVEL = dict.fromkeys((*SIMPLE, *CLEVER), "no effect")

SCENARIOS = (
    steady(
        "low load",
        "conversations at 0.5 requests/s: nearly every worker is idle",
        conversations(0.5),
        question(TALK),
        {},
    ),
    steady(
        "knee",
        "conversations at 2 requests/s, where the shortest queue still serves most in time",
        conversations(2.0),
        question(TALK),
        {"predicted_ttft": "higher", "prefix_exact": "higher", "round_robin": "lower"},
    ),
    steady(
        "past the knee",
        "conversations at 3.2 requests/s, past the knee of the shortest queue",
        conversations(3.2),
        question(TALK),
        {"predicted_ttft": "higher", "prefix_exact": "higher", "llm_d": "higher", "round_robin": "lower"},
    ),
    steady(
        "no reuse",
        "the same at 2 requests/s with prompts that share nothing",
        strangers(2.0),
        question(TALK),
        {"feedback": "no effect", "round_robin": "lower"},
    ),
    steady(
        "one worker",
        "one worker at 0.5 requests/s: there is nothing to choose",
        conversations(0.5),
        question(TALK, workers=1),
        LEVEL,
    ),
    steady(
        "dense, live views",
        f"short requests at {DENSE_PER_S:g} a second, views of this moment",
        dense(),
        question(SHORT),
        LEVEL,
    ),
    steady(
        "denser, 0.2 s old",
        f"the same at {DENSER_PER_S:g} a second with reports every 0.2 s: a dozen requests in between",
        dense(DENSER_PER_S),
        question(SHORT, period_s=0.2),
        {"round_robin": "higher", "power_of_two": "higher", "predicted_ttft": "higher", "feedback": "higher"},
    ),
    against_round_robin(
        "clever loses: old views",
        f"short requests at {DENSE_PER_S:g} a second with reports every second, beside a router that reads none",
        dense(),
        question(SHORT, period_s=1.0, router="round_robin"),
        {
            "least_requests": "lower",
            "least_tokens": "lower",
            "power_of_two": "lower",
            "llm_d": "lower",
            "predicted_ttft": "no effect",
            "feedback": "no effect",
        },
    ),
    against_round_robin(
        "clever loses: one system prompt",
        "two workers, and all prompts open with the same third: who follows the prefix goes where all go",
        one_prompt,
        question(TALK, workers=2, router="round_robin"),
        {
            "sglang_cache_aware": "lower",
            "prefix_exact": "no effect",
            "predicted_ttft": "no effect",
        },
    ),
    *(
        upset(what, period_s, predicted)
        for what, live, old in (
            (Upset("step", factor=1.5), {"feedback": "no effect"}, HERD),
            (Upset("burst", factor=2.5), {"feedback": "no effect"}, HERD),
            (Upset("slow worker", factor=3.0), {"round_robin": "lower"}, {**HERD, "round_robin": "lower"}),
            (Upset("lost worker"), {"feedback": "no effect"}, HERD),
        )
        for period_s, predicted in ((0.0, live), (OLD_S, old))
    ),
)


# The draws of seed 0.
FROZEN = {
    "low load": "c2da1f0865312e38",
    "knee": "e1d0be44b7469b22",
    "past the knee": "a094f813318cbf1d",
    "no reuse": "8dcc3c881277aaa3",
    "one worker": "c2da1f0865312e38",
    "dense, live views": "e37f5ea69168077a",
    "denser, 0.2 s old": "23243e729cae2511",
    "clever loses: old views": "e37f5ea69168077a",
    "clever loses: one system prompt": "d5786692146c8ccc",
    "step, live views": "0b7f594cc9c11440",
    "step, old views": "0b7f594cc9c11440",
    "burst, live views": "943282bfa9dc1cea",
    "burst, old views": "943282bfa9dc1cea",
    "slow worker, live views": "9b6a89bc61a9a44a",
    "slow worker, old views": "9b6a89bc61a9a44a",
    "lost worker, live views": "9b6a89bc61a9a44a",
    "lost worker, old views": "9b6a89bc61a9a44a",
}


def measure(run: Run, experiment: Experiment, scenario: Scenario) -> Values:
    """Service of the whole run, and how it came to rest after an upset."""
    return {**service(run, experiment), **after_upset(run, experiment, scenario)}


TARGET = Target(
    name="dynamic_routing",
    group="routers",
    question="What does a router gain that reacts to prefixes, predicted or measured latency, over the shortest queue?",
    hypothesis=(
        "Near the knee, counting prompt tokens and cached prefixes gains goodput over counting requests. With old "
        "views the shortest queue herds, and whoever counts its own requests, or asks nobody, gains. At low load, on "
        "one worker, or without reuse there is nothing to gain."
    ),
    statistics=(GOODPUT, *SERVICE, *UPSETS),
    scenarios=SCENARIOS,
    control="dense, live views",
    measure=measure,
    series=series_after_upset,
    frozen=FROZEN,
)
