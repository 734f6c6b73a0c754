"""The zip that the Python of a page imports: complete, free of other packages, and the same for the same sources."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import core_zip
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ASK_ALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from helpers.widgets.explorers.registry import EXPLORERS, reply
import helpers
assert helpers.__file__.startswith(sys.argv[1]), helpers.__file__
print(json.dumps({name: json.loads(reply(json.dumps({"explorer": name, "values": {}}))) for name in EXPLORERS}))
"""


def unpacked(folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(core_zip.core_zip(ROOT))) as archive:
        archive.extractall(folder)
    return folder


def ask_all(folder: Path) -> subprocess.CompletedProcess:
    """Every explorer's answer to its defaults, by a Python without any installed package, out of the folder alone."""
    command = [sys.executable, "-I", "-S", "-c", ASK_ALL, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_zip_answers_every_explorer_without_other_packages_or_files(tmp_path):
    done = ask_all(unpacked(tmp_path))
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert "serving" in answers
    assert {name: one.get("error") for name, one in answers.items()} == dict.fromkeys(answers)
    assert all(one["figures"] for one in answers.values())


@pytest.mark.parametrize("missing", ["helpers/errors.py", "data/hardware.toml"])
def test_a_zip_that_lacks_a_file_is_found_out(tmp_path, missing):
    (unpacked(tmp_path) / missing).unlink()
    done = ask_all(tmp_path)
    assert done.returncode or "error" in str(json.loads(done.stdout))


def test_the_zip_is_the_same_for_the_same_sources_and_another_for_others(tmp_path):
    folder = unpacked(tmp_path)
    first = core_zip.core_zip(folder)
    assert first == core_zip.core_zip(folder)
    (folder / "helpers/errors.py").touch()  # the time of a file does not count
    assert first == core_zip.core_zip(folder)
    with (folder / "helpers/errors.py").open("a") as source:
        source.write("# changed\n")
    assert first != core_zip.core_zip(folder)


def test_no_engine_no_test_and_no_recording_of_an_hour_is_in_the_zip():
    names = {path.as_posix() for path in core_zip.core_files(ROOT)}
    assert [name for name in names if name.startswith(("helpers/engine", "helpers/bench", "tests"))] == []
    assert [name for name in names if name.endswith((".gz", "commands.py"))] == []
    assert sum((ROOT / name).stat().st_size for name in names) < 2_000_000


def test_imports_are_followed_with_their_packages_and_not_into_functions(tmp_path):
    lazy = "def f(): import helpers.engine\n"
    sources = {
        "helpers/__init__.py": "",
        "helpers/widgets/__init__.py": "from helpers import errors\n",
        "helpers/widgets/explorers/__init__.py": "",
        "helpers/widgets/explorers/registry.py": "import json\nfrom helpers.cost import roofline\n" + lazy,
        "helpers/cost/__init__.py": "",
        "helpers/cost/roofline.py": "class A:\n    import helpers.models\n",
        "helpers/cost/fit.py": "import numpy\n",
        "helpers/engine.py": "",
        "helpers/errors.py": "",
        "helpers/models.py": "",
        "data/a.toml": "",
        "data/b.csv": "",
        "data/packs/x/engine_y_calibrate.json": "",
        "data/packs/x/engine_y_serve.json": "",
        "data/packs/x/engine_y_check.json": "",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    left_out = {"helpers/cost/fit.py", "helpers/engine.py", "data/b.csv", "data/packs/x/engine_y_check.json"}
    assert {path.as_posix() for path in core_zip.core_files(tmp_path)} == set(sources) - left_out
