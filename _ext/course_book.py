"""The Sphinx extension of this book: an offline site, no stale output, no script twice.

- Plotly, MathJax and Pyodide are copied into the site, so that a page asks no other machine for anything.
- Explorers are live, and a switch in the header says which hardware figures show (live.py).
- Notebooks run again when `helpers/` or `data/` changed. (The execution cache looks at cell code only.)
- What Jupyter Book adds twice, or adds for live code that no page has, is dropped.

It works the same under `make book` and under `jupyter-book build .`.
"""

import json
import re
import shutil
import subprocess
from hashlib import blake2b
from pathlib import Path

import live
import plotly
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
NODE_MODULES = ROOT / "node_modules"
LOG = logging.getLogger(__name__)
MATHJAX_FILES = ("tex-mml-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2")


def setup(app):
    # Early: before the notebook cache is opened, and before sphinx.ext.mathjax reads its address.
    app.connect("config-inited", add_site_files, priority=100)
    app.connect("config-inited", live.add_switch, priority=100)
    app.connect("builder-inited", drop_stale_cache, priority=100)
    app.connect("env-get-outdated", outdated_notebooks)
    app.connect("config-inited", unplug_live_code, priority=100)
    app.connect("html-page-context", live.tell_choices, priority=100)
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    app.connect("build-finished", repair_markup)
    app.connect("build-finished", remember_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


# Files that the site carries


def add_site_files(app, config):
    """Stage Plotly, MathJax and Pyodide beside the build and add them, and what makes pages live, to the site."""
    staged = Path(app.outdir).parent / "site_files"
    shutil.rmtree(staged, ignore_errors=True)
    packages = node_packages()
    stage_plotly(staged, packages)
    if stage_mathjax(staged, packages):
        config.mathjax_path = "mathjax/tex-mml-chtml.js"
    else:
        version = wanted_packages()["mathjax"]
        config.mathjax_path = f"https://cdn.jsdelivr.net/npm/mathjax@{version}/es5/tex-mml-chtml.js"
        LOG.info("NOTICE: MathJax is not at hand (no npm, or no network): formulas load from %s", config.mathjax_path)
    config.mathjax3_config = {"options": {"enableMenu": False}} | (config.mathjax3_config or {})
    config.html_static_path.append(str(staged))
    pyodide = NODE_MODULES / "pyodide" if "pyodide" in packages else None
    live.add_live_pages(app, config, ROOT, staged, pyodide, wanted_packages()["pyodide"])


def wanted_packages() -> dict[str, str]:
    """Name to exact version of the packages that package.json lists for the site."""
    return json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]


def node_packages() -> set[str]:
    """The wanted packages that are installed at the wanted version; asks npm for them once if any is missing."""
    wanted = wanted_packages()
    if missing(wanted) and shutil.which("npm"):
        LOG.info("fetching %s with npm", ", ".join(sorted(missing(wanted))))
        flags = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        subprocess.run(["npm", "install", *flags], cwd=ROOT, capture_output=True, timeout=300, check=False)
    return set(wanted) - missing(wanted)


def missing(wanted: dict[str, str]) -> set[str]:
    def installed(name: str) -> str | None:
        about = NODE_MODULES / name / "package.json"
        return json.loads(about.read_text(encoding="utf-8"))["version"] if about.is_file() else None

    return {name for name, version in wanted.items() if installed(name) != version}


def stage_plotly(staged: Path, packages: set[str]) -> None:
    """The small bundle (1.2 MB, all that the figures use) if it matches the Python package, else its own (4.8 MB)."""
    full = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    basic = NODE_MODULES / "plotly.js-basic-dist-min" / "plotly-basic.min.js"
    small = "plotly.js-basic-dist-min" in packages and plotly_js_version(basic) == plotly_js_version(full)
    (staged / "vendor").mkdir(parents=True)
    shutil.copyfile(basic if small else full, staged / "vendor" / "plotly.min.js")


def plotly_js_version(file: Path) -> str:
    """The version in the licence comment at the top of a Plotly bundle, such as "4.1.1"."""
    with file.open(encoding="utf-8") as lines:
        for _, line in zip(range(5), lines, strict=False):
            if "plotly.js" in line:
                return line.split()[-1].lstrip("v")
    return ""


def stage_mathjax(staged: Path, packages: set[str]) -> bool:
    if "mathjax" not in packages:
        return False
    source, target = NODE_MODULES / "mathjax", staged / "mathjax"
    target.mkdir(parents=True)
    shutil.copyfile(source / "LICENSE", target / "LICENSE")
    for name in MATHJAX_FILES:
        part = source / "es5" / name
        (shutil.copytree if part.is_dir() else shutil.copyfile)(part, target / name)
    return True


# Notebooks that must run again


def sources_digest() -> str:
    """A digest of everything that a notebook's output depends on besides its own cells."""
    digest = blake2b(digest_size=16)
    files = [*(ROOT / "helpers").rglob("*.py"), *(path for path in (ROOT / "data").rglob("*") if path.is_file())]
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def digest_file(app) -> Path:
    return Path(app.outdir).parent / "sources.digest"


def is_stale(app) -> bool:
    stamp = digest_file(app)
    return not stamp.is_file() or stamp.read_text(encoding="utf-8") != app.course_digest


def drop_stale_cache(app):
    app.course_digest = sources_digest()
    if is_stale(app):
        cache = Path(app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache")
        LOG.info("helpers/ or data/ changed since the last build: every notebook runs again")
        shutil.rmtree(cache, ignore_errors=True)


def outdated_notebooks(app, env, added, changed, removed):
    if not is_stale(app):
        return []
    return [name for name in env.found_docs if env.doc2path(name).endswith(".ipynb")]


def remember_sources(app, exception):
    if exception is None:
        digest_file(app).write_text(app.course_digest, encoding="utf-8")


# What Jupyter Book and the theme put on a page


def unplug_live_code(app, config):
    """Take sphinx-thebe out: no page offers live code, and it writes its settings on every page, twice."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]


def drop_repeated_scripts(app, pagename, templatename, context, doctree):
    """Keep the first of equal inline scripts (a second `let` of one name is an error), no style of live code."""
    styles = context.get("css_files", [])
    context["css_files"] = [style for style in styles if "sphinx-thebe" not in str(getattr(style, "filename", style))]
    kept, seen = [], set()
    for script in context.get("script_files", []):
        body = (getattr(script, "attributes", None) or {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"] = kept


# Controls whose name leaves out what they show, which speech control trips over; and roles that contradict each
# other in a bibliography, which a screen reader would announce as an empty list.
MARKUP_REPAIRS = (
    (' title="Search" aria-label="Search"', ' title="Search"'),
    (' data-mode="light" title="Light"', ' data-mode="light"'),
    (' data-mode="dark"  title="Dark"', ' data-mode="dark"'),
    (' data-mode="auto"  title="System Settings"', ' data-mode="auto"'),
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry">', ">"),
)
# 1.5 MB that block every page, to draw as pictures the few icons that the theme's icon font draws as well.
ICON_SCRIPT = re.compile(r'<script src="[^"]*/fontawesome\.js[^"]*"></script>')


def repair_markup(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = repaired = page.read_text(encoding="utf-8")
        for old, new in MARKUP_REPAIRS:
            repaired = repaired.replace(old, new)
        repaired = ICON_SCRIPT.sub("", repaired)
        if repaired != text:
            page.write_text(repaired, encoding="utf-8")
