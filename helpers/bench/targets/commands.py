"""`hybrid-serving bench list-targets` and `hybrid-serving bench run`."""

import gzip
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from helpers.bench.fidelity.recorder import about
from helpers.bench.report import record_of, summary
from helpers.bench.runner import Plan, Results, run_targets, task_count
from helpers.bench.target_tables import SHOWN_AFTER_UPSET, front_table_of, ladder_table_of, table_of, upset_table_of
from helpers.bench.targets import on_engine
from helpers.bench.targets.registry import PLACES, is_name, load, places
from helpers.bench.targets.sizes import CPU, refuse_together, refuse_what_is_not_here
from helpers.bench.targets.target import Target
from helpers.console import command_line, emit_json, emit_table, progress
from helpers.errors import InputError
from helpers.outputs import Growing, as_json, check_writable
from helpers.serving.processes import cores

Option = typer.Option
TRACES = Path("bench-trace")
MOST_FAILURES = 5
SEEDS = 10


def register(app: typer.Typer) -> None:
    """Add the commands to the group `bench`, which is there already."""
    bench = next(group.typer_instance for group in app.registered_groups if group.name == "bench")
    bench.command("list-targets")(list_targets)
    bench.command("run")(run)


def list_targets() -> None:
    """The questions that can be put, with what was declared about each before it is run."""
    targets = [load(place) for place in PLACES.values()]
    columns = ("target", "question", "primary", "scenarios", "baseline", "variants")
    rows = [
        (
            *(one.full_name, one.question, one.primary.name, len(one.scenarios)),
            *(", ".join(dict.fromkeys(s.baseline_name for s in one.scenarios)), ", ".join(one.variants)),
        )
        for one in targets
    ]
    emit_table("Targets", columns, rows)
    record = [
        {
            "target": one.full_name,
            "question": one.question,
            "hypothesis": one.hypothesis,
            "primary": one.primary.name,
            "scenarios": [{"name": s.name, "about": s.about, "sha256": one.frozen.get(s.name)} for s in one.scenarios],
            "variants": list(one.variants),
        }
        for one in targets
    ]
    emit_json({"command": command_line(), "wall_s": 0.0, "seeds": [], "targets": record})


def run(
    words: Annotated[list[str] | None, typer.Argument(metavar="[TARGET]... [FILE|DIR]", hidden=True)] = None,
    targets: Annotated[list[str] | None, Option(help="a target, or a group of them; more may follow")] = None,
    iterations: Annotated[int | None, Option(help="repeat each run in its process so often (default: 1)")] = None,
    seeds: Annotated[
        int | None, Option(help=f"how many seeds, from 0 on; each is one draw for all arms (default: {SEEDS})")
    ] = None,
    requests: Annotated[int | None, Option(help="requests a run (default: what the target declares)")] = None,
    trace: Annotated[
        bool, Option("--trace", help="write the decisions of the first seed, to the FILE or DIR that follows")
    ] = False,
    json_file: Annotated[Path | None, Option("--json", help="write the record with its raw samples to a file")] = None,
    jobs: Annotated[int | None, Option(help="processes at a time (default: one a core); timings run alone")] = None,
    order_seed: Annotated[int, Option(help="what the order of the arms is drawn from")] = 0,
    nproc: Annotated[
        int | None, Option(help="workers of a live target; 1: both roles on one device; more than cores: no timing")
    ] = None,
    prefill_ranks: Annotated[int | None, Option(help="how many of them prefill, in a split")] = None,
    device: Annotated[str, Option(help="cpu; cuda for targets that have a form on a GPU (inference_full)")] = CPU,
    on: Annotated[
        str, Option(help="simulator, or engine: small live runs on this CPU beside the simulator")
    ] = on_engine.SIMULATOR,
) -> None:
    """Baseline against variants, one change each, on the same draws, every arm in a fresh process.

    With --trace, also how both sides came to rest after a step, a burst, a slow and a lost worker.
    With --on engine, a few arms are served by two live workers, --iterations times each (default: 3, at least 2).
    Exits with 1 when a check or a control fails.
    """
    names, place = sorted_words(words or (), trace)
    found = places([*(targets or ()), *names])
    if on != on_engine.SIMULATOR:
        given = {"--trace": trace, "--nproc": nproc, "--prefill-ranks": prefill_ranks, "--jobs": jobs, "--seeds": seeds}
        given["--device"] = device if device != CPU else None
        served = [load(one) for one in found]
        on_engine.refuse(on, given, served)
        if not on_engine.serve(served, on_engine.Asked(iterations, order_seed, requests, json_file)):
            raise typer.Exit(1)
        return
    check_writable(json_file)
    if trace:
        _check_place(place or TRACES)
    if seeds is not None and seeds < 2:
        raise InputError(f"bench run: {seeds} seeds give no interval; use 2 or more")
    file = Growing(json_file)
    with TemporaryDirectory(prefix="bench-trace-") as folder:
        plan = Plan(
            tuple(range(SEEDS if seeds is None else seeds)),
            requests,
            1 if iterations is None else iterations,
            cores() if jobs is None else jobs,
            order_seed,
            Path(folder) if trace else None,
            nproc=nproc,
            prefill_ranks=prefill_ranks,
            device=device,
        )
        targets = [load(place) for place in found]
        refuse_together(targets, nproc, prefill_ranks, device)
        sized = [plan.sized(one) for one in targets]
        refuse_what_is_not_here(device)
        for one in sized:
            _declare(one, plan)
        sys.stdout.flush()
        results: list[Results] = []
        began = os.getloadavg()
        try:
            with progress("bench run", task_count(found, plan)) as tick:
                run_targets(found, plan, tick, results)
        except KeyboardInterrupt:
            ended = [record_of(one) for one in results]
            line = line_of(ended, plan, (began, os.getloadavg())) | {"complete": False}
            file.write(as_json(line, None), whole=False)
            if file.place:
                print(f"hybrid-serving: what had ended is in {file.place}", file=sys.stderr)
            raise
        records = [record_of(one) for one in results]
        written = _collect(Path(folder), place or TRACES) if trace else None
    line = line_of(records, plan, (began, os.getloadavg())) | {"complete": True, "trace": written}
    file.write(as_json(line, None), whole=True)
    for record in records:
        _show(record, trace)
    emit_json({**line, "targets": [summary(record) for record in records]})
    if not all(record["sound"] for record in records):
        raise typer.Exit(1)


