"""What must hold for the files of the repository: sizes, notebooks, licences, pins, and no trace of one machine."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import course_book
import nbformat
import plotly
import preview
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 350
MOST_CELL_LINES = 25
TEXT = {
    ".py",
    ".md",
    ".ipynb",
    ".toml",
    ".yml",
    ".yaml",
    ".json",
    ".cff",
    ".txt",
    ".js",
    ".mjs",
    ".css",
    ".svg",
    ".bib",
    "",
}

# Built from parts, so that this file does not match its own rules.
TRACES_OF_A_MACHINE = {
    "an absolute path of one machine": re.compile(
        r"(?<![\w.$}~])/(?:" + "work|root|home/[a-z]+|Users/[a-zA-Z]+" + r")/[\w.]"
    ),
    "a package registry": re.compile(
        r"https?://[\w.-]*(?:" + "|".join(("pythonhosted", "npmjs", "pypi")) + r")[\w.-]*"
    ),
    "an index option": re.compile(
        "--(?:" + "|".join(("index-url", "extra-index-url", "find-links", "registry")) + r")[ =]"
    ),
    "an address in a lock file": re.compile('"reso' + 'lved": *"'),
}


def repository_files() -> list[Path]:
    """The files that git has or would take; without git, everything outside hidden and built folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]
    built = {"_build", "node_modules", "__pycache__"}
    return [
        p
        for p in ROOT.rglob("*")
        if p.is_file() and not any(x in built or x[0] == "." for x in p.relative_to(ROOT).parts)
    ]


def notebooks() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".ipynb"]


def short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def too_long(paths: list[Path]) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [f"{short(path)}: {length} lines" for path, length in lengths.items() if length >= MOST_LINES]


def machine_traces(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8") if path.suffix in TEXT else ""
        found += [f"{short(path)}: {what}" for what, pattern in TRACES_OF_A_MACHINE.items() if pattern.search(text)]
    return found


def notebook_faults(path: Path) -> list[str]:
    """What keeps a notebook from being committed: form, length of cells, outputs that a run left behind."""
    book = nbformat.read(path, as_version=4)
    found = []
    if book.metadata.get("language_info", {}).get("name") != "python":
        found.append("metadata lacks language_info.name, without which the book does not build")
    extra = set(book.metadata) - {"kernelspec", "language_info", "jupytext"}
    if extra:
        found.append(f"metadata has {sorted(extra)}")
    for number, cell in enumerate(book.cells, start=1):
        if cell.cell_type != "code":
            continue
        if len(cell.source.splitlines()) > MOST_CELL_LINES:
            found.append(f"cell {number} has more than {MOST_CELL_LINES} lines")
        kept = "keep_output" in cell.metadata.get("tags", [])
        if not kept and (cell.outputs or cell.execution_count is not None):
            found.append(f"cell {number} holds output; run nbstripout, or tag it keep_output")
    return found


def test_no_source_is_too_long():
    # The source of a lab is a document: four notebooks and their wrong answers, with a limit on each cell.
    sources = [path for path in repository_files() if path.suffix in {".py", ".js", ".mjs"}]
    sources = [path for path in sources if path.parent != ROOT / "labs" / "source"]
    assert len(sources) > 20
    assert too_long(sources) == []


def test_a_long_source_is_caught(tmp_path):
    (tmp_path / "long.py").write_text("x = 1\n" * MOST_LINES)
    (tmp_path / "short.py").write_text("x = 1\n" * (MOST_LINES - 1))
    assert too_long([tmp_path / "long.py", tmp_path / "short.py"]) == [f"long.py: {MOST_LINES} lines"]


def test_no_file_names_one_machine():
    assert machine_traces(repository_files()) == []


@pytest.mark.parametrize(
    "text",
    [
        "open('/" + "work/data.csv')",
        "path = /" + "home/ann/course",
        "pip install -" + "-index-url=https://x.org/simple torch",
        '"reso' + 'lved": "https://x.org/a.tgz"',
        "https://files." + "python" + "hosted.org/a.whl",
    ],
)
def test_a_trace_of_a_machine_is_caught(tmp_path, text):
    (tmp_path / "a.md").write_text(text)
    assert len(machine_traces([tmp_path / "a.md"])) == 1


def test_relative_paths_and_networks_are_no_trace(tmp_path):
    (tmp_path / "a.md").write_text("see ./work/x, ~/home/y, a home/work split and https://x.org/work/y")
    assert machine_traces([tmp_path / "a.md"]) == []


def test_notebooks_are_clean():
    assert {short(path): faults for path in notebooks() if (faults := notebook_faults(path))} == {}


def planted_notebook(tmp_path, **changes) -> Path:
    cell = nbformat.v4.new_code_cell(changes.get("source", "1 + 1"), metadata=changes.get("cell", {}))
    cell.outputs = changes.get("outputs", [])
    book = nbformat.v4.new_notebook(
        cells=[cell], metadata=changes.get("metadata", {"language_info": {"name": "python"}})
    )
    nbformat.write(book, tmp_path / "planted.ipynb")
    return tmp_path / "planted.ipynb"


OUTPUT = [nbformat.v4.new_output("stream", text="2")]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"metadata": {}}, "language_info"),
        ({"metadata": {"language_info": {"name": "python"}, "widgets": {}}}, "widgets"),
        ({"source": "x = 1\n" * (MOST_CELL_LINES + 1)}, "lines"),
        ({"outputs": OUTPUT}, "output"),
    ],
)
def test_a_faulty_notebook_is_caught(tmp_path, changes, word):
    faults = notebook_faults(planted_notebook(tmp_path, **changes))
    assert len(faults) == 1 and word in faults[0]


