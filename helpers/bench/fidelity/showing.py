"""What a command shows of a fidelity."""

from helpers.bench.fidelity import table
from helpers.console import emit_table


def slim(found: dict) -> dict:
    """The record without the conditions of single runs, with the verdicts counted."""
    short = [{k: v for k, v in one.items() if k != "conditions"} for one in found["held_out"]]
    return {**found, "held_out": short, "verdicts": table.verdict_counts(found)}


def show_tables(found: dict) -> None:
    """What was measured of the machine, live beside simulated, the order of policies, checks and controls."""
    emit_table("Measured of this machine", table.TERM_COLUMNS, table.term_rows(found))
    title = f"Live beside simulated, {found['repeats']} live runs each, on {found['hardware_key']}"
    emit_table(title, table.COLUMNS, table.rows(found))
    emit_table("Order of policies, where live runs tell them apart", table.ORDER_COLUMNS, table.order_rows(found))
    tried = [("check", one) for one in found["checks"]] + [("control", one) for one in found["controls"]]
    rows = [(kind, "passed" if one["passed"] else "FAILED", one["name"], one["said"]) for kind, one in tried]
    emit_table("Checks and controls", ("", "result", "what", "what was found"), rows)
    counts, load = table.verdict_counts(found), found["load_average"]
    print(f"# of the figures with a goal: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    print(f"# load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after")
