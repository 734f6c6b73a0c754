"""`hybrid-serving simulate`, one router in full or several side by side, and `hybrid-serving price`."""

import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.console import command_line, emit_json, emit_table, progress
from helpers.errors import InputError
from helpers.outputs import Growing, as_json, check_writable
from helpers.serving.arms import Arms, arms_of, routers_of, settings
from helpers.serving.calibrated import calibrated, note_of
from helpers.serving.config import BESIDE, experiment, least_tp, read_config
from helpers.serving.contest import Plan, Result, contest
from helpers.serving.draws import UNDRAWN, Draws, drawn
from helpers.serving.experiment import Experiment, seeds_of
from helpers.serving.fleet import Fleet, parse_split
from helpers.serving.packs import check_packable
from helpers.serving.prices import near_knee, priced
from helpers.serving.processes import cores
from helpers.serving.regret import DECISIONS
from helpers.serving.report import contest_record
from helpers.serving.simulate import INDENT, bounds, record, rows, simulate, slo_of, write_outputs
from helpers.serving.table import table, title
from helpers.simulator.views import Telemetry
from helpers.workload.generate import knobs_of
from helpers.workload.hygiene import doubtful_times
from helpers.workload.request import Workload

Option = typer.Option
# Options of `simulate` that are about another one: without any of these they would change nothing.
NEEDS = {
    "target": ("knee",),
    "knee_requests": ("knee", "regret"),
    "startup": ("scaler", "scaler_set", "config"),
    "pack_steps": ("pack",),
}


def register(app: typer.Typer) -> None:
    """Add the commands `simulate` and `price`."""
    app.command("simulate")(simulate_command)
    app.command("price")(price_command)


