"""Notebooks run in this process, cell by cell, so that a test can change a cell and see every value."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run_cells(path: Path, changed: Mapping[str, str], until: str | None) -> dict[str, object]:
    """The value of the last expression of each code cell, by cell id; `changed` replaces cells, `until` ends the run.

    Raises what a cell raises, and KeyError when a changed cell is not in the notebook.
    """
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for ident in (*changed, *([until] if until else [])):
        if ident not in {cell.id for cell in cells}:
            raise KeyError(f"{path.name} has no code cell {ident!r}")
    names: dict[str, object] = {"__name__": "__main__"}
    values: dict[str, object] = {}
    for cell in cells:
        body = ast.parse(changed.get(cell.id, cell.source)).body
        last = body.pop().value if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), cell.id, "exec"), names)
        values[cell.id] = eval(compile(ast.Expression(last), cell.id, "eval"), names) if last is not None else None
        if cell.id == until:
            break
    return values


@pytest.fixture
def run_notebook() -> Callable[..., dict[str, object]]:
    def run(name: str, changed: Mapping[str, str] | None = None, until: str | None = None) -> dict[str, object]:
        return run_cells(ROOT / name, changed or {}, until)

    return run
