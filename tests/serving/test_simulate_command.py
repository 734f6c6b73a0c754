"""`hybrid-serving simulate` on good input: the last line, seeds, packs, the log of decisions, what was asked for."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from helpers.metrics.summary import summarize
from helpers.serving.packs import read_pack
from helpers.workload.generate import open_workload
from helpers.workload.slo import SLO
from tests.serving.command import last_line, run_main

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIRED = (
    *("command", "wall_s", "seeds", "workload_sha256", "commit", "parse_s"),
    *("requests", "completed", "rejected", "ttft_s", "tpot_s", "goodput_per_s"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulated(capsys, *arguments):
    """The last line of `simulate` on 200 requests."""
    code, out, err = run_main(capsys, "simulate", "--max-requests", "200", *arguments)
    assert (code, err) == (0, "")
    return last_line(out)


def test_the_last_line_has_what_programs_need(folder):
    command = [sys.executable, "-m", "helpers", "simulate", "--max-requests", "200"]
    narrow = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40", "LINES": "10"}
    done = subprocess.run(command, cwd=folder, env=narrow, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    line = last_line(done.stdout)
    assert not set(REQUIRED) - set(line)
    assert line["command"] == "hybrid-serving simulate --max-requests 200"
    assert (line["requests"], line["completed"], line["rejected"], line["seeds"]) == (200, 200, 0, [0])
    assert line["wall_s"] > 0 and line["parse_s"] > 0 and line["goodput_per_s"] > 0
    assert line["ttft_s"]["n"] == 200 and line["tpot_s"]["n"] == 200
    workload, _ = open_workload("conversation", max_requests=200)
    assert line["workload_sha256"] == workload.sha256
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", line["commit"])
    table = done.stdout.splitlines()[:-1]
    assert table[0].startswith("# round_robin on conversation") and all("\x1b" not in row for row in table)


def test_on_a_narrow_terminal_the_last_line_is_whole(folder):
    """A pseudo-terminal of 40 columns: the table is wrapped, the JSON is not."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    for name in ("COLUMNS", "LINES"):  # a test runner may set them, and they outweigh the terminal
        environment.pop(name, None)
    command = [sys.executable, "-m", "helpers", "simulate", "--max-requests", "50"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode().replace("\r", "")).splitlines()
    assert json.loads(lines[-1])["requests"] == 50
    assert max(map(len, lines[:-1])) <= 40 < len(lines[-1])


def numbers(line):
    return {k: v for k, v in line.items() if k not in ("wall_s", "parse_s", "command")}


def test_the_same_seed_gives_the_same_numbers(folder, capsys):
    arguments = ("--trace", "generated:poisson", "--router", "power_of_two")
    one, two, other = (simulated(capsys, *arguments, "--seed", seed) for seed in (7, 7, 8))
    assert numbers(one) == numbers(two)
    assert one["ttft_s"] != other["ttft_s"] and one["workload_sha256"] != other["workload_sha256"]


def test_seeds_of_a_generated_workload_give_intervals(folder, capsys):
    line = simulated(capsys, "--trace", "generated:poisson", "--seeds", 3)
    assert line["seeds"] == [0, 1, 2] and "sensitivity" not in line
    values = [r["goodput_per_s"] for r in line["replicates"]]
    mean = line["mean"]["goodput_per_s"]
    assert mean["n"] == 3 and mean["low"] < mean["mean"] < mean["high"]
    assert mean["mean"] == pytest.approx(sum(values) / 3)
    assert line["goodput_per_s"] == values[0] and len(set(values)) == 3


def test_seeds_of_a_recorded_workload_are_a_sensitivity(folder, capsys):
    line = simulated(capsys, "--seeds", 3, "--router", "random")
    assert "mean" not in line
    spread = line["sensitivity"]["ttft_s.p50"]
    values = [r["ttft_s.p50"] for r in line["replicates"]]
    assert (spread["min"], spread["max"], spread["n"]) == (min(values), max(values), 3)
    assert "low" not in spread
    assert not {"mean", "sensitivity", "replicates"} & set(simulated(capsys))  # control: one seed has no spread


def test_a_pack_gives_the_same_summary_again(folder, capsys):
    line = simulated(capsys, "--split", "2P2D", "--pack", "run.json.gz", "--json", "out.json", "--slo-ttft", "0.5")
    assert json.loads(Path("out.json").read_text()) == line
    run = read_pack("run.json.gz")
    summary = summarize(run.log, SLO(ttft_s=0.5, tpot_s=0.05))
    for name in ("requests", "completed", "rejected", "goodput_per_s", "attainment", "hit_rate", "output_tokens"):
        assert summary[name] == pytest.approx(line[name], rel=1e-9)
    for name in ("ttft_s", "tpot_s", "itl_s"):
        assert summary[name] == pytest.approx(line[name], abs=1e-9)
    assert run.provenance.workload_sha256 == line["workload_sha256"]
    assert [w.role for w in run.workers] == ["prefill", "prefill", "decode", "decode"]
    assert summarize(run.log, SLO(ttft_s=0.001))["attainment"] != line["attainment"]  # control