def simulate_command(
    context: typer.Context,
    trace: Annotated[
        str, Option(help="a trace file (your own: data/traces/README.md), a shipped trace or a generator")
    ] = "conversation",
    knob: Annotated[
        list[str] | None, Option(help="NAME=VALUE for a generator, as in `trace generate`: lengths of your own")
    ] = None,
    workers: Annotated[int | None, Option(help="how many workers (default 4, or what --split says)")] = None,
    router: Annotated[list[str] | None, Option(help="a router (default round_robin), several, or all")] = None,
    router_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the routers that have KEY")] = None,
    model: Annotated[
        str, Option(help="a model, see `hybrid-serving models`; unless named, that of --cost")
    ] = "llama-3.1-8b",
    hardware: Annotated[str, Option(help="an accelerator, see `hybrid-serving hardware`; as model")] = "h100",
    tp: Annotated[int, Option(help="accelerators a worker (tensor parallel)")] = 1,
    cost: Annotated[
        Path | None, Option(help="a record of calibrate or of record: what steps take (default: the data sheet's)")
    ] = None,
    cost_steps: Annotated[
        str | None, Option(help="the steps it was fitted to, served or designed (default: served, if recorded)")
    ] = None,
    admission: Annotated[str, Option(help="an admission policy")] = "none",
    admission_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the admission policy")] = None,
    scaler: Annotated[str, Option(help="a scaler that changes the fleet (fixed without parameters: none)")] = "fixed",
    scaler_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the scaler")] = None,
    startup: Annotated[float | None, Option(help="seconds until a new worker serves (default: the model's)")] = None,
    config: Annotated[Path | None, Option(help="a file that says model, split and policies")] = None,
    split: Annotated[str | None, Option(help="prefill and decode workers, such as 2P2D")] = None,
    chunk_tokens: Annotated[int, Option(help="the token budget of a step")] = 2048,
    max_batch: Annotated[int, Option(help="the most sequences that run at once on a worker")] = 256,
    kv_gib: Annotated[float | None, Option(help="KV memory a worker in GiB (default: what the weights leave)")] = None,
    block_tokens: Annotated[int, Option(help="tokens in a prefix block of the trace, and in a KV block")] = 512,
    rate_scale: Annotated[float, Option(help="let the requests arrive so many times as fast")] = 1.0,
    spread: Annotated[bool, Option("--spread-ticks", help="spread quantised timestamps over their tick")] = False,
    slo_ttft: Annotated[float, Option(help="the TTFT bound in seconds")] = 2.0,
    slo_tpot: Annotated[float, Option(help="the TPOT bound in seconds")] = 0.05,
    staleness: Annotated[float, Option(help="seconds between telemetry samples (0: live)")] = 0.0,
    routers: Annotated[int, Option(help="front ends that share the arrivals")] = 1,
    warmup: Annotated[float, Option(help="leave earlier arrivals out of the statistics, seconds")] = 0.0,
    seed: Annotated[int, Option(help="the first seed")] = 0,
    seeds: Annotated[int, Option(help="how many seeds, one run each")] = 1,
    knee: Annotated[bool, Option("--knee", help="find each router's knee, and the goodput there")] = False,
    target: Annotated[float, Option(help="the attainment that the knee asks for")] = 0.9,
    knee_requests: Annotated[int | None, Option(help="requests of the runs for knee and regret (default: all)")] = None,
    regret: Annotated[int, Option(help="judge so many decisions of each run against an oracle")] = 0,
    jobs: Annotated[int | None, Option(help="processes for several routers (default: one a core)")] = None,
    max_requests: Annotated[int | None, Option(help="serve only so many requests")] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave out and count rows that cannot be used")] = False,
    json_file: Annotated[Path | None, Option("--json", help="write the JSON record to a file too")] = None,
    pack: Annotated[Path | None, Option(help="write the run of the first seed as a pack")] = None,
    pack_steps: Annotated[bool, Option(help="keep the steps in the pack: larger, but has ITL")] = True,
    trace_log: Annotated[Path | None, Option(help="write every decision of the first seed as JSON lines")] = None,
) -> None:
    """Replay a workload on a simulated cluster and print TTFT, TPOT, goodput and what became of the rest."""
    check_writable(json_file, pack, trace_log)
    if pack:
        check_packable()
    deployment = None if config is None else read_config(config)
    named = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    _check_used(named)
    if deployment:
        if given := [name for name in BESIDE if name in named]:
            raise InputError(f"--config says what --{given[0].replace('_', '-')} would; leave one of them out")
        model, tp = deployment.model, tp if "tp" in named else least_tp(deployment.model, hardware)
        named.add("model")
    count = workers if workers is not None else len(parse_split(split)) if split else 4
    telemetry = Telemetry(period_s=staleness)
    fleet = Fleet(model, hardware, count, split, tp, chunk_tokens, max_batch, kv_gib=kv_gib, telemetry=telemetry)
    fleet, told = calibrated(fleet, cost, cost_steps, named)
    reuse = deployment is None or deployment.cache.reuse_prefix
    longest = fleet.served_model.max_context
    knobs = tuple(knobs_of(knob or ()).items())
    draws = Draws(trace, rate_scale, None, spread, max_requests, skip_bad, longest, reuse, block_tokens, knobs)
    given = settings("admission", (admission,), admission_set or ())[admission]
    slo = slo_of(slo_ttft, slo_tpot)
    question = Experiment(UNDRAWN, fleet, "round_robin", admission, slo, seed, routers, admission_parameters=given)
    scaling = settings("scaler", (scaler,), scaler_set or ())[scaler]
    question = replace(question, scaler=scaler, scaler_parameters=scaling, startup_s=startup)
    arms = arms_of(question, routers_of(router or ["round_robin"]), router_set or ())
    if deployment:
        question = experiment(deployment, UNDRAWN, fleet, slo=slo, seed=seed, routers=routers, startup_s=startup)
        arms, fleet = {question.router: question}, question.fleet
    if len(arms) == 1 and not (knee or regret):
        _simulate_one(next(iter(arms.values())), draws, seeds, warmup, json_file, pack, pack_steps, trace_log, told)
        return
    if pack or trace_log:
        raise InputError("--pack and --trace-log write one run; give one router, without --knee and --regret")
    judge = {"target": target if knee else None, "decisions": regret, "knee_requests": knee_requests}
    plan = Plan(draws, tuple(seeds_of(seed, seeds)), warmup, **judge)
    workload = _told(draws, seed)
    _warn(draws, workload)
    _show(f"Routers on {workload.name}, {len(fleet.roles)} workers", arms, plan, jobs, json_file, told=told)


