"""`hybrid-serving lessons …`: build the labs from their sources, see and forget one's own progress."""

import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from helpers.console import emit_json, emit_table
from helpers.errors import InputError
from helpers.lessons.building import LABS, chosen, drift, strays
from helpers.lessons.building import build as build_versions
from helpers.lessons.deck import deck
from helpers.lessons.exercises import state_of
from helpers.lessons.front_end import TOLD
from helpers.lessons.prediction import first_guess, ratio
from helpers.lessons.progress import PLACE, Progress, empty, place
from helpers.lessons.source import read_source
from helpers.outputs import check_writable, write_text

HELP = f"""Build the labs; see or forget your progress, which stays on this machine.

{PLACE} names another file for it. In an editor that is not recognised as a notebook that somebody has open,
{TOLD}=1 keeps progress too.
"""


def register(app: typer.Typer) -> None:
    """Add the commands of `lessons`."""
    lessons = typer.Typer(help=HELP)
    lessons.command("build")(build)
    lessons.command("slides")(slides)
    lessons.command("progress")(progress)
    lessons.command("reset")(reset)
    app.add_typer(lessons, name="lessons", no_args_is_help=True)


def build(
    lab: Annotated[str | None, typer.Argument(help="one lab, such as 01_load_and_latency (default: all)")] = None,
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit 1 when a file differs")] = False,
) -> None:
    """Make the learners', solution, instructors' and slides version of the labs from labs/source."""
    start = perf_counter()
    sources = [read_source(path) for path in chosen(lab)]
    written = [] if check else [str(path) for source in sources for path in build_versions(source)]
    drifted = [sentence for source in sources for sentence in drift(source)]
    drifted += strays() if lab is None else []
    for sentence in drifted:
        print(f"hybrid-serving: {sentence}", file=sys.stderr)
    for path in written:
        print(f"wrote {path}")
    found = {"labs": [source.name for source in sources], "written": written, "drifted": drifted}
    emit_json({"command": "lessons build", "wall_s": perf_counter() - start} | found)
    if drifted:
        raise typer.Exit(1)


def slides(
    lab: Annotated[str, typer.Argument(help="a lab, such as 01_load_and_latency")],
    to: Annotated[Path | None, typer.Option(help="the file to write (default: LAB.slides.html here)")] = None,
    reveal: Annotated[str | None, typer.Option(help="where reveal.js lies (default: a public address)")] = None,
) -> None:
    """Run the slides of a lab and write them as one HTML file, with their figures."""
    start = perf_counter()
    (source,) = chosen(lab)
    to = to or Path(f"{source.stem}.slides.html")
    check_writable(to)
    write_text(to, deck(LABS / "slides" / f"{source.stem}.ipynb", reveal))
    print(f"wrote {to}")
    emit_json({"command": "lessons slides", "wall_s": perf_counter() - start, "lab": source.stem, "written": str(to)})


def progress() -> None:
    """Your guesses and what you passed, and the file that they are in."""
    start = perf_counter()
    path = place()
    data = Progress(path, _say).read()
    guesses = [_guess_row(name, entry) for name, entry in sorted(data["predictions"].items())]
    tasks = [(one["lab"], name, state_of(one)) for name, one in sorted(data["exercises"].items())]
    emit_table("Guesses", ("name", "unit", "first guess", "truth", "guess / truth", "later guesses"), guesses)
    emit_table("Exercises", ("lab", "name", "state"), sorted(tasks))
    print(f"kept in {path}" if path.exists() else f"nothing is kept yet; it will be in {path}")
    parts = {name: data[name] for name in ("predictions", "exercises")}
    emit_json({"command": "lessons progress", "wall_s": perf_counter() - start, "file": str(path)} | parts)


def _guess_row(name: str, entry: dict) -> tuple:
    later = [one["value"] for one in entry["attempts"] if one["late"]]
    first, truth = first_guess(entry), entry.get("truth")
    times = ratio(first, truth)
    shown = None if times is None else f"{times:.2f}"
    return name, entry.get("unit"), _shown(first), _shown(truth), shown, ", ".join(map(_shown, later))


def _shown(value: float | str | None) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else value


def reset(
    name: Annotated[str | None, typer.Argument(help="one guess or exercise (default: everything)")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Forget one guess or exercise, or everything; asks first."""
    start = perf_counter()
    path = place()
    kept = Progress(path, _say)
    data = kept.read()
    known = [*data["predictions"], *data["exercises"]]
    if name is not None and name not in known:
        raise InputError(f"lessons reset {name!r}: nothing of that name is kept; kept are {', '.join(known) or 'none'}")
    what = f"{name!r}" if name else f"all {len(known)} guesses and exercises"
    if known and not yes and not typer.confirm(f"Forget {what} in {path}?"):
        emit_json({"command": "lessons reset", "wall_s": perf_counter() - start, "forgotten": []})
        return

    forgotten = known if name is None else [name]

    def forget(entries: dict) -> None:
        for part in ("predictions", "exercises"):
            entries[part] = empty()[part] if name is None else {k: v for k, v in entries[part].items() if k != name}

    if known:
        kept.change(forget)
    emit_json({"command": "lessons reset", "wall_s": perf_counter() - start, "forgotten": forgotten})


def _say(sentence: str) -> None:
    print(f"hybrid-serving: {sentence}", file=sys.stderr)
