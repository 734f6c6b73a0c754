"""`hybrid-serving export`."""

from time import perf_counter
from typing import Annotated

import typer

from helpers.console import command_line, emit_json
from helpers.errors import InputError
from helpers.serving.arms import settings
from helpers.serving.export import dynamo, llm_d, sglang, vllm
from helpers.serving.export.answer import Choice
from helpers.serving.fleet import Fleet, parse_split

Option = typer.Option
SYSTEMS = {"dynamo": dynamo, "sglang": sglang, "llm-d": llm_d, "vllm": vllm}


def register(app: typer.Typer) -> None:
    """Add the command `export`."""
    app.command("export")(export)


def export(
    system: Annotated[str, Option("--for", help=f"the system: {', '.join(SYSTEMS)}")],
    router: Annotated[str, Option(help="a router, see `hybrid-serving policies`")] = "round_robin",
    router_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the router")] = None,
    admission: Annotated[str, Option(help="an admission policy")] = "none",
    admission_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the admission policy")] = None,
    workers: Annotated[int | None, Option(help="how many workers (default 4, or what --split says)")] = None,
    split: Annotated[str | None, Option(help="prefill and decode workers, such as 2P2D")] = None,
    model: Annotated[str, Option(help="a model, see `hybrid-serving models`")] = "llama-3.1-8b",
    hardware: Annotated[str, Option(help="an accelerator, see `hybrid-serving hardware`")] = "h100",
    tp: Annotated[int, Option(help="accelerators a worker (tensor parallel)")] = 1,
    chunk_tokens: Annotated[int, Option(help="the token budget of a step")] = 2048,
    max_batch: Annotated[int, Option(help="the most sequences that run at once on a worker")] = 256,
) -> None:
    """Print the flags and files of a real system for a router, an admission and a split, and what has none."""
    if system not in SYSTEMS:
        raise InputError(f"--for {system!r} is unknown; use one of {', '.join(SYSTEMS)}")
    start = perf_counter()
    count = workers if workers is not None else len(parse_split(split)) if split else 4
    fleet = Fleet(model, hardware, count, split, tp, chunk_tokens, max_batch)
    fleet.kv_bytes()  # refuses a model that does not fit
    given = [
        settings(kind, (name,), texts or ())[name]
        for kind, name, texts in (("router", router, router_set), ("admission", admission, admission_set))
    ]
    found = SYSTEMS[system].export(Choice(router, admission, fleet, *given))
    print("\n".join([f"# MODEL: the path or name of {fleet.served_model.name}", *found.lines()]))
    choice = {"router": {router: given[0]}, "admission": {admission: given[1]}, "fleet": fleet.describe()}
    emit_json({"command": command_line(), "wall_s": perf_counter() - start, "seeds": [], **found.record(), **choice})
