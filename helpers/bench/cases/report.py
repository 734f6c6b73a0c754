"""Cases run and written out: records for programs, cells for people."""

from collections.abc import Sequence

from helpers.bench.cases.case import Case


def ran(case: Case, seeds: Sequence[int]) -> dict:
    """A case with its rows and whether its claim came out."""
    rows = case.run(seeds)
    return {"name": case.name, "claim": case.claim, "metric": case.metric, "holds": case.holds(rows), "rows": rows}


def shown(value: object) -> str:
    """A cell for people: numbers to four digits, an interval as `mean [low, high]`."""
    if isinstance(value, dict) and {"mean", "low", "high"} <= set(value):
        return f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
