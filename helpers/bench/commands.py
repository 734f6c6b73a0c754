"""`hybrid-serving bench …`."""

from itertools import count
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.bench import fleet_sizes as sizes_bench
from helpers.bench import mooncake_fig5 as fig5
from helpers.bench import pages as page_bench
from helpers.bench import simulator_speed as speed
from helpers.bench import splits as splits_bench
from helpers.bench.cases.registry import chosen
from helpers.bench.cases.report import ran, shown
from helpers.bench.engine.report import COLUMNS as POINT_COLUMNS
from helpers.bench.engine.speed import PARTS as ENGINE_PARTS
from helpers.bench.engine.speed import bench_engine, key_of, pack_path
from helpers.bench.routing_decisions import conversation_like, decisions_per_second
from helpers.checkout import commit
from helpers.console import command_line, emit_json, emit_table, progress
from helpers.cost.calibration import read_calibration
from helpers.errors import InputError
from helpers.outputs import check_writable, write_json, write_text

Option = typer.Option


def register(app: typer.Typer) -> None:
    """Add the commands of `bench`."""
    bench = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
    bench.command("simulator")(simulator)
    bench.command("routing-decisions")(routing_decisions)
    bench.command("mooncake-fig5")(mooncake_fig5)
    bench.command("fleet-sizes")(fleet_sizes)
    bench.command("splits")(splits)
    bench.command("cases")(cases)
    bench.command("engine")(engine)
    bench.command("pages")(pages)
    app.add_typer(bench, name="bench")


def simulator(
    part: Annotated[
        list[str] | None, Option(help=f"only this part: {speed.NAMES} (default: all but the last two)")
    ] = None,
    trace: Annotated[
        str | None, Option(help="the hour to use (default: the real one in TRACES_DIR, else ours)")
    ] = None,
    repeats: Annotated[int, Option(help="how often each short part is run")] = 5,
    requests: Annotated[int, Option(help="how many requests the streamed parts get")] = 1_000_000,
) -> None:
    """Simulated requests a second: the conversation hour, 10,000 equal requests, a million on 1,024 workers."""
    if repeats < 1 or requests < 1:
        raise InputError(f"bench simulator: {repeats} repeats of {requests} requests; give 1 or more of each")
    parts = speed.named(part or ())
    if len(parts) == 1:
        records = [speed.measure(parts[0], trace, repeats, requests)]
    else:
        records = []
        with progress("bench simulator", len(parts)) as tick:
            for i, one in enumerate(parts):
                records.append(speed.in_own_process(one, trace, repeats, requests))
                tick(i + 1)
    emit_table("Simulator speed", COLUMNS, map(_row, records))
    wall_s = sum(sum(r["wall_s_all"]) for r in records)
    emit_json({"command": command_line(), "wall_s": wall_s, "seeds": [0], "parts": records})


COLUMNS = (
    "part",
    "workload",
    "requests",
    "wall s",
    "min",
    "max",
    "N",
    "requests/s",
    "peak GB",
    "x step by step",
    "met",
)


def _row(r: dict) -> tuple:
    walls = r["wall_s_all"]
    peer = f"{r['peer']['ratio']:.1f}" if "peer" in r else "-"
    return (
        *(r["part"], r["workload"], r["requests"], f"{r['wall_s']:.3f}", f"{min(walls):.3f}", f"{max(walls):.3f}"),
        *(len(walls), f"{r['requests_per_s']:.0f}", f"{r['peak_gb']:.2f}", peer, r["met"]),
    )


def routing_decisions(
    router: Annotated[list[str] | None, Option(help="routers to time (default: the two prefix routers)")] = None,
    workers: Annotated[list[int] | None, Option(help="fleet sizes (default: 64 and 1024)")] = None,
    requests: Annotated[int, Option(help="decisions to make")] = 20_000,
) -> None:
    """Decisions a second on conversation-like prompts, the upkeep of the prefix index included."""
    if requests < 1:
        raise InputError(f"bench routing-decisions: {requests} requests; give 1 or more")
    prompts = conversation_like(requests)
    rates = [
        decisions_per_second(name, count, prompts)
        for name in router or ("prefix_approx", "prefix_exact")
        for count in workers or (64, 1024)
    ]
    columns = ("router", "workers", "decisions", "events", "decisions/s", "blocks a prompt", "reused share")
    rows = [
        (
            *(r.router, r.workers, r.decisions, r.events),
            f"{r.per_s:.0f}",
            f"{r.blocks_mean:.1f}",
            f"{r.reused_share:.2f}",
        )
        for r in rates
    ]
    emit_table("Routing decisions", columns, rows)
    record = [{"router": r.router, "workers": r.workers, "per_s": r.per_s, "wall_s": r.wall_s} for r in rates]
    wall_s = sum(r.wall_s for r in rates)
    emit_json({"command": command_line(), "wall_s": wall_s, "seeds": [0], "rates": record})