def test_a_scaler_changes_the_fleet(folder, capsys):
    """Fixed at three workers, looked at every 5 s, up 2 s later: one is started at 5 s; without parameters none."""
    wanted = ("--scaler", "fixed", "--scaler-set", "mixed=3", "--scaler-set", "period_s=5", "--startup", 2)
    arguments = ("--trace", "generated:poisson", "--workers", 2)
    code, out, err = run_main(capsys, "simulate", "--max-requests", "200", *arguments, *wanted)
    assert (code, err) == (0, "")
    assert "fleet changes\t1, the last: start of mixed worker 2 at 5 s (the fleet is fixed)" in out
    line = last_line(out)
    assert [(c["time_s"], c["action"], c["worker"]) for c in line["fleet_changes"]] == [(5.0, "start", 2)]
    policy = line["policy"]
    assert (policy["scaler"], policy["scaler.mixed"], policy["startup_s"]) == ("fixed", 3, 2.0)
    still = simulated(capsys, *arguments)
    assert still["fleet_changes"] == [] and "startup_s" not in still["policy"]
    assert line["gpu_s"] == pytest.approx(3 * line["duration_s"] - 5.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scaler", "autoscale"), "scaler 'autoscale' is unknown; use one of fixed, thresholds, sla_planner, roles"),
        (("--scaler", "roles", "--scaler-set", "dwell=1"), "parameter 'dwell' is unknown"),
        (("--scaler", "roles", "--startup", "-1"), "startup_s is -1.0; give a finite number of 0 or more"),
    ],
)
def test_a_scaler_that_cannot_be_is_bad_input(folder, capsys, arguments, sentence):
    code, _, err = run_main(capsys, "simulate", "--trace", "generated:poisson", *arguments)
    assert code == 2 and sentence in err


def test_the_trace_log_has_one_line_a_decision(folder, capsys):
    arguments = ("--trace", "generated:poisson", "--workers", 1, "--kv-gib", 0.3, "--rate-scale", 20)
    line = simulated(
        capsys, *arguments, "--admission", "queue_cap", "--admission-set", "max_waiting=2", "--trace-log", "log.jsonl"
    )
    told = [json.loads(text) for text in Path("log.jsonl").read_text().splitlines()]
    assert [d["request"] for d in told] == list(range(200))
    assert line["rejected"] == sum(d["action"] == "reject" for d in told) > 0
    assert all(d["reason"] for d in told if d["action"] == "reject")
    assert all(d["prefill"] == d["decode"] == 0 for d in told)


def test_what_is_asked_for_is_what_runs(folder, capsys):
    line = simulated(
        capsys, "--workers", 2, "--model", "llama-3.1-70b", "--hardware", "H200", "--tp", 4, "--chunk-tokens", 512,
        "--kv-gib", 40, "--rate-scale", 2, "--staleness", 0.1, "--routers", 2, "--router", "least_requests",
    )  # fmt: skip
    fleet, policy = line["fleet"], line["policy"]
    assert (fleet["workers"], fleet["tp"], fleet["chunk_tokens"], fleet["kv_gib_per_worker"]) == (2, 4, 512, 40.0)
    assert (policy["router"], policy["routers"], fleet["telemetry"][0]) == ("least_requests", 2, 0.1)
    assert line["repairs"] == ["rate x2"]
    plain = simulated(capsys)
    assert line["workload_sha256"] != plain["workload_sha256"] and plain["repairs"] == []


def test_warmup_leaves_early_arrivals_out_of_the_statistics(folder, capsys):
    whole, part = simulated(capsys), simulated(capsys, "--warmup", 20)
    workload, _ = open_workload("conversation", max_requests=200)
    assert part["requests"] == sum(r.arrival_s >= 20 for r in workload) < whole["requests"]
    assert part["window_s"][0] == 20.0


