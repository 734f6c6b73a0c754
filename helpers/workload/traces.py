"""Trace files in and out: Mooncake JSONL, Azure CSV (2023 and 2024), BurstGPT CSV, one's own CSV or JSONL."""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from helpers.errors import InputError
from helpers.outputs import write_packed
from helpers.workload.formats import EPOCH, FORMATS, TICKS_PER_S, BadRow, Fields, Format, parse_json
from helpers.workload.request import Request, Workload

GZIP_MAGIC = b"\x1f\x8b"
SKIP_HINT = "fix the row, or skip and count such rows with --skip-bad"


@dataclass(frozen=True)
class LoadReport:
    """What reading a trace met: data rows read, rows used, rows skipped by reason, rows that were out of order.

    `first_skipped` quotes the first row of each reason. `first_recorded` is the earliest time in
    the file's own terms (for absolute times, what became 0).
    """

    path: str
    format: str
    rows: int
    loaded: int
    skipped: tuple[tuple[str, int], ...] = ()
    first_skipped: tuple[str, ...] = ()
    out_of_order: int = 0
    first_recorded: str = ""


def load(
    path: str | Path,
    format: str = "auto",
    skip_bad: bool = False,
    max_context: int | None = None,
    max_requests: int | None = None,
    block_tokens: int = 512,
) -> tuple[Workload, LoadReport]:
    """Read a trace file, plain or gzipped; the format is told from its first line unless named.

    Times become seconds. Absolute ones (Azure, BurstGPT) are shifted so that the first request
    arrives at 0. Rows out of order are sorted by arrival and reported. A row with zero output (or
    prompt) is a request that failed when it was recorded: it is refused like any malformed row.
    With `skip_bad`, rows that cannot be used are left out and counted by reason; a file that
    cannot be read to its end is refused all the same. `max_context` is the longest prompt + output
    of the model in tokens, `max_requests` reads only so many usable rows.
    Raises `InputError` with file, line, field and reason.
    """
    for label, value in (("max_requests", max_requests), ("max_context", max_context), ("block_tokens", block_tokens)):
        if value is not None and value < 1:
            raise InputError(f"{label} is {value}; use 1 or more")
    if format != "auto" and format not in FORMATS:
        raise InputError(f"trace format {format!r} is unknown; use auto, {', '.join(FORMATS)}")
    path = Path(path)
    reading = _Reading(path, skip_bad, max_context, block_tokens)
    with _lines(path) as lines:
        layout = reading.read(lines, format, max_requests)
    reading.check(layout)
    return reading.finish(layout)


