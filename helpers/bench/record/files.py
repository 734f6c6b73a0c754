"""The file of one part of a recording: written after each point, resumed when it is of the same code and machine.

Sections are the parts of `bench engine` or of this room; each holds points (`helpers.bench.engine.report.point`).
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path

from helpers.bench.engine.report import Report
from helpers.errors import InputError
from helpers.outputs import PART, Growing
from helpers.paths import ROOT

FORMAT = "hybrid-serving record 1"
REQUIRED = (
    *("kind", "part", "preset", "hardware_key", "device", "command", "commit", "code_sha256", "made", "seeds"),
    *("versions", "wall_s", "parts"),
)
SAME = ("part", "preset", "hardware_key", "commit", "code_sha256")  # what a recording that goes on shares with its past
FLOORS = "ceilings"  # measured again in each run: what follows is held against them


def code_sha256(root: Path = ROOT) -> str:
    """A digest of the sources of `helpers`: says which code ran where a commit with changes on top does not."""
    digest = sha256()
    for path in sorted((root / "helpers").rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def complete(section: dict) -> bool:
    """Whether a section ran to its end and has all of its points, none of which failed."""
    points = section.get("points", ())
    return len(points) == section.get("count") and not any("failed" in one for one in points)


@dataclass
class PartReport(Report):
    """A `Report` that goes on where an `earlier` one ended.

    Complete sections are not measured again. Points of an incomplete one stay, marked `kept`, until its new
    run has one of that name or has come to its end.
    """

    earlier: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        goes_on = bool(self.path and self.earlier and _sections(self.head, self.path))
        self.file = Growing(self.path, goes_on)

    def run(self, name: str, part: Callable[[], Iterable[dict]]) -> list[dict]:
        known = self.earlier.get(name)
        if known and complete(known) and name != FLOORS:
            self.parts[name] = known
            print(f"-- {name}: measured before, {len(known['points'])} points", file=sys.stderr, flush=True)
            return known["points"]
        points = super().run(name, part)
        section = self.parts[name]
        if points and "failed" not in section and "skipped" not in section:
            section["count"] = len(points)
            self.write()
        return points

    def note(self, section: str, **more: object) -> None:
        """Keep something beside the points of a section."""
        self.parts[section] |= more

    def record(self) -> dict:
        record = super().record()
        return {**record, "parts": {**self.earlier, **self.parts, **self._half_done()}}

    def _half_done(self) -> dict[str, dict]:
        """Sections that are not complete, with the points that they had before and have not got again."""
        found = {}
        for name, section in self.parts.items():
            old = self.earlier.get(name)
            if old and old is not section and not complete(section):
                have = {one["name"] for one in section["points"]}
                kept = [{**one, "kept": True} for one in old["points"] if one["name"] not in have]
                found[name] = {**section, "points": [*section["points"], *kept]}
        return found

    def text(self) -> str:
        return as_text(self.record())


def as_text(record: dict) -> str:
    """JSON with lists of numbers on one line; what is no number (a floor that could not be measured) is null."""
    text = json.dumps(_finite(record), indent=1, allow_nan=False, default=str)
    return re.sub(r"\[[-+0-9.eE,\s]*\]", lambda found: re.sub(r"\s+", "", found[0]), text) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def read_record(path: str | Path) -> dict:
    """The record in a file. Raises `InputError` when it is none, or does not say where its numbers come from."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such record; make one with `hybrid-serving record`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the record cannot be read ({error}); make it again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path}: this is no {FORMAT!r} file; make one with `hybrid-serving record`")
    missing = [name for name in REQUIRED if not record.get(name)]
    if not str(record.get("hardware_key")).startswith("cpu_") and not record.get("gpu"):
        missing.append("gpu (driver, clocks, power limit, temperature)")
    if missing:
        raise InputError(f"{path}: the record lacks {', '.join(missing)}; nothing is shown without its origin")
    if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", record["commit"]):
        raise InputError(f"{path}: the commit is {record['commit']!r}; record from a checkout, or set its variable")
    return record


def earlier_of(head: dict, paths: Iterable[Path]) -> dict[str, dict]:
    """The sections of the first of these files that was made by the same code on the same hardware; else none.

    A recording that was broken off lies beside its file, where an older one was there.
    """
    places = (place for path in paths for place in (path, path.with_name(path.name + PART)))
    return next(filter(None, (_sections(head, place) for place in places)), {})


def _sections(head: dict, path: Path) -> dict[str, dict]:
    """Those in a file, none where it is no record or was made by other code or on other hardware."""
    try:
        record = read_record(path)
    except InputError:
        return {}
    return record["parts"] if all(record.get(name) == head[name] for name in SAME) else {}
