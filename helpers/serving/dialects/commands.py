"""`hybrid-serving dialects`."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.console import command_line, emit_json, emit_table
from helpers.errors import InputError
from helpers.metrics.dialects import DIALECTS
from helpers.metrics.dialects.client import ON_TIME, Clock, knows_tokens
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack
from helpers.serving.run import Run
from helpers.serving.simulate import bounds, slo_of
from helpers.workload.clients import closed_loop
from helpers.workload.generate import open_workload

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add the command `dialects`."""
    app.command("dialects")(dialects)


def dialects(
    pack: Annotated[Path | None, typer.Argument(help="a recorded run; without it, one is simulated")] = None,
    trace: Annotated[str, Option(help="simulated: a trace file, a shipped trace or a generator")] = "conversation",
    workers: Annotated[int, Option(help="simulated: how many workers")] = 4,
    router: Annotated[str, Option(help="simulated: a router, see `hybrid-serving policies`")] = "round_robin",
    clients: Annotated[int | None, Option(help="simulated: the most requests that the client has under way")] = None,
    max_requests: Annotated[int | None, Option(help="simulated: serve only so many requests")] = None,
    rate_scale: Annotated[float, Option(help="simulated: let requests arrive so many times as fast")] = 1.0,
    seed: Annotated[int, Option(help="simulated: the seed")] = 0,
    slo_ttft: Annotated[float, Option(help="the TTFT bound in seconds")] = 2.0,
    slo_tpot: Annotated[float, Option(help="the TPOT bound in seconds")] = 0.05,
) -> None:
    """Report one run as vLLM, AIPerf, guidellm, MLPerf LoadGen and Mooncake would."""
    slo = slo_of(slo_ttft, slo_tpot)
    clock = ON_TIME
    if pack is not None:
        if clients is not None:
            raise InputError("dialects: a recorded run had its own client; leave out --clients, or the pack")
        run = read_pack(pack)
    else:
        run, clock = _simulated(trace, workers, router, clients, max_requests, rate_scale, seed)
    start = perf_counter()
    found = {name: tool.report(run.log, slo, clock) for name, tool in DIALECTS.items()}
    wall_s = perf_counter() - start
    made = run.provenance
    title = f"{made.workload}, {len(run.timelines)} requests ({made.kind}), {bounds(slo)}"
    rows = [(name, *row) for name, tool in DIALECTS.items() for row in _rows(found[name], tool.METRICS)]
    emit_table(title, ("tool", "metric", "value", "what it is"), rows)
    if not knows_tokens(run.log):
        print("The run keeps no steps, so that gaps between tokens are not known: `simulate --pack` keeps them.")
    emit_json(
        {
            "command": command_line(),
            "wall_s": wall_s,
            "seeds": list(made.seeds),
            "workload_sha256": made.workload_sha256,
            "commit": made.commit,
            "kind": made.kind,
            "workload": made.workload,
            "requests": len(run.timelines),
            "slo": {"ttft_s": slo_ttft, "tpot_s": slo_tpot},
            "dialects": found,
        }
    )


def _simulated(
    trace: str, workers: int, router: str, clients: int | None, requests: int | None, rate_scale: float, seed: int
) -> tuple[Run, Clock]:
    """A run for the purpose, and the schedule of its client."""
    fleet = Fleet(workers=workers)
    context = fleet.served_model.max_context
    workload, _ = open_workload(trace, seed=seed, max_context=context, max_requests=requests)
    workload = workload if rate_scale == 1.0 else workload.at_rate(rate_scale)
    sent = workload if clients is None else closed_loop(workload, clients)
    run = Experiment(sent, fleet, router, seed=seed).run()
    made = replace(run.provenance, command=command_line())
    return replace(run, provenance=made), Clock(due_s={r.id: r.arrival_s for r in workload})


def _rows(found: dict, meanings: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(metric, _shown(found[metric]), meaning) for metric, meaning in meanings.items()]


def _shown(value: float | bool | str | None) -> str:
    """A value for people; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