def sorted_words(words: Sequence[str], trace: bool) -> tuple[list[str], Path | None]:
    """The bare words of the command: names of targets, and with --trace at most one place to write to.

    A word is a place when it is no target and has a slash or a dot, or is a folder that exists; so that a target
    that is misspelt is not taken for a file.
    """
    names = [word for word in words if is_name(word)]
    others = [word for word in words if not is_name(word)]
    wheres = [word for word in others if trace and ("/" in word or "." in word or Path(word).is_dir())]
    if len(wheres) > 1:
        raise InputError(f"bench run: the trace cannot go to {' and '.join(wheres)}; give one place")
    return names + [word for word in others if word not in wheres], Path(wheres[0]) if wheres else None


def _is_file(place: Path) -> bool:
    return place.name.endswith((".jsonl", ".jsonl.gz"))


def _check_place(place: Path) -> None:
    """Raise `InputError`, before anything runs, where no trace can be put."""
    check_writable(place if _is_file(place) else place / "trace" if place.is_dir() else place)


def _collect(folder: Path, place: Path) -> str:
    """Bring the traces to where they were asked for: one file, or a folder with one a run."""
    found, packed = sorted(folder.iterdir()), place.name.endswith(".gz")
    try:
        if _is_file(place):
            with place.open("wb") as whole:
                for one in found:  # compressed files one after the other are one compressed file
                    with one.open("rb") if packed else gzip.open(one, "rb") as part:
                        shutil.copyfileobj(part, whole)
        else:
            place.mkdir(parents=True, exist_ok=True)
            for one in found:
                shutil.copyfile(one, place / one.name)
    except OSError as error:
        raise InputError(f"{place}: the trace cannot be written there ({error.strerror}); give another place") from None
    return str(place)


def line_of(records: list[dict], plan: Plan, loads: tuple[tuple[float, ...], tuple[float, ...]]) -> dict:
    """The record of the command; of live targets with the machine and its load averages, before and after."""
    digests = {record["target"]: record["workload_sha256"] for record in records}
    measured = any(record["kind"] == "measured" for record in records)
    return {
        **(about(command_line(), loads) if measured else {}),  # what was measured was measured somewhere
        "command": command_line(),
        "wall_s": sum(record["wall_s"] for record in records),
        "kind": " and ".join(sorted({record["kind"] for record in records})),
        "seeds": list(plan.seeds),
        "workload_sha256": next(iter(digests.values())) if len(digests) == 1 else digests,
        "commit": next((record["commit"] for record in records), None),
        "sound": all(record["sound"] for record in records),
        "targets": records,
    }


def _declare(target: Target, plan: Plan) -> None:
    """What is asked and how it will be answered, before anything has run."""
    print(f"# {target.full_name}: {target.question}")
    if target.where:
        print(f"# where: {target.where}")
    if not target.timing:
        return
    print(f"# hypothesis: {target.hypothesis}")
    print(f"# decided by {target.primary.name} ({target.primary.unit}): {target.primary.meaning}")
    print(
        f"# paired differences to the baseline over {len(plan.seeds)} seeds, each one draw for all arms; "
        f"no effect: within {target.margin:.0%} of the baseline"
    )
    if plan.trace:
        for name in SHOWN_AFTER_UPSET if any(one.upset for one in target.scenarios) else ():
            print(f"# {name} ({target.statistic(name).unit}): {target.statistic(name).meaning}")


def _show(record: dict, trace: bool) -> None:
    """The tables of a target."""
    print(f"# {record['target']}, {record['kind']}: mean over {len(record['seeds'])} seeds [95 % interval]")
    if record["where"]:
        print(f"# {record['where']}")
    for scenario in record["scenarios"]:
        emit_table(*table_of(scenario))
    if trace:
        for scenario in record["scenarios"]:
            if scenario["upset"]:
                emit_table(*upset_table_of(scenario))
    if record.get("front"):
        emit_table(*front_table_of(record))
    if record.get("steps"):
        emit_table(*ladder_table_of(record))
    rows = [(("passed" if one["passed"] else "FAILED"), one["name"], one["said"]) for one in record["checks"]]
    emit_table("checks", ("result", "check", "what was found"), rows)
    rows = [(("passed" if one["passed"] else "FAILED"), one["name"], one["said"]) for one in record["controls"]]
    emit_table("controls, which must come out like this", ("result", "control", "what was found"), rows)
    for sentence in record["failures"][:MOST_FAILURES]:
        print(f"# FAILED: {sentence}")
    if (more := len(record["failures"]) - MOST_FAILURES) > 0:
        print(f"# FAILED: {more} more processes; --json has them all")