def mooncake_fig5(
    trace: Annotated[str, Option(help="the Mooncake conversation trace")] = "mooncake_conversation",
    seeds: Annotated[int, Option(help="how many seeds, from 0 on")] = 3,
    study: Annotated[bool, Option("--study", help="vary load, cache, links, split and efficiencies too")] = False,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Mean TTFT of four ways to choose the prefill node, beside figure 5 of the Mooncake paper (FAST'25)."""
    check_writable(json_file)
    start = perf_counter()
    with progress("bench mooncake-fig5", fig5.runs(seeds, study)) as tick:
        done = count(1)
        found = fig5.mooncake_fig5(trace, seeds, study, tick=lambda: tick(next(done)))
    line = {"command": command_line(), "wall_s": perf_counter() - start, **found}
    write_json(json_file, line)
    columns = ("varied", "set-up", "arm", "mean TTFT s", "lowest seed", "highest seed", "to global", "paper s")
    emit_table("Mooncake FAST'25, figure 5: simulated beside published", columns, map(_fig5_row, found["rows"]))
    emit_json(line)


def _fig5_row(r: dict) -> tuple:
    paper = "-" if r["paper_ttft_s"] is None else r["paper_ttft_s"]
    ratio = "-" if r["ratio"] is None else f"{r['ratio']:.2f}"
    seconds = (f"{r[name]:.2f}" for name in ("ttft_s", "low_s", "high_s"))
    return (r["varied"], r["label"], r["arm"], *seconds, ratio, paper)


def fleet_sizes(
    workers: Annotated[list[int] | None, Option(help="fleet sizes (default: 4, 16 and 64)")] = None,
    router: Annotated[list[str] | None, Option(help=f"routers (default: {', '.join(sizes_bench.ROUTERS)})")] = None,
    seeds: Annotated[int, Option(help="how many seeds, from 0 on; each is one draw for all routers")] = 5,
    duration_s: Annotated[float, Option(help="seconds of traffic, the first third not counted")] = 240.0,
    requests: Annotated[int, Option(help="requests of a draw at least, for which small fleets need longer")] = 3072,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Goodput at one rate a worker, and the knee, of several routers on small and large fleets."""
    check_writable(json_file)
    if seeds < 2:
        raise InputError(f"bench fleet-sizes: {seeds} seeds give no interval; use 2 or more")
    if not 0 < duration_s < inf or requests < 1:
        raise InputError(f"bench fleet-sizes: {requests} requests or {duration_s:g} s of traffic; give more than none")
    named, counts = tuple(router or sizes_bench.ROUTERS), tuple(workers or sizes_bench.SIZES)
    setup = sizes_bench.Setup(duration_s=duration_s, warmup_s=duration_s / 3, requests=requests)
    start = perf_counter()
    with progress("bench fleet-sizes", seeds * len(named) * len(counts)) as tick:
        done = count(1)
        found = sizes_bench.fleet_sizes(counts, named, range(seeds), setup, lambda: tick(next(done)))
    line = {"command": command_line(), "wall_s": perf_counter() - start, **found}
    write_json(json_file, line)
    columns = list(found["rows"][0])
    emit_table("Routers by fleet size", columns, ([shown(row[key]) for key in columns] for row in found["rows"]))
    emit_json(line)


def splits(
    calibration: Annotated[Path, Option(help="whose steps: what `calibrate --json` or `record` wrote of a machine")],
    steps: Annotated[
        str | None, Option(help="the steps its cost was fitted to, served or designed (default: served, if recorded)")
    ] = None,
    seeds: Annotated[int, Option(help="how many seeds, from 0 on; each is one draw for all arms")] = 8,
    requests: Annotated[int, Option(help="requests of a draw, the first fifth not counted")] = splits_bench.REQUESTS,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Knees of split and of co-located fleets on equal GPUs, and what routing, split and chunk size do together."""
    check_writable(json_file)
    if seeds < 2:
        raise InputError(f"bench splits: {seeds} seeds give no interval; use 2 or more")
    costs = read_calibration(calibration, steps)
    start = perf_counter()
    with progress("bench splits", seeds * sum(len(one.arms) for one in splits_bench.QUESTIONS)) as tick:
        done = count(1)
        found = splits_bench.splits(costs, range(seeds), requests=requests, tick=lambda: tick(next(done)))
    line = {"command": command_line(), "wall_s": perf_counter() - start, **found}
    write_json(json_file, line)
    columns = ("question", "arm", "TPOT s", "knee, requests/s and GPU", "low", "high")
    rows = [
        (one["name"], row["arm"], row["tpot_s"], *(f"{row['knee'][end]:.2f}" if row["knee"] else "-" for end in ENDS))
        for one in found["questions"]
        for row in one["rows"]
    ]
    emit_table(f"Prefill and decode apart, or together (simulated, {costs.steps} steps of {costs.file})", columns, rows)
    emit_json(line)


ENDS = ("mean", "low", "high")


def engine(
    more_peers: Annotated[list[str] | None, typer.Argument(metavar="[PEER]...", hidden=True)] = None,
    preset: Annotated[str, Option(help="the shape of the model; `tiny` on a CPU")] = "llama-8b",
    device: Annotated[str, Option(help="auto, cpu or cuda")] = "auto",
    peers: Annotated[list[str] | None, Option(help="transformers, and gpt-fast=DIR: what to run beside ours")] = None,
    part: Annotated[list[str] | None, Option(help=f"only this part: {', '.join(ENGINE_PARTS)}")] = None,
    check: Annotated[bool, Option("--check", help="first hold kernels and models against float64")] = False,
    json_file: Annotated[Path | None, Option("--json", help="write the record here after each point")] = None,
    pack: Annotated[bool, Option("--pack", help="write the record to data/packs/<hardware_key>/ at the end")] = False,
    budget_s: Annotated[float, Option(help="seconds for all parts; what would begin later is skipped")] = 480.0,
) -> None:
    """Decode, prefill and serving speed of the engine on this device, with floors, targets and peers.

    Exits with 1 when a part failed.
    """
    if pack:
        place = pack_path(key_of(device), preset)
    check_writable(json_file, place if pack else None)
    named = [*(peers or ()), *(more_peers or ())]
    report = bench_engine(preset, device, named, part or (), check, json_file, budget_s, command=command_line())
    if pack:
        write_text(place, report.text())
    emit_table(f"Engine speed: {preset} on {report.head['device']}", POINT_COLUMNS, report.rows())
    failed = report.failed()
    emit_json({"seeds": [0], "missed": report.missed(), "failed": failed, **report.summary()})
    if failed:
        raise typer.Exit(1)


def pages(
    book: Annotated[Path, Option(help="the folder of the built pages")] = Path("_build/html"),
    loads: Annotated[int, Option(help="how often the page is opened with an empty cache")] = 5,
    changes: Annotated[int, Option(help="how often a control is moved, over all loads")] = 40,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Waiting times of a live page in headless Chromium: first paint, weight, start of Python, redraw.

    Exits with 1 when a budget is missed.
    """
    check_writable(json_file)
    if loads < 1 or changes < loads:
        raise InputError(f"bench pages: {loads} loads and {changes} changes; give 1 or more, and as many changes")
    with progress("bench pages", loads) as tick:
        found = page_bench.measure_pages(book, loads, changes, tick)
    line = {"command": command_line(), "kind": "measured", "commit": commit(), "seeds": [], **found}
    write_json(json_file, line)
    rows = [
        (
            *(name, m["of"], *(f"{m[key]:.4g}" for key in ("judged", "budget", "median", "min", "max")), m["n"]),
            *("-" if m["cpu_s"] is None else f"{m['cpu_s']:.3f}", m["met"]),
        )
        for name, m in found["measures"].items()
    ]
    columns = ("measure", "judged by", "value", "budget", "median", "min", "max", "N", "processor s", "met")
    emit_table(f"A live page: {found['page']}", columns, rows)
    emit_json(line)
    if not all(m["met"] for m in found["measures"].values()):
        raise typer.Exit(1)


def cases(
    name: Annotated[list[str] | None, typer.Argument(help="which cases (default: all)")] = None,
    seeds: Annotated[int, Option(help="how many seeds, from 0 on; each is one draw for all arms")] = 10,
    json_file: Annotated[Path | None, Option("--json", help="write the record to a file too")] = None,
) -> None:
    """Where longest-prefix collapses, where round robin wins, what early rejection does to whom, what scaling costs.

    Exits with 1 when a claim does not come out.
    """
    check_writable(json_file)
    if seeds < 2:
        raise InputError(f"bench cases: {seeds} seeds give no interval; use 2 or more")
    start, records = perf_counter(), []
    found = chosen(name)
    with progress("bench cases", len(found)) as tick:
        for case in found:
            records.append(ran(case, range(seeds)))
            tick(len(records))
    line = {
        "command": command_line(),
        "wall_s": perf_counter() - start,
        "kind": "simulated",
        "commit": commit(),
        "seeds": list(range(seeds)),
        "cases": records,
    }
    write_json(json_file, line)
    for record in records:
        columns = list(dict.fromkeys(key for row in record["rows"] for key in row))
        verdict = "holds" if record["holds"] else "DOES NOT HOLD"
        emit_table(
            f"{record['name']}: {record['claim']} ({verdict})",
            columns,
            ([shown(row.get(key)) for key in columns] for row in record["rows"]),
        )
    emit_json(line)
    if not all(record["holds"] for record in records):
        raise typer.Exit(1)
