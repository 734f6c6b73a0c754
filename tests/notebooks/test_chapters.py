"""What a chapter is: its parts, its size, and no measured number typed into a sentence."""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((ROOT / "chapters").glob("*.ipynb"))
# A chapter has a lab; case studies and the introduction have not, and are free in form.
CHAPTERS = [page for page in PAGES if (ROOT / "labs" / f"{page.stem}_lab.ipynb").is_file()]
# Case studies whose numbers are all of records, with the most lines that a cell of theirs may have.
OF_RECORDS = {
    ROOT / "chapters" / f"{name}.ipynb": n for name, n in (("01_one_gpu_measured", 16), ("01_engine_rungs", 18))
}
PARTS = (
    "The question",
    "Predict",
    "Reason",
    "Experiment",
    "Reconcile",
    "In production",
    "Takeaways",
    "Exercises",
    "Further reading",
)
HEADER = ("You will be able to", "Before you start", "Time", "Hardware shown")
# A number with a unit that a run could have produced.
MEASURED = re.compile(r"\d(?:[\d,.]*\d)?\s*(?:ms|s|requests/s|req/s|tokens/s|%|times|GB/s)(?![\w-])")
# What is chosen, published or arithmetic, and so may stand in a sentence.
STATED = {
    "01_load_and_latency.ipynb": {"3 s", "60 s", "95 %", "2,000 ms", "100 ms", "30 ms"},
    "03_disaggregated_inference.ipynb": {"1 s", "8 ms", "10 ms", "15 ms", "50 ms", "1 ms"},
    "02_routers.ipynb": {"95 %", "20 s", "0.2 s", "60 requests/s", "13.6 requests/s", "50 ms", "500 ms"},
}


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in cells(path, "markdown"))


def source(path: Path, ident: str) -> str:
    """The source of the cell with that id."""
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.id == ident)


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, flags=re.MULTILINE)


def typed_numbers(text: str, stated: set[str]) -> list[str]:
    """Numbers with a unit outside code, formulas and what is stated."""
    bare = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`", " ", text, flags=re.DOTALL)
    return [found for found in MEASURED.findall(bare) if found not in stated]


def quoted_names(path: Path) -> list[str]:
    """The names that cells hand to the text, by `quote(name=...)`."""
    calls = [node for cell in cells(path, "code") for node in ast.walk(ast.parse(cell.source))]
    return [
        keyword.arg
        for node in calls
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "quote"
        for keyword in node.keywords
    ]


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_its_parts_in_order(path):
    text = prose(path)
    assert headings(text) == list(PARTS)
    assert [word for word in HEADER if f"**{word}**" not in text] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_its_size(path):
    lengths = [len(cell.source.splitlines()) for cell in cells(path, "code")]
    words = len(prose(path).split())
    assert 1500 <= words <= 2500
    assert 12 <= len(lengths) <= 20 and median(lengths) <= 8 and max(lengths) <= 25


@pytest.mark.parametrize("path", [*CHAPTERS, *OF_RECORDS], ids=lambda path: path.stem)
def test_no_measured_number_is_typed_into_a_sentence(path):
    assert typed_numbers(prose(path), STATED.get(path.name, set())) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_text_quotes_what_the_cells_hand_over_and_nothing_else(path):
    used = re.findall(r"\{glue:text\}`(\w+)`", prose(path))
    handed = quoted_names(path)
    assert len(handed) == len(set(handed))
    assert set(used) == set(handed)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_citation_is_in_the_bibliography(path):
    keys = set(
        re.findall(r"^@\w+\{(\w+),", (ROOT / "chapters/references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    )
    cited = {key for group in re.findall(r"\{cite\}`([^`]+)`", prose(path)) for key in group.split(",")}
    assert cited - keys == set() and (cited or path not in CHAPTERS)


@pytest.mark.parametrize(
    "sentence",
    [
        "the median TTFT is 235 ms",
        "it takes 1.9 s.",
        "3.31 requests/s arrive",
        "attainment rose by 20 %",
        "2.15 times slower",
    ],
)
def test_a_typed_number_is_caught(sentence):
    assert len(typed_numbers(sentence, {"3 s"})) == 1


@pytest.mark.parametrize(
    "sentence", ["a tick of 3 s", "`--rate 3 s`", "$W = 3 s$", "eight workers, 3 of them", "p99 of 300"]
)
def test_what_is_stated_passes(sentence):
    assert typed_numbers(sentence, {"3 s"}) == []


@pytest.mark.parametrize(("path", "most"), OF_RECORDS.items(), ids=[path.stem for path in OF_RECORDS])
def test_a_case_study_has_cells_that_can_be_read_in_one_breath(path, most):
    assert max(len(cell.source.splitlines()) for cell in cells(path, "code")) <= most
