"""Who may import whom: the portable core needs the standard library only, and no room imports upwards."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "helpers"

# The rooms from the ground up. A room may import the rooms on the lines above its own and those listed with it.
GROUND = {"errors", "paths", "checkout", "console", "outputs"}
TABLES = {"sources", "hardware", "models"}
MODELS = GROUND | TABLES | {"workload", "cost", "metrics"}
DECISIONS = MODELS | {"scheduling", "policies"}
BACKENDS = DECISIONS | {"roofline", "simulator", "engine", "parallel", "cluster"}
MAY_IMPORT = {
    "errors": set(),
    "paths": {"errors"},
    "checkout": {"errors", "paths"},
    "console": {"errors", "checkout"},
    "outputs": {"errors"},
    "sources": GROUND,
    "hardware": GROUND | {"sources"},
    "models": GROUND | {"sources", "hardware"},
    "workload": GROUND,
    "cost": GROUND | TABLES | {"workload"},
    "metrics": GROUND | TABLES | {"workload"},
    "roofline": GROUND | TABLES | {"workload", "cost"},
    "scheduling": GROUND | {"workload"},
    "policies": GROUND | TABLES | {"workload", "cost"},
    "simulator": DECISIONS,
    "engine": MODELS | {"scheduling", "roofline"},
    "parallel": MODELS | {"scheduling", "roofline", "engine"},
    "cluster": DECISIONS | {"engine", "parallel", "simulator"},  # the front end is the simulator's, by the real clock
    "serving": BACKENDS,
    "bench": BACKENDS | {"serving"},
    "widgets": GROUND | TABLES | {"serving", "metrics", "workload", "cost", "policies", "simulator", "roofline"},
    "lessons": BACKENDS | {"serving", "bench", "widgets"},
}
# The command line is at the top; a room's own `commands` module speaks typer and rich.
TOP = {"cli", "__main__", "once", "tables"}

EXPLORERS = tuple(path.stem for path in sorted((HELPERS / "widgets" / "explorers").glob("*.py")) if path.stem[0] != "_")

# Packages outside the standard library, by room, or by file where a file is narrower or wider than its room.
PACKAGES = {
    "console": {"rich"},
    "hardware": {"torch"},
    "cost/fit": {"numpy"},
    "bench": {"torch", "numpy", "transformers"},
    "bench/pages": {"playwright"},
    "workload/fetch": {"pooch"},
    "engine": {"torch", "triton", "numpy", "safetensors", "tokenizers", "jinja2"},
    "parallel": {"torch"},
    "cluster": {"torch", "zmq", "msgpack", "starlette", "uvicorn", "prometheus_client"},
    "roofline": {"torch"},
    "roofline/bounds": set(),
    "roofline/measured": set(),
    "serving": {"yaml"},
    "widgets": {"plotly"},
    "widgets/lab": {"anywidget", "traitlets", "IPython", "plotly"},
    "widgets/figures": set(),
    "widgets/drawing": set(),
    "widgets/show": set(),
    "widgets/style": set(),
    "widgets/explorer": set(),
    **{f"widgets/explorers/{name}": set() for name in EXPLORERS},
    "lessons": {"nbformat", "nbconvert", "plotly", "jupytext", "IPython", "ipywidgets", "myst_nb"},
    "tables": {"typer", "rich"},
    "cli": {"typer"},
    "once": {"typer"},
}
for _name in ("experiment", "fleet", "run", "packs"):
    PACKAGES[f"serving/{_name}"] = set()
# Packages that even their own room imports inside a function only.
LAZY = {("hardware", "torch"), ("workload", "pooch"), ("console", "rich"), ("roofline", "torch"), ("engine", "triton")}
LAZY |= {("bench", "torch"), ("bench", "numpy"), ("bench", "transformers")}
LAZY |= {("serving", "yaml")}

PORTABLE_ROOMS = ("hardware", "models", "sources", "workload", "cost", "metrics", "scheduling", "policies", "simulator")
PORTABLE_ROOMS += ("outputs",)
PORTABLE_FILES = ("roofline/bounds", "roofline/measured")
PORTABLE_FILES += tuple(f"widgets/{name}" for name in ("figures", "drawing", "show", "style", "explorer"))
PORTABLE_FILES += tuple(f"widgets/{name}" for name in ("hardware", "page", "variants", "lab"))
PORTABLE_FILES += tuple(f"widgets/explorers/{name}" for name in EXPLORERS)
PORTABLE_FILES += tuple(f"serving/{name}" for name in ("experiment", "fleet", "run", "packs"))
NOT_PORTABLE = ("cost/fit", "workload/fetch")


def name_of(path: Path, helpers: Path) -> str:
    """A source's place in the house: "policies/view" for helpers/policies/view.py, "cost" for its __init__.py."""
    parts = path.relative_to(helpers).with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(full module name, whether it is imported inside a function) for every import in a source."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield ("." * child.level + (child.module or ""), inside)
                if child.module == "helpers":
                    yield from ((f"helpers.{alias.name}", inside) for alias in child.names)
            yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def offences(helpers: Path) -> list[str]:
    """Every import under `helpers` that breaks a rule, as "file: what"."""
    found = []
    for path in sorted(helpers.rglob("*.py")):
        name = name_of(path, helpers)
        room = name.split("/")[0]
        if name != "__init__":
            found += [
                f"{name}: {what}" for module, inside in imports(path) for what in judge(name, room, module, inside)
            ]
    return found


