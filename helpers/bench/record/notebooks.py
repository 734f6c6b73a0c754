"""The part `notebooks`: chapters and solved labs, run on this machine as plain Python, each in a process of its own.

A GPU machine mostly has no Jupyter. The pages show the same without it, only as text: what is checked here is that
every cell runs, and how long it takes.

    python -m helpers.bench.record.notebooks chapters/intro.ipynb
"""

import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from helpers.bench.engine.peers import lines_of
from helpers.bench.engine.report import point
from helpers.paths import ROOT

FOLDERS = ("chapters", "labs/solutions")
LIMIT_S = 240.0  # of one notebook


def notebooks(session, report) -> None:
    """Fill in the section `notebooks`."""
    report.run("notebooks", run_all)


def run_all(root: Path = ROOT) -> Iterator[dict]:
    """Seconds of each notebook; `failed` says in which cell one stopped, and why."""
    for path in (path for folder in FOLDERS for path in sorted((root / folder).glob("*.ipynb"))):
        name = path.relative_to(root).as_posix()
        words = [sys.executable, "-m", "helpers.bench.record.notebooks", str(path)]
        try:
            said = next(lines_of(words, LIMIT_S, {}), {"failed": "it ended without a word"})
        except (RuntimeError, TimeoutError) as error:
            said = {"failed": str(error)}
        more = {"failed": said["failed"]} if said.get("failed") else {}
        yield point(name, said.get("seconds", 0.0), "s", cells=said.get("cells", 0), **more)


def run_cells(path: Path) -> dict:
    """Run the code cells of a notebook in its own folder, up to the first that fails."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    os.chdir(path.parent)
    names: dict[str, object] = {"__name__": "__main__"}
    start = perf_counter()
    for number, source in enumerate(code, 1):
        try:
            run_cell(source, f"cell {number}", names)
        except Exception as error:
            why = f"cell {number} of {len(code)}: {type(error).__name__}: {error}"
            return {"seconds": perf_counter() - start, "cells": number, "failed": why[:500]}
    return {"seconds": perf_counter() - start, "cells": len(code)}


def run_cell(source: str, name: str, names: dict[str, object]) -> None:
    """Run a cell; the value of a last expression is made into text, as a notebook would show it."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        as_html = getattr(value, "_repr_html_", None)
        str(value if as_html is None else as_html())


if __name__ == "__main__":
    shown, sys.stdout = sys.stdout, sys.stderr  # the answer is the only line
    print(json.dumps(run_cells(Path(sys.argv[1]).resolve())), file=shown, flush=True)
