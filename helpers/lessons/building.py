"""Sources on disk and the files that are made from them."""

import os
from collections.abc import Iterator
from pathlib import Path

from helpers.errors import InputError
from helpers.lessons.source import Source, read_source
from helpers.lessons.versions import versions
from helpers.paths import ROOT

LABS = ROOT / "labs"
COMMAND = "hybrid-serving lessons build"


def source_paths(labs: Path = LABS) -> list[Path]:
    """The sources of all labs, in order."""
    return sorted((labs / "source").glob("*.py"))


def chosen(lab: str | None, labs: Path = LABS) -> list[Path]:
    """The source of one lab, named as a file or without its ending, or of all. Raises `InputError` for another name."""
    known = source_paths(labs)
    if lab is None:
        return known
    found = [path for path in known if Path(lab).stem in (path.stem, path.stem.removesuffix("_lab"))]
    if not found:
        raise InputError(f"lab {lab!r}: no source of that name; there are {', '.join(path.stem for path in known)}")
    return found


def build(source: Source, labs: Path = LABS) -> list[Path]:
    """Write every version of a lab that is not as it should be, and return the paths written.

    Raises `InputError` for a path that cannot be written.
    """
    written = []
    for path, text in _wanted(source, labs):
        if _text(path) == text:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, path)
        except OSError as error:
            raise InputError(f"{path}: it cannot be written ({error.strerror}); make room there") from None
        written.append(path)
    return written


def drift(source: Source, labs: Path = LABS) -> Iterator[str]:
    """One sentence for each version of a lab that is not what its source makes."""
    for path, text in _wanted(source, labs):
        found = _text(path)
        if found == text:
            continue
        name, made = path.relative_to(labs.parent), source.path.relative_to(labs.parent)
        if found is None:
            yield f"{name} is missing; {made} makes it with `{COMMAND}`"
        else:
            yield f"{name} differs from what {made} makes; change the source and run `{COMMAND}`"


def strays(labs: Path = LABS) -> Iterator[str]:
    """One sentence for each version that no source makes."""
    made = {path for source in source_paths(labs) for path, _ in _wanted(read_source(source), labs)}
    found = [*labs.glob("*.ipynb"), *labs.glob("s*/*.ipynb"), *labs.glob("instructors/*.md")]
    for path in sorted(set(found) - made):
        yield f"{path.relative_to(labs.parent)} has no source in labs/source; write one, or take the file out"


def _wanted(source: Source, labs: Path) -> Iterator[tuple[Path, str]]:
    for path, text in versions(source).items():
        yield labs / path, text


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