def judge(name: str, room: str, module: str, inside: bool) -> Iterator[str]:
    first, _, rest = module.partition(".")
    if module.startswith("."):
        yield "write imports from helpers in full, not relative"
    elif first == "helpers":
        target = "" if rest.startswith("__") else rest.split(".")[0]  # helpers.__version__ is everyone's
        if room not in TOP and target not in ("", room) and target not in MAY_IMPORT.get(room, set()):
            yield f"may not import helpers.{target}"
        if room not in TOP and rest.endswith("commands"):
            yield "only the command line imports a room's commands"
    elif first not in sys.stdlib_module_names:
        allowed = {"typer", "rich"} if name.endswith("/commands") else PACKAGES.get(name, PACKAGES.get(room, set()))
        if first not in allowed:
            yield f"may not import {first}"
        elif (room, first) in LAZY and not inside:
            yield f"may import {first} inside a function only"


def portable_modules() -> list[str]:
    names = [name_of(path, HELPERS) for path in sorted(HELPERS.rglob("*.py"))]
    in_core = [n for n in names if n.split("/")[0] in PORTABLE_ROOMS or n in PORTABLE_FILES]
    in_core = [n for n in in_core if not n.endswith("commands") and n not in NOT_PORTABLE]
    return ["helpers." + name.replace("/", ".") for name in in_core]


def test_every_import_is_allowed():
    assert offences(HELPERS) == []


def test_every_room_has_a_rule():
    rooms = {name_of(path, HELPERS).split("/")[0] for path in HELPERS.rglob("*.py")} - {"__init__"}
    assert rooms - set(MAY_IMPORT) - TOP == set()


def test_the_rules_have_no_circle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [room for room, below in MAY_IMPORT.items() if room not in order and below <= set(order)]
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - set(order))}"
        order += free


def test_the_portable_core_runs_on_the_standard_library_alone():
    """With no site-packages at all, as in a page: every module of the core imports."""
    modules = portable_modules()
    assert len(modules) > 20
    code = (
        f"import sys, importlib; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(m) for m in {modules!r}]"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "text", "offence"),
    [
        ("metrics/planted.py", "import numpy\n", "metrics/planted: may not import numpy"),
        ("metrics/planted.py", "def f():\n    import numpy.linalg\n", "metrics/planted: may not import numpy"),
        ("hardware.py", "import torch\n", "hardware: may import torch inside a function only"),
        ("cost/planted.py", "from helpers.simulator import x\n", "cost/planted: may not import helpers.simulator"),
        ("cost/planted.py", "from helpers import simulator\n", "cost/planted: may not import helpers.simulator"),
        (
            "policies/planted.py",
            "from ..cost import x\n",
            "policies/planted: write imports from helpers in full, not relative",
        ),
        (
            "metrics/planted.py",
            "import helpers.metrics.commands\n",
            "metrics/planted: only the command line imports a room's commands",
        ),
    ],
)
def test_a_planted_import_is_caught(tmp_path, file, text, offence):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert offences(tmp_path) == [offence]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hardware.py", "def probe():\n    import torch\n"),
        ("metrics/planted.py", "import math\nfrom helpers.metrics.timeline import Timeline\n"),
        ("metrics/commands.py", "import typer\nfrom helpers.console import emit_json\n"),
        ("serving/planted.py", "from helpers import __version__\n"),
    ],
)
def test_an_allowed_import_passes(tmp_path, file, text):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert offences(tmp_path) == []
