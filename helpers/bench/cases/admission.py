"""Claims about admission: when saying no early gains, whom it costs, and when it makes the load swing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from random import Random
from statistics import correlation, fmean

from helpers.bench.cases.arms import METRIC, above, below, by_arm
from helpers.bench.cases.case import Case, Rows
from helpers.metrics.pools import busy_share, decoding, swing, workers_of
from helpers.metrics.series import Series
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.summary import summarize
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.run import Run
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

NOBODY = Workload("drawn for each seed", ())
BOUNDS = SLO(ttft_s=2.0, tpot_s=0.05)

# What is told of each class, and of each run, as means over the seeds.
OF_CLASS = ("attainment", "rejected", "aborted", "wasted_prefill_tokens")
OF_RUN = ("attainment", "rejected", "aborted", "wasted_prefill_tokens", "requests")


def row(arm: str, summaries: Mapping[int, dict], reference: Mapping[int, dict] | None) -> dict:
    """An arm: goodput with its paired difference to the reference arm, what was turned away, and the same by class.

    Intervals are 95 % over seeds; the rest are means. A class that a seed does not have is left out of its mean.
    """
    values = {seed: one[METRIC] for seed, one in summaries.items()}
    against = None if reference is None else {seed: one[METRIC] for seed, one in reference.items()}
    every = list(summaries.values())
    reasons = sorted({reason for one in every for reason in one["rejections"]})
    return {
        "arm": arm,
        METRIC: asdict(mean_interval(list(values.values()))),
        "difference_per_s": None if against is None else asdict(compare(values, against).difference),
        **{name: fmean(one[name] for one in every) for name in OF_RUN},
        "rejections": {reason: fmean(one["rejections"].get(reason, 0) for one in every) for reason in reasons},
        "classes": classes_of(summaries, reference),
    }


def classes_of(summaries: Mapping[int, dict], reference: Mapping[int, dict] | None) -> dict:
    """What became of each class, with the paired difference of its attainment to the reference arm."""
    names = sorted({name for one in summaries.values() for name in one["classes"]})
    return {name: _class(name, summaries, reference) for name in names}


def _class(name: str, summaries: Mapping[int, dict], reference: Mapping[int, dict] | None) -> dict:
    mine = {seed: one["classes"][name] for seed, one in summaries.items() if name in one["classes"]}
    found: dict = {key: fmean(one[key] for one in mine.values()) for key in OF_CLASS}
    if reference is not None:
        theirs = {seed: reference[seed]["classes"][name]["attainment"] for seed in mine}
        values = {seed: one["attainment"] for seed, one in mine.items()}
        found["difference"] = asdict(compare(values, theirs).difference)
    return found


def rows(runs: Mapping[str, Mapping[int, Run]], slo: SLO | Mapping[str, SLO], reference: str) -> Rows:
    """One row an arm, each but the reference compared with it."""
    found = {arm: {seed: summarize(run.log, slo) for seed, run in of.items()} for arm, of in runs.items()}
    return [row(arm, of, None if arm == reference else found[reference]) for arm, of in found.items()]


def played(arms: Mapping[str, Experiment], workload_of, seeds: Sequence[int]) -> dict[str, dict[int, Run]]:
    """A run for each arm and seed; each seed draws one workload, the same for every arm."""
    runs: dict[str, dict[int, Run]] = {arm: {} for arm in arms}
    for seed in seeds:
        workload = workload_of(seed=seed)
        for arm, experiment in arms.items():
            runs[arm][seed] = replace(experiment, workload=workload, seed=seed).run()
    return runs


def admitting(fleet: Fleet, slo: SLO | Mapping[str, SLO], admission: str, **parameters: object) -> Experiment:
    """An admission policy on a fleet with cache-aware routing; the workload comes with the seed."""
    return Experiment(NOBODY, fleet, "prefix_exact", admission, slo, admission_parameters=parameters)


# -- it raises goodput

LONG_TOKENS = 20_000
RATES_PER_S = (3.0, 6.0)


def by_length(rate_per_s: float, requests: int, seed: int) -> Workload:
    """Conversations; prompts of more than 20,000 tokens are a class of their own, with the same SLO."""
    drawn = generate("conversation", requests=requests, rate_per_s=rate_per_s, seed=seed)
    names = ("short", "long")
    classed = (replace(r, slo_class=names[r.prompt_tokens > LONG_TOKENS]) for r in drawn.requests)
    return replace(drawn, requests=tuple(classed))


def raised(seeds: Sequence[int], requests: int = 2000, rates_per_s: Sequence[float] = RATES_PER_S) -> Rows:
    """Conversations on four workers, below the knee and past it.

    Past the knee the queue grows without end, and soon nobody meets the bound. A prompt of 60,000 tokens
    takes two seconds alone: it cannot meet it, and makes dozens of others miss it.
    """
    fleet, slo = Fleet(workers=4), {"short": BOUNDS, "long": BOUNDS}
    names = ("none", "queue_cap", "token_cap", "predicted_slo", "measured_slo", "self_exciting")
    arms = {name: admitting(fleet, slo, name) for name in names}
    found: Rows = []
    for rate_per_s in rates_per_s:
        runs = played(arms, partial(by_length, rate_per_s, requests), seeds)
        found += [{"rate_per_s": rate_per_s, **one} for one in rows(runs, slo, "none")]
    return found


def raises(found: Rows) -> bool:
    """At the highest rate predicted and measured service both gain; at the lowest they cost no hundredth."""
    rates = sorted({one["rate_per_s"] for one in found})
    low, high = (by_arm([one for one in found if one["rate_per_s"] == rate]) for rate in (rates[0], rates[-1]))
    arms = ("predicted_slo", "measured_slo")
    harmless = all(low[arm][METRIC]["mean"] > 0.99 * low["none"][METRIC]["mean"] for arm in arms)
    return harmless and all(above(high[arm]) for arm in arms)


# -- it shifts the pain

TIERS = {"high": BOUNDS, "low": BOUNDS}


def in_tiers(rate_per_s: float, requests: int, seed: int) -> Workload:
    """Conversations of two tiers with the same SLO: each request is drawn into one of them by the toss of a coin."""
    drawn, rng = generate("conversation", requests=requests, rate_per_s=rate_per_s, seed=seed), Random(f"tiers {seed}")
    names = ("high", "low")
    tiers = [rng.randrange(2) for _ in drawn.requests]
    tiered = (replace(r, slo_class=names[t], priority=t) for r, t in zip(drawn.requests, tiers, strict=True))
    return replace(drawn, requests=tuple(tiered))


def shifted(seeds: Sequence[int], requests: int = 1500, rate_per_s: float = 4.0) -> Rows:
    """Two tiers just past the knee: one policy sheds the lower by how full the fleet is, one whoever would miss."""
    fleet = Fleet(workers=4)
    arms = {name: admitting(fleet, TIERS, name) for name in ("none", "probabilistic", "predicted_slo")}
    return rows(played(arms, partial(in_tiers, rate_per_s, requests), seeds), TIERS, "none")


def shifts(found: Rows) -> bool:
    """Shedding by chance does not lower the goodput, and serves the upper tier better and the lower worse.

    Rejecting what would miss its SLO serves both better on the same draws: the shift is not the price of a gain.
    """
    arms = by_arm(found)
    shed, predicted = arms["probabilistic"], arms["predicted_slo"]
    high, low = shed["classes"]["high"]["difference"], shed["classes"]["low"]["difference"]
    moved = not below(shed) and high["low"] > 0 and low["high"] < 0
    return moved and all(one["difference"]["low"] > 0 for one in predicted["classes"].values())


# -- it makes the load swing

LATE, CURRENT, PREDICTED = "after the prefill", "current", "predicted"
CURRENT_ONCE, PREDICTED_ONCE, TRUE_ONCE = "current, asked once", "predicted, asked once", "predicted, true lengths"
PREFILLS, OUTPUT_TOKENS = 12, 60
SPLIT_SLO = SLO(ttft_s=10.0, tpot_s=0.02)
WINDOW_S = 0.5


def split_fleet(prefills: int = PREFILLS) -> Fleet:
    """So many prefill workers before one decode worker, which half of `split_traffic` would fill."""
    return Fleet(workers=prefills + 1, split=f"{prefills}P1D")


def split_traffic(prefills: int = PREFILLS, **more: object) -> Workload:
    """Prompts of 8,000 tokens with short answers, 4.5 requests/s for each prefill worker; `more` as in `generate`."""
    lengths = {"prompt_tokens": "8000", "output_tokens": f"exponential:{OUTPUT_TOKENS}"}
    return generate("poisson", rate_per_s=4.5 * prefills, **lengths, **more)


def loads(run: Run, step_s: float = WINDOW_S) -> tuple[Series, Series]:
    """How busy the prefill workers were, and how many requests decoded on each decode worker, while requests came."""
    last_s = max(t.arrival_s for t in run.timelines)
    prefill, decode = (workers_of(run.log, role) for role in ("prefill", "decode"))
    return busy_share(run.log, prefill, step_s, last_s), decoding(run.log, decode, step_s, last_s)


def phase(one: Series, other: Series, after_s: float) -> float:
    """The correlation of two loads once the run has begun: -1 when one is high exactly where the other is low."""
    begun = [index for index, time_s in enumerate(one.times_s) if time_s > after_s]
    first, second = ([series.values[index] for index in begun] for series in (one, other))
    return correlation(first, second) if len(set(first)) > 1 and len(set(second)) > 1 else 0.0


def swinging(seeds: Sequence[int], requests: int = 3600, workers: int = PREFILLS) -> Rows:
    """Twelve prefill workers before one decode worker, which half of the requests would fill.

    Prompts of 8,000 tokens take a quarter of a second when nothing waits; outputs are exponential, so that a
    constant guess is as good as any that does not know the truth. In Mooncake's runs prediction also rejected
    fewest in all; here it does not, it rejects them before their prefill.
    """
    fleet, slo = split_fleet(workers), SPLIT_SLO
    guess, once = {"guess_tokens": OUTPUT_TOKENS}, {"check_again": False}
    asked = {
        LATE: {"mode": "late"},
        CURRENT: {"mode": "current"},
        PREDICTED: {"mode": "predicted", **guess},
        CURRENT_ONCE: {"mode": "current", **once},
        PREDICTED_ONCE: {"mode": "predicted", **guess, **once},
        TRUE_ONCE: {"mode": "predicted", **once},
    }
    arms = {arm: admitting(fleet, slo, "predicted_load", **parameters) for arm, parameters in asked.items()}
    runs = played(arms, partial(split_traffic, workers, requests=requests), seeds)
    swings = {arm: swings_of(of) for arm, of in runs.items()}
    return [{**one, **_moved(swings[one["arm"]], swings[CURRENT_ONCE])} for one in rows(runs, slo, CURRENT)]


def swings_of(runs: Mapping[int, Run]) -> dict[str, dict[int, float]]:
    """How far the loads swing about their means, and whether against each other, by seed; the first fifth left out."""
    found: dict[str, dict[int, float]] = {"prefill_swing": {}, "decode_swing": {}, "phase": {}}
    for seed, run in runs.items():
        begin_s = 0.2 * max(t.arrival_s for t in run.timelines)
        prefill, decode = loads(run)
        found["prefill_swing"][seed] = swing(prefill, begin_s)
        found["decode_swing"][seed] = swing(decode, begin_s)
        found["phase"][seed] = phase(prefill, decode, begin_s)
    return found


def _moved(mine: Mapping[str, Mapping[int, float]], naive: Mapping[str, Mapping[int, float]]) -> dict:
    """The swings of an arm with their intervals, and their paired differences to the naive arm."""
    found = {name: asdict(mean_interval(list(values.values()))) for name, values in mine.items()}
    if mine is naive:
        return found
    return found | {f"{name}_difference": asdict(compare(mine[name], naive[name]).difference) for name in mine}


def oscillates(found: Rows) -> bool:
    """By the current load the pools swing against each other, further than by prediction; prediction wastes least.

    That the loads are in anti-phase is not enough: any rule that looks at the decode load makes them so.
    """
    arms = by_arm(found)
    wasted = [arms[arm]["aborted"] for arm in (LATE, CURRENT, PREDICTED)]
    calmer = all(arms[PREDICTED_ONCE][f"{name}_difference"]["high"] < 0 for name in ("prefill_swing", "decode_swing"))
    against = arms[CURRENT_ONCE]["phase"]["high"] < 0
    return wasted[0] > wasted[1] > wasted[2] and calmer and against and above(arms[PREDICTED])


CASES = (
    Case(
        "early_rejection_raises_goodput",
        "Past the knee, rejecting what is predicted to miss its SLO raises goodput, whether the service is predicted "
        "or measured; below the knee it costs less than a hundredth.",
        METRIC,
        raised,
        raises,
    ),
    Case(
        "early_rejection_shifts_the_pain",
        "Just past the knee, shedding the lower tier by saturation does not lower the goodput, serves the upper tier "
        "better and the lower tier worse; rejecting what would miss its SLO serves both better.",
        METRIC,
        shifted,
        shifts,
    ),
    Case(
        "early_rejection_oscillates",
        "On a split fleet, rejecting by the current decode load lets the loads of the two pools swing against each "
        "other, further than rejecting by the load at the end of the prefill, which also wastes the fewest prefills.",
        METRIC,
        swinging,
        oscillates,
    ),
)
