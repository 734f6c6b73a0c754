"""Claims about routers: where affinity alone collapses, and where round robin wins."""

from collections.abc import Sequence
from functools import partial

from helpers.bench.cases.arms import METRIC, above, below, by_arm, rows_of
from helpers.bench.cases.case import Case, Rows
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

NOBODY = Workload("drawn for each seed", ())


def arm(fleet: Fleet, slo: SLO, router: str, **parameters: object) -> Experiment:
    """A router on a fleet; the workload comes with the seed."""
    return Experiment(NOBODY, fleet, router, slo=slo, router_parameters=parameters)


# -- the longest prefix alone

ALONE = "longest prefix alone"
RELATIVE = "llm_d, prefix scaled between workers"


def longest_prefix(seeds: Sequence[int], requests: int = 1200, workers: int = 4) -> Rows:
    """Conversations that all open with the same block, as those of the Mooncake hour do.

    Whoever computes the first prompt is the only one to have that block, and so has the longest match for all
    that follow. The same can come from a weighted sum. Scaled between the workers, the one match scores 1 however
    short, at weight 2; free KV and the shortest queue together score 2 at most, and so never outvote it.
    """
    fleet, slo = Fleet(workers=workers), SLO(ttft_s=2.0, tpot_s=0.05)
    arms = {
        "round_robin": arm(fleet, slo, "round_robin"),
        "prefix_exact": arm(fleet, slo, "prefix_exact"),
        ALONE: arm(fleet, slo, "prefix_exact", load_weight=0, recent_tokens=0),
        "llm_d": arm(fleet, slo, "llm_d"),
        RELATIVE: arm(fleet, slo, "llm_d", prefix_relative=True),
    }
    draw = partial(generate, "conversation", requests=requests, rate_per_s=0.85 * workers)
    return [{**row, "workers": workers} for row in rows_of(arms, draw, seeds, "round_robin")]


def collapses(rows: Rows) -> bool:
    """The longest prefix alone gives one worker everything, both leave less than a tenth of the goodput, others gain.

    With the scaled prefix two workers may come to share everything: when a second prompt comes before the first is
    cached, both have the block.
    """
    found = by_arm(rows)
    tenth = found["round_robin"][METRIC]["mean"] / 10
    gone = all(below(found[name]) and found[name][METRIC]["mean"] < tenth for name in (ALONE, RELATIVE))
    one_worker = found[ALONE]["imbalance"] > 0.99 * found[ALONE]["workers"]
    return one_worker and gone and above(found["prefix_exact"]) and above(found["llm_d"])


# -- news that is old

PERIODS_S = (0.0, 0.2, 1.0)


def old_news(seeds: Sequence[int], requests: int = 2000, periods_s: Sequence[float] = PERIODS_S) -> Rows:
    """Requests without a shared prefix at 60 a second, and views that are up to `period` seconds old.

    Between two reports everybody sees the same shortest queue and joins it: a herd. At 60 a second and 0.2 s, a
    dozen in a row. Round robin asks nobody. A router that counts what it has sent itself needs no reports either.
    """
    knobs = {"prompt_tokens": "lognormal:1500:0.5", "output_tokens": "150"}
    draw = partial(generate, "poisson", requests=requests, rate_per_s=60.0, **knobs)
    routers = ("round_robin", "least_requests", "llm_d", "power_of_two", "dynamo")
    found: Rows = []
    for period_s in periods_s:
        fleet, slo = Fleet(workers=4, telemetry=Telemetry(period_s)), SLO(ttft_s=0.5, tpot_s=0.05)
        arms = {name: arm(fleet, slo, name) for name in routers}
        found += [{"period_s": period_s, **row} for row in rows_of(arms, draw, seeds, "round_robin")]
    return found


def herds(rows: Rows) -> bool:
    """With old views the shortest queue and llm-d lose to round robin; a router with counts of its own keeps level."""
    old = [by_arm([row for row in rows if row["period_s"] == p]) for p in {row["period_s"] for row in rows} if p]
    return bool(old) and all(
        below(found["least_requests"]) and below(found["llm_d"]) and level(found, "dynamo") for found in old
    )


# -- affinity by a threshold

CACHE_AWARE = "sglang_cache_aware"
LOWER = f"{CACHE_AWARE}, uneven from 4 apart"


def one_system_prompt(seeds: Sequence[int], requests: int = 600, shared_tokens: int = 3584) -> Rows:
    """Two workers, and prompts of 9,800 tokens that open with the same system prompt of 3,584: more than 0.3 of it.

    After sglang issue 21199 (2 workers, 9,800 tokens, one group of prompts; round robin 627 ms to the first token,
    cache_aware 1,617). Every prompt matches on the worker that had the first one, and with fewer than 65 requests
    apart nothing is uneven, so all of them go there; but round robin has the system prompt cached on both.
    """
    fleet, slo = Fleet(workers=2), SLO(ttft_s=2.0, tpot_s=0.05)
    arms = {
        "round_robin": arm(fleet, slo, "round_robin"),
        CACHE_AWARE: arm(fleet, slo, CACHE_AWARE),
        LOWER: arm(fleet, slo, CACHE_AWARE, balance_abs_threshold=4),
        "dynamo": arm(fleet, slo, "dynamo"),
        "llm_d": arm(fleet, slo, "llm_d"),
    }
    knobs = {"prompt_tokens": "9800", "output_tokens": "430", "shared_tokens": shared_tokens}
    draw = partial(generate, "poisson", requests=requests, rate_per_s=3.0, **knobs)
    return rows_of(arms, draw, seeds, "round_robin")


def loses(rows: Rows) -> bool:
    """SGLang's defaults lose to round robin with as many tokens found cached; a lower threshold keeps level."""
    found = by_arm(rows)
    lost = found[CACHE_AWARE]
    no_more_found = lost["hit_rate"] < found["round_robin"]["hit_rate"] + 0.01
    return below(lost) and no_more_found and level(found, LOWER)


def level(found: dict[str, dict], name: str) -> bool:
    """Whether an arm keeps 99 % of round robin's goodput: an interval may exclude 0 and still be of no account."""
    return found[name][METRIC]["mean"] > 0.99 * found["round_robin"][METRIC]["mean"]


CASES = (
    Case(
        "longest_prefix_collapses",
        "Where all prompts open with one block, the longest prefix alone sends everything to one worker and keeps less "
        "than a tenth of round robin's goodput; so do weights that nothing can outvote. Prefix and load together gain.",
        METRIC,
        longest_prefix,
        collapses,
    ),
    Case(
        "round_robin_wins",
        "With views up to 0.2 or 1 s old, round robin has more goodput than the shortest queue and than llm-d's "
        "scorers; a router that counts its own requests keeps level with it.",
        METRIC,
        old_news,
        herds,
    ),
    Case(
        "affinity_loses",
        "Where all prompts share more than 0.3 of their tokens, SGLang's cache_aware has less goodput than round "
        "robin, which finds as many tokens cached; called uneven from 4 requests apart, it keeps level.",
        METRIC,
        one_system_prompt,
        loses,
    ),
)
