"""Every decision of a run as JSON lines: what the router saw, what was true, what it chose, and what came of it.

The first line of a run is its head, `record: run`; then comes a line for each decision in order of time,
`record: decision`. `FIELDS` says what each has. A request that was held, or whose worker was lost, has several.
Names that end in `.gz` are compressed. A file may hold several runs, one after the other.
"""

import gzip
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from helpers.bench.cells import asked
from helpers.bench.order import IDENTICAL, SLOW, Cell
from helpers.bench.targets.target import Target
from helpers.bench.verification import digests
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog
from helpers.policies.view import WorkerView
from helpers.serving.arms import entry_of
from helpers.serving.experiment import Experiment
from helpers.simulator.views import observed
from helpers.workload.request import Workload

VERSION = 1
NUMBER = (int, float)
NONE = type(None)

# field -> (types, what it is), for each kind of line.
FIELDS: dict[str, dict[str, tuple[tuple, str]]] = {
    "run": {
        "version": ((int,), "of this schema"),
        "target": ((str,), "group:name"),
        "scenario": ((str,), "its name in the target"),
        "arm": ((str,), "baseline, or the name of the variant"),
        "router": ((str,), "the policy that decides"),
        "admission": ((str,), "the policy that accepts, holds or rejects"),
        "seed": ((int,), "of the workload and of the policies' dice"),
        "workers": ((int,), "how many there are at the start"),
        "view_period_s": (NUMBER, "seconds between two reports of the workers; 0: views of this moment"),
        "upset": ((str, NONE), "what goes wrong"),
        "upset_s": ((*NUMBER, NONE), "when, in seconds from the start"),
        "workload_sha256": ((str,), "digest of the workload"),
        "commit": ((str,), "of the code"),
    },
    "decision": {
        "time_s": (NUMBER, "of the decision, in seconds from the start of the run"),
        "request": ((int,), "its id in the workload"),
        "arrival_s": (NUMBER, "its scheduled arrival"),
        "action": ((str,), "accept, queue or reject"),
        "reason": ((str,), "of admission; empty where it has none"),
        "prefill": ((int,), "the worker that is to prefill"),
        "decode": ((int,), "the worker that is to decode"),
        "kv_source": ((int, NONE), "the worker from which a prefix is copied first"),
        "candidates": ((list,), "the workers that could have been chosen"),
        "status": ((str,), "what became of the request: finished, rejected or unfinished"),
        "first_token_s": ((*NUMBER, NONE), "when its first token was out"),
        "finished_s": ((*NUMBER, NONE), "when its last token was out"),
    },
    "candidate": {
        "worker": ((int,), "its id"),
        "age_s": (NUMBER, "of the view that the router had"),
        "seen_requests": ((int,), "waiting and running by that view"),
        "seen_waiting_tokens": ((int,), "prompt tokens still to be computed by that view"),
        "requests": ((int,), "waiting and running at this moment"),
        "waiting_tokens": ((int,), "prompt tokens still to be computed at this moment"),
        "scores": ((dict,), "the router's own terms by name; empty where it explains nothing"),
    },
}


@dataclass(frozen=True)
class TracedRun:
    """A run as read back: its head and its decisions, as plain dictionaries with the fields of `FIELDS`."""

    head: dict
    decisions: tuple[dict, ...]


def write_trace(folder: Path, target: Target, cell: Cell, workload: Workload, commit: str) -> dict | None:
    """Run a cell once more with every decision noted, into a file of its own; None for cells that decide nothing.

    Returns the `file` and the digest of the decisions, which must be that of the run that was measured.
    """
    scenario = target.scenario(cell.scenario)
    if scenario.timed or cell.arm in (IDENTICAL, SLOW):
        return None
    experiment = asked(scenario, cell, workload)
    log, decisions = traced(explaining(experiment))
    head = {
        "record": "run",
        "version": VERSION,
        "target": target.full_name,
        "scenario": cell.scenario,
        "arm": cell.arm,
        "router": name_of(experiment.router),
        "admission": name_of(experiment.admission),
        "seed": cell.seed,
        "workers": len(experiment.fleet.roles),
        "view_period_s": experiment.fleet.telemetry.period_s,
        "upset": scenario.upset.kind if scenario.upset else None,
        "upset_s": scenario.upset.at_s(workload) if scenario.upset else None,
        "workload_sha256": workload.sha256,
        "commit": commit,
    }
    words = (re.sub(r"[^a-z0-9]+", "_", part.lower()) for part in (target.name, cell.scenario, cell.arm))
    path = folder / f"{'-'.join(words)}.jsonl.gz"
    with opened(path, "wt") as file:
        for line in (head, *decisions):
            file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
    return {"file": str(path), "decisions_sha256": digests(log)["decisions"]}


def name_of(policy: object) -> str:
    """The name of a policy, or of the function that makes it."""
    return policy if isinstance(policy, str) else policy.__name__


