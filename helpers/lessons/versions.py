"""The versions of a lab that are made from its source: for learners, with solutions, for instructors, as slides.

The text of a version depends on the source alone: the ids of cells are their names, and nothing is run.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from helpers.lessons.source import PASSED_ON, SLIDES, Cell, Source

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A link into the checkout, as seen from the labs' folder.
UPWARD = re.compile(r"(\]\(|`[^`\n]*<)(\.\./)")


def versions(source: Source) -> dict[Path, str]:
    """The text of every version of a lab, by its path below the labs' folder."""
    return {
        Path(f"{source.name}.ipynb"): notebook(learner_cells(source)),
        Path("solutions") / f"{source.name}.ipynb": notebook(_deeper(solution_cells(source))),
        Path("slides") / f"{source.name}.ipynb": notebook(_deeper(slide_cells(source)), slides=True),
        Path("instructors") / f"{source.name}.md": instructors_page(source),
    }


def learner_cells(source: Source) -> list[Cell]:
    """The cells of the notebook for learners."""
    return [cell for cell in source.cells if cell.kind in ("", "learner") and "slide-only" not in cell.tags]


def solution_cells(source: Source) -> list[Cell]:
    """The cells of the notebook with solutions."""
    return [cell for cell in source.cells if cell.kind in ("", "solution") and "slide-only" not in cell.tags]


def slide_cells(source: Source) -> list[Cell]:
    """The cells of the slides. Where a stub and its solution are on a slide, the solution's id says which it is."""
    shown = [cell for cell in source.cells if set(cell.tags) & set(SLIDES)]
    stubs = {cell.name for cell in shown if cell.kind == "learner"}
    return [
        Cell(f"{cell.name}-solution", cell.is_code, cell.text, cell.line, cell.tags)
        if cell.kind == "solution" and cell.name in stubs
        else cell
        for cell in shown
    ]


def notebook(cells: Iterable[Cell], *, slides: bool = False) -> str:
    """Cells as the text of a notebook without outputs."""
    content = {
        "cells": [_as_json(cell, slides) for cell in cells],
        "metadata": KERNEL,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _as_json(cell: Cell, slides: bool) -> dict:
    tags = [tag for tag in cell.tags if tag in PASSED_ON or tag.startswith("nbval-")]
    metadata: dict = {"tags": tags} if tags else {}
    if slides:
        metadata["slideshow"] = {"slide_type": _slide_type(cell)}
    source = cell.text.splitlines(keepends=True)
    if cell.is_code:
        return {
            "cell_type": "code",
            "execution_count": None,
            "id": cell.name,
            "metadata": metadata,
            "outputs": [],
            "source": source,
        }
    return {"cell_type": "markdown", "id": cell.name, "metadata": metadata, "source": source}


def _slide_type(cell: Cell) -> str:
    """A heading begins a slide, what follows is on it; an instructor's cell is spoken; hidden code only runs."""
    if "slide-hidden" in cell.tags:
        return "skip"
    if cell.kind == "instructor":
        return "notes"
    return "slide" if not cell.is_code and cell.text.startswith("#") else "-"


def instructors_page(source: Source) -> str:
    """The lab with its solutions, the notes for instructors, and the wrong answers with the hints that they get."""
    parts = []
    for cell in source.cells:
        if cell.kind == "learner" or "slide-only" in cell.tags:
            continue
        text = f"```python\n{cell.text}\n```" if cell.is_code else _link_up(cell.text)
        if cell.kind == "instructor":
            text = _admonition("For instructors", text)
        elif cell.kind == "mutant":
            text = _admonition(
                "A usual wrong answer", f'The check of "{cell.exercise}" answers with "... {cell.hint} ...".\n\n{text}'
            )
        parts.append(text)
    return "\n\n".join([f"<!-- Made from labs/source/{source.path.name}; edit that. -->", *parts]) + "\n"


def _admonition(title: str, text: str) -> str:
    """A box that pages without the book's builder show as quoted text."""
    quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
    return f"> **{title}**\n>\n{quoted}"


def _deeper(cells: Iterable[Cell]) -> list[Cell]:
    """Cells for a folder below the labs' folder: links lead one step further up."""
    return [
        cell
        if cell.is_code
        else Cell(cell.name, False, _link_up(cell.text), cell.line, cell.tags, cell.exercise, cell.hint)
        for cell in cells
    ]


def _link_up(text: str) -> str:
    return UPWARD.sub(r"\1../\2", text)