def test_skipped_rows_are_counted_on_stderr(folder, capsys):
    rows = [{"timestamp": i, "input_length": 600, "output_length": 20, "hash_ids": [0, i + 1]} for i in range(60)]
    rows[0]["input_length"] = "many"
    Path("words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run_main(capsys, "simulate", "--trace", "words.jsonl", "--skip-bad")
    assert code == 0 and last_line(out)["requests"] == 59
    assert re.fullmatch(r"hybrid-serving: 1 rows skipped: .*\n", err)
    assert any("skipped" in repair for repair in last_line(out)["repairs"])


def table_of(out):
    """The table of a piped command as {first cell: {column: cell}}, the columns that have the same name by the last."""
    rows = [line.split("\t") for line in out.splitlines() if not line.startswith(("#", "{"))]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


def compared(capsys, *arguments):
    """(table, last line) of several routers on 150 requests of two seeds."""
    routers = ("--router", "least_tokens", "--router", "round_robin")
    code, out, err = run_main(capsys, "simulate", "--max-requests", 150, "--seeds", 2, *routers, *arguments)
    assert (code, err) == (0, "")
    return table_of(out), last_line(out)


def test_several_routers_are_a_row_each(folder, capsys):
    rows, line = compared(capsys, "--trace", "generated:conversation", "--knee", "--target", 0.7, "--jobs", 1,
                          "--regret", 20, "--router-set", "kv_weight=1", "--json", "out.json")  # fmt: skip
    assert list(rows) == ["least_tokens", "round_robin"] and not set(REQUIRED) - set(line)
    assert json.loads(Path("out.json").read_text()) == line
    first, second = line["arms"]
    assert first["policy"]["router.kv_weight"] == 1.0 and "router.kv_weight" not in second["policy"]
    as_many = "--max-requests", 150, "--trace", "generated:conversation", "--router", "round_robin"
    alone = last_line(run_main(capsys, "simulate", *as_many)[1])
    assert second["replicates"][0]["goodput_per_s"] == alone["goodput_per_s"]
    assert second["difference"]["goodput_per_s"]["n"] == 2 and rows["least_tokens"]["less the first"] == "-"
    assert second["replicates"][0]["knee"]["attainment"] >= 0.7
    assert rows["round_robin"]["best choices"] != "-" and line["target"] == 0.7


def test_several_routers_on_a_recorded_trace_have_ranges(folder, capsys):
    rows, line = compared(capsys, "--jobs", 2)
    assert "[" not in rows["round_robin"]["goodput /s"] and " to " in rows["round_robin"]["goodput /s"]
    assert "sensitivity" in line["arms"][0] and "mean" not in line["arms"][0]
    assert not any("knee" in name for name in rows["round_robin"])


def test_a_knee_can_be_searched_on_fewer_requests(folder, capsys):
    arguments = ("--trace", "generated:conversation", "--knee", "--target", 0.7, "--jobs", 1)
    _, fewer = compared(capsys, *arguments, "--knee-requests", 60)
    _, whole = compared(capsys, *arguments)
    assert fewer["arms"][0]["replicates"][0]["goodput_per_s"] == whole["arms"][0]["replicates"][0]["goodput_per_s"]
    assert fewer["arms"][0]["replicates"][0]["knee"] != whole["arms"][0]["replicates"][0]["knee"]


def priced(capsys, *arguments):
    code, out, err = run_main(capsys, "price", *arguments, "--max-requests", 120, "--seeds", 2, "--jobs", 1)
    assert (code, err) == (0, ""), err
    return table_of(out), last_line(out)


def test_the_price_of_staleness(folder, capsys):
    rows, line = priced(capsys, "staleness", "--router", "least_requests", "--point", 0, "--point", 400, "--rate", 4)
    assert list(rows) == ["least_requests, reports every 0 ms", "least_requests, reports every 400 ms"]
    assert rows["least_requests, reports every 0 ms"]["less the first"] == "-"
    assert line["arms"][1]["to"] == "least_requests, reports every 0 ms"
    assert all(row["requests"] == 120 for arm in line["arms"] for row in arm["replicates"])


def test_the_price_of_lengths_front_ends_and_regret(folder, capsys):
    rows, _ = priced(capsys, "lengths", "--split", "3P1D", "--slo-tpot", 0.02, "--rate", 8)
    assert len(rows) == 5 and "round_robin, constant mean" in rows
    rows, line = priced(capsys, "front-ends", "--router", "prefix_exact", "--point", 1, "--point", 3)
    assert len(rows) == 2 and line["arms"][1]["policy"]["routers"] == 3
    rows, line = priced(capsys, "regret", "--router", "least_tokens", "--decisions", 10, "--objective", "missed")
    assert "regret a decision, SLOs missed" in rows["least_tokens"] and line["objective"] == "missed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--split", "2P2D", "--regret", 5), "give a fleet without a split"),
        (("--split", "2P2D", "--router", "oracle"), "give it a fleet of mixed workers"),
        (("--regret", -1), "the regret of -1 decisions says nothing"),
        (("--knee", "--target", 90), "the attainment target is 90"),
        (("--knee", "--warmup", 1e9), "leaves nothing"),
    ],
)
def test_a_comparison_that_cannot_be_is_one_sentence(arguments, sentence, folder, capsys):
    code, out, err = run_main(capsys, "simulate", "--max-requests", 30, "--jobs", 1, *arguments)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("weather",), "the price of 'weather' is unknown"),
        (("lengths", "--admission", "queue_cap"), "admission queue_cap guesses no output lengths"),
        (("regret", "--point", 3), "regret has no points"),
        (("staleness", "--rate", 0), "the rate scale is 0.0"),
        (("staleness", "--rate", 4, "--jobs", 0), "0 jobs do nothing"),
    ],
)
def test_bad_prices_are_one_sentence(arguments, sentence, folder, capsys):
    code, out, err = run_main(capsys, "price", *arguments, "--max-requests", 30)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1
