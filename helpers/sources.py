"""Figures with their sources: how the tables in `data/` are written and read.

A figure is `key = { value = 3.35, mark = "P", source = "..." }`. Where every figure of a table comes from
one file, the table itself may carry `mark` and `source` at its head, and its numbers stand bare.
A number with neither is refused, so that no figure enters the course without a source.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import InputError

MARKS = {
    "P": "primary source read",
    "S": "secondary source",
    "C": "computed",
    "M": "unverified",
}

# A key says the unit in its name; the loader multiplies and renames to base units (FLOP/s, bytes, bytes/s, Hz).
UNITS = (
    ("tflops", "flops", 1e12),
    ("_tb_per_s", "_bytes_per_s", 1e12),
    ("_gb_per_s", "_bytes_per_s", 1e9),
    ("_gbit_per_s", "_bytes_per_s", 1e9 / 8),
    ("_kib_per_sm", "_bytes_per_sm", 1024),
    ("_kib_per_cta", "_bytes_per_cta", 1024),
    ("_mib", "_bytes", 1024**2),
    ("_gb", "_bytes", 1e9),
    ("_ghz", "_hz", 1e9),
    ("_billion", "", 1e9),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from: `mark` is one of `MARKS`, `text` names the document."""

    mark: str
    text: str

    @property
    def verified(self) -> bool:
        """False for a figure that may only be shown as unverified."""
        return self.mark != "M"

    def __str__(self) -> str:
        return f"[{self.mark}] {self.text}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in base units with its source."""

    value: float
    source: Source


@dataclass(frozen=True)
class Entry:
    """One table of a data file: `labels` are its strings, booleans and lists, `figures` its numbers by dotted name."""

    key: str
    labels: Mapping[str, object]
    figures: Mapping[str, Figure]


def read_tables(path: Path) -> dict[str, Entry]:
    """The entries of a data file, in its order, without its `[sources]` table of abbreviations.

    Raises `InputError` for a file that is not TOML, a number without a source, an unknown mark,
    an empty source or a figure with a key that does not belong there.
    """
    tables = {}
    for key, table in _document(path).items():
        where = f"{path.name}: {key}"
        if not isinstance(table, dict):
            raise InputError(f"{where} stands outside any table; put it under a [name]")
        if key == "sources":
            continue
        labels: dict[str, object] = {}
        figures: dict[str, Figure] = {}
        _collect(table, where, "", None, labels, figures)
        tables[key] = Entry(key, labels, figures)
    return tables


def read_abbreviations(path: Path) -> dict[str, str]:
    """The `[sources]` table of a data file: short names that its sources begin with, and what they stand for."""
    return {name: str(text) for name, text in _document(path).get("sources", {}).items()}


def _document(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run from a full checkout of the course") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML, {error}") from None


def _collect(table: dict, where: str, prefix: str, shared: Source | None, labels: dict, figures: dict) -> None:
    if "mark" in table or "source" in table:
        shared = _source(table, where)
    for key, item in table.items():
        name, here = f"{prefix}{key}", f"{where}.{key}"
        if key in ("mark", "source"):
            continue
        if isinstance(item, dict) and "value" in item:
            _put(figures, name, here, item["value"], _figure_source(item, here))
        elif isinstance(item, dict):
            _collect(item, here, f"{name}.", shared, labels, figures)
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            if shared is None:
                raise InputError(f"{here} is {item} without mark and source; write {{ value, mark, source }}")
            _put(figures, name, here, item, shared)
        else:
            labels[name] = item


def _put(figures: dict, name: str, where: str, value: object, source: Source) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0 or value == float("inf"):
        raise InputError(f"{where} has the value {value!r}; give a finite number of 0 or more")
    field, factor = base_unit(name)
    figures[field] = Figure(value if factor == 1 else round(value * factor), source)  # whole FLOP/s, bytes, Hz


def _figure_source(item: dict, where: str) -> Source:
    extra = sorted(item.keys() - {"value", "mark", "source"})
    if extra:
        raise InputError(f"{where} has the unknown key {extra[0]!r}; a figure has value, mark and source")
    return _source(item, where)


def _source(table: dict, where: str) -> Source:
    mark, text = table.get("mark"), table.get("source")
    if mark not in MARKS:
        raise InputError(f"{where} has the mark {mark!r}; use one of {', '.join(MARKS)}")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} has no source; name the document beside the figure")
    return Source(mark, text.strip())


def base_unit(name: str) -> tuple[str, float]:
    """(name in base units, factor) of a key: `hbm_tb_per_s` -> (`hbm_bytes_per_s`, 1e12).

    Each part of a dotted name is looked at, so that `peak_tflops.bf16` becomes `peak_flops.bf16`.
    """
    parts, factor = name.split("."), 1.0
    for i, part in enumerate(parts):
        for suffix, base, times in UNITS:
            if part.endswith(suffix):
                parts[i], factor = part.removesuffix(suffix) + base, factor * times
                break
    return ".".join(parts), factor


def one_of(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name: what was asked for and what there is."""
    return InputError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
