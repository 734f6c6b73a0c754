"""`bench run --on engine`: the arms of targets that live workers of this machine can serve, beside the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.bench.fidelity.arms import REPEATS, about, arms_of, run_live
from helpers.bench.fidelity.calibrating import slices_for
from helpers.bench.fidelity.plan import refuse_what_cannot_be_timed
from helpers.bench.fidelity.showing import show_tables, slim
from helpers.bench.targets.target import Target
from helpers.console import command_line, emit_json, progress
from helpers.errors import InputError
from helpers.outputs import Growing, as_json, check_writable

SIMULATOR, ENGINE = "simulator", "engine"


@dataclass(frozen=True)
class Asked:
    """How live arms are served: `iterations` times each (None: `REPEATS`), in an order that is drawn.

    `requests` lets no run have more of them. `json_file` gets the record, also what there is of it when the run is
    interrupted. Raises `InputError` for too few runs to show a spread.
    """

    iterations: int | None
    order_seed: int
    requests: int | None
    json_file: Path | None

    def __post_init__(self) -> None:
        if self.repeats < 2:
            raise InputError(f"bench run: --iterations {self.repeats} shows no spread of live runs; give 2 or more")

    @property
    def repeats(self) -> int:
        """How often each arm is served."""
        return REPEATS if self.iterations is None else self.iterations


def refuse(on: str, given: Mapping[str, object], targets: Sequence[Target]) -> None:
    """Raise `InputError` for another backend, for options without a meaning here, and for what cannot be served."""
    if on != ENGINE:
        raise InputError(f"bench run: there is no backend {on!r}; use {SIMULATOR} or {ENGINE}")
    meaningless = [name for name, value in given.items() if value is not None and value is not False]
    if meaningless:
        raise InputError(
            f"bench run: live runs of frozen requests on two workers have no {', '.join(meaningless)}; "
            f"leave that out, or --on {ENGINE}"
        )
    for target in targets:
        if target.live:
            raise InputError(f"target {target.full_name} is measured live anyway; leave out --on {ENGINE}")
        refuse_what_cannot_be_timed([one.fleet for one in arms_of(target)])


def serve(targets: Sequence[Target], asked: Asked) -> bool:
    """Serve the arms of the targets, show and write what came out; returns whether all of it is sound."""
    check_writable(asked.json_file)
    records: list[dict] = []
    file = Growing(asked.json_file)
    try:
        for target in targets:
            records.append(_served(target, asked))
            show_tables(records[-1])
    except KeyboardInterrupt:
        unfinished = {**_line(records), "complete": False, "sound": False, "targets": records}
        file.write(as_json(unfinished, None), whole=False)
        raise
    line = {**_line(records), "complete": True}
    file.write(as_json({**line, "targets": records}, None), whole=True)
    emit_json({**line, "targets": [slim(one) for one in records]})
    return line["sound"]


def _served(target: Target, asked: Asked) -> dict:
    arms = arms_of(target)
    print(f"# {target.full_name}, live: {target.question}")
    print(f"# {about(target)}", flush=True)
    steps = 1 + asked.repeats * (len(arms) + len(slices_for(arms)))
    with progress(f"{target.name}, live", steps) as tick:
        return run_live(target, command_line(), asked.repeats, asked.requests, asked.order_seed, tick)


def _line(records: Sequence[dict]) -> dict:
    """What the targets have in common."""
    first = records[0] if records else {}
    return {
        "command": command_line(),
        "wall_s": sum(one["wall_s"] for one in records),
        "kind": "measured beside simulated",
        "seeds": [seed for one in records for seed in one["seeds"]],
        "workload_sha256": {one["target"]: one["workload_sha256"] for one in records},
        "commit": first.get("commit"),
        "hardware_key": first.get("hardware_key"),
        "sound": all(one["sound"] for one in records),
    }
