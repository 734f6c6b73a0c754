"""What `hybrid-serving simulate` does: one experiment under some seeds, summarised, written where asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.metrics.series import Window
from helpers.metrics.stats import mean_interval
from helpers.metrics.summary import summarize
from helpers.outputs import as_json, write_json, write_text
from helpers.serving.compare import value_of
from helpers.serving.experiment import Experiment, seeds_of
from helpers.serving.packs import write_pack
from helpers.serving.run import Run
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

INDENT = 2  # of the files
MOST_TPOT_S = 10.0  # nobody promises a token in so many seconds
# What is shown of a fleet; its provenance holds the rest.
SHOWN_OF_FLEET = ("model", "hardware", "workers", "split", "tp", "chunk_tokens", "kv_gib_per_worker", "cost")
# What is shown as a mean over seeds with its interval: the primary metric first.
REPLICATED = ("goodput_per_s", "attainment", "ttft_s.p50", "ttft_s.p90", "tpot_s.p50", "hit_rate")


@dataclass(frozen=True)
class Outcome:
    """A simulated run, its summary and the seed it was made with."""

    run: Run
    seed: int
    summary: dict


def simulate(
    experiment: Experiment,
    workload_of: Callable[[int], Workload],
    seeds: int,
    warmup_s: float = 0.0,
    explain: bool = False,
    tick: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Run `experiment` once a seed, on the workload that `workload_of(seed)` gives.

    `warmup_s` leaves the requests that arrive earlier out of the summary (they are served).
    """
    return [
        outcome_of(replace(experiment, workload=workload_of(seed), seed=seed), warmup_s, explain, tick)
        for seed in seeds_of(experiment.seed, seeds)
    ]


def outcome_of(
    experiment: Experiment, warmup_s: float = 0.0, explain: bool = False, tick: Callable[[int], None] | None = None
) -> Outcome:
    """Run `experiment` and summarise it; raises `InputError` for a warm-up that leaves nothing."""
    if not 0 <= warmup_s < inf:
        raise InputError(f"the warm-up is {warmup_s} s; give a finite number of 0 or more")
    last_s = max((r.arrival_s for r in experiment.workload), default=0.0)
    if warmup_s > last_s:
        raise InputError(f"a warm-up of {warmup_s:g} s leaves nothing: the last request comes at {last_s:g} s")
    run = experiment.run(on="simulator", explain=explain, tick=tick)
    window = Window(warmup_s, max(run.end_s, warmup_s + 1e-9)) if warmup_s else None
    return Outcome(run, experiment.seed, summarize(run.log, experiment.slo, window))


def record(command: str, outcomes: list[Outcome], parse_s: float, redrawn: bool) -> dict:
    """The JSON line: the first seed's summary at the top level, all seeds' under `replicates`.

    With several seeds of a workload that is redrawn for each, `mean` holds 95 % intervals over
    seeds; on a fixed trace the same spread is called `sensitivity`, because it is none.
    """
    first = outcomes[0]
    made = first.run.provenance
    line = {
        "command": command,
        "wall_s": sum(o.run.wall_s for o in outcomes),
        "parse_s": parse_s,
        "seeds": [o.seed for o in outcomes],
        "kind": made.kind,
        "cost": made.cost,
        "workload": made.workload,
        "workload_sha256": made.workload_sha256,
        "repairs": list(made.repairs),
        "commit": made.commit,
        "fleet": made.fleet,
        "policy": made.policy,
        **first.summary,
        "fleet_changes": list(first.run.fleet_changes),
    }
    if len(outcomes) > 1:
        line["replicates"] = [{"seed": o.seed, **_replicated(o.summary)} for o in outcomes]
        line["mean" if redrawn else "sensitivity"] = _over_seeds(outcomes, redrawn)
    return line


def _replicated(summary: dict) -> dict:
    return {name: value_of(summary, name) for name in REPLICATED}


