"""How a command speaks: tables for people, one JSON line for programs, progress on the error stream."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from helpers.checkout import commit

# What every last line has, null where a command has no such thing.
ALWAYS = ("command", "wall_s", "seeds", "workload_sha256", "commit")


def command_line() -> str:
    """The command as it was typed, with the folders of absolute paths left out: they say nothing to others."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])
    return shlex.join(["hybrid-serving", *words])


def emit_json(record: dict) -> None:
    """Print the last line of a command: one JSON object, plain, never wrapped.

    Adds the keys that every command has; the commit is looked up where it is not given.
    """
    line = {**dict.fromkeys(ALWAYS), **record}
    line["commit"] = line["commit"] or commit()
    print(json.dumps(line, separators=(", ", ": "), allow_nan=False), flush=True)


def emit_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Rich table on a terminal; piped, one tab-separated line a row with full names."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for name in columns:
            table.add_column(name)
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        Console().print(table)
        return
    print(f"# {title}")
    print("\t".join(columns))
    for row in rows:
        print("\t".join("" if cell is None else str(cell) for cell in row))


@contextmanager
def progress(label: str, total: int) -> Iterator:
    """Yields `tick(done)`. On a terminal shows a bar once two seconds have passed; else stays silent.

    `tick` may be called as often as liked: it looks at the clock only.
    """
    start = shown = monotonic()
    terminal = sys.stderr.isatty()

    def tick(done: int) -> None:
        nonlocal shown
        now = monotonic()
        if terminal and now - start > 2.0 and now - shown > 0.2:
            shown = now
            share = f"{100 * done // max(1, total)} %" if total else f"{done}"
            print(f"\r{label}: {share} after {now - start:.0f} s", end="", file=sys.stderr, flush=True)

    try:
        yield tick
    finally:
        if shown != start:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
