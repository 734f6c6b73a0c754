"""`hybrid-serving fidelity`."""

from pathlib import Path
from typing import Annotated

import typer

from helpers.bench.fidelity.calibrating import slices_for
from helpers.bench.fidelity.plan import HELD_OUT, Slice, refuse_what_cannot_be_timed
from helpers.bench.fidelity.recorder import record as record_plan
from helpers.bench.fidelity.showing import show_tables, slim
from helpers.checkout import commit
from helpers.console import command_line, emit_json, progress
from helpers.errors import InputError
from helpers.hardware import hardware_key, probe_cpu
from helpers.outputs import check_writable, write_json
from helpers.paths import ROOT

Option = typer.Option
NAME = "fidelity.json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fidelity")(fidelity)


def fidelity(
    only: Annotated[
        list[str] | None, Option(help=f"a configuration (default: all): {', '.join(s.name for s in HELD_OUT)}")
    ] = None,
    fleet: Annotated[list[str] | None, Option(help="only configurations of this fleet: 1, 2 or 1P1D")] = None,
    repeats: Annotated[int, Option(help="how often each configuration is served")] = 5,
    requests: Annotated[int | None, Option(help="at most so many requests a configuration, to try it out")] = None,
    order_seed: Annotated[int, Option(help="what the order of the live runs is drawn from")] = 0,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file")] = None,
    pack: Annotated[bool, Option("--pack", help=f"write it to data/packs/<this CPU>/{NAME}")] = False,
) -> None:
    """Calibrate on a slice of live traffic, predict other loads, routers and a split, and serve them live.

    Workers are processes on this CPU, one thread and one core each. A goal that is missed is shown as missed; the
    command exits with 1 when a check or a control fails.
    """
    if pack:
        json_file = pack_place(commit(), hardware_key(probe_cpu()))
    check_writable(json_file)
    plan = chosen(only or (), fleet or ())
    declare(plan, repeats)
    steps = 1 + repeats * (len(plan) + len(slices_for(plan)))
    with progress("fidelity", steps) as tick:
        found = record_plan(plan, command_line(), repeats, order_seed, requests, tick=tick)
    write_json(json_file, found)
    show(found)
    if not found["sound"]:
        raise typer.Exit(1)


def chosen(names: list[str] | tuple[str, ...], fleets: list[str] | tuple[str, ...]) -> list[Slice]:
    """The configurations of these names and fleets; raises `InputError` for what is not there or cannot be timed."""
    refuse_what_cannot_be_timed(list(fleets))
    known = {one.name: one for one in HELD_OUT}
    for name in names:
        if name not in known:
            raise InputError(f"configuration {name!r} is none of the plan; take one of {', '.join(known)}")
    found = [one for one in HELD_OUT if (not names or one.name in names) and (not fleets or one.fleet in fleets)]
    if not found:
        raise InputError("no configuration of the plan is of these names and fleets; leave one of the two out")
    refuse_what_cannot_be_timed([one.fleet for one in found])
    return found


def pack_place(commit: str, hardware_key: str) -> Path:
    """Where a record belongs in this repository; its folder is made. Raises `InputError` for code that nobody knows."""
    if commit == "unknown":
        raise InputError("the commit is unknown; run from a checkout, so that the record can be made again")
    folder = ROOT / "data" / "packs" / hardware_key
    folder.mkdir(parents=True, exist_ok=True)
    return folder / NAME


def declare(plan: list[Slice], repeats: int) -> None:
    """What will be served, before anything is."""
    print(f"# {len(plan)} configurations that nothing is fitted to, {repeats} live runs each, in random order")
    for one in plan:
        what = f"fleet {one.fleet}, {one.router}, load {one.load:g}, {one.requests} requests"
        print(f"# {one.name}: {what}, {one.sha256()[:16]}")


def show(found: dict) -> None:
    """The tables, and the last line."""
    show_tables(found)
    emit_json(slim(found))
