"""The judges of lab 2: a score that routes, live too, a rule that admits, and four reports of which one is sound.

What an answer has to reach is written here and, as figures, in the lab. A judge returns None for a right answer, else a
hint. Hints name the likely mistake and never the answer.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.lessons import help_desk as desk
from helpers.lessons.exercises import Exercise, register
from helpers.lessons.help_desk import (
    DRAWS,
    GIVEN,
    REQUESTS,
    SLOS,
    TARGET,
    UNSEEN,
    Look,
    knees,
    mean_look,
)
from helpers.lessons.live_router import judge_live, live, live_row, live_rows
from helpers.lessons.probing import IDLE, LOADS, QUESTION, REPORTED, SENT, SUMMARY, answered, likes, looked_at, unfit
from helpers.lessons.router_reports import findings_of, judge_flaws, reports
from helpers.metrics.stats import Comparison, compare

# What the lab takes from here.
__all__ = [
    "REQUESTS",
    "SLOS",
    "UNSEEN",
    "findings_of",
    "live",
    "live_row",
    "live_rows",
    "mean_look",
    "reports",
]

LAB = "02_routers_lab"

# Part 1: a router

GAIN = 1.05  # at least, in the mean over the draws, and the 95 % interval of the difference above 0
BEST = "prefix_exact"  # of the given ones, at the knee of each draw
TOO_BUSY = 1.3  # times an even part of the requests
OLD = f"which are up to {desk.FLEET.telemetry.period_s + desk.FLEET.telemetry.delay_s:g} s old"


def against_the_best(score: Callable, seeds: tuple[int, ...] = DRAWS) -> Comparison:
    """Goodput at the knee by a score, compared with the best given router on the same draws."""
    return compare(_goodput(score, seeds), _goodput(BEST, seeds))


def _goodput(router: desk.Router, seeds: tuple[int, ...]) -> dict[int, float]:
    return {seed: one.goodput_per_s for seed, one in knees(router, seeds).items()}


def at_the_best_knees(router: desk.Router, seeds: tuple[int, ...] = DRAWS) -> Look:
    """What a router does at the knee of the best given one, as a mean over the draws."""
    best = knees(BEST, seeds)
    return mean_look([desk.look(desk.experiment(router, seed), best[seed].rate_per_s) for seed in seeds])


def given_knees() -> dict[str, dict[int, float]]:
    """Goodput at the knee of each given router, by draw."""
    return {name: _goodput(name, DRAWS) for name in GIVEN}


def routed(score: Callable) -> dict[str, Look]:
    """Draw 1 at the knee of the best given router, under each given one and, once it has an answer, under a score."""
    rate_per_s = knees(BEST)[DRAWS[0]].rate_per_s
    return _tried(GIVEN, score, lambda router: desk.look(desk.experiment(router), rate_per_s))


def _tried(given: Iterable[str], own: Callable, look: Callable[..., Look]) -> dict[str, Look]:
    """What the given policies do and, where it can be used, a learner's own; where it cannot its check says why."""
    found = {name: look(name) for name in given}
    if answered(own):
        with suppress(InputError):  # no number, or neither True nor False
            found["yours"] = look(own)
    return found


def judge_score(score: Callable) -> str | None:
    """Whether a score routes better than the given routers: 5 % more goodput at the knee, and beyond doubt."""
    hint = unfit(score, (int, float), "a number")
    if hint:
        return hint
    seen = at_the_best_knees(score)
    facts = looked_at(score)
    if seen.met < TARGET:  # not even where the best given router still keeps the promise
        where = f"at the knees of {BEST}, where {TARGET:.0%} are asked, it keeps the promise for {seen.met:.1%}"
        return f"{where}: {_weakness(score, facts, seen)}"
    found = against_the_best(score)
    if found.ratio is not None and found.ratio.mean >= GAIN and found.difference.low > 0:
        return None
    gain, low, high = (
        f"{value:+.2f}" for value in (found.difference.mean, found.difference.low, found.difference.high)
    )
    told = f"{gain} requests/s of goodput at the knee against {BEST} ({low} to {high} over {found.n} draws)"
    asked = f"asked are {GAIN - 1:.0%} more, and an interval above 0"
    return f"{told}; {asked}: {_weakness(score, facts, seen)}"


def _weakness(score: Callable, facts: set[str], seen: Look) -> str:
    """The likeliest reason why a score does not do well."""
    loads, cached = facts & set(LOADS), f"{seen.hit_rate:.0%} of the prompt tokens are found in a cache"
    if "cached_tokens" in facts and not likes(score, ["cached_tokens"]):
        return "the highest score wins, and yours falls with what is cached"
    if loads and likes(score, loads):
        return "the highest score wins, and yours rises with the load"
    if not loads:
        return f"it looks at no load, so one worker gets {seen.busiest:.1f} times its part while others idle"
    if not facts & {"cached_tokens", "prefix_blocks"}:
        return f"it ignores prefixes: {cached}, by chance"
    if not loads & set(SENT):
        return f"it looks at reports alone, {OLD}: until the next one, all go to the same worker"
    if not loads & {"sent_tokens", "waiting_tokens"}:
        return f"it counts requests, not tokens: a cached question weighs what a text of {SUMMARY.prompt_tokens:,} does"
    if seen.busiest > TOO_BUSY:
        return f"one worker gets {seen.busiest:.1f} times its part: reuse outweighs any queue"
    return (
        f"{cached}: what is computed elsewhere costs more than its time, since it pushes another document out; "
        "weigh reuse against waiting"
    )