def _check_used(named: set[str]) -> None:
    """Raise `InputError` for an option that says something about what was not asked for."""
    for name, others in NEEDS.items():
        if name in named and not named & set(others):
            needed = " or ".join(f"--{other.replace('_', '-')}" for other in others)
            raise InputError(f"--{name.replace('_', '-')} has no effect here; give {needed} too, or leave it out")


def _simulate_one(
    question: Experiment,
    draws: Draws,
    seeds: int,
    warmup_s: float,
    json_file: Path | None,
    pack: Path | None,
    pack_steps: bool,
    trace_log: Path | None,
    told: dict,
) -> None:
    """One router: everything that is measured of it; the record begins with what is `told`."""
    start = perf_counter()
    workload = _told(draws, question.seed)
    parse_s = perf_counter() - start
    _warn(draws, workload)
    with progress("simulate", len(workload)) as tick:
        made = lambda one: workload if one == question.seed else _told(draws, one)  # noqa: E731
        outcomes = simulate(question, made, seeds, warmup_s, explain=trace_log is not None, tick=tick)
    line = told | record(command_line(), outcomes, parse_s, draws.redrawn)
    write_outputs(line, outcomes[0], json_file, pack, trace_log, pack_steps)
    workers = len(question.fleet.roles)
    shown = rows(line) + ([("steps taken", note_of(told))] if told else [])
    emit_table(f"{question.router} on {line['workload']}, {workers} workers", ("figure", "value"), shown)
    emit_json(line)


def _warn(draws: Draws, workload: Workload) -> None:
    """Say on the error stream what about the times of a recorded trace would mislead; the replay goes on."""
    for finding in () if draws.redrawn else doubtful_times(workload):
        print(f"hybrid-serving: {workload.name}: {finding}", file=sys.stderr)


def _told(draws: Draws, seed: int) -> Workload:
    """The workload of a seed; says on the error stream what was left out."""
    workload, report = draws.open(seed)
    for reason, rows_lost in report.skipped:
        print(f"hybrid-serving: {rows_lost} rows skipped: {reason}", file=sys.stderr)
    return workload


def _show(
    what: str,
    arms: Arms,
    plan: Plan,
    jobs: int | None,
    json_file: Path | None,
    compared: dict[str, str] | None = None,
    told: dict | None = None,
) -> None:
    """Several arms on the same draws: a row each, beside the arm that it is compared with.

    The JSON file is written after every arm, with those that are there; until the last, its `complete` is false, and
    where there was a file already, it is another one beside that.
    """
    start, file = perf_counter(), Growing(json_file)
    drawn(plan.draws, plan.seeds[0])
    parse_s = perf_counter() - start
    with progress(what, len(arms)) as tick:

        def record_of(results: list[Result]) -> dict:
            tick(len(results))
            line = (told or {}) | contest_record(command_line(), results, plan, parse_s, compared)
            line["complete"] = len(results) == len(arms)
            file.write(as_json(line, INDENT), line["complete"])
            return line

        line = record_of(contest(arms, plan, cores() if jobs is None else jobs, record_of))
    words = (title(what, plan), bounds(next(iter(arms.values())).slo), note_of(told or {}))
    emit_table("; ".join(filter(None, words)), *table(line["arms"], plan))
    emit_json(line)


