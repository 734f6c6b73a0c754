"""The one source of a lab: cells in the py:percent format, each with a name, and tags that say where it goes.

A cell begins with a line such as `# %% name="part-1-answer" tags=["solution"]`; `[markdown]` after the marks makes it
text, every line of which is a comment. jupytext opens such a file as a notebook. `CONTRIBUTING.md` says what the tags
mean; a tag that is not listed here is an error, because a misspelt one would give a solution away.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import InputError

KINDS = ("learner", "solution", "instructor", "mutant")
SLIDES = ("slide", "slide-only", "slide-hidden")
PASSED_ON = (
    "hide-input",
    "hide-output",
    "hide-cell",
    "remove-input",
    "remove-output",
    "remove-cell",
    "scroll-output",
    "keep_output",
    "raises-exception",
)
MOST_LINES = 25
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FILE_NAME = re.compile(r"\d\d_[a-z0-9_]+_lab\.py")
PAIR = re.compile(r'\s+(\w+)=("(?:[^"\\]|\\.)*"|\[[^\]]*\])')


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `line` is where it begins in the source, `text` is what a notebook holds of it.

    `exercise` and `hint` are those of a mutant: which check must turn it down, and words that its hint must hold.
    """

    name: str
    is_code: bool
    text: str
    line: int
    tags: tuple[str, ...] = ()
    exercise: str = ""
    hint: str = ""

    @property
    def kind(self) -> str:
        """The version that the cell is for, "" when it is for all."""
        return next((tag for tag in self.tags if tag in KINDS), "")


@dataclass(frozen=True, slots=True)
class Source:
    """A lab as it is written: `name` is that of its notebooks."""

    name: str
    path: Path
    cells: tuple[Cell, ...]

    @property
    def mutants(self) -> tuple[Cell, ...]:
        """The wrong answers."""
        return tuple(cell for cell in self.cells if cell.kind == "mutant")


def read_source(path: Path) -> Source:
    """The cells of a source file. Raises `InputError` with the file and the line for a source that cannot be used."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: it cannot be read ({error}); give a lab's source") from None
    if not FILE_NAME.fullmatch(path.name):
        raise InputError(f"{path}: the name of a lab's source is NN_topic_lab.py, as in 02_routers_lab.py")
    cells = tuple(_cell(path, line, head, body) for line, head, body in _parts(path, text))
    if not cells:
        raise InputError(f'{path}:1: there is no cell; begin one with a line such as # %% [markdown] name="title"')
    _check_names(path, cells)
    _check_mutants(path, cells)
    return Source(path.stem, path, cells)


def _parts(path: Path, text: str) -> list[tuple[int, str, list[str]]]:
    """(line, what follows the marks, the lines below) of each cell; a jupytext header above them is passed over."""
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# %%"):
            found.append((number, line[len("# %%") :], []))
        elif found:
            found[-1][2].append(line)
        elif line.strip() and not line.startswith("#"):
            raise InputError(f"{path}:{number}: this line stands before the first cell; begin a cell above it")
    return found


def _cell(path: Path, line: int, head: str, body: list[str]) -> Cell:
    where = f"{path}:{line}"
    is_code, keys = _head(where, head)
    name, tags = keys.get("name", ""), keys.get("tags", [])
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > 64:
        raise InputError(f'{where}: the cell has no name; write name="..." with small letters, digits and hyphens')
    _check_tags(where, tags, is_code)
    first, last = 0, len(body)
    while first < last and not body[first].strip():
        first += 1
    while first < last and not body[last - 1].strip():
        last -= 1
    lines = body[first:last]
    if not lines:
        raise InputError(f"{where}: cell {name!r} is empty; write something below it, or take it out")
    text = "\n".join(lines) if is_code else _prose(path, line + 1 + first, lines)
    if is_code:
        _check_code(path, line + 1 + first, name, text)
    cell = Cell(name, is_code, text, line, tuple(tags), keys.get("exercise", ""), keys.get("hint", ""))
    if (cell.kind == "mutant") != bool(cell.exercise and cell.hint):
        raise InputError(f'{where}: cell {name!r}: a mutant, and nothing else, has exercise="..." and hint="..."')
    return cell


def _head(where: str, head: str) -> tuple[bool, dict]:
    """Whether the cell is code, and the keys on its first line."""
    is_code = not head.startswith(" [markdown]")
    rest = head if is_code else head[len(" [markdown]") :]
    keys, end = {}, 0
    while pair := PAIR.match(rest, end):
        try:
            keys[pair[1]] = json.loads(pair[2])
        except ValueError:
            raise InputError(f"{where}: {pair[1]}={pair[2]} cannot be read; write it as JSON") from None
        end = pair.end()
    strange = set(keys) - {"name", "tags", "exercise", "hint"}
    if rest[end:].strip() or strange:
        wrong = rest[end:].strip() or ", ".join(sorted(strange))
        raise InputError(f"{where}: {wrong!r} is not understood; a cell has name, tags, exercise and hint")
    return is_code, keys


def _check_tags(where: str, tags: object, is_code: bool) -> None:
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InputError(f'{where}: tags are a list of texts, as in tags=["learner"]')
    known = (*KINDS, *SLIDES, *PASSED_ON)
    strange = [tag for tag in tags if tag not in known and not tag.startswith("nbval-")]
    if strange:
        raise InputError(f"{where}: tag {strange[0]!r} is unknown; known are {', '.join(known)} and nbval-...")
    for group in (KINDS, SLIDES):
        if len(set(tags) & set(group)) > 1:
            raise InputError(f"{where}: a cell has at most one of the tags {', '.join(group)}")
    if "slide-only" in tags and set(tags) & set(KINDS):
        raise InputError(f"{where}: a slide-only cell is in no other version; take the other tag out")
    if not is_code and set(tags) & {"mutant", "slide-hidden"}:
        raise InputError(f"{where}: a mutant and a slide-hidden cell are code, not text")


def _prose(path: Path, line: int, lines: list[str]) -> str:
    for number, text in enumerate(lines, line):
        if text.rstrip() != "#" and not text.startswith("# "):
            raise InputError(f'{path}:{number}: a line of a text cell begins with "# "')
    return "\n".join(text[2:] for text in lines)


def _check_code(path: Path, line: int, name: str, text: str) -> None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        at = line + (error.lineno or 1) - 1
        raise InputError(f"{path}:{at}: cell {name!r} is no Python ({error.msg})") from None
    if len(text.splitlines()) > MOST_LINES:
        raise InputError(f"{path}:{line}: cell {name!r} has more than {MOST_LINES} lines; move some into helpers")


def _check_names(path: Path, cells: tuple[Cell, ...]) -> None:
    """Names are unique, but that a learner's cell and the solution right below it share one."""
    seen: dict[str, Cell] = {}
    for before, cell in zip((None, *cells), cells, strict=False):
        first = seen.setdefault(cell.name, cell)
        if first is cell:
            continue
        pair = first is before and (first.kind, cell.kind) == ("learner", "solution")
        if not pair or first.is_code != cell.is_code:
            raise InputError(
                f"{path}:{cell.line}: a cell is called {cell.name!r} in line {first.line} too; only a learner's cell "
                "and the solution right below it share a name"
            )


def _check_mutants(path: Path, cells: tuple[Cell, ...]) -> None:
    solved = False
    for cell in cells:
        solved = solved or (cell.kind == "solution" and cell.is_code)
        if cell.kind == "mutant" and not solved:
            raise InputError(f"{path}:{cell.line}: mutant {cell.name!r} stands before any solution; put it below one")
