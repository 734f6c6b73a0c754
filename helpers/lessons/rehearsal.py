"""A lab run without a kernel: its cells one after the other in one namespace, with no front end and no learner's file.

It tells what every check says on the learner's notebook, on the solution, and on each wrong answer of the source.
"""

import ast
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from helpers.lessons.front_end import TOLD
from helpers.lessons.progress import rehearsal
from helpers.lessons.source import Cell, Source
from helpers.lessons.verdict import Verdict
from helpers.lessons.versions import solution_cells


@dataclass(frozen=True, slots=True)
class Mutant:
    """What became of one wrong answer: `verdict` is None when no check of its exercise follows it.

    `stops` says which cells it stopped, and how, down to the next answer: a learner who runs all cells gets no further.
    """

    cell: Cell
    verdict: Verdict | None
    stops: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why the wrong answer was not turned down as it should be, "" when it was."""
        which = f"mutant {self.cell.name!r} (line {self.cell.line})"
        if self.verdict is None:
            return f"{which}: no cell below checks {self.cell.exercise!r}"
        if self.verdict.passed:
            return f"{which}: the check of {self.cell.exercise!r} lets it pass"
        if self.cell.hint not in self.verdict.text:
            return f"{which}: {self.cell.hint!r} is not in the hint: {self.verdict.text}"
        if self.stops:
            return f"{which}: it stops {'; '.join(self.stops)}"
        return ""


def verdicts(cells: Iterable[Cell]) -> dict[str, list[Verdict]]:
    """Every verdict that the cells show, by exercise. Raises what a cell raises."""
    found: dict[str, list[Verdict]] = {}
    with _stage():
        names = _fresh()
        for cell in cells:
            value = run_cell(cell, names) if cell.is_code else None
            if isinstance(value, Verdict):
                found.setdefault(value.exercise, []).append(value)
    return found


def mutants(source: Source) -> list[Mutant]:
    """What the checks say of each wrong answer.

    The solution runs once. Where a mutant stands, a copy of the namespace runs the solution above it again (so that
    what the mutant changes is its own), then the mutant and the cells down to the next answer.
    """
    solution = {cell.line: cell for cell in solution_cells(source) if cell.is_code}
    found, above = [], None
    with _stage():
        names = _fresh()
        for cell in source.cells:
            if cell.kind == "mutant":
                below = [one for line, one in solution.items() if line > cell.line]
                found.append(_spoiled(above, cell, below, names))
            elif cell.line in solution:
                run_cell(cell, names)
                above = cell if cell.kind == "solution" else above
    return found


def _spoiled(above: Cell, mutant: Cell, below: Iterable[Cell], names: Mapping[str, object]) -> Mutant:
    copy = dict(names)
    run_cell(above, copy)
    run_cell(mutant, copy)
    verdict, stops = None, []
    for cell in below:
        if verdict and cell.kind == "solution":
            break
        try:
            value = run_cell(cell, copy)
        except Exception as error:
            stops.append(f"{cell.name} with {type(error).__name__}: {error}")
            continue
        if isinstance(value, Verdict) and value.exercise == mutant.exercise:
            verdict = value
    return Mutant(mutant, verdict, tuple(stops))


def run_cell(cell: Cell, names: dict[str, object]) -> object:
    """Run a cell and return the value of its last expression, None when it ends with something else."""
    body = ast.parse(cell.text).body
    last = body.pop().value if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), f"<{cell.name}>", "exec"), names)
    return eval(compile(ast.Expression(last), f"<{cell.name}>", "eval"), names) if last is not None else None


def _fresh() -> dict[str, object]:
    return {"__name__": "__main__"}


@contextmanager
def _stage():
    """No front end, no learner's progress, nothing printed, and a folder of its own."""
    before = os.environ.get(TOLD)
    os.environ[TOLD] = "0"
    try:
        with rehearsal(), tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(StringIO()):
            yield
    finally:
        if before is None:
            del os.environ[TOLD]
        else:
            os.environ[TOLD] = before