# Part 2: admission

IN_TIME = 0.95  # of those accepted, with their first token in time
SHARES = {"question": 0.65, "summary": 0.65}  # of each class, all told, that must meet its SLO
REFERENCE = "measured_slo"
GATES = ("none", "token_cap", REFERENCE)
NOT_LOWER = 0.97  # of the reference's goodput, at least, in the mean over the draws


def under_overload(admission: desk.Admission) -> dict[int, Look]:
    """What an admission does with each draw at far more than the fleet carries."""
    return {seed: desk.overload(admission, seed) for seed in DRAWS}


def admitted(rule: Callable) -> dict[str, Look]:
    """Draw 1 under overload, with each given admission and, once it has an answer, with a rule."""
    return _tried(GATES, rule, desk.overload)


def prefill_s(prompt_tokens: int, cached_tokens: int = 0) -> float:
    """Predicted seconds that a worker takes for a prompt when it does nothing else."""
    return _predictor().prefill_s(prompt_tokens, cached_tokens)


@cache
def _predictor() -> CostPredictor:
    return desk.FLEET.predictor()


def judge_rule(rule: Callable) -> str | None:
    """Whether a rule keeps the promise to whom it accepts, at no loss of goodput, and serves every class."""
    hint = unfit(rule, bool, "True or False")
    if hint:
        return hint
    runs = under_overload(rule)
    seen = mean_look(list(runs.values()))
    if seen.accepted == 0:
        return "it rejects everybody: no promise is broken, and none is kept"
    if seen.accepted == 1:
        return f"it accepts everybody, and {seen.in_time:.0%} get their first token in time"
    shut_out = [name for name, share in seen.accepted_of.items() if share == 0]
    if shut_out:
        return f"it rejects every {shut_out[0]}: that keeps the others' promise by breaking this one"
    facts = looked_at(rule)
    if seen.in_time < IN_TIME:
        told = f"of those accepted {seen.in_time:.0%} get their first token in time, asked are {IN_TIME:.0%}"
        return f"{told}: {_optimism(facts)}"
    found = compare(_rates(runs), _rates({seed: _reference(seed) for seed in DRAWS}))
    if found.a.mean < NOT_LOWER * found.b.mean:
        told = f"{found.a.mean:.2f} requests/s of goodput, {REFERENCE} has {found.b.mean:.2f}"
        return f"{told}: you turn away {1 - seen.accepted:.0%}, and {_pessimism(facts)}"
    for name, share in SHARES.items():
        if seen.met_of[name] < share:
            idle = rule(SUMMARY if name == "summary" else QUESTION, IDLE)
            why = "those who come in take its place" if idle else "even an idle worker refuses one"
            told = f"of the class {name} {seen.met_of[name]:.0%} are served in time, declared are {share:.0%}"
            return f"it starves a class: {told}; {why}"
    return None


@cache
def _reference(seed: int) -> Look:
    return desk.overload(REFERENCE, seed)


def _rates(runs: Mapping[int, Look]) -> dict[int, float]:
    return {seed: one.goodput_per_s for seed, one in runs.items()}


def _optimism(facts: set[str]) -> str:
    """The likeliest reason why a rule lets in who comes too late."""
    loads = facts & set(LOADS)
    if not loads:
        return "it looks at no load, so it says the same to the first and to the thousandth in line"
    if loads <= set(REPORTED):
        return f"it looks at reports alone, {OLD}: until the next one it lets everybody in"
    if "prompt_tokens" not in facts:
        return f"the request's own prompt is not in it, and {SUMMARY.prompt_tokens:,} tokens take over a second alone"
    return "it expects too much of a worker, which computes prompts beside its decodes; leave some slack"


def _pessimism(facts: set[str]) -> str:
    """The likeliest reason why a rule turns away who would have been in time."""
    loads = facts & set(LOADS)
    if not loads:
        return "it looks at no load, so it refuses on an idle worker whom it refuses on a full one"
    if loads <= {"sent_requests", "running", "waiting"}:
        return "it counts requests: how long they take is in their tokens"
    if "prompt_tokens" not in facts:
        return "the request's own prompt is not in it: a short one fits where a long one does not"
    if "cached_tokens" not in facts:
        return "it takes a cached prompt for work"
    if "slo_class" not in facts:
        return "it holds both classes to one bound, although they were promised different ones"
    return "it expects too little of a worker: some of those would have been in time"


register(
    Exercise("a router of your own", judge_score, LAB, difficulty=2, importance=3, minutes=20),
    Exercise("your router on live workers", judge_live, LAB, difficulty=1, importance=3, minutes=5),
    Exercise("an admission of your own", judge_rule, LAB, difficulty=2, importance=3, minutes=15),
    Exercise("the flaws in four router reports", judge_flaws, LAB, difficulty=3, importance=3, minutes=15),
)
