"""The layouts of trace files: what their columns are called and how one row becomes a request.

A parser takes one row and returns the fields of a `Request` (without `id` unless the row has one)
or raises `BadRow`. Nothing here opens a file; see `traces.py`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_PER_S = 10_000_000  # Azure timestamps count 100 ns
DATES_FROM_S = 1e8  # three years: a time so large counts from 1970, not from the start of a trace


class BadRow(Exception):
    """A row that cannot be used: the field, a short reason that can be counted, and the offending value."""

    def __init__(self, field: str, reason: str, value: object = None) -> None:
        super().__init__(field, reason, value)
        self.field, self.reason, self.value = field, reason, value

    def __str__(self) -> str:
        shown = "" if self.value is None else f" ({str(self.value)[:40]!r})"
        return f"field {self.field}: {self.reason}{shown}"


Fields = dict[str, object]


@dataclass(frozen=True)
class Format:
    """One file layout. `shifted`: times are absolute, so the first request of the file arrives at 0.

    `prompt` and `blocks` are what the file calls the prompt's length and its block ids, for error messages.
    """

    name: str
    lines: str  # "csv" or "jsonl"
    required: frozenset[str]
    optional: frozenset[str]
    parse: Callable[[Mapping[str, object]], Fields]
    shifted: bool
    prompt: str
    blocks: str = "prefix_blocks"

    def fits(self, columns: set[str]) -> bool:
        return self.required <= columns <= self.required | self.optional


def _mooncake(row: Mapping[str, object]) -> Fields:
    blocks = row["hash_ids"]
    return {
        "arrival_s": _since_start(row, "timestamp", 1000),
        "prompt_tokens": _count(row, "input_length"),
        "output_tokens": _count(row, "output_length"),
        "prefix_blocks": _blocks(blocks, "hash_ids"),
    }


def _azure(row: Mapping[str, object]) -> Fields:
    return {
        "arrival_s": azure_ticks(str(row["TIMESTAMP"])),
        "prompt_tokens": _count(row, "ContextTokens"),
        "output_tokens": _count(row, "GeneratedTokens"),
    }


def _burstgpt(row: Mapping[str, object]) -> Fields:
    fields: Fields = {
        "arrival_s": _seconds(row, "Timestamp"),
        "prompt_tokens": _count(row, "Request tokens"),
        "output_tokens": _count(row, "Response tokens"),
    }
    if row.get("Session ID"):
        fields["session"] = str(row["Session ID"])
    return fields


def _own(row: Mapping[str, object]) -> Fields:
    fields: Fields = {
        "arrival_s": _since_start(row, "arrival_s"),
        "prompt_tokens": _count(row, "prompt_tokens"),
        "output_tokens": _count(row, "output_tokens"),
    }
    for name, read in _OWN_OPTIONAL.items():
        if row.get(name) not in (None, ""):
            fields[name] = read(row, name)
    return fields


def azure_ticks(text: str) -> int:
    """An Azure timestamp in 100 ns since 1970, exactly: `2023-11-16 18:17:03.9799600`, `2024-05-12 00:00:00+00:00`.

    Without an offset it is UTC, as the data set states.
    """
    whole, point, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        stamp = datetime.fromisoformat(whole + rest[len(digits) :])
    except ValueError:
        raise BadRow("TIMESTAMP", "not a date and time", text) from None
    if len(whole) < 19 or (point and not digits):
        raise BadRow("TIMESTAMP", "not a date and time", text)
    since = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)) - EPOCH
    return (since.days * 86_400 + since.seconds) * TICKS_PER_S + int((digits + "0000000")[:7])


def _seconds(row: Mapping[str, object], field: str) -> float:
    number = _number(row, field)
    if number < 0:
        raise BadRow(field, "negative time", row[field])
    return number


def _since_start(row: Mapping[str, object], field: str, per_s: int = 1) -> float:
    """Seconds since the trace began; a date would leave the fleet idle for decades before the first request."""
    since_s = _seconds(row, field) / per_s
    if since_s >= DATES_FROM_S:
        raise BadRow(field, "a date, not the time since the trace began; subtract the first", row[field])
    return since_s


def _number(row: Mapping[str, object], field: str) -> float:
    value = row[field]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadRow(field, "not a number", row[field]) from None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise BadRow(field, "not a number", row[field])
    return value


def _whole(row: Mapping[str, object], field: str) -> int:
    value = row[field]
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise BadRow(field, "not a whole number", row[field]) from None
    if type(value) is not int:
        raise BadRow(field, "not a whole number", value)
    return value


def _count(row: Mapping[str, object], field: str) -> int:
    """A number of tokens: 1 or more. Zero is named apart, because public traces mark failed requests with it."""
    tokens = _whole(row, field)
    if tokens < 0:
        raise BadRow(field, "negative length", tokens)
    if tokens == 0:
        raise BadRow(field, "zero length (a failed request)")
    return tokens


def _natural(row: Mapping[str, object], field: str) -> int:
    number = _whole(row, field)
    if number < 0:
        raise BadRow(field, "negative number", number)
    return number


def _label(row: Mapping[str, object], field: str) -> str:
    if not isinstance(row[field], str):
        raise BadRow(field, "not text", row[field])
    return row[field]


def _own_blocks(row: Mapping[str, object], field: str) -> tuple[int, ...]:
    value = row[field]
    if isinstance(value, str):  # a CSV cell: ids separated by spaces
        try:
            value = [int(x) for x in value.split()]
        except ValueError:
            raise BadRow(field, "not block ids separated by spaces", value) from None
    return _blocks(value, field)


def _blocks(value: object, field: str) -> tuple[int, ...]:
    if type(value) is not list or (value and (set(map(type, value)) != {int} or min(value) < 0)):
        raise BadRow(field, "not a list of whole numbers of 0 or more", value)
    if len(set(value)) != len(value):
        raise BadRow(field, "a block id occurs twice in one prompt")
    return tuple(value)


_OWN_OPTIONAL: dict[str, Callable[[Mapping[str, object], str], object]] = {
    "id": _natural,
    "session": _natural,
    "parent": _natural,
    "think_time_s": _seconds,
    "tenant": _label,
    "slo_class": _label,
    "priority": _whole,
    "deadline_s": _seconds,
    "prefix_blocks": _own_blocks,
}


_OWN = (frozenset({"arrival_s", "prompt_tokens", "output_tokens"}), frozenset(_OWN_OPTIONAL), _own, False)
_MOONCAKE = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
_AZURE = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
_BURSTGPT = frozenset({"Timestamp", "Model", "Request tokens", "Response tokens"})
_BURSTGPT_MORE = frozenset({"Session ID", "Elapsed time", "Total tokens", "Log Type"})

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("mooncake", "jsonl", _MOONCAKE, frozenset(), _mooncake, False, "input_length", "hash_ids"),
        Format("azure", "csv", _AZURE, frozenset(), _azure, True, "ContextTokens"),
        Format("burstgpt", "csv", _BURSTGPT, _BURSTGPT_MORE, _burstgpt, True, "Request tokens"),
        Format("own-csv", "csv", *_OWN, "prompt_tokens"),
        Format("own-jsonl", "jsonl", *_OWN, "prompt_tokens"),
    )
}


def parse_json(line: str) -> dict[str, object]:
    """One JSON object; `BadRow` for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("(line)", "malformed JSON", line.strip()) from None
    if type(row) is not dict:
        raise BadRow("(line)", "not a JSON object", line.strip())
    return row
