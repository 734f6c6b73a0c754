"""The portable core of the course in one zip: what the Python of a rendered page imports, and the data it reads.

Which modules belong to it is found by walking the imports from the one entry of the page's worker. The zip depends on
the files alone: the same sources give the same bytes.
"""

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

ENTRY = "helpers.widgets.explorers.registry"
# Tables, and the records that hardware choices and measured points come from.
DATA = ("*.toml", *(f"packs/*/engine_*_{part}.json" for part in ("calibrate", "serve", "ceilings", "engine")))
LONG_AGO = (1980, 1, 1, 0, 0, 0)


def core_files(root: Path) -> list[Path]:
    """The files of the zip relative to `root`, sorted."""
    modules = [path.relative_to(root) for path in reachable(root, ENTRY)]
    found = {path.relative_to(root) for pattern in DATA for path in (root / "data").glob(pattern)}
    return sorted({*modules, *found})


def core_zip(root: Path) -> bytes:
    """The zip itself."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in core_files(root):
            info = zipfile.ZipInfo(path.as_posix(), LONG_AGO)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, (root / path).read_bytes())
    return packed.getvalue()


def reachable(root: Path, entry: str) -> set[Path]:
    """The sources of every module that importing `entry` imports, with their packages.

    What is imported inside a function is left out: that is how the core keeps from needing an engine.
    """
    found: dict[Path, None] = {}
    waiting = [entry]
    while waiting:
        for path in sources_of(root, waiting.pop()):
            if path not in found:
                found[path] = None
                waiting += imported(path)
    return set(found)


def sources_of(root: Path, module: str) -> Iterator[Path]:
    """The files that importing a module runs: every package on the way to it, and its own. None for other packages."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                yield path


def imported(path: Path) -> Iterator[str]:
    """Every module of `helpers` that a source imports; a name taken from a package may be a module too."""
    for node in outside_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "helpers")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] == "helpers":
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)
