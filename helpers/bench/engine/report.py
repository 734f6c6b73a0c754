"""The record of `bench engine`: points as they come, written to a file after each, failures among them."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from helpers.errors import InputError
from helpers.outputs import Growing, keep_traceback


def point(
    name: str,
    value: float,
    unit: str,
    samples: Sequence[float] = (),
    *,
    floor: float | None = None,
    target: float | None = None,
    at_least: bool = True,
    **more: object,
) -> dict:
    """One measured number: its unit, N and spread, the floor it is held against, and the target with the verdict.

    `floor` is what `value` would be at the ceilings measured in the same run. `target` is met when the value
    is at least (or, with `at_least=False`, at most) that much.
    """
    record = {"name": name, "value": value, "unit": unit, "n": len(samples) or 1}
    if samples:
        record |= {"min": min(samples), "max": max(samples), "samples": [float(f"{s:.6g}") for s in samples]}
    if floor is not None:
        record["floor"] = floor
    if target is not None:
        record |= {"target": target, "met": value >= target if at_least else value <= target}
    return record | more


def median_point(name: str, samples: Sequence[float], unit: str, **more) -> dict:
    """A point whose value is the median of its samples."""
    return point(name, median(samples), unit, samples, **more)


@dataclass
class Report:
    """Points by part. `budget_s` is for all parts together: a part that would begin later is skipped, and says so."""

    path: Path | None = None
    budget_s: float = 480.0
    head: dict = field(default_factory=dict)
    parts: dict[str, dict] = field(default_factory=dict)
    started_s: float = field(default_factory=perf_counter)

    def __post_init__(self) -> None:
        self.file = Growing(self.path)

    @property
    def left_s(self) -> float:
        return self.budget_s - (perf_counter() - self.started_s)

    def run(self, name: str, part: Callable[[], Iterable[dict]]) -> list[dict]:
        """Run a part, keeping each of its points at once; what it raises becomes its `failed`, never ours."""
        record = self.parts[name] = {"points": []}
        if self.left_s <= 0:
            record["skipped"] = f"the budget of {self.budget_s:g} s was spent"
            print(f"-- {name}: skipped, {record['skipped']}", file=sys.stderr, flush=True)
            self.write()
            return []
        start = perf_counter()
        try:
            for one in part():
                record["points"].append(one)
                print(f"   {name}: {text_of(one)}", file=sys.stderr, flush=True)
                self.write()
                if self.left_s <= 0:
                    record["skipped"] = "the rest: the budget was spent"
                    break
        except InputError as error:  # says all there is to say
            record["failed"] = str(error)[:500]
            print(f"-- {name}: {error}", file=sys.stderr, flush=True)
        except Exception as error:
            record["failed"] = f"{type(error).__name__}: {error}"[:500]
            first = next(iter(record["failed"].splitlines()))
            kept = keep_traceback(error, name.replace(" ", "-"), self.path and self.path.parent)
            print(f"-- {name}: failed, {first}; {kept}", file=sys.stderr, flush=True)
        record["wall_s"] = perf_counter() - start
        self.write()
        return record["points"]

    def write(self, whole: bool = False) -> None:
        """Write everything so far to the file, if there is one; `whole`: no more comes."""
        if self.path:
            self.file.write(self.text(), whole)

    def text(self) -> str:
        """Everything so far as the text of a file."""
        return json.dumps(self.record(), indent=1, allow_nan=False, default=str) + "\n"

    def record(self) -> dict:
        """Everything so far in plain values."""
        return {**self.head, "wall_s": perf_counter() - self.started_s, "parts": self.parts}

    def summary(self) -> dict:
        """The record without raw samples: what fits on the last line of a command."""
        short = lambda one: {k: v for k, v in one.items() if k not in ("samples", "met")}  # noqa: E731
        parts = {name: {**part, "points": [short(p) for p in part["points"]]} for name, part in self.parts.items()}
        return {**self.record(), "parts": parts}

    def rows(self) -> list[tuple]:
        """One row a point or failure, for people."""
        rows = []
        for name, part in self.parts.items():
            rows += [(name, *row_of(one)) for one in part["points"]]
            rows += [(name, kind, part[kind], *[""] * 5) for kind in ("skipped", "failed") if kind in part]
        return rows

    def missed(self) -> list[str]:
        """The names of the points whose target was missed."""
        return [f"{n}: {p['name']}" for n, part in self.parts.items() for p in part["points"] if p.get("met") is False]

    def failed(self) -> list[str]:
        """The names of the parts that failed; what the budget left out did not."""
        return failed_in(self.parts)


def failed_in(parts: Mapping[str, Mapping]) -> list[str]:
    """The names of the parts of a record that failed, or have a point that did."""
    return [
        name
        for name, part in parts.items()
        if "failed" in part or any("failed" in one for one in part.get("points", ()))
    ]


COLUMNS = ("part", "point", "value", "unit", "floor", "target", "met", "N and range")


def row_of(one: dict) -> tuple:
    """A point as cells, in the order of COLUMNS after the first."""
    return (
        *(one["name"], number(one["value"]), one["unit"]),
        *(number(one.get("floor")), number(one.get("target")), met(one), spread(one)),
    )


def met(one: dict) -> str:
    """Whether a point met its target; nothing where it has none."""
    return {True: "yes", False: "NO"}.get(one.get("met"), "")


def spread(one: dict) -> str:
    """N of a point, with its range where there is one."""
    return f"{one['n']}: {number(one['min'])} to {number(one['max'])}" if "min" in one else f"{one['n']}"


def text_of(one: dict) -> str:
    name, value, unit, floor, target, met, spread = row_of(one)
    words = [f"{name} {value} {unit}", f"floor {floor}" if floor else "", f"target {target} {met}" if target else ""]
    return ", ".join(w for w in words if w) + f" (N = {spread})"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
