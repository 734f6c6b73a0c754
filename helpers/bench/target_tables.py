"""The answer of a target for people: a table a scenario, and how both sides came to rest after an upset."""

from math import isfinite

Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def cell_text(found: dict | None) -> str:
    """`mean [low, high]` with four digits, a dash where there is nothing."""
    if found is None or not isfinite(found["mean"]):
        return "-"
    return f"{found['mean']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"


def mean_text(found: dict | None) -> str:
    """The mean alone."""
    return "-" if found is None else f"{found['mean']:.3g}"


def said_text(arm: dict) -> str:
    """The verdict, and beside it the prediction where it was another one."""
    if "verdict" not in arm:
        return "baseline"
    if arm["predicted"] is None:
        return arm["verdict"]
    if arm["as_predicted"] is None:
        return f"{arm['verdict']} (predicted {arm['predicted']})"
    return f"{arm['verdict']} ({'as predicted' if arm['as_predicted'] else 'predicted ' + arm['predicted']})"


SHOWN = (
    *("attainment", "ttft_p50_s", "ttft_p90_s", "tpot_p90_s", "hit_rate", "imbalance", "unstable"),
    *("attainment of high", "attainment of low", "attainment of high long", "attainment of low long"),
    *("rejected", "aborted", "wasted_prefill"),
    *("ttft_mean_s", "tpot_mean_s", "itl_p90_s", "longest_gap_s", "exposed_mean_s", "hidden_mean_s", "tokens_per_s"),
)
SHOWN_AFTER_UPSET = ("settling_s", "late_s", "overshoot", "oscillation")


def table_of(scenario: dict) -> Table:
    """Title, columns and rows: the primary statistic with intervals, the verdict, and means of the others."""
    primary = scenario["primary"]
    others = [name for name in SHOWN if any(arm["values"].get(name) for arm in scenario["arms"])]
    columns = ["arm", f"{primary} [95 %]", "difference [95 %]", "verdict", *others]
    rows = [
        [
            arm["arm"],
            cell_text(arm["values"].get(primary)),
            cell_text(arm["difference"].get(primary)) if "difference" in arm else "-",
            said_text(arm),
            *(mean_text(arm["values"].get(name)) for name in others),
        ]
        for arm in scenario["arms"]
    ]
    return f"{scenario['name']}: {scenario['about']}", columns, rows


def upset_table_of(scenario: dict) -> Table:
    """How baseline and variants came to rest after the upset, each with its interval and the paired difference."""
    columns = ["arm"]
    for name in SHOWN_AFTER_UPSET:
        columns += [f"{name} [95 %]", "difference [95 %]"]
    columns += ["settled", "unstable", "peak_s", "swing_period_s"]
    rows = []
    for arm in scenario["arms"]:
        row = [arm["arm"]]
        for name in SHOWN_AFTER_UPSET:
            row += [cell_text(arm["values"].get(name)), cell_text(arm.get("difference", {}).get(name))]
        settled = [one for one in arm["samples"].get("settled", ()) if one is not None]
        periods = [one for one in arm["samples"].get("swing_period_s", ()) if one is not None]
        period = f"{sum(periods) / len(periods):.3g} ({len(periods)} of {len(settled)})" if periods else "-"
        means = (mean_text(arm["values"].get(name)) for name in ("unstable", "peak_s"))
        row += [f"{sum(settled):.0f} of {len(settled)}", *means, period]
        rows.append(row)
    return f"after the upset: {scenario['name']}", columns, rows


def front_table_of(record: dict) -> Table:
    """What each router's decisions cost and are worth; a star where none is both cheaper and better."""
    columns = ["router", "decision_us", "goodput_per_s", "on the front"]
    rows = [
        [one["router"], f"{one['decision_us']:.1f}", f"{one['goodput_per_s']:.3f}", "*" if one["on_front"] else ""]
        for one in record["front"]
    ]
    return "cost and quality of a decision", columns, rows


def ladder_table_of(record: dict) -> Table:
    """What each rung changed against the one before it."""
    columns = ["rung", "against", f"difference in {record['primary']} [95 %]", "verdict"]
    rows = [[one["rung"], one["before"], cell_text(one["difference"]), one["said"]] for one in record["steps"]]
    return "one change a rung", columns, rows
