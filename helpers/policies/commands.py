"""`hybrid-serving policies`: what can be chosen, with source and defaults."""

from time import perf_counter
from typing import Annotated

import typer

from helpers.console import emit_json, emit_table
from helpers.errors import InputError
from helpers.policies.catalogue import KINDS
from helpers.policies.entry import Entry


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    app.command("policies")(policies)


def policies(
    name: Annotated[str | None, typer.Argument(help="One policy, to see what its parameters mean.")] = None,
) -> None:
    """List the routers, admission policies and scalers with their sources and defaults."""
    start = perf_counter()
    listed = [(kind, known, entry) for kind, table in KINDS.items() for known, entry in table.items()]
    if name is not None:
        chosen = [row for row in listed if row[1] == name]
        if not chosen:
            raise InputError(f"policy {name!r} is unknown; `hybrid-serving policies` lists all of them")
        listed = chosen
    records = [describe(*row) for row in listed]
    wall_s = perf_counter() - start
    columns = ("kind", "name", "what it does", "defaults", "source")
    rows = [(r["kind"], r["name"], r["summary"], defaults(r["parameters"]), r["source"]) for r in records]
    emit_table("Policies", columns, rows)
    if name is not None:
        for record in records:
            rows = [(p["name"], shown(p["default"]), p["meaning"]) for p in record["parameters"]]
            emit_table(f"Parameters of {name}", ("parameter", "default", "meaning"), rows)
    emit_json({"command": "policies", "wall_s": wall_s, "seeds": [], "workload_sha256": None} | {"policies": records})


def describe(kind: str, name: str, entry: Entry) -> dict:
    """One policy as a plain record."""
    parameters = [{"name": p.name, "default": p.default, "meaning": p.meaning} for p in entry.parameters]
    return {"kind": kind, "name": name, "summary": entry.summary, "source": entry.source, "parameters": parameters}


def defaults(parameters: list[dict]) -> str:
    """The parameters with their defaults, on one line."""
    return ", ".join(f"{p['name']}={shown(p['default'])}" for p in parameters)


def shown(default: object) -> str:
    """A default as people write it."""
    if default is None:
        return "none"
    if isinstance(default, str):
        return default
    return str(default).lower() if isinstance(default, bool) else f"{default:g}"