def explaining(experiment: Experiment) -> Experiment:
    """The same experiment with a router that gives its terms, where it can."""
    if not isinstance(experiment.router, str):
        return experiment
    known = {one.name for one in entry_of("router", experiment.router).parameters}
    more = {"explain": True} if "explain" in known else {}
    return replace(experiment, router_parameters={**experiment.router_parameters, **more})


def traced(experiment: Experiment) -> tuple[EventLog, list[dict]]:
    """The event log of a simulated run and a line for each decision."""
    lines: list[dict] = []

    def note(sequence, decision, verdict, now: float) -> None:
        scores: dict[int, dict[str, float]] = {}
        for worker, term, value in decision.scores:
            scores.setdefault(worker, {})[term] = value
        views, workers = cluster.views, cluster.workers
        candidates = []
        for worker in views.prefill:
            seen, true = views[worker], now_of(workers[worker], now)
            candidates.append(
                {
                    "worker": worker,
                    "age_s": seen.age_s,
                    "seen_requests": seen.requests,
                    "seen_waiting_tokens": seen.waiting_tokens,
                    "requests": true.requests,
                    "waiting_tokens": true.waiting_tokens,
                    "scores": scores.get(worker, {}),
                }
            )
        lines.append(
            {
                "record": "decision",
                "time_s": now,
                "request": sequence.request.id,
                "arrival_s": sequence.arrival_s,
                "action": verdict.action,
                "reason": verdict.reason,
                "prefill": decision.prefill,
                "decode": decision.decode,
                "kv_source": decision.kv_source,
                "candidates": candidates,
            }
        )

    cluster = experiment.cluster(on_decision=note)
    log = cluster.run(experiment.workload.requests)
    ends = {
        t.id: {"status": t.status, "first_token_s": t.first_token_s, "finished_s": t.finished_s} for t in log.timelines
    }
    return log, [{**line, **ends[line["request"]]} for line in lines]


def now_of(worker, now: float) -> WorkerView:
    """The true state of a simulated worker at this moment."""
    worker.advance(now)
    return observed(worker, 0.0)


def read_trace(path: Path) -> list[TracedRun]:
    """The runs in a file, each line held against `FIELDS`; raises `InputError` that names the line."""
    runs: list[tuple[dict, list[dict]]] = []
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}, line {number}"
        try:
            one = json.loads(line)
        except ValueError:
            raise InputError(f"{where}: this is no JSON; a trace has one object a line") from None
        kind = one.get("record") if isinstance(one, dict) else None
        if kind not in ("run", "decision"):
            raise InputError(f"{where}: record is {kind!r}; a line is a run or a decision")
        _check(one, kind, where)
        if kind == "run":
            if one["version"] != VERSION:
                raise InputError(f"{where}: schema version {one['version']}, this code reads {VERSION}")
            runs.append((one, []))
            continue
        if not runs:
            raise InputError(f"{where}: a decision comes before the head of its run")
        _check_decision(one, runs[-1][1], where)
        runs[-1][1].append(one)
    return [TracedRun(head, tuple(decisions)) for head, decisions in runs]


def _lines(path: Path) -> Iterator[str]:
    try:
        with opened(path, "rt") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: it cannot be read as a trace of decisions ({error})") from None


@contextmanager
def opened(path: Path, mode: str) -> Iterator[TextIO]:
    """A text file, compressed when its name says so, with the same bytes whenever it is written."""
    if not path.name.endswith(".gz"):
        with path.open(mode, encoding="utf-8") as file:
            yield file
    elif mode == "rt":
        with gzip.open(path, mode, encoding="utf-8") as file:
            yield file
    else:
        with (
            path.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8") as file,
        ):
            yield file


def _check_decision(one: dict, before: list[dict], where: str) -> None:
    """Beyond the types: times in order, the chosen worker among the candidates."""
    for candidate in one["candidates"]:
        _check(candidate, "candidate", where)
    if one["prefill"] not in {candidate["worker"] for candidate in one["candidates"]}:
        raise InputError(f"{where}: worker {one['prefill']} was chosen and is no candidate")
    if before and one["time_s"] < before[-1]["time_s"]:
        raise InputError(f"{where}: {one['time_s']} s comes after {before[-1]['time_s']} s")


def _check(one: dict, kind: str, where: str) -> None:
    known = FIELDS[kind]
    found = set(one) - {"record"}
    if found != set(known):
        odd = sorted(found ^ set(known))
        raise InputError(
            f"{where}: a {kind} has the fields {', '.join(known)}; {', '.join(odd)} is missing or too much"
        )
    for name, (types, _) in known.items():
        if not isinstance(one[name], types) or (isinstance(one[name], bool) and bool not in types):
            raise InputError(f"{where}: {name} is {one[name]!r}; give {' or '.join(t.__name__ for t in types)}")
