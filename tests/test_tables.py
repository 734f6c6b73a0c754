"""Sources beside every figure, and the commands that show the tables."""

import json
import subprocess
import sys
import tomllib

import pytest
import typer
from typer.testing import CliRunner

from helpers.errors import InputError
from helpers.hardware import gpus
from helpers.models import models
from helpers.paths import ROOT, data_file
from helpers.sources import MARKS, base_unit, read_abbreviations, read_tables
from helpers.tables import register

FILES = ("hardware.toml", "models.toml")


def sourceless(table: dict, where: str = "", inherited: bool = False) -> list[str]:
    """Numbers of a parsed TOML table without a source and a valid mark; written apart from the loader."""

    def cited(item: dict) -> bool:
        return item.get("mark") in ("P", "S", "C", "M") and bool(str(item.get("source", "")).strip())

    found = []
    for key, item in table.items():
        here = f"{where}.{key}" if where else key
        if isinstance(item, dict) and "value" in item:
            found += [] if cited(item) else [here]
        elif isinstance(item, dict):
            found += sourceless(item, here, cited(item))
        elif isinstance(item, (int, float)) and not isinstance(item, bool) and not inherited:
            found.append(here)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_figure_has_a_source_and_a_mark(name):
    document = tomllib.loads(data_file(name).read_text())
    assert sourceless(document) == []
    first = next(table for key, table in document.items() if key != "sources")
    first["bare"] = 1
    first["unmarked"] = {"value": 1, "mark": "X", "source": "s"}
    first["unsourced"] = {"value": 1, "mark": "P", "source": " "}
    assert len(sourceless(document)) == 3  # control: the walk sees each kind of gap


def test_the_loader_reads_as_many_figures_as_the_files_hold():
    def count(table: dict) -> int:
        if "value" in table:
            return 1
        return sum(
            count(item) if isinstance(item, dict) else isinstance(item, (int, float)) and not isinstance(item, bool)
            for item in table.values()
        )

    for name in FILES:
        document = tomllib.loads(data_file(name).read_text())
        assert sum(len(entry.figures) for entry in read_tables(data_file(name)).values()) == count(document) > 150


GOOD = '[x]\na_gb = { value = 1, mark = "P", source = "s" }\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[x]\na = 1\n", "t.toml: x.a is 1 without mark and source"),
        ('[x]\na = { value = 1, mark = "P" }\n', "x.a has no source"),
        ('[x]\na = { value = 1, mark = "P", source = "" }\n', "x.a has no source"),
        ('[x]\na = { value = 1, source = "s" }\n', "x.a has the mark None; use one of P, S, C, M"),
        ('[x]\na = { value = 1, mark = "Q", source = "s" }\n', "x.a has the mark 'Q'"),
        ('[x]\na = { value = "1", mark = "P", source = "s" }\n', "x.a has the value '1'"),
        ('[x]\na = { value = -1, mark = "P", source = "s" }\n', "x.a has the value -1"),
        ('[x]\na = { value = nan, mark = "P", source = "s" }\n', "x.a has the value nan"),
        ('[x]\na = { value = 1, mark = "P", source = "s", note = "n" }\n', "x.a has the unknown key 'note'"),
        ('[x.y]\nmark = "P"\na = 1\n', "x.y has no source"),
        ("a = 1\n", "t.toml: a stands outside any table"),
        ("[x\n", "t.toml: not valid TOML"),
    ],
)
def test_figures_without_provenance_are_refused(tmp_path, text, sentence):
    path = tmp_path / "t.toml"
    path.write_text(GOOD)
    assert read_tables(path)["x"].figures["a_bytes"].value == 10**9  # the same file without the flaw is read
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_tables(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_tables(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("key", "field", "factor"),
    [
        ("hbm_tb_per_s", "hbm_bytes_per_s", 1e12),
        ("nic_gbit_per_s", "nic_bytes_per_s", 1.25e8),
        ("shared_kib_per_sm", "shared_bytes_per_sm", 1024),
        ("l2_mib", "l2_bytes", 1024**2),
        ("memory_gb", "memory_bytes", 1e9),
        ("peak_tflops.bf16", "peak_flops.bf16", 1e12),
        ("measured.bf16_8192_tflops", "measured.bf16_8192_flops", 1e12),
        ("clock_ghz", "clock_hz", 1e9),
        ("card.total_billion", "card.total", 1e9),
        ("sms", "sms", 1),
    ],
)
def test_units_stand_in_the_keys(key, field, factor):
    assert base_unit(key) == (field, factor)


# ---------------------------------------------------------------------------- commands


@pytest.fixture
def run():
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def last_line(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_hardware_lists_every_part(run):
    result = run("hardware")
    record = last_line(result)
    assert record["command"] == "hardware"
    assert [part["key"] for part in record["hardware"]] == list(gpus())
    rows = result.stdout.splitlines()[2:-1]
    assert len(rows) == len(gpus())
    assert all(len(row.split("\t")) == 13 for row in rows)


def test_hardware_shows_one_part_with_its_sources(run):
    result = run("hardware", "GB300")
    record = last_line(result)
    assert record["ridge_flop_per_byte"]["fp4"] == 1875
    assert record["unverified"] == ["l2_bytes", "peak_flops.fp64"]
    assert record["sources"]["peak_flops.fp64"].startswith("[M]")
    assert "M unverified" in result.stdout
    assert "AIC: ai-dynamo/aiconfigurator" in result.stdout  # short names are spelled out
    assert "M unverified" not in run("hardware", "h200").stdout  # control: only the marks in use


def test_unverified_figures_carry_a_question_mark_in_the_list(run):
    heading, *lines = run("hardware").stdout.splitlines()
    rows = {line.split("\t")[0]: line for line in lines if "\t" in line}
    assert "?: unverified" in heading and "132 ?" in rows["h800"]
    assert "?" not in rows["h100"]


def test_hardware_probe(run):
    record = last_line(run("hardware", "--probe"))
    assert record["probe"]["kind"] in ("cpu", "gpu")
    assert record["hardware_key"]
    refused = run("hardware", "h100", "--probe")
    assert isinstance(refused.exception, InputError)


def test_models_lists_every_model(run):
    record = last_line(run("models"))
    assert record["command"] == "models"
    assert [row["key"] for row in record["models"]] == list(models())


def test_models_shows_one_with_its_sources(run):
    result = run("models", "qwen3-8b")
    record = last_line(result)
    assert record["kv_bytes_per_token"] == 147_456
    assert record["sources"]["config.layers"] == "[P] config.json of Qwen/Qwen3-8B in AIC model_configs/"
    assert "8.191\tB parameters" in result.stdout


@pytest.mark.parametrize("arguments", [("hardware", "nope"), ("models", "nope")])
def test_unknown_names_are_one_sentence(run, arguments):
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert "known:" in str(result.exception)


def test_unknown_flags_are_refused(run):
    assert run("hardware", "--colour").exit_code == 2
    assert run("models", "--probe").exit_code == 2


def test_abbreviations_are_kept_apart_from_the_parts():
    assert "AIC" in read_abbreviations(data_file("hardware.toml"))
    assert "sources" not in read_tables(data_file("hardware.toml"))
    assert set(MARKS) == {"P", "S", "C", "M"}


def test_the_tables_need_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules)\n"
        "import helpers.hardware, helpers.models\n"
        "helpers.hardware.gpus(), helpers.models.models()\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - sys.stdlib_module_names - {'helpers'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