@dataclass
class _Reading:
    """One pass over a file: the rows kept, with their line numbers, and what was skipped."""

    path: Path
    skip_bad: bool
    max_context: int | None
    block_tokens: int
    rows: int = 0
    kept: list[tuple[int, Fields]] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)
    first_skipped: dict[str, str] = field(default_factory=dict)
    out_of_order: int = 0

    def read(self, lines: Iterator[str], format: str, max_requests: int | None) -> Format:
        """Keep up to `max_requests` usable rows; returns the format found."""
        numbered = enumerate(lines, start=1)
        first = next(((n, text) for n, text in numbered if text.strip()), None)
        if first is None:
            raise InputError(f"{self.path}: the trace is empty; give a file with at least one request")
        layout, header = _detect(self.path, *first, format)
        rows = _json_rows(first, numbered) if header is None else _csv_rows(header, numbered)
        for number, row in rows:
            self.rows += 1
            try:
                self.kept.append((number, self._usable(layout, row)))
            except BadRow as bad:
                self._skip(number, bad)
            if len(self.kept) == max_requests:
                break
        return layout

    def _usable(self, layout: Format, row: dict[str, object] | BadRow) -> Fields:
        if isinstance(row, BadRow):
            raise row
        if layout.lines == "jsonl" and not layout.fits(set(row)):
            raise BadRow(*_misfit(layout, set(row)))
        fields = layout.parse(row)
        prompt, output, blocks = fields["prompt_tokens"], fields["output_tokens"], fields.get("prefix_blocks")
        if self.max_context is not None and prompt + output > self.max_context:
            reason = f"prompt + output exceed the context of {self.max_context} tokens"
            raise BadRow(layout.prompt, reason, prompt + output)
        if blocks and len(blocks) != -(-prompt // self.block_tokens):
            reason = f"not one block id per {self.block_tokens} prompt tokens"
            raise BadRow(layout.blocks, reason, f"{len(blocks)} ids for {prompt} tokens")
        return fields

    def _skip(self, number: int, bad: BadRow) -> None:
        sentence = f"{self.path}, line {number}, {bad}"
        if not self.skip_bad:
            raise InputError(f"{sentence}; {SKIP_HINT}")
        reason = f"{bad.field}: {bad.reason}"
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, sentence)

    def check(self, layout: Format) -> None:
        """Sort by arrival; resolve ids, parents and sessions across rows."""
        if not self.kept:
            reasons = "; ".join(f"{reason} ({n})" for reason, n in self.skipped.items())
            raise InputError(f"{self.path}: no usable row among {self.rows}{': ' + reasons if reasons else ''}")
        times = [fields["arrival_s"] for _, fields in self.kept]
        self.out_of_order = sum(1 for a, b in pairwise(times) if b < a)
        own_ids = any("id" in fields for _, fields in self.kept)
        if not own_ids and any("parent" in fields for _, fields in self.kept):
            for position, (_, fields) in enumerate(self.kept):
                fields["id"] = position  # a parent without ids counts data rows from 0
        self.kept.sort(key=lambda item: item[1]["arrival_s"])
        known: set[int] = set()
        linked = []
        for position, (number, fields) in enumerate(self.kept):
            try:
                linked.append((number, _linked(fields, position, own_ids, known)))
            except BadRow as bad:
                self._skip(number, bad)
        self.kept = linked

    def finish(self, layout: Format) -> tuple[Workload, LoadReport]:
        start = self.kept[0][1]["arrival_s"]
        sessions: dict[object, int] = {}
        requests = []
        for _, fields in self.kept:
            if layout.shifted:
                fields["arrival_s"] = (fields["arrival_s"] - start) / (TICKS_PER_S if layout.name == "azure" else 1)
            if isinstance(fields.get("session"), str):
                fields["session"] = sessions.setdefault(fields["session"], len(sessions))
            requests.append(Request(**fields))
        skipped = tuple(sorted(self.skipped.items()))
        repairs = []
        if skipped:
            repairs.append(f"{self.skipped.total()} of {self.rows} rows skipped")
        if self.out_of_order:
            repairs.append(f"sorted by arrival ({self.out_of_order} rows were out of order)")
        recorded = (EPOCH + timedelta(seconds=start // TICKS_PER_S)).isoformat() if layout.name == "azure" else start
        report = LoadReport(
            str(self.path),
            layout.name,
            self.rows,
            len(requests),
            skipped,
            tuple(self.first_skipped.values()),
            self.out_of_order,
            str(recorded),
        )
        name = self.path.name.removesuffix(".gz").rpartition(".")[0] or self.path.name
        source = f"{self.path.name} ({layout.name})"
        return Workload(name, tuple(requests), self.block_tokens, source, tuple(repairs)), report


def _linked(fields: Fields, position: int, own_ids: bool, known: set[int]) -> Fields:
    """Give the request its id and check that its parent arrived before it."""
    if own_ids and "id" not in fields:
        raise BadRow("id", "missing, though other rows have one")
    number = fields.setdefault("id", position)
    if number in known:
        raise BadRow("id", "used twice", number)
    parent = fields.get("parent")
    if parent is not None and parent not in known:
        raise BadRow("parent", "not the id of a request that arrives before this one", parent)
    known.add(number)
    return fields


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """The text lines of a plain or gzipped file; every way of failing to read it is one `InputError`."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if path.suffix == ".gz" and not zipped and raw.read(1):
                raise InputError(f"{path}: the name ends in .gz but the content is not gzip; rename or fetch it again")
            raw.seek(0)
            binary = gzip.GzipFile(fileobj=raw) if zipped else raw
            with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
                yield iter(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such trace file; give an existing path") from None
    except EOFError:
        raise InputError(f"{path}: the gzip file is truncated; fetch or copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is corrupt ({error}); fetch or copy it again") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start} of a block); give a CSV or JSONL file") from None
    except csv.Error as error:
        raise InputError(f"{path}: not readable as CSV ({error}); give a CSV or JSONL file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give a readable file") from None


def _detect(path: Path, number: int, text: str, format: str) -> tuple[Format, list[str] | None]:
    """The format of a file from its first line, and the header of a CSV."""
    if text.lstrip().startswith("{"):
        try:
            columns, header, lines = list(parse_json(text)), None, "jsonl"
        except BadRow as bad:
            raise InputError(f"{path}, line {number}, {bad}; the format is told from this line") from None
    else:
        columns = header = [name.strip() for name in next(csv.reader([text]))]
        lines = "csv"
    if text.lstrip().startswith("["):
        raise InputError(f"{path}, line {number}: this is a JSON list; write one object a line, without the brackets")
    asked = [f for f in FORMATS.values() if format in ("auto", f.name)]
    found = [f for f in asked if f.lines == lines and f.fits(set(columns))]
    if not found or len(set(columns)) != len(columns):
        shown = ", ".join(map(repr, columns))[:200]
        wanted = "; ".join(f"{f.name}: {', '.join(sorted(f.required))}" for f in asked)
        near = _nearest([f for f in asked if f.lines == lines], set(columns))
        raise InputError(f"{path}, line {number}: columns {shown} fit no trace format{near} ({wanted})")
    return found[0], header


def _nearest(layouts: list[Format], columns: set[str]) -> str:
    """What keeps the columns from the format that they have most in common with; nothing where they have nothing."""
    shared = lambda f: len(columns & (f.required | f.optional))  # noqa: E731
    near = max(layouts, key=shared, default=None)
    if near is None or not shared(near) or near.fits(columns):
        return ""
    misses = ", ".join(map(repr, sorted(near.required - columns)))
    strange = ", ".join(map(repr, sorted(columns - near.required - near.optional)))
    wrong = [*([f"misses {misses}"] if misses else []), *([f"has no {strange}"] if strange else [])]
    return f"; the nearest, {near.name}, {' and '.join(wrong)}"


def _json_rows(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, dict | BadRow]]:
    yield first[0], parse_json(first[1])
    for number, text in rest:
        if text.strip():
            try:
                yield number, parse_json(text)
            except BadRow as bad:
                yield number, bad


def _csv_rows(header: list[str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, dict | BadRow]]:
    at = [0]

    def texts() -> Iterator[str]:
        for number, text in rest:
            at[0] = number
            yield text

    for cells in csv.reader(texts()):
        if len(cells) == len(header):
            yield at[0], dict(zip(header, cells, strict=True))
        elif cells:
            yield at[0], BadRow("(line)", f"not {len(header)} columns", f"{len(cells)} found")


def _misfit(layout: Format, columns: set[str]) -> tuple[str, str]:
    missing = sorted(layout.required - columns)
    unknown = sorted(columns - layout.required - layout.optional)
    return (missing or unknown)[0], "missing" if missing else "not a field of this format"


def save(workload: Workload, path: str | Path, format: str = "own-jsonl") -> Path:
    """Write a workload; a name that ends in `.gz` is compressed with no name or time inside, so bytes repeat.

    `own-jsonl` keeps every field. `mooncake` (times in ms, blocks of 512) and `azure` (100 ns
    after 2000-01-01, no blocks) keep arrival and lengths only and refuse requests with a parent,
    whose meaning would be lost. Raises `InputError` when the format cannot hold the workload.
    """
    path = Path(path)
    writers = {"own-jsonl": _own_lines, "mooncake": _mooncake_lines, "azure": _azure_lines}
    if format not in writers:
        raise InputError(f"cannot write the format {format!r}; use {', '.join(writers)}")
    if not workload.requests:
        raise InputError(f"workload {workload.name} holds no request; there is nothing to write")
    if format != "own-jsonl" and any(r.parent is not None for r in workload):
        raise InputError(f"the {format} format cannot hold parents; write own-jsonl")
    content = "".join(f"{line}\n" for line in writers[format](workload)).encode()
    write_packed(path, content)
    return path


def _own_lines(workload: Workload) -> Iterator[str]:
    for r in workload:
        row = {"id": r.id, "arrival_s": r.arrival_s, "prompt_tokens": r.prompt_tokens, "output_tokens": r.output_tokens}
        if r.session is not None:
            row["session"] = r.session
        if r.parent is not None:
            row |= {"parent": r.parent, "think_time_s": r.think_time_s}
        if r.tenant != "default":
            row["tenant"] = r.tenant
        if r.slo_class != "standard":
            row["slo_class"] = r.slo_class
        if r.priority:
            row["priority"] = r.priority
        if r.deadline_s is not None:
            row["deadline_s"] = r.deadline_s
        if r.prefix_blocks:
            row["prefix_blocks"] = r.prefix_blocks
        yield json.dumps(row)


def _mooncake_lines(workload: Workload) -> Iterator[str]:
    if workload.block_tokens != 512 or not all(r.prefix_blocks for r in workload):
        raise InputError("the mooncake format needs prefix blocks of 512 tokens on every request; write own-jsonl")
    for r in workload:
        row = {"timestamp": round(r.arrival_s * 1000), "input_length": r.prompt_tokens}
        yield json.dumps(row | {"output_length": r.output_tokens, "hash_ids": r.prefix_blocks})


def _azure_lines(workload: Workload) -> Iterator[str]:
    if any(r.prefix_blocks for r in workload):
        raise InputError("the azure format cannot hold prefix blocks; write own-jsonl or mooncake")
    yield "TIMESTAMP,ContextTokens,GeneratedTokens"
    day = EPOCH.replace(year=2000, tzinfo=None)
    for r in workload:
        seconds, ticks = divmod(round(r.arrival_s * TICKS_PER_S), TICKS_PER_S)
        yield f"{day + timedelta(seconds=seconds)}.{ticks:07d},{r.prompt_tokens},{r.output_tokens}"
