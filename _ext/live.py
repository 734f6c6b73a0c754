"""What makes pages live without a kernel: scripts, Python for the browser, the portable core, the hardware switch."""

import os
import shutil
from hashlib import blake2b
from pathlib import Path

from core_zip import core_zip
from sphinx.util import logging

LOG = logging.getLogger(__name__)
STYLES = ("figures.css", "explorer.css", "hardware.css")
SCRIPTS = ("draw.js", "hardware.js", "figures.js")  # in this order, before page.js
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
PYODIDE_FILES += ("README.md", "package.json")  # the licence is in them


def add_live_pages(app, config, root: Path, staged: Path, package: Path | None, version: str) -> None:
    """Stage Pyodide (`package` is its npm folder, None when there is none) and the core, and add scripts and styles."""
    from helpers.widgets.lab import IN_BOOK

    os.environ[IN_BOOK] = "1"  # the kernels that run the notebooks inherit it
    static = root / "helpers/widgets/static"
    core = core_zip(root)
    core_name = f"core-{blake2b(core, digest_size=8).hexdigest()}.zip"
    (staged / core_name).write_bytes(core)
    pyodide, notice = stage_pyodide(staged, package, version)
    config.html_static_path.append(str(static))
    for name in STYLES:
        app.add_css_file(name)
    for name in SCRIPTS:
        app.add_js_file(name, loading_method="defer")
    told = {"pyodide": pyodide, "core": core_name, "notice": notice, "version": digest_of(static)}
    app.add_js_file("page.js", loading_method="defer", **{f"data-{name}": text for name, text in told.items()})


def stage_pyodide(staged: Path, package: Path | None, version: str) -> tuple[str, str]:
    """The address of Pyodide, seen from the scripts, and what a page says of it (nothing if the site carries it)."""
    if package is None:
        address = f"https://cdn.jsdelivr.net/npm/pyodide@{version}/"
        LOG.info("NOTICE: Pyodide is not at hand (no npm, or no network): live pages load Python from %s", address)
        return address, "Python itself is loaded from cdn.jsdelivr.net, because this book was built without npm."
    folder = f"pyodide-{version}"
    (staged / folder).mkdir(parents=True)
    for name in PYODIDE_FILES:
        shutil.copyfile(package / name, staged / folder / name)
    return f"{folder}/", ""


def digest_of(folder: Path) -> str:
    """A short digest of the files in a folder, for addresses that change with them."""
    digest = blake2b(digest_size=4)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def add_switch(app, config) -> None:
    """Put the hardware switch into the header of every page; before the theme looks at its options."""
    config.templates_path.append(str(Path(__file__).parent / "templates"))
    options = config.html_theme_options
    if config.html_theme == "sphinx_book_theme":
        options["article_header_end"] = ["hardware-switch.html", "article-header-buttons.html"]


def tell_choices(app, pagename, templatename, context, doctree) -> None:
    """Give the template of the switch its choices."""
    from helpers.widgets.hardware import choices

    context["hardware_choices"] = choices()