def _over_seeds(outcomes: list[Outcome], redrawn: bool) -> dict:
    spread = {}
    for name in REPLICATED:
        values = [v for v in (value_of(o.summary, name) for o in outcomes) if v is not None]
        if len(values) < 2:
            continue
        if redrawn:
            interval = mean_interval(values)
            spread[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
        else:
            spread[name] = {"min": min(values), "max": max(values), "n": len(values)}
    return spread


def rows(line: dict) -> list[tuple[str, str]]:
    """The record for people: one (name, value) a row."""
    shown = [
        ("workload", f"{line['workload']} {'; '.join(line['repairs'])}".strip()),
        ("fleet", ", ".join(f"{k} {v}" for k, v in line["fleet"].items() if k in SHOWN_OF_FLEET and v is not None)),
        ("result", f"{line['kind']}, step times {line['cost']}"),
        *_assumed(line["fleet"]),
        ("requests", f"{line['requests']} ({line['completed']} completed, {line['rejected']} rejected)"),
    ]
    for name, unit in (
        ("ttft_s", "TTFT"),
        ("tpot_s", "TPOT"),
        ("itl_s", "ITL"),
        ("e2e_s", "E2E"),
        ("queue_s", "queue"),
    ):
        shown.append((f"{unit} ms", latency_text(line[name])))
    shown += [
        ("goodput /s", number(line["goodput_per_s"])),
        (f"attainment of {bounds(SLO(**line['slos']['all']))}", number(line["attainment"])),
        ("output tokens/s", number(line["throughput_tokens_per_s"])),
        ("KV hit rate (first admission)", number(line["hit_rate"])),
        ("preemptions", str(line["preemptions"])),
        ("max/mean load", number(line["imbalance"])),
        ("stable", f"{line['stable']}: {line['stability']['evidence']}"),
        ("goodput / GPU-hour", number(line["goodput_per_gpu_hour"])),
        *_changes(line["fleet_changes"]),
        ("wall s", f"{line['wall_s']:.3f} (parsing {line['parse_s']:.3f})"),
    ]
    for name, spread in (line.get("mean") or line.get("sensitivity") or {}).items():
        kind = "mean [95 %]" if "mean" in spread else "range over seeds (a sensitivity, not an interval)"
        values = ", ".join(number(v) for k, v in spread.items() if k != "n")
        shown.append((f"{name} {kind}", f"{values} (N = {spread['n']} seeds)"))
    return shown


def _assumed(fleet: dict) -> list[tuple[str, str]]:
    """What a prediction takes for granted; nothing where step times were fitted."""
    efficiency, part = fleet.get("efficiency"), gpu(fleet["hardware"])
    if efficiency is None:
        return []
    shares = ", ".join(f"{name} {efficiency[name]:g}" for name in ("matmul", "attention", "memory", "fabric"))
    fixed = f"{1e3 * efficiency['host_s']:g} ms of host a step, {1e6 * efficiency['collective_s']:g} us an all-reduce"
    joined = part.figure("scale_up_gpus") if part.has("scale_up_gpus") else fleet["tp"]
    if fleet["tp"] > joined:
        fixed += f"; the {fleet['tp']} GPUs of a worker as if on one {part.fabric}, which joins {joined:g}"
    return [("assumed", f"shares of the data sheet's rates: {shares}; {fixed}")]


def _changes(changes: list[dict]) -> list[tuple[str, str]]:
    """How often the fleet was changed, and the last change with its reason; nothing for a fleet that was not."""
    if not changes:
        return []
    last = changes[-1]
    what = f"{last['action']} of {last['role']} worker {last['worker']} at {last['time_s']:g} s ({last['reason']})"
    return [("fleet changes", f"{len(changes)}, the last: {what}")]


def latency_text(distribution: dict) -> str:
    """`mean 12.3, p50 10.1, … (N = 12031)` in milliseconds."""
    parts = [f"{k} {1e3 * v:.1f}" for k, v in distribution.items() if isinstance(v, float) and k != "n"]
    return f"{', '.join(parts)} (N = {distribution['n']})" if parts else "none"


def number(value: float | None) -> str:
    """A number for people; a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def write_outputs(
    line: dict,
    outcome: Outcome,
    json_file: Path | None,
    pack: Path | None,
    log: Path | None,
    pack_steps: bool = True,
) -> None:
    """Write the pack (with its steps unless told otherwise), the record and the decision log of the first seed.

    The pack comes first: it is the one that can be refused for what it holds.
    """
    if pack:
        provenance = replace(outcome.run.provenance, command=line["command"])
        write_pack(replace(outcome.run, provenance=provenance), pack, pack_steps)
    write_json(json_file, line, INDENT)
    if log:
        write_text(log, "".join(as_json(one, None) for one in outcome.run.decisions))


def slo_of(ttft_s: float, tpot_s: float) -> SLO:
    """The SLO of the command line; raises `InputError` for a pace that can only have been meant in milliseconds."""
    if MOST_TPOT_S <= tpot_s < inf:
        raise InputError(f"the SLO tpot_s is {tpot_s:g} seconds a token; give seconds, {tpot_s / 1e3:g} for as many ms")
    return SLO(ttft_s=ttft_s, tpot_s=tpot_s)


def bounds(slo: SLO) -> str:
    """An SLO of the command line in words."""
    return f"TTFT <= {slo.ttft_s:g} s, TPOT <= {slo.tpot_s:g} s"
