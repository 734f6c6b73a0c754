"""The records of several arms as a table for people."""

from collections.abc import Callable, Iterable, Sequence

from helpers.serving.contest import Plan
from helpers.serving.simulate import number

Cell = Callable[[dict], str]


def table(records: Sequence[dict], plan: Plan, first: str = "router") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns, and a row for each record of `helpers.serving.report.report`."""
    columns = _columns(plan)
    return (first, *(name for name, _ in columns)), [(r["arm"], *(cell(r) for _, cell in columns)) for r in records]


def title(what: str, plan: Plan) -> str:
    """What the table shows and what its brackets mean."""
    n = len(plan.seeds)
    if n == 1:
        kind = "one seed, so no interval"
    elif plan.draws.redrawn:
        kind = f"mean [95 % interval] over {n} seeds, differences paired"
    else:
        kind = f"mean (range) over {n} seeds of ticks and ties: a sensitivity, not an interval"
    return f"{what}; {kind}"


def _columns(plan: Plan) -> list[tuple[str, Cell]]:
    shown = [
        ("goodput /s", _over("goodput_per_s")),
        ("less the first", _difference("goodput_per_s")),
        ("attainment", _over("attainment")),
        ("TTFT p50 ms", _over("ttft_s.p50", 1e3)),
        ("p90", _over("ttft_s.p90", 1e3)),
        ("p99", _over("ttft_s.p99", 1e3)),
        ("TPOT p50 ms", _over("tpot_s.p50", 1e3)),
        ("hit rate", _over("hit_rate")),
        ("max/mean load", _over("imbalance")),
        ("preemptions", _over("preemptions")),
        ("stable", lambda r: _true(row["stable"] for row in r["replicates"])),
    ]
    if not plan.draws.redrawn:
        shown.insert(2, ("goodput /s, blocks of time", lambda r: _blocks(r, "goodput_per_s")))
        shown.insert(3, ("less the first, blocks of time", lambda r: _blocks(r, "difference")))
    if plan.target is not None:
        shown += [
            (f"knee /s at {plan.target:g}", _over("knee.rate_per_s")),
            ("less the first", _difference("knee.rate_per_s")),
            ("goodput at the knee /s", _over("knee.goodput_per_s")),
            ("less the first", _difference("knee.goodput_per_s")),
            ("stable at the knee", lambda r: _true(row["knee"]["stable"] for row in r["replicates"])),
        ]
    if plan.decisions:
        unit = "SLOs missed" if plan.objective == "missed" else f"s of {plan.objective.removesuffix('_s').upper()}"
        shown += [
            (f"regret a decision, {unit}", _over("regret.mean")),
            ("of a random choice", _over("regret.random.mean")),
            ("best choices", _over("regret.best_share")),
        ]
    return shown


def _over(name: str, scale: float = 1.0) -> Cell:
    return lambda r: interval_text((r.get("mean") or r.get("sensitivity"))[name], scale)


def _difference(name: str) -> Cell:
    return lambda r: "-" if r["to"] == r["arm"] else interval_text(r["difference"].get(name))


def _blocks(record: dict, name: str) -> str:
    found = record["blocks"]
    if "refused" in found or (name == "difference" and record["to"] == record["arm"]):
        return "-"
    return f"{interval_text(found[name])} N = {found['n']}"


def _true(verdicts: Iterable[bool | None]) -> str:
    """How many runs are shown to be stable: a short trace can end before its queue is felt."""
    told = list(verdicts)
    return f"{sum(one is True for one in told)} of {len(told)}"


def interval_text(found: dict | None, scale: float = 1.0) -> str:
    """`3.03 [2.98, 3.08]` for an interval, `3.03 (2.98 to 3.08)` for a range, a dash for nothing."""
    if found is None:
        return "-"
    mean, *ends = (number(scale * found[k]) for k in ("mean", "low", "high", "min", "max") if k in found)
    if not ends:
        return mean
    return f"{mean} [{ends[0]}, {ends[1]}]" if "low" in found else f"{mean} ({ends[0]} to {ends[1]})"
