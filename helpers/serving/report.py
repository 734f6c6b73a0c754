"""What may be said of several arms: spreads, paired differences, intervals over time blocks, one record an arm.

The replicate is the seed of a redrawn workload. On a recorded trace a seed moves only the ticks and the dice of
policies: the spread over seeds is then a range, called a sensitivity, and an interval comes from time blocks of the
first seed, where the trace is long enough for two of them.
"""

from collections.abc import Mapping, Sequence
from math import isclose

from helpers.errors import InputError
from helpers.metrics.stats import BLOCK_FACTOR, block_windows, compare, mean_interval
from helpers.serving.contest import FIGURES, KNEE_FIGURES, REGRET_FIGURES, Plan, Result, figure
from helpers.serving.simulate import record

DIFFERENCES = ("goodput_per_s", "attainment", "hit_rate", *KNEE_FIGURES, "regret.mean")

Values = Mapping[int, float]  # by seed

# Runs that differ less are the same: who looks at a worker moves where its steps are cut, and with it the last digits.
SAME = 1e-9


def spread(values: Values, seeds: int, redrawn: bool) -> dict | None:
    """A figure over seeds: its mean with a 95 % interval, or on a recorded trace with the range.

    One seed has neither; None unless every seed has the figure.
    """
    if not values or len(values) < seeds:
        return None
    mean = sum(values.values()) / len(values)
    if len(values) == 1:
        return {"mean": mean, "n": 1}
    if redrawn:
        interval = mean_interval(list(values.values()))
        return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    return {"mean": mean, "min": min(values.values()), "max": max(values.values()), "n": len(values)}


def difference(arm: Values, reference: Values, seeds: int, redrawn: bool) -> dict | None:
    """The paired difference arm - reference over seeds, as `spread`, with a verdict where there is an interval."""
    if len(arm) < seeds or len(reference) < seeds:
        return None
    arm = {seed: _snapped(value, reference.get(seed)) for seed, value in arm.items()}
    if redrawn and seeds > 1:
        found = compare(arm, reference)
        verdict = {"a higher": "higher", "b higher": "lower"}.get(found.verdict, found.verdict)
        one = found.difference
        return {"mean": one.mean, "low": one.low, "high": one.high, "n": one.n, "verdict": verdict}
    if set(arm) != set(reference):
        raise InputError("the arms were not run on the same seeds; pair each draw with itself")
    return spread({seed: arm[seed] - reference[seed] for seed in arm}, seeds, redrawn)


def _snapped(value: float, to: float | None) -> float:
    return to if to is not None and isclose(value, to, rel_tol=SAME) else value


def over_blocks(arm: Result, reference: Result, warmup_s: float) -> dict:
    """Goodput over time blocks of the first seed: the arm, and its paired difference to the reference, with intervals.

    As many equal blocks as ten times the longest E2E of the two allows, from the warm-up to the last arrival, so that
    none is left over. `refused` says why there is none.
    """
    mine, other = arm.arrivals, reference.arrivals
    longest_s = max(mine.longest_e2e_s, other.longest_e2e_s)
    last_s = max(mine.times_s, default=0.0)
    blocks = int((last_s - warmup_s) / (BLOCK_FACTOR * longest_s)) if longest_s else 0
    block_s = (last_s - warmup_s) / max(blocks, 1)
    try:
        windows = block_windows(warmup_s, last_s, max(block_s, 1e-9), longest_s)
    except InputError as refused:
        return {"refused": str(refused)}
    rates = [
        {w.start_s: sum(ok for t, ok in zip(one.times_s, one.met, strict=True) if t in w) / block_s for w in windows}
        for one in (mine, other)
    ]
    found = compare(*rates, unit="block")
    return {
        "block_s": block_s,
        "n": found.n,
        "goodput_per_s": {name: getattr(found.a, name) for name in ("mean", "low", "high")},
        "difference": {name: getattr(found.difference, name) for name in ("mean", "low", "high")},
    }


def ttft_ratio(arm: Result, reference: Result, redrawn: bool) -> dict:
    """Median TTFT over that of the reference, a geometric mean over seeds; `refused` when a run is past its knee."""
    for one in (arm, reference):
        for o in one.outcomes:
            if o.summary["stable"] is not True:
                return {"refused": f"no TTFT ratio: {one.name} is not shown to be below its knee (seed {o.seed})"}
    a, b = figure(arm, "ttft_s.p50"), figure(reference, "ttft_s.p50")
    if len(a) == 1:
        return {"mean": next(iter(a.values())) / next(iter(b.values())), "n": 1}
    ratio = compare(a, b).ratio
    if ratio is None:
        return {"refused": "no TTFT ratio: a TTFT is 0 in one of the runs"}
    found = {"mean": ratio.mean, "n": ratio.n}
    return found | {"low": ratio.low, "high": ratio.high} if redrawn else found


def report(results: Sequence[Result], plan: Plan, reference: Mapping[str, str] | None = None) -> list[dict]:
    """One record an arm: its policy, every seed, the spread over seeds, and what it is compared with.

    `reference` names the arm that each is compared with, by default the first.
    """
    by_name = {one.name: one for one in results}
    redrawn, seeds = plan.draws.redrawn, len(plan.seeds)
    names = (*FIGURES, *(KNEE_FIGURES if plan.target else ()), *(REGRET_FIGURES if plan.decisions else ()))
    records = []
    for one in results:
        other = by_name.get((reference or {}).get(one.name), results[0])
        record = {
            "arm": one.name,
            "policy": one.outcomes[0].run.provenance.policy,
            "replicates": one.replicates(),
            "mean" if redrawn else "sensitivity": {n: spread(figure(one, n), seeds, redrawn) for n in names},
            "to": other.name,
            "difference": {
                n: difference(figure(one, n), figure(other, n), seeds, redrawn) for n in DIFFERENCES if n in names
            },
            "ttft_p50_ratio": ttft_ratio(one, other, redrawn),
        }
        if not redrawn:
            record["blocks"] = over_blocks(one, other, plan.warmup_s)
        records.append(record)
    return records


def contest_record(
    command: str, results: Sequence[Result], plan: Plan, parse_s: float, reference: Mapping[str, str] | None = None
) -> dict:
    """The JSON line: the first arm under the first seed at the top level, as of one run, and every arm under `arms`."""
    first = results[0].outcomes
    line = record(command, list(first[:1]), parse_s, plan.draws.redrawn)
    line["wall_s"] = sum(o.run.wall_s for one in results for o in one.outcomes)
    line["seeds"], line["warmup_s"] = list(plan.seeds), plan.warmup_s
    line["target"], line["knee_requests"] = plan.target, plan.knee_requests
    line["decisions"], line["objective"] = plan.decisions, plan.objective
    return line | {"arms": report(results, plan, reference)}
