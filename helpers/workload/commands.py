"""`hybrid-serving trace`: describe, fetch and generate request traces."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.console import emit_json, emit_table
from helpers.errors import InputError
from helpers.outputs import check_writable, write_json
from helpers.workload.fetch import RAW_URL, SOURCES, fetch, source_of
from helpers.workload.generate import GENERATORS, generate, knobs_of, open_workload
from helpers.workload.hygiene import Hygiene, Summary, describe, quantise, spread_ticks
from helpers.workload.request import Workload
from helpers.workload.traces import LoadReport, load, save

KNOB = "A knob of the generator, such as prompt_tokens=lognormal:6000:0.5 (median, sigma); a wrong name lists all."


def register(app: typer.Typer) -> None:
    """Add the sub-application `trace`."""
    trace = typer.Typer(no_args_is_help=True, help="Describe, fetch and generate request traces.")
    trace.command("describe")(describe_trace)
    trace.command("fetch")(fetch_trace)
    trace.command("generate")(generate_trace)
    app.add_typer(trace, name="trace")


def describe_trace(
    file: Annotated[str, typer.Argument(help="A trace file, a shipped or fetched trace, or generated:NAME.")],
    format: Annotated[str, typer.Option(help="auto, mooncake, azure, burstgpt, own-csv or own-jsonl.")] = "auto",
    spread: Annotated[
        bool, typer.Option("--spread-ticks", help="Spread quantised timestamps uniformly over their tick first.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the spread, or of a generator.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count rows that cannot be used.")] = False,
    max_context: Annotated[int | None, typer.Option(help="Refuse prompt + output beyond so many tokens.")] = None,
    max_requests: Annotated[int | None, typer.Option(help="Read only so many requests.")] = None,
    block_tokens: Annotated[int, typer.Option(help="Tokens in a prefix block.")] = 512,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the full report here as JSON.")] = None,
) -> None:
    """Statistics of a trace, and what is wrong with it."""
    check_writable(json_file)
    start = perf_counter()
    workload, report = open_workload(
        file,
        seed=seed,
        format=format,
        skip_bad=skip_bad,
        max_context=max_context,
        max_requests=max_requests,
        block_tokens=block_tokens,
    )
    parse_s = perf_counter() - start
    if spread:
        workload = spread_ticks(workload, seed)
    start = perf_counter()
    hygiene = describe(workload)
    wall_s = perf_counter() - start
    write_json(json_file, {"load": asdict(report), "hygiene": asdict(hygiene)})
    emit_table(f"{hygiene.name}: lengths in tokens", ("", "p50", "p90", "p99", "max", "mean"), length_rows(hygiene))
    emit_table(f"{hygiene.name}: arrivals and reuse", ("statistic", "value"), report_rows(hygiene))
    notes = [*_load_notes(report), *(f"repair: {x}" for x in hygiene.repairs), *hygiene.findings]
    emit_table("Findings", ("finding",), [(note,) for note in notes or ["none"]])
    emit_json(
        _record("trace describe", workload, wall_s, [seed] if spread or report.format.startswith("gen") else [])
        | {"parse_s": parse_s, "format": report.format, "skipped": dict(report.skipped)}
        | {"out_of_order": report.out_of_order, "repairs": list(hygiene.repairs), "findings": list(hygiene.findings)}
    )


def fetch_trace(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(SOURCES)}.")],
    to: Annotated[Path | None, typer.Option(help="Folder to keep it in; the platform's cache unless given.")] = None,
    mirror: Annotated[str, typer.Option(help="Address that serves owner/repository/commit/path.")] = RAW_URL,
) -> None:
    """Download a public trace and check its sha256."""
    start = perf_counter()
    source = source_of(name)
    path = fetch(name, to, mirror)
    wall_s = perf_counter() - start
    workload, _ = load(path)
    if len(workload) != source.rows:
        raise InputError(f"{path}: {len(workload)} requests where {source.rows} were expected; report this")
    rows = [("file", path), ("requests", len(workload)), ("licence", source.licence), ("please cite", source.citation)]
    emit_table(f"Fetched {name}", ("", "value"), rows)
    emit_json(_record("trace fetch", workload, wall_s, []) | {"path": str(path), "sha256": source.sha256})


def generate_trace(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(GENERATORS)}.")],
    out: Annotated[Path, typer.Option(help="File to write; compressed when it ends in .gz.")],
    requests: Annotated[int | None, typer.Option(help="Stop after so many requests.")] = None,
    duration: Annotated[float | None, typer.Option(help="Stop before so many seconds.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second; the generator's own unless given.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 0,
    format: Annotated[str, typer.Option(help="own-jsonl, mooncake or azure.")] = "own-jsonl",
    block_tokens: Annotated[int, typer.Option(help="Tokens in a prefix block.")] = 512,
    exact_rate: Annotated[bool, typer.Option("--exact-rate", help="Rescale: N requests in N/rate seconds.")] = False,
    tick: Annotated[float | None, typer.Option(help="Cut arrivals to ticks of so many seconds.")] = None,
    knob: Annotated[list[str] | None, typer.Option(help=KNOB)] = None,
) -> None:
    """Write a generated trace."""
    check_writable(out)
    start = perf_counter()
    workload = generate(
        name,
        rate_per_s=rate,
        requests=requests,
        duration_s=duration,
        seed=seed,
        block_tokens=block_tokens,
        exact_rate=exact_rate,
        **knobs_of(knob or ()),
    )
    if tick is not None:
        workload = quantise(workload, tick)
    wall_s = perf_counter() - start
    save(workload, out, format)
    written, _ = load(out, block_tokens=block_tokens)  # what the file holds, times rounded as its format does
    rows = [("file", out), ("source", workload.source), ("repairs", "; ".join(workload.repairs) or "none")]
    rows += [("requests", len(written)), ("span s", f"{written.span_s:.1f}")]
    emit_table(f"Generated {name}", ("", "value"), rows)
    emit_json(_record("trace generate", written, wall_s, [seed]) | {"path": str(out), "source": workload.source})


def _record(command: str, workload: Workload, wall_s: float, seeds: list[int]) -> dict:
    return {
        "command": command,
        "wall_s": wall_s,
        "seeds": seeds,
        "requests": len(workload),
        "workload_sha256": workload.sha256,
    }


def _load_notes(report: LoadReport) -> list[str]:
    notes = [f"skipped {count:,} rows: {reason}" for reason, count in report.skipped]
    notes += [f"first of these: {sentence}" for sentence in report.first_skipped]
    if report.out_of_order:
        notes.append(f"{report.out_of_order:,} rows were earlier than the row before them; sorted by arrival")
    return notes


def length_rows(hygiene: Hygiene) -> list[tuple]:
    def row(label: str, s: Summary) -> tuple:
        return (label, *(f"{x:,.0f}" for x in (s.p50, s.p90, s.p99, s.max, s.mean)))

    return [row("prompt", hygiene.prompt_tokens), row("output", hygiene.output_tokens)]


def report_rows(hygiene: Hygiene) -> list[tuple[str, str]]:
    def shown(value: float | None, digits: int = 2, unit: str = "") -> str:
        return "none" if value is None else f"{round(value, digits) + 0.0:,.{digits}f}{unit}"  # no "-0.00"

    ticks, reuse = hygiene.ticks, hygiene.reuse
    rows = [
        ("requests", f"{hygiene.n:,}"),
        ("span", shown(hygiene.span_s, 0, " s")),
        ("mean rate", shown(hygiene.rate_per_s, 2, " req/s")),
        ("correlation of prompt and output", shown(hygiene.correlation)),
        ("CV of the gaps between arrivals", shown(hygiene.gap_cv)),
        ("index of dispersion, 60 s windows", shown(hygiene.dispersion_60s, 1)),
        ("peak over mean, 10 s windows", shown(hygiene.peak_to_mean_10s)),
        ("peak over mean, 60 s windows", shown(hygiene.peak_to_mean_60s)),
        ("distinct timestamps", f"{ticks.distinct:,}"),
        ("tick", "none" if ticks.tick_s is None else f"{ticks.tick_s:g} s"),
        ("sessions", f"{hygiene.sessions:,}"),
    ]
    if reuse is None:
        return [*rows, ("prefix blocks", "none")]
    return [
        *rows,
        ("prefix block references, unique", f"{reuse.block_references:,}, {reuse.unique_blocks:,}"),
        ("distinct KV tokens", f"{reuse.distinct_kv_tokens:,}"),
        ("requests that share block 0", shown(reuse.root_share)),
        ("common blocks at the root, distinct roots", f"{reuse.common_blocks}, {reuse.distinct_roots:,}"),
        ("prompts with a partial last block", shown(reuse.partial_last_share, 3)),
        ("infinite cache, blocks hit", shown(reuse.hit_blocks, 3)),
        ("infinite cache, tokens hit", shown(reuse.hit_tokens, 3)),
        ("of that, blocks a router controls", shown(reuse.controllable_blocks, 3)),
        ("requests that match beyond the common root", shown(reuse.reusing_share, 3)),
        *((f"round robin over {n}, blocks hit", shown(hit, 3)) for n, hit in reuse.round_robin),
        *((f"LRU pool of {pool / 1e6:.1f} M tokens, blocks hit", shown(hit, 3)) for pool, hit in reuse.lru),
        ("reuse interval p50", shown(reuse.reuse_interval_p50_s, 0, " s")),
        ("reuse interval p90", shown(reuse.reuse_interval_p90_s, 0, " s")),
        ("tokens left to prefill, p50", shown(reuse.uncached_tokens_p50, 0)),
        ("tokens left to prefill, p90", shown(reuse.uncached_tokens_p90, 0)),
        ("tokens left to prefill, mean", shown(reuse.uncached_tokens_mean, 0)),
    ]
