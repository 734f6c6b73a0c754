"""A ladder read rung by rung: each against the one before, on the same draws."""

from itertools import pairwise

from helpers.bench import verdicts


def steps_of(record: dict) -> dict:
    """Of each scenario the paired difference of every rung to the one before it in the primary statistic."""
    found = []
    for scenario in record["scenarios"]:
        name, margin = scenario["primary"], record["margin"]
        values = {arm["arm"]: _by_seed(record, arm["samples"].get(name, ())) for arm in scenario["arms"]}
        names = list(values)
        for before, rung in pairwise(names):
            apart, base = verdicts.difference(values[rung], values[before]), verdicts.spread(values[before])
            said = verdicts.verdict(apart, margin * abs(base["mean"]) if base else 0.0)
            found.append(
                {"scenario": scenario["name"], "rung": rung, "before": before, "difference": apart, "said": said}
            )
    return {"steps": found}


def _by_seed(record: dict, samples) -> dict[int, float]:
    return {seed: one for seed, one in zip(record["seeds"], samples, strict=False) if one is not None}
