"""`hybrid-serving record`."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.bench.engine.report import failed_in
from helpers.bench.record.parts import PARTS
from helpers.bench.record.recorder import record as record_parts
from helpers.bench.record.table import COLUMNS, rows
from helpers.console import command_line, emit_json, emit_table
from helpers.errors import InputError

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("record")(record)


def record(
    more_peers: Annotated[list[str] | None, typer.Argument(metavar="[PEER]...", hidden=True)] = None,
    part: Annotated[list[str] | None, Option(help=f"only this part: {', '.join(PARTS)} (default: all)")] = None,
    preset: Annotated[str, Option(help="the shape of the model; `tiny` on a CPU")] = "llama-8b",
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    peers: Annotated[list[str] | None, Option(help="transformers, and gpt-fast=DIR: what to run beside ours")] = None,
    budget_s: Annotated[
        float, Option(help="seconds for all parts; what would begin later is left for another time")
    ] = 480.0,
    out: Annotated[
        Path | None, Option(help="the folder of the records (default: data/packs); in it one a hardware")
    ] = None,
    again: Annotated[bool, Option("--again", help="measure also what this code has recorded on this machine")] = False,
) -> None:
    """Record this machine for the course: ceilings, engine, calibration, peers, serving, correctness.

    Parts that this very code has recorded on this hardware are not measured again, and what was interrupted goes
    on. Each point is written as it comes; the table of everything comes last. Exits with 1 when a part failed.
    """
    start, command = perf_counter(), command_line()
    if stray := next((word for word in more_peers or () if word in PARTS), None):
        raise InputError(f"record: {stray} is a part; write --part {stray}")
    named = [*(peers or ()), *(more_peers or ())]
    found = record_parts(command, preset, device, part or (), named, budget_s, out, again)
    emit_table(f"{preset} on this machine", COLUMNS, rows(found))
    missed = [
        f"{name}: {section}: {one['name']}"
        for name, record in found.items()
        for section, kept in record["parts"].items()
        for one in kept.get("points", ())
        if one.get("met") is False
    ]
    failed = [f"{name}: {section}" for name, record in found.items() for section in failed_in(record["parts"])]
    line = {"command": command, "wall_s": perf_counter() - start, "seeds": [0], "missed": missed, "failed": failed}
    emit_json(line)
    if failed:
        raise typer.Exit(1)
