"""`hybrid-serving simulate`."""

import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.console import command_line, emit_json, emit_table, progress
from helpers.models import model as model_of
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.serving.simulate import check_writable, record, rows, simulate, slo_of, write_outputs
from helpers.simulator.views import Telemetry
from helpers.workload.generate import GENERATED, GENERATORS, SHIPPED, open_workload
from helpers.workload.hygiene import spread_ticks
from helpers.workload.request import Workload

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add the command `simulate`."""
    app.command("simulate")(simulate_command)


def simulate_command(
    trace: Annotated[str, Option(help="a trace file, a shipped trace or a generator")] = "conversation",
    workers: Annotated[int | None, Option(help="how many workers (default 4, or what --split says)")] = None,
    router: Annotated[str, Option(help="a router, see `hybrid-serving policies`")] = "round_robin",
    model: Annotated[str, Option(help="a model, see `hybrid-serving models`")] = "llama-3.1-8b",
    hardware: Annotated[str, Option(help="an accelerator, see `hybrid-serving hardware`")] = "h100",
    tp: Annotated[int, Option(help="accelerators a worker (tensor parallel)")] = 1,
    admission: Annotated[str, Option(help="an admission policy")] = "none",
    admission_cap: Annotated[int | None, Option(help="the limit of queue_cap, in waiting requests")] = None,
    split: Annotated[str | None, Option(help="prefill and decode workers, such as 2P2D")] = None,
    chunk_tokens: Annotated[int, Option(help="the token budget of a step")] = 2048,
    max_batch: Annotated[int, Option(help="the most sequences that run at once on a worker")] = 256,
    kv_gib: Annotated[float | None, Option(help="KV memory a worker in GiB (default: what the weights leave)")] = None,
    rate_scale: Annotated[float, Option(help="let the requests arrive so many times as fast")] = 1.0,
    spread: Annotated[bool, Option("--spread-ticks", help="spread quantised timestamps over their tick")] = False,
    slo_ttft: Annotated[float, Option(help="the TTFT bound in seconds")] = 2.0,
    slo_tpot: Annotated[float, Option(help="the TPOT bound in seconds")] = 0.05,
    staleness: Annotated[float, Option(help="seconds between telemetry samples (0: live)")] = 0.0,
    routers: Annotated[int, Option(help="front ends that share the arrivals")] = 1,
    warmup: Annotated[float, Option(help="leave earlier arrivals out of the statistics, seconds")] = 0.0,
    seed: Annotated[int, Option(help="the first seed")] = 0,
    seeds: Annotated[int, Option(help="how many seeds, one run each")] = 1,
    max_requests: Annotated[int | None, Option(help="serve only so many requests")] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave out and count rows that cannot be used")] = False,
    json_file: Annotated[Path | None, Option("--json", help="write the JSON record to a file too")] = None,
    pack: Annotated[Path | None, Option(help="write the run of the first seed as a pack")] = None,
    pack_steps: Annotated[bool, Option(help="keep the steps in the pack: larger, but has ITL")] = True,
    trace_log: Annotated[Path | None, Option(help="write every decision of the first seed as JSON lines")] = None,
) -> None:
    """Replay a workload on a simulated cluster and print TTFT, TPOT, goodput and what became of the rest."""
    check_writable(json_file, pack, trace_log)
    count = workers if workers is not None else len(parse_split(split)) if split else 4
    telemetry = Telemetry(period_s=staleness)
    fleet = Fleet(model, hardware, count, split, tp, chunk_tokens, max_batch, kv_gib=kv_gib, telemetry=telemetry)
    slo = slo_of(slo_ttft, slo_tpot)
    redrawn = trace.startswith(GENERATED) or (trace in GENERATORS and trace not in SHIPPED)

    def workload_of(one: int) -> Workload:
        context = model_of(model).max_context
        made, report = open_workload(trace, seed=one, skip_bad=skip_bad, max_context=context, max_requests=max_requests)
        for reason, rows_lost in report.skipped:
            print(f"hybrid-serving: {rows_lost} rows skipped: {reason}", file=sys.stderr)
        made = spread_ticks(made, one) if spread else made
        return made if rate_scale == 1.0 else made.at_rate(rate_scale)

    start = perf_counter()
    workload = workload_of(seed)
    parse_s = perf_counter() - start
    limit = {} if admission_cap is None else {"max_waiting": admission_cap}
    question = Experiment(workload, fleet, router, admission, slo, seed, routers, {}, limit)
    with progress("simulate", len(workload)) as tick:
        made = lambda one: workload if one == seed else workload_of(one)  # noqa: E731
        outcomes = simulate(question, made, seeds, warmup, explain=trace_log is not None, tick=tick)
    line = record(command_line(), outcomes, parse_s, redrawn)
    write_outputs(line, outcomes[0], json_file, pack, trace_log, pack_steps)
    emit_table(f"{router} on {line['workload']}, {len(fleet.roles)} workers", ("figure", "value"), rows(line))
    emit_json(line)