def test_a_kept_output_passes(tmp_path):
    assert notebook_faults(planted_notebook(tmp_path, outputs=OUTPUT, cell={"tags": ["keep_output"]})) == []


def test_the_table_of_contents_names_existing_sources():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = preview.toc_files(toc)
    gone = [name for name in files if not any((ROOT / f"{name}{end}").is_file() for end in (".ipynb", ".md"))]
    assert files and gone == []
    assert len(set(files)) == len(files)


def test_every_chapter_is_in_the_table_of_contents():
    listed = set(preview.toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
    chapters = {
        str(path.relative_to(ROOT).with_suffix("")) for path in notebooks() if ROOT / "chapters" in path.parents
    }
    assert chapters - listed == set()


def test_the_licences_are_whole():
    code = (ROOT / "LICENSE").read_text(encoding="utf-8")
    text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in code and "END OF TERMS AND CONDITIONS" in code
    assert "Attribution 4.0 International Public License" in text and "Section 8" in text


def constraint(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.lower().startswith(f"{name}=="))


def test_constraints_pin_every_package_exactly():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!-]+", line)] == []


def test_constraints_name_every_direct_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    names = {re.split(r"[^a-z0-9_-]", one.lower())[0].replace("_", "-") for one in wanted} - {
        "hybrid-serving",
        "triton",
    }
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert names - {line.partition("==")[0].lower().replace("_", "-") for line in lines} == set()


def test_the_small_plotly_bundle_is_the_one_that_the_python_package_carries():
    package = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    assert plotly.__version__ == constraint("plotly")
    assert course_book.wanted_packages()["plotly.js-basic-dist-min"] == course_book.plotly_js_version(package) != ""


def test_node_packages_are_pinned_and_no_lock_file_is_kept():
    package = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    pins = {**package["dependencies"], **package["devDependencies"]}
    assert [name for name, version in pins.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    assert not (ROOT / "package-lock.json").exists()


def test_the_readme_shows_the_line_that_make_test_runs():
    run = next(line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "--nbval-lax" in line)
    shown = run.strip().replace("$(PY)", ".venv/bin/python")
    assert f"    {shown}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
