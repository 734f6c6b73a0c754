"""The Sphinx extension: a changed helper or data file makes notebooks run again, and pages stay whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import course_book
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CONF = """
extensions = ["sphinx.ext.mathjax", "myst_nb", "course_book"]
html_static_path = []
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
root_doc = "page"
"""
CELL = "from pathlib import Path\nprint(Path('data/in.txt').read_text())"


def small_book(folder: Path) -> None:
    """A book of one notebook, which prints a data file."""
    for part in ("_ext", "helpers"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    for part in ("package.json", "data/hardware.toml", "data/models.toml"):
        shutil.copyfile(ROOT / part, folder / part)
    (folder / "data/in.txt").write_text("data-one")
    (folder / "conf.py").write_text(CONF)
    cells = [nbformat.v4.new_markdown_cell("# Page\n\n$x$"), nbformat.v4.new_code_cell(CELL)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), folder / "page.ipynb"
    )


def build(folder: Path) -> str:
    """The page after a build where npm is not to be found."""
    environment = os.environ | {"PYTHONPATH": str(folder / "_ext"), "PATH": str(Path(sys.executable).parent)}
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(folder), str(folder / "_build/html")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "_build/html/page.html").read_text(encoding="utf-8")


def test_a_notebook_runs_again_when_data_changed(tmp_path):
    small_book(tmp_path)
    first = build(tmp_path)
    assert "data-one" in first
    # Without npm: the whole Plotly of the Python package, and MathJax from a pinned address.
    assert (tmp_path / "_build/html/_static/vendor/plotly.min.js").stat().st_size > 4_000_000
    wanted = course_book.wanted_packages()
    assert f"cdn.jsdelivr.net/npm/mathjax@{wanted['mathjax']}/" in first
    assert f'data-pyodide="https://cdn.jsdelivr.net/npm/pyodide@{wanted["pyodide"]}/"' in first
    assert "because this book was built without npm" in first
    (core,) = (tmp_path / "_build/html/_static").glob("core-*.zip")
    assert f'data-core="{core.name}"' in first

    (tmp_path / "data/in.txt").write_text("data-two")
    second = build(tmp_path)
    assert "data-two" in second and "data-one" not in second


@pytest.mark.parametrize("change", ["edit", "rename", "delete", "add"])
def test_the_digest_follows_helpers_and_data(tmp_path, monkeypatch, change):
    monkeypatch.setattr(course_book, "ROOT", tmp_path)
    (tmp_path / "helpers").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "helpers/a.py").write_text("x = 1")
    (tmp_path / "data/a.toml").write_text("x = 1")
    before = course_book.sources_digest()
    assert course_book.sources_digest() == before
    actions = {
        "edit": lambda: (tmp_path / "helpers/a.py").write_text("x = 2"),
        "rename": lambda: (tmp_path / "data/a.toml").rename(tmp_path / "data/b.toml"),
        "delete": lambda: (tmp_path / "data/a.toml").unlink(),
        "add": lambda: (tmp_path / "helpers/b.py").write_text(""),
    }
    actions[change]()
    assert course_book.sources_digest() != before


def inline(body):
    return SimpleNamespace(filename=None, attributes={"body": body})


def test_equal_inline_scripts_are_kept_once_and_files_always():
    one, again, other = inline("let a = 1;"), inline("let a = 1;"), inline("let b = 1;")
    files = [SimpleNamespace(filename="a.js", attributes={}), SimpleNamespace(filename="b.js", attributes={})]
    style, live = SimpleNamespace(filename="_static/own.css"), SimpleNamespace(filename="_static/sphinx-thebe.css")
    context = {"script_files": [one, files[0], again, other, files[1]], "css_files": [style, live]}
    course_book.drop_repeated_scripts(None, "page", "page.html", context, None)
    assert context == {"script_files": [one, files[0], other, files[1]], "css_files": [style]}


def test_the_version_of_a_plotly_bundle_is_read_from_its_head(tmp_path):
    (tmp_path / "a.js").write_text("/**\n* plotly.js (basic - minified) v4.1.1\n* Copyright\n*/\n")
    (tmp_path / "b.js").write_text("var x = 1;\n")
    assert course_book.plotly_js_version(tmp_path / "a.js") == "4.1.1"
    assert course_book.plotly_js_version(tmp_path / "b.js") == ""


def test_a_package_of_another_version_counts_as_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(course_book, "NODE_MODULES", tmp_path)
    (tmp_path / "mathjax").mkdir()
    (tmp_path / "mathjax/package.json").write_text('{"version": "3.2.2"}')
    assert course_book.missing({"mathjax": "3.2.2", "other": "1.0.0"}) == {"other"}
    assert course_book.missing({"mathjax": "3.2.1"}) == {"mathjax"}
