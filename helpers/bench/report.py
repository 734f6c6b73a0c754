"""What came of a target as plain values: every scenario, arm and raw sample, with intervals and verdicts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from helpers.bench import verdicts
from helpers.bench.order import BASELINE
from helpers.bench.runner import Results, by_seed
from helpers.bench.soundness import checks, controls
from helpers.bench.targets.target import Sample, Scenario, changes

NOT_JUDGED = "not judged"  # no effect is, where nothing is timed
Samples = Mapping[str, Mapping[int, Sample]]  # by arm and seed
# Besides the primary statistic: of the others, readers can pair the raw samples themselves.
DIFFERENCES = ("settling_s", "late_s", "overshoot", "oscillation", "wasted_prefill")


def record_of(results: Results) -> dict:
    """Everything about a target and its answer, as plain values; raw samples by seed included."""
    target, plan = results.target, results.plan
    scenarios = [_scenario(results, one) for one in target.scenarios]
    record = {
        "target": target.full_name,
        "question": target.question,
        "hypothesis": target.hypothesis,
        "primary": target.primary.name,
        "margin": target.margin,
        "statistics": [asdict(one) for one in target.statistics],
        "kind": "simulated" if not target.live else "measured" if target.timing else "served without timing",
        "where": target.where,
        "timing": target.timing,
        "commit": results.commit,
        "seeds": list(plan.seeds),
        "requests": plan.requests or target.requests,
        "wall_s": results.wall_s,
        "order_seed": plan.order_seed,
        "order": [task.label for task in results.tasks],
        "workload_sha256": combined_sha256(results),
        "scenarios": scenarios,
        "checks": checks(results),
        "controls": controls(results),
        "failures": list(results.failures),
    }
    if target.extra and target.timing:
        record |= target.extra(record)
    record["sound"] = all(one["passed"] for one in (*record["checks"], *record["controls"])) and not results.failures
    return record


def _scenario(results: Results, scenario: Scenario) -> dict:
    target = results.target
    primary = scenario.primary or target.primary.name
    by_arm = {arm: results.of(scenario.name, arm) for arm in (BASELINE, *scenario.variants)}
    return {
        "name": scenario.name,
        "about": scenario.about,
        "baseline": scenario.baseline_name,
        "primary": primary,
        "upset": asdict(scenario.upset) if scenario.upset else None,
        "workload_sha256": {str(seed): sha256[:16] for seed, sha256 in results.frozen[scenario.name].items()},
        "as_written": as_written(results, scenario),
        "arms": [_arm(results, scenario, primary, arm, by_arm) for arm in by_arm],
        **({"series": series} if (series := _series(by_arm, scenario)) else {}),
    }


def _arm(results: Results, scenario: Scenario, primary: str, arm: str, by_arm: Samples) -> dict:
    target = results.target
    mine, base = by_arm[arm], by_arm[BASELINE]
    names = [one.name for one in target.statistics if any(s.values.get(one.name) is not None for s in mine.values())]
    values = {name: by_seed(mine, name) for name in names}
    found = {
        "arm": scenario.baseline_name if arm == BASELINE else arm,
        "values": {name: _value(values[name], name == primary or name in DIFFERENCES) for name in names},
        "samples": {name: _listed(values[name], results.plan.seeds) for name in names},
    }
    passes = [one.series["passes_us"] for one in mine.values() if len(one.series.get("passes_us", ())) > 1]
    if passes:
        found["passes_us"] = passes
    if arm == BASELINE:
        return found
    found["change"] = " and ".join(changes(scenario.baseline, scenario.variants[arm]))
    if not target.timing:
        return found | {"verdict": NOT_JUDGED, "predicted": None, "as_predicted": None}
    compared = [name for name in names if name == primary or name in DIFFERENCES]
    differences = {name: verdicts.difference(values[name], by_seed(base, name)) for name in compared}
    reference = verdicts.spread(by_seed(base, primary))
    said = verdicts.verdict(differences.get(primary), target.margin * abs(reference["mean"]) if reference else 0.0)
    predicted = scenario.predicted.get(arm)
    return found | {
        "difference": {name: _shortened(one) for name, one in differences.items()},
        "verdict": said,
        "predicted": predicted,
        "as_predicted": None if predicted is None or said == verdicts.NOT_SHOWN else said == predicted,
    }


def _value(values: Mapping[int, float], whole: bool) -> dict | None:
    """The mean over seeds, with its interval for the statistics whose differences are given."""
    found = _shortened(verdicts.spread(values))
    return found if whole or found is None else {"mean": found["mean"]}


def _listed(values: Mapping[int, float], seeds: Sequence[int]) -> list[float | None]:
    """The raw samples in the order of the seeds, None for a seed that has none."""
    return [_short(values[seed]) if seed in values else None for seed in seeds]


def _shortened(found: dict | None) -> dict | None:
    return None if found is None else {key: _short(v) if isinstance(v, float) else v for key, v in found.items()}


def _short(value: float) -> float:
    """Five digits: more than any of these numbers deserves, and a file of moderate size."""
    rounded = float(f"{value:.5g}")
    return int(rounded) if rounded.is_integer() else rounded


def _series(by_arm: Samples, scenario: Scenario) -> dict:
    """Series for figures, averaged over the seeds, by arm; the times are those of the first seed."""
    found: dict = {}
    for arm, samples in by_arm.items():
        kept = [one.series for one in samples.values() if one.series.get("times_s")]
        if kept:
            shortest = min(len(one["times_s"]) for one in kept)
            means = [sum(one["ttft_p95_s"][i] for one in kept) / len(kept) for i in range(shortest)]
            found.setdefault("times_s", kept[0]["times_s"][:shortest])
            name = scenario.baseline_name if arm == BASELINE else arm
            found.setdefault("ttft_p95_s", {})[name] = [round(m, 4) for m in means]
    return found


def combined_sha256(results: Results) -> str:
    """One digest for the workloads of all scenarios and seeds."""
    return hashlib.sha256(json.dumps(results.frozen, sort_keys=True).encode()).hexdigest()


def as_written(results: Results, scenario: Scenario) -> bool | None:
    """Whether seed 0 drew the workload that is written down with the target; None where that was not run."""
    drawn, plan = results.frozen[scenario.name].get(0), results.plan
    written = results.target.frozen.get(scenario.name)
    if not written or drawn is None or plan.requests not in (None, results.target.requests):
        return None
    return drawn.startswith(written)


def summary(record: dict) -> dict:
    """The record without raw samples and series: what the last line of the command has."""
    left_out = ("samples", "passes_us")
    slim = [
        {
            **{k: v for k, v in one.items() if k != "series"},
            "arms": [{k: v for k, v in arm.items() if k not in left_out} for arm in one["arms"]],
        }
        for one in record["scenarios"]
    ]
    return {**record, "scenarios": slim}
