"""How a command speaks: tables for people, one JSON line for programs, progress on the error stream."""

import json
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from helpers.checkout import commit

# What every last line has, null where a command has no such thing.
ALWAYS = ("command", "wall_s", "seeds", "workload_sha256", "commit")
SHORT = 30  # a column of cells up to this many characters is never folded on a terminal
FOLDED = 10  # characters that any other column may be folded to


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
    """A Rich table on a terminal; piped, one tab-separated line a row with full names.

    A table that is too wide for the terminal comes in parts, each of which begins with the first column.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(title, columns, texts)
        return
    print(f"# {title}")
    print("\t".join(columns))
    for row in texts:
        print("\t".join(row))


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widest = [max((len(row[at]) for row in rows), default=0) for at in range(len(columns))]
    words = [max(map(len, name.split()), default=1) for name in columns]  # a column takes room even without a name
    least = [max(wide if wide <= SHORT else FOLDED, word) for wide, word in zip(widest, words, strict=True)]
    for part in _parts(least, console.width):
        table = Table(title=Text(title) if 1 in part or len(columns) == 1 else None, title_justify="left")
        for at in part:
            whole = widest[at] <= SHORT
            name = textwrap.fill(columns[at], least[at], break_on_hyphens=False) if whole else columns[at]
            table.add_column(Text(name), no_wrap=whole, overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[at]) for at in part))
        console.print(table)


def _parts(least: Sequence[int], width: int) -> Iterator[list[int]]:
    """The places of columns that stand side by side in `width` characters, the first among them every time."""
    border = 3
    taken = [0]
    for at in range(1, len(least)):
        if len(taken) > 1 and 1 + sum(least[one] + border for one in (*taken, at)) > width:
            yield taken
            taken = [0]
        taken.append(at)
    yield taken


@contextmanager
def progress(label: str, total: int) -> Iterator:
    """Yields `tick(done)`. On a terminal shows a bar once two seconds have passed; else stays silent.

    `tick` may be called as often as liked: it looks at the clock only.
    """
    start = shown = monotonic()
    longest = 0
    terminal = sys.stderr.isatty()

    def tick(done: int) -> None:
        nonlocal shown, longest
        now = monotonic()
        if terminal and now - start > 2.0 and now - shown > 0.2:
            shown = now
            share = f"{100 * done // max(1, total)} %" if total else f"{done}"
            line = f"{label}: {share} after {now - start:.0f} s"
            longest = max(longest, len(line))
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

    try:
        yield tick
    finally:
        if shown != start:
            print("\r" + " " * longest + "\r", end="", file=sys.stderr, flush=True)
