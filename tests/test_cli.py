"""The command line from outside: bad input is one sentence on the error stream and exit code 2, and writes nothing."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import __version__
from helpers.cli import main
from helpers.errors import InputError, WorkerError
from helpers.paths import data_file

ROOT = Path(__file__).resolve().parent.parent
FAST = ("simulate", "--max-requests", "200")
OUTPUTS = ("--json", "out.json", "--pack", "run.json.gz", "--trace-log", "log.jsonl")
ROWS = [{"timestamp": 100 * i, "input_length": 600, "output_length": 20, "hash_ids": [0, i + 1]} for i in range(60)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory with a good trace and some bad ones in it."""
    good = gzip.compress(TEXT)
    corrupt = bytearray(good)
    for i in range(40, len(corrupt) - 8, 7):
        corrupt[i] ^= 0x5A
    files = {
        "good.jsonl.gz": good,
        "corrupt.jsonl.gz": bytes(corrupt),
        "truncated.jsonl.gz": good[: len(good) // 2],
        "nogzip.jsonl.gz": TEXT,
        "empty.jsonl": b"",
        "blank.jsonl": b"\n\n",
        "columns.csv": b"when,what\n1,2\n",
        "fields.jsonl": b'{"time": 0, "prompt": 5}\n',
        "half.jsonl": TEXT[: len(TEXT) // 2 - 7],
        "binary.jsonl": b"\xff\xfe\x00\x01",
        "words.jsonl": TEXT.replace(b"600", b'"many"', 1),
        "long.jsonl": TEXT.replace(b"600", b"600000", 1),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_main(arguments, capsys):
    """(exit code, stdout, stderr) of a command in this process."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return left.value.code or 0, out, err


def subprocess_of(arguments, cwd, **environment):
    command = [sys.executable, "-m", "helpers", *map(str, arguments)]
    path = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **path, **environment}, capture_output=True, text=True, timeout=60
    )


def check_refused(code, out, err):
    """Exit code 2, nothing on stdout, one sentence on stderr."""
    assert code == 2
    assert out == ""
    assert err.startswith("hybrid-serving: ") and err.endswith("\n") and err.count("\n") == 1
    sentence = err.removeprefix("hybrid-serving: ").strip()
    assert 10 < len(sentence) < 500
    assert "Traceback" not in err and "Error:" not in err and "<class" not in err
    return sentence


BAD = {
    # the nine kinds
    "corrupt gzip": (["--trace", "corrupt.jsonl.gz"], "corrupt.jsonl.gz"),
    "truncated gzip": (["--trace", "truncated.jsonl.gz"], "truncated.jsonl.gz"),
    "empty": (["--trace", "empty.jsonl"], "empty.jsonl"),
    "wrong columns": (["--trace", "columns.csv"], "columns.csv"),
    "missing file": (["--trace", "nowhere.jsonl"], "nowhere.jsonl"),
    "zero workers": (["--workers", "0"], "a fleet of 0 workers serves nothing"),
    "unknown router": (["--router", "fastest"], "router 'fastest' is unknown; use one of random, round_robin"),
    "unknown flag": (["--wokers", "4"], "No such option: --wokers"),
    "negative rate": (["--rate-scale", "-2"], "the rate scale is -2.0; give a finite number above 0"),
    # other traces
    "no gzip": (["--trace", "nogzip.jsonl.gz"], "nogzip.jsonl.gz"),
    "only blank lines": (["--trace", "blank.jsonl"], "blank.jsonl"),
    "wrong fields": (["--trace", "fields.jsonl"], "fields.jsonl"),
    "half a row": (["--trace", "half.jsonl"], r"half.jsonl, line 31"),
    "not text": (["--trace", "binary.jsonl"], "binary.jsonl"),
    "text for a length": (["--trace", "words.jsonl"], r"words.jsonl.*line 1"),
    "a prompt beyond the context": (["--trace", "long.jsonl"], r"long.jsonl.*line 1.*131072"),
    "a folder": (["--trace", "."], r"\."),
    "unknown generator": (["--trace", "generated:chaos"], "chaos"),
    "neither file nor name": (["--trace", "chaos"], "'chaos' is no file and no workload"),
    # numbers
    "zero rate": (["--rate-scale", "0"], "the rate scale is 0.0"),
    "endless rate": (["--rate-scale", "inf"], "the rate scale is inf"),
    "negative KV": (["--kv-gib", "-1"], "the KV memory is -1.0 GiB"),
    "no KV": (["--kv-gib", "0"], "the KV memory is 0.0 GiB"),
    "KV that is no number": (["--kv-gib", "nan"], "the KV memory is nan GiB"),
    "endless KV": (["--kv-gib", "inf"], "the KV memory is inf GiB"),
    "KV below a block": (["--kv-gib", "0.01"], "hold no block of 512 tokens"),
    "negative workers": (["--workers", "-3"], "a fleet of -3 workers"),
    "zero tp": (["--tp", "0"], "tp is 0"),
    "zero chunk": (["--chunk-tokens", "0"], "chunk_tokens is 0"),
    "chunk below the batch": (["--chunk-tokens", "8"], "token_budget 8 is below max_batch"),
    "negative staleness": (["--staleness", "-1"], r"period_s is -1\.0"),
    "staleness that is no number": (["--staleness", "nan"], "period_s is nan"),
    "endless staleness": (["--staleness", "inf"], "period_s is inf"),
    "zero SLO": (["--slo-ttft", "0"], r"the SLO ttft_s is 0\.0"),
    "negative SLO": (["--slo-tpot", "-0.05"], r"the SLO tpot_s is -0\.05"),
    "endless SLO": (["--slo-ttft", "inf"], "the SLO ttft_s is inf"),
    "a pace in ms": (["--slo-tpot", "50"], r"the SLO tpot_s is 50 seconds a token; give seconds, 0\.05 for as many ms"),
    "a target without a knee": (["--target", "0.8"], "--target has no effect here; give --knee too"),
    "fewer requests for no knee": (["--knee-requests", "50"], "--knee-requests has no .*; give --knee or --regret too"),
    "a startup without a scaler": (["--startup", "9"], "--startup has no .*; give --scaler or --scaler-set"),
    "zero seeds": (["--seeds", "0"], "0 seeds make no run; give 1 or more"),
    "negative seeds": (["--seeds", "-1"], "-1 seeds make no run"),
    "zero routers": (["--routers", "0"], "0 routers route nothing"),
    "zero requests": (["--max-requests", "0"], "max_requests is 0"),
    "negative warm-up": (["--warmup", "-1"], r"the warm-up is -1\.0 s"),
    "a warm-up beyond the end": (["--warmup", "1e9"], r"a warm-up of 1e\+09 s leaves nothing"),
    "words for a number": (["--workers", "four"], "'--workers'.*valid integer"),
    "a fraction of a worker": (["--workers", "2.5"], "'--workers'.*valid integer"),
    "words for a rate": (["--rate-scale", "fast"], "'--rate-scale'.*valid number"),
    "a value missing": (["--workers"], "--workers"),
    # names
    "unknown model": (["--model", "gpt-9"], "'gpt-9'.*llama-3.1-8b"),
    "unknown hardware": (["--hardware", "h9000"], "'h9000'.*h100"),
    "unknown admission": (["--admission", "polite"], "admission 'polite' is unknown; use one of none, queue_cap"),
    "a cap without an admission": (["--admission-set", "max_waiting=3"], "admission none: parameter 'max_waiting' is"),
    "zero cap": (["--admission", "queue_cap", "--admission-set", "max_waiting=0"], "max_waiting is 0"),
    "a parameter without a value": (["--router-set", "kv_weight"], "router parameter 'kv_weight'; write KEY=VALUE"),
    "a parameter of nobody": (["--router", "all", "--router-set", "charm=1"], "has a parameter 'charm'"),
    "a parameter of another type": (["--router", "least_tokens", "--router-set", "kv_weight=x"], "kv_weight is 'x'"),
    "unknown scaler": (["--scaler", "elastic"], "scaler 'elastic' is unknown"),
    "the same router twice": (["--router", "random", "--router", "random"], "router random was given twice"),
    "a pack of two routers": (["--router", "random", "--router", "round_robin"], "--pack and --trace-log write one"),
    "a pack of knees": (["--knee"], "--pack and --trace-log write one"),
    "a model that does not fit": (["--model", "llama-3.1-70b"], "raise tp or take a larger GPU"),
    "bad split": (["--split", "2x2"], "split '2x2'; write prefill and decode workers like 2P2D"),
    "split without decode": (["--split", "2P0D"], "split '2P0D'"),
    "split and workers disagree": (["--split", "2P2D", "--workers", "3"], "split 2P2D is 4 workers, but 3 were asked"),
    "one argument too many": (["again"], "again"),
    # places
    "a folder for a file": (["--json", "."], "nothing can be written there"),
    "a folder that is not there": (["--json", "no/such/out.json"], "no/such/out.json: nothing can be written there"),
    "a log where none can be": (["--trace-log", "good.jsonl.gz/log"], "nothing can be written there"),
}  # fmt: skip


def without(arguments, option):
    """Arguments less an option and its value, where it is among them: given twice it would be refused for that."""
    at = arguments.index(option) if option in arguments else len(arguments)
    return [*arguments[:at], *arguments[at + 2 :]]


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(kind, folder, capsys):
    wrong, sentence = BAD[kind]
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    code, out, err = run_main([*without([*FAST, *OUTPUTS], wrong[0]), *wrong], capsys)
    assert re.search(sentence, check_refused(code, out, err)), err
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before, "something was written"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["simulat"], "simulat"),
        (["--fast"], "--fast"),
        (["trace", "describe", "nowhere.csv"], "nowhere.csv"),
        (["trace", "erase"], "erase"),
        (["policies", "luck"], "policy 'luck' is unknown"),
        (["hardware", "h9000"], "h9000"),
        (["models", "gpt-9"], "gpt-9"),
        (["bench", "everything"], "everything"),
        (["record", "serve"], "serve is a part; write --part serve"),
        (["record", "--part", "everything"], "part 'everything' is unknown"),
        (["record", "--preset", "tiny", "--budget-s", "nan"], "a budget of nan s measures nothing"),
        (["record", "--preset", "tiny", "--peers", "gpt-fast=nowhere"], "nowhere has no model.py of gpt-fast"),
        (["bench", "engine", "--preset", "tiny", "--budget-s", "nan"], "a budget of nan s measures nothing"),
        (["bench", "engine", "--preset", "vast"], "vast: neither a folder nor one of the presets tiny"),
        (["bench", "splits", "--calibration", "x.json", "--seeds", "-1"], "-1 seeds give no interval"),
        (["bench", "fleet-sizes", "--duration-s", "-1"], "-1 s of traffic; give more than none"),
        (["price", "regret", "--rate", "1", "--decisions", "0"], "the regret of 0 decisions says nothing"),
    ],
)
def test_other_commands_refuse_alike(arguments, sentence, folder, capsys):
    assert sentence in check_refused(*run_main(arguments, capsys))


def test_the_checks_can_fail(folder, capsys):
    """Controls: a good run is not refused, writes its files, and a traceback is not one sentence."""
    code, out, err = run_main(["simulate", "--trace", "good.jsonl.gz", *OUTPUTS], capsys)
    assert code == 0 and err == ""
    assert {"out.json", "run.json.gz", "log.jsonl"} <= {p.name for p in folder.iterdir()}
    with pytest.raises(AssertionError):
        check_refused(code, out, err)
    with pytest.raises(AssertionError):
        check_refused(2, "", "Traceback (most recent call last):\n  File ...\nValueError: wrong\n")
    with pytest.raises(AssertionError):
        check_refused(2, "", "hybrid-serving: one sentence on the first line.\nAnd one on the second.\n")


NINE = list(BAD)[:9]


@pytest.mark.parametrize("kind", NINE)
def test_the_nine_kinds_from_the_shell(kind, folder):
    before = sorted(folder.iterdir())
    done = subprocess_of([*FAST, *OUTPUTS, *BAD[kind][0]], folder)
    assert re.search(BAD[kind][1], check_refused(done.returncode, done.stdout, done.stderr))
    assert sorted(folder.iterdir()) == before


def test_a_full_disk_is_one_sentence(folder, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system, so no disk can be full")
    for flag in ("--json", "--trace-log", "--pack"):
        code, out, err = run_main([*FAST, flag, "/dev/full"], capsys)
        assert re.search(r"/dev/full: .* cannot be written \(No space left", check_refused(code, out, err))


def test_an_output_that_cannot_be_written_is_one_sentence(folder):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system, so no disk can be full")
    command = [sys.executable, "-m", "helpers", *FAST]
    with open("/dev/full", "w") as full:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert "standard output" in check_refused(done.returncode, "", done.stderr)


# -- at its edges


def test_a_data_file_that_is_missing_is_one_sentence():
    assert data_file("models.toml").is_file()
    with pytest.raises(InputError, match=r"nowhere\.toml: the data file is missing; run from a full checkout"):
        data_file("nowhere.toml")


def test_an_interruption_is_no_traceback(monkeypatch, capsys):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.cli.application", lambda: interrupted)
    code, out, err = run_main(["simulate"], capsys)
    assert (code, out, err) == (130, "", "hybrid-serving: interrupted\n")


def test_a_worker_that_fails_is_one_sentence_and_no_bad_input(monkeypatch, capsys):
    def fail(command):
        raise WorkerError("worker 0 ended with code 1 as it started")

    monkeypatch.setattr("helpers.cli.run", fail)
    code, out, err = run_main(FAST, capsys)
    assert (code, out) == (1, "")
    assert err == "hybrid-serving: worker 0 ended with code 1 as it started\n"


def test_a_package_that_is_not_installed_is_named_in_one_sentence(monkeypatch, capsys):
    def fail(command):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr("helpers.cli.run", fail)
    assert "this needs numpy; pip install -e '.[engine,serve]'" in check_refused(*run_main(FAST, capsys))


def test_a_missing_module_of_the_course_itself_is_no_bad_input(monkeypatch):
    def fail(command):
        raise ModuleNotFoundError("No module named 'helpers.gone'", name="helpers.gone")

    monkeypatch.setattr("helpers.cli.run", fail)
    with pytest.raises(ModuleNotFoundError):
        main(FAST)


def test_the_version_is_told_with_its_commit(capsys):
    code, out, err = run_main(["--version"], capsys)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"hybrid-serving {re.escape(__version__)}, commit (\w{{40}}(-dirty)?|unknown)\n", out)


@pytest.mark.parametrize("group", [[], ["bench"], ["trace"], ["lessons"]])
def test_a_group_without_a_command_prints_its_help_and_no_empty_sentence(group, capsys):
    code, out, err = run_main(group, capsys)
    assert code == 2 and "Commands" in out and err == ""


def test_an_option_that_takes_one_value_is_refused_when_given_twice_and_one_that_takes_several_is_not(folder, capsys):
    """The first of two used to be dropped without a word. Of commands in groups too; a flag may be said again."""
    twice = run_main([*FAST, "--trace", "generated:conversation", "--seed", "1", "--seed", "2"], capsys)
    assert twice == (2, "", "hybrid-serving: --seed is given 2 times and takes one value; give it once\n")
    code, _, told = run_main(["trace", "describe", "good.jsonl.gz", "--json", "a", "--json", "b"], capsys)
    assert (code, told.count("--json is given 2 times")) == (2, 1) and not Path("b").exists()
    several = ["--router", "round_robin", "--router", "least_requests", "--skip-bad", "--skip-bad"]
    assert run_main([*FAST, "--trace", "good.jsonl.gz", *several], capsys)[0] == 0