def price_command(
    what: Annotated[str, typer.Argument(help="staleness, lengths, front-ends, or regret")],
    router: Annotated[list[str] | None, Option(help="a router (default round_robin), several, or all")] = None,
    router_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the routers that have KEY")] = None,
    point: Annotated[list[float] | None, Option(help="ms, error or front ends, the ideal first")] = None,
    trace: Annotated[str, Option(help="a trace file, a shipped trace or a generator")] = "generated:conversation",
    workers: Annotated[int | None, Option(help="how many workers (default 4, or what --split says)")] = None,
    split: Annotated[str | None, Option(help="prefill and decode workers, such as 2P2D")] = None,
    admission: Annotated[str | None, Option(help="an admission policy (lengths: predicted_load)")] = None,
    admission_set: Annotated[list[str] | None, Option(help="KEY=VALUE for the admission policy")] = None,
    rate: Annotated[float | None, Option(help="requests/s (default: the first router's knee at the ideal)")] = None,
    load: Annotated[float, Option(help="so many times that rate")] = 1.0,
    target: Annotated[float, Option(help="the attainment that the knee asks for")] = 0.9,
    decisions: Annotated[int, Option(help="decisions of each run to judge by an oracle, for regret")] = DECISIONS,
    objective: Annotated[str, Option(help="regret by e2e_s, ttft_s or missed")] = "e2e_s",
    slo_ttft: Annotated[float, Option(help="the TTFT bound in seconds")] = 2.0,
    slo_tpot: Annotated[float, Option(help="the TPOT bound in seconds")] = 0.05,
    staleness: Annotated[float, Option(help="seconds between telemetry samples (0: live)")] = 0.0,
    routers: Annotated[int, Option(help="front ends that share the arrivals")] = 1,
    spread: Annotated[bool, Option("--spread-ticks", help="spread quantised timestamps over their tick")] = False,
    warmup: Annotated[float, Option(help="leave earlier arrivals out of the statistics, seconds")] = 0.0,
    seed: Annotated[int, Option(help="the first seed")] = 0,
    seeds: Annotated[int, Option(help="how many seeds, one run each")] = 5,
    max_requests: Annotated[int | None, Option(help="serve only so many requests")] = None,
    jobs: Annotated[int | None, Option(help="processes (default: one a core)")] = None,
    json_file: Annotated[Path | None, Option("--json", help="write the JSON record to a file too")] = None,
) -> None:
    """What old views, wrong length guesses or several routers cost in goodput, or single decisions in regret."""
    check_writable(json_file)
    count = workers if workers is not None else len(parse_split(split)) if split else 4
    admission = admission or ("predicted_load" if what == "lengths" else "none")
    given = settings("admission", (admission,), admission_set or ())[admission]
    slo = slo_of(slo_ttft, slo_tpot)
    fleet = Fleet(workers=count, split=split, telemetry=Telemetry(period_s=staleness))
    question = Experiment(UNDRAWN, fleet, "round_robin", admission, slo, seed, routers, admission_parameters=given)
    arms = arms_of(question, routers_of(router or ["round_robin"]), router_set or ())
    draws = Draws(trace, spread=spread, max_requests=max_requests, max_context=fleet.served_model.max_context)
    plan = Plan(draws, tuple(seeds_of(seed, seeds)), warmup, None, decisions if what == "regret" else 0, objective)
    workload = _told(draws, seed)
    _warn(draws, workload)
    compared = None
    if what == "regret" and decisions < 1:
        raise InputError(f"the regret of {decisions} decisions says nothing; give 1 or more")
    if what != "regret":
        arms, compared = priced(arms, what, point or (), workload)
    elif point:
        raise InputError("regret has no points; leave --point out")
    if rate is None:
        rate = near_knee(next(iter(arms.values())), plan, target)
    plan = replace(plan, draws=replace(draws, rate_per_s=load * rate))
    _show(
        f"The price of {what}, {load * rate:.3g} requests/s of {workload.name}", arms, plan, jobs, json_file, compared
    )
