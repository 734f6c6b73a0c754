"""Checks of what was run, and controls that show that the checks can fail."""

from helpers.bench import verdicts
from helpers.bench.order import BASELINE, IDENTICAL, SLOW, SLOW_FACTOR, Cell
from helpers.bench.runner import Results, by_seed


def _said(name: str, wrong: list[str], fine: str, looked_at: int = 1) -> dict:
    """A check with what it found; one that had nothing to look at has not passed."""
    wrong = wrong or ([] if looked_at else ["there was nothing to look at"])
    return {"name": name, "passed": not wrong, "said": "; ".join(wrong[:3]) if wrong else fine}


def checks(results: Results) -> list[dict]:
    """The verification of the timed runs: each sound, each on the workload of the others, each repeatable."""
    samples, target = results.samples, results.target
    broken = [f"{c.scenario}, {c.arm}, seed {c.seed}: {b}" for c, s in samples.items() for b in s.breaches]
    drawn = {(name, seed): sha256 for name, of in results.frozen.items() for seed, sha256 in of.items()}
    uneven = [
        f"{c.scenario}, {c.arm}, seed {c.seed}: it did not get the frozen draw"
        for c, one in (*samples.items(), *results.again.items())
        if one.workload_sha256 != drawn[c.scenario, c.seed]
    ]
    other, compared = [], 0
    for cell, one in results.again.items():
        first = samples.get(Cell(cell.arm, cell.scenario, cell.seed))
        if first:
            compared += 1
            if first.digests != one.digests:
                other.append(f"{cell.scenario}, {cell.arm}, seed {cell.seed}: another process came to another run")
    asked = sum(len(task.cells) for task in results.tasks if task.label != "repeated")
    missing = [] if len(samples) == asked else [f"{asked - len(samples)} of {asked} runs are missing"]
    logs = f"{len(samples)} event logs: every request once, exact tokens, sound log"
    draws = f"{len(drawn)} workloads by their digest, {len(results.again)} drawn again"
    found = [
        _said("complete", missing, f"{asked} runs"),
        _said("timed runs verified", broken, logs, len(samples)),
        _said("frozen draws in all arms", uneven, draws, len(samples)),
    ]
    if target.live:
        found.append(answers_alike(results))
    else:
        found.append(_said("repeatable in another process", other, f"{compared} runs to the last bit", compared))
    if results.plan.trace:
        wrong = [f"{one}: the traced run decided otherwise" for one in results.retraced]
        traced = len(results.traces)
        found.append(_said("traced runs decide as the measured ones", wrong, f"{traced} runs", traced))
    return found


def answers_alike(results: Results) -> dict:
    """Live arms answer as the baseline does on the same draw, as far as the target asks for it."""
    allowed = 1.0 - results.target.least_equal
    other = compared = 0
    for cell, one in results.samples.items():
        base = results.samples.get(Cell(BASELINE, cell.scenario, cell.seed))
        if base and cell.arm != BASELINE and base.series.get("answers"):
            mine, theirs = one.series.get("answers", ()), base.series["answers"]
            compared += len(theirs)
            other += sum(a != b for a, b in zip(mine, theirs, strict=False)) + abs(len(theirs) - len(mine))
    wrong = [f"{other} of {compared} answers are others"] if compared and other > allowed * compared else []
    return _said("answers alike in all arms", wrong, f"{compared - other} of {compared} answers equal", compared)


def controls(results: Results) -> list[dict]:
    """What must come out if this harness can tell anything: nothing where nothing is, and the planted faults."""
    found = _effects(results) if results.target.timing else []
    missed = (
        ["they were not planted"] if results.unnoticed is None else [f"not noticed: {one}" for one in results.unnoticed]
    )
    what = "damaged KV is noticed" if results.target.live else "damaged event logs are rejected"
    return [*found, _said(what, missed, "all planted faults noticed")]


def _effects(results: Results) -> list[dict]:
    """No effect is found where there is none, and one where it was planted."""
    target = results.target
    base = by_seed(results.of(target.control, BASELINE), target.primary.name)
    reference = verdicts.spread(base)
    margin = target.margin * abs(reference["mean"]) if reference else 0.0
    worse = verdicts.HIGHER if target.primary.better == "lower" else verdicts.LOWER
    found = []
    for arm, wanted, what in (
        (IDENTICAL, verdicts.NO_EFFECT, "a variant that is the baseline"),
        (SLOW, worse, target.planted_about or f"the baseline on workers {SLOW_FACTOR:g} times as slow"),
    ):
        samples = results.of(target.control, arm)
        apart = verdicts.difference(by_seed(samples, target.primary.name), base)
        said = verdicts.verdict(apart, margin)
        fine = said == wanted or (target.live and arm == IDENTICAL and said == verdicts.NOT_SHOWN)
        wrong = [] if fine else [f"{what} is {said!r}, and must be {wanted!r}"]
        if arm == IDENTICAL:
            same = all(
                one.digests == results.of(target.control, BASELINE)[seed].digests
                for seed, one in samples.items()
                if seed in base
            )
            wrong += [] if same else ["it came to other timelines than the baseline"]
        shown = "" if apart is None else f" ({apart['mean']:.4g} [{apart['low']:.4g}, {apart['high']:.4g}])"
        found.append(_said(f"{what}: {wanted}", wrong, f"{said}{shown}"))
    return found
