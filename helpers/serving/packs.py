"""A run frozen in a file: `data/packs/<hardware_key>/<name>.json.gz`.

Columns, not objects: one list a field, so that an hour of traffic is a few hundred kilobytes.
Times are rounded to a nanosecond. A pack without full provenance is refused on both ways.
"""

import gzip
import json
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

from helpers.checkout import commit
from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.timeline import ROW, EventLog, Span, StepLog, Timeline, WorkerInfo
from helpers.outputs import write_packed
from helpers.serving.run import MEASURED, SIMULATED, Provenance, Run

FORMAT = "hybrid-serving pack 1"
UNKNOWN = "the commit is unknown; run from a checkout, so that the run can be made again"
REQUIRED = ("kind", "hardware_key", "command", "commit", "made", "seeds", "workload", "workload_sha256", "versions")
TIMES = tuple(f.name for f in fields(Timeline) if f.name.endswith("_s"))


def check_packable() -> None:
    """Raise `InputError`, before anything runs, for code of which no pack can say what it is."""
    if commit() == "unknown":
        raise InputError(UNKNOWN)


def write_pack(run: Run, path: str | Path, steps: bool = True) -> Path:
    """Write a run; without `steps` the step logs stay out (no token times, no ITL) and the file is small.

    Raises `InputError` when the provenance is incomplete or the file cannot be written.
    """
    path = Path(path)
    _check_provenance(asdict(run.provenance), str(path))
    record = {
        "format": FORMAT,
        "provenance": asdict(run.provenance),
        "wall_s": run.wall_s,
        "end_s": round(run.end_s, 9),
        "counts": run.log.counts,
        "workers": [asdict(w) for w in run.workers],
        "timelines": _columns(run.timelines, steps),
        "step_logs": [_step_columns(log) for log in run.step_logs] if steps else [],
    }
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the pack cannot be written ({error.strerror}); give a place you may write") from None
    write_packed(path, text.encode() if path.suffix == ".gz" else f"{text}\n".encode())
    return path


def read_pack(path: str | Path) -> Run:
    """Read a run; raises `InputError` for a file that is missing, damaged, of another format or origin."""
    path = Path(path)
    record = _load(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path}: this is no {FORMAT!r} file; make one with `hybrid-serving simulate --pack FILE`")
    _check_provenance(record.get("provenance"), str(path))
    try:
        made = dict(record["provenance"])
        made["seeds"], made["repairs"] = tuple(made["seeds"]), tuple(made["repairs"])
        log = EventLog(
            tuple(_timelines(record["timelines"])),
            tuple(_step_log(columns) for columns in record["step_logs"]),
            tuple(WorkerInfo(**w) for w in record["workers"]),
            record["end_s"],
            record.get("counts", {}),
        )
        _check_kinds("end_s and wall_s", {int, float}, [record["end_s"], record["wall_s"]])
        found = audit(log) if log.step_logs else []  # without steps there is nothing to hold the tokens to
        if found:
            raise ValueError(found[0])
        return Run(log, Provenance(**made), record["wall_s"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: the pack is damaged ({type(error).__name__}: {error}); make it again") from None


def _load(path: Path) -> object:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data, parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such pack; look into data/packs") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: the pack cannot be read ({error}); make it again") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _check_provenance(made: object, where: str) -> None:
    if not isinstance(made, dict):
        raise InputError(f"{where}: the pack has no provenance; a number without its origin is not shown")
    missing = [name for name in REQUIRED if not made.get(name) and made.get(name) != 0]
    if missing:
        raise InputError(f"{where}: the provenance lacks {', '.join(missing)}; nothing is shown without its origin")
    if made["kind"] not in (MEASURED, SIMULATED):
        raise InputError(f"{where}: the kind is {made['kind']!r}; it must be {MEASURED} or {SIMULATED}")
    if made["commit"] == "unknown":
        raise InputError(f"{where}: {UNKNOWN}")


def _columns(timelines: tuple[Timeline, ...], spans: bool) -> dict[str, object]:
    """One list a field; a field that is the same everywhere is stored once, as {"all": value}."""
    columns: dict[str, object] = {"count": len(timelines)}
    for field in fields(Timeline):
        values = [getattr(t, field.name) for t in timelines]
        if field.name == "spans":
            values = [[[s.worker, s.first, s.last] for s in v] if spans else [] for v in values]
        elif field.name in TIMES:
            values = [None if v is None else round(v, 9) for v in values]
        same = values and all(v == values[0] for v in values)
        columns[field.name] = {"all": values[0]} if same else values
    return columns


def _timelines(columns: dict) -> list[Timeline]:
    count = columns["count"]
    named = {}
    for field in fields(Timeline):
        values = columns[field.name]
        values = [values["all"]] * count if isinstance(values, dict) else values
        if len(values) != count:
            raise ValueError(f"{field.name} has {len(values)} of {count} values")
        if field.name == "spans":
            named["spans"] = [tuple(Span(*s) for s in v) for v in values]
        else:
            kinds = set(get_args(field.type) or (field.type,))
            _check_kinds(field.name, kinds | {int} if float in kinds else kinds, values)
            named[field.name] = values
    return [Timeline(*row) for row in zip(*named.values(), strict=True)]


def _check_kinds(name: str, kinds: set[type], values: list) -> None:
    """Raise `ValueError` when a value has another type than one of `kinds`."""
    wrong = set(map(type, values)) - kinds
    if wrong:
        raise ValueError(f"{name} holds a value of type {wrong.pop().__name__}")


def _step_columns(log: StepLog) -> dict[str, list]:
    return {name: list(log.column(name)) for name in ROW}  # not rounded: tokens are sums over thousands of steps


def _step_log(columns: dict[str, list]) -> StepLog:
    log = StepLog()
    for row in zip(*(columns[name] for name in ROW), strict=True):
        log.append(*row)
    return log
