"""`hybrid-serving bench exactness` and `hybrid-serving bench faults`: what a live cluster on this CPU must show."""

import os
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.bench.cluster import exactness as exact
from helpers.bench.cluster import faults as failing
from helpers.bench.fidelity.recorder import about
from helpers.console import command_line, emit_json, emit_table, progress
from helpers.outputs import check_writable, write_json

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add the commands to the group `bench`."""
    bench = next(group.typer_instance for group in app.registered_groups if group.name == "bench")
    bench.command("exactness")(exactness)
    bench.command("faults")(faults)


def exactness(
    split: Annotated[
        list[str] | None, Option(help=f"a split such as 2P2D (default: {', '.join(exact.SPLITS)})")
    ] = None,
    mover: Annotated[list[str] | None, Option(help=f"a mover of KV (default: {', '.join(exact.MOVERS)})")] = None,
    requests: Annotated[int, Option(help="how many requests")] = 8,
    model: Annotated[str, Option(help="a preset, or a model that ships")] = "tiny",
    device: Annotated[str, Option(help="cpu or cuda")] = "cpu",
    losses: Annotated[bool, Option(help="also kill a worker of four on the way")] = True,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Compare split runs with whole ones: pages by digest, logits, tokens; with planted errors, and after a loss."""
    check_writable(json_file)
    start, began = perf_counter(), os.getloadavg()
    arms = exact.arms(tuple(split or exact.SPLITS), tuple(mover or exact.MOVERS), losses)
    with progress("bench exactness", len(arms)) as tick:
        done: list[exact.Verdict] = []
        exact.check(arms, requests, model, device, lambda verdict: tick(len(done)) or done.append(verdict))
    columns = ("arm", "hand-offs", "pages checked", "wrong", "logits compared", "largest error", "tokens equal", "")
    emit_table("Split runs beside whole ones", columns, map(_exact_row, done))
    asked = exact.workload(requests)
    told = {"requests": requests, "model": model, "device": device, "bound": exact.BOUND}
    told["arms"] = [one.record() for one in done]
    _say({"workload_sha256": asked.sha256, **told}, start, began, json_file)
    if not all(one.as_wanted for one in done):
        raise typer.Exit(1)


def _say(found: dict, start_s: float, began: tuple[float, ...], json_file: Path | None) -> None:
    """The record with where, when and of which code it was made: as a file, and as the last line."""
    wall_s = perf_counter() - start_s
    record = {"kind": "measured", **about(command_line(), (began, os.getloadavg())), "wall_s": wall_s, "seeds": [0]}
    write_json(json_file, {**record, **found})
    emit_json({**record, **found})


def _exact_row(v: exact.Verdict) -> tuple:
    said = ("caught" if v.arm.tamper else "same") if v.as_wanted else "MISSED" if v.arm.tamper else "DIFFERS"
    return (
        *(v.arm.name, v.hand_offs, v.pages_checked, v.pages_wrong, v.logits_compared),
        *(f"{v.logits_error:.1e}", f"{v.tokens_equal} of {v.requests}", said),
    )


def faults(
    fault: Annotated[list[str] | None, Option(help="only cases with these words in their names")] = None,
    requests: Annotated[int, Option(help="how many requests are sent, one each 30 ms")] = 40,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Let workers, links, memory and clients fail under load, and count what becomes of the requests."""
    check_writable(json_file)
    start, began = perf_counter(), os.getloadavg()
    cases = failing.named(fault)
    with progress("bench faults", len(cases)) as tick:
        done: list[failing.Outcome] = []
        failing.run_cases(cases, requests, lambda outcome: tick(len(done)) or done.append(outcome))
    columns = (
        *("fault", "split", "sent", "finished", "failed", "lost", "twice", "rerouted", "preempted"),
        *("tokens ignored", "right answers", "KV peak", "TTFT p90 s", "transfer p90 s", "reasons"),
    )
    emit_table("Requests under faults", columns, map(_fault_row, done))
    told = {"requests": requests, "model": "tiny", "cases": [one.record() for one in done]}
    _say({"workload_sha256": failing.load(requests).sha256, **told}, start, began, json_file)
    if not all(one.sound for one in done):
        raise typer.Exit(1)


def _fault_row(o: failing.Outcome) -> tuple:
    seconds = ("-" if s is None else f"{s:.3f}" for s in (o.ttft_p90_s, o.transfer_p90_s))
    return (
        *(o.case, o.split, o.sent, o.finished, o.failed, o.lost, o.twice, o.rerouted, o.preemptions),
        *(o.ignored_tokens, f"{o.same} of {o.finished}", f"{o.kv_peak_share:.0%}", *seconds),
        "; ".join(f"{count}: {reason}" for reason, count in o.reasons.items()),
    )
