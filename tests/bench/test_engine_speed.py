"""`bench engine`: what is written when parts fail, are slow or find no peer, and what its numbers are of."""

import json
import sys
from pathlib import Path

import pytest
import torch

from helpers import cli
from helpers.bench.engine import decode, parts, peers, serving
from helpers.bench.engine.report import COLUMNS, Report, failed_in, median_point, point
from helpers.bench.engine.speed import PARTS, bench_engine, pack_path
from helpers.engine.engine import Engine
from helpers.engine.load import load
from helpers.engine.moe import moe_layer
from helpers.engine.weights import random_weights
from helpers.errors import InputError
from helpers.scheduling.limits import Limits


@pytest.fixture(scope="module")
def bench():
    torch.set_num_threads(1)
    decoder = load("tiny", "cpu")
    with Engine(decoder, Limits(200, 64, 512, 8), max_context=1024) as engine:
        decode.fill_pages(engine)
        yield decode.Bench(engine, copy_bytes_per_s=1e10, matmul_flop_per_s=1e11)


def test_a_point_knows_its_spread_and_whether_it_is_met():
    p = median_point("x", [3.0, 1.0, 2.0], "ms", floor=1.5, target=2.5, at_least=False)
    assert (p["value"], p["min"], p["max"], p["n"], p["met"], p["floor"]) == (2.0, 1.0, 3.0, 3, True, 1.5)
    assert point("x", 2.0, "ms", target=2.5)["met"] is False
    assert "met" not in point("x", 2.0, "ms")


def test_a_failing_part_is_recorded_and_the_next_one_runs(tmp_path, capsys):
    path = tmp_path / "record.json"
    report = Report(path)

    def fails():
        yield point("before", 1.0, "ms")
        assert len(json.loads(path.read_text())["parts"]["one"]["points"]) == 1  # written at once
        raise ValueError("planted")

    assert len(report.run("one", fails)) == 1
    report.run("two", lambda: iter([point("after", 2.0, "ms", target=3.0)]))
    written = json.loads(path.read_text())
    assert written["parts"]["one"]["failed"] == "ValueError: planted"
    assert "failed" not in written["parts"]["two"]
    assert report.missed() == ["two: after"] and report.failed() == ["one"]
    assert [row[:2] for row in report.rows()] == [("one", "before"), ("one", "failed"), ("two", "after")]
    assert all(len(row) == len(COLUMNS) for row in report.rows())
    assert "samples" not in json.dumps(report.summary())
    assert "planted" in capsys.readouterr().err


def test_a_spent_budget_skips_what_would_begin_later():
    report = Report(budget_s=0.0)
    assert report.run("late", lambda: iter([point("x", 1.0, "ms")])) == []
    assert "budget" in report.parts["late"]["skipped"]
    assert Report(budget_s=60.0).run("early", lambda: iter([point("x", 1.0, "ms")]))  # control


def test_decode_points_are_of_the_batch_and_context_that_they_name(bench):
    found = {p["name"]: p for p in decode.decode(bench, (1, 4, 16))}  # 16 is beyond the engine's batch
    assert set(found) == {f"batch {b} {what}" for b in (1, 4) for what in ("plain loop", "MBU", "rate")}
    samples = bench.engine.samples
    assert {s.decodes for s in samples} == {1, 4}
    assert all(abs(s.kv_tokens / s.decodes - decode.CPU_CONTEXT) < 20 for s in samples)
    shape = bench.engine.config.shape
    floor_s = (shape.decode_weight_bytes(4, 4) + 4 * 257 * shape.kv_bytes_per_token(4)) / 1e10
    assert found["batch 4 plain loop"]["floor"] == pytest.approx(1e3 * floor_s, rel=0.02)
    assert found["batch 4 MBU"]["value"] == pytest.approx(
        found["batch 4 plain loop"]["floor"] / found["batch 4 plain loop"]["value"]
    )
    assert not bench.engine.busy
    assert bench.engine.scheduler.pool.used == 0


def test_prefill_points_are_one_whole_prompt(bench):
    before = len(bench.engine.samples)
    found = list(decode.prefill(bench, (128, 4096)))  # the second does not fit and is left out
    assert [p["name"] for p in found] == ["128 tokens", "128 tokens MFU"]
    assert {s.chunks for s in bench.engine.samples[before:]} == {((128, 0),)}
    assert found[0]["floor"] == pytest.approx(1e3 * bench.engine.config.shape.prefill_flops(128).total / 1e11)


def test_serving_counts_every_token(bench, monkeypatch):
    monkeypatch.setattr(serving, "SHORT", (4, 16, 8))
    (one,) = serving.end_to_end(bench)
    assert one["n"] == 3
    assert one["value"] > 0
    plain, overlapped, ratio = serving.loops(bench)
    assert ratio["unit"] == "x"
    assert bench.engine.overlap is False  # as it was
    assert plain["n"] == overlapped["n"] == 3
    monkeypatch.setattr(bench.engine, "stream", lambda: iter(()))
    with pytest.raises(RuntimeError, match="0 tokens came out of 32"):
        serving.serve(bench.engine, 4, 16, 8)
    for g in list(bench.engine.live.values()):
        bench.engine.cancel(g)


def test_the_loop_over_experts_is_the_same_layer():
    from helpers.engine.config import preset

    config = preset("tiny-moe")
    weights = random_weights(config, 0).layers[0].moe
    hidden = torch.randn(40, config.hidden, generator=torch.Generator().manual_seed(0))
    plain, grouped = parts.moe_loop(hidden, weights, config.moe), moe_layer(hidden, weights, config.moe)
    assert torch.allclose(plain, grouped, atol=1e-5)
    assert not torch.allclose(plain, grouped.roll(1, 0), atol=1e-2)  # control


def test_no_target_is_claimed_for_another_device(bench):
    assert bench.targets_of({1: 0.8}, 1) == {}  # the targets are of llama-8b on one H100


@pytest.mark.parametrize(
    ("peer", "sentence"),
    [
        ("vllm", "give transformers, or gpt-fast=DIR"),
        ("gpt-fast", "give transformers"),
        ("transformers=x", "give"),
        ("gpt-fast=nowhere", "nowhere has no model.py of gpt-fast; give the folder of its checkout"),
    ],
)
def test_unknown_peers_are_refused_before_anything_runs(peer, sentence):
    with pytest.raises(InputError, match=sentence):
        bench_engine("tiny", "cpu", [peer], ["ceilings"])
    with pytest.raises(InputError, match="part 'all' is unknown"):
        bench_engine("tiny", "cpu", [], ["all"])


def test_a_part_that_fails_is_one_sentence_with_its_traceback_beside_the_record(tmp_path, capsys):
    def broken():
        yield point("first", 1.0, "ms")
        raise ValueError("planted\nand more lines")

    report = Report(tmp_path / "r.json")
    report.run("loops", broken)
    *_, said = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.glob("*.log")
    assert said == f"-- loops: failed, ValueError: planted; its traceback is in {log}"
    assert "in broken" in log.read_text() and report.parts["loops"]["failed"].startswith("ValueError: planted")


@pytest.mark.parametrize("budget_s", [0.0, -1.0, float("nan")])
def test_no_time_is_refused(budget_s):
    with pytest.raises(InputError, match="measures nothing; give seconds above 0"):
        bench_engine("tiny", "cpu", (), ["ceilings"], budget_s=budget_s)


def test_an_absent_peer_is_skipped_loudly(tmp_path, capsys):
    report = Report()
    part = lambda: peers.run(f"gpt-fast={tmp_path}", "tiny", "cpu", 10.0, {})  # noqa: E731
    assert report.run("peer gpt-fast", part) == []
    assert f"peer gpt-fast is skipped: {tmp_path} has no model.py" in report.parts["peer gpt-fast"]["failed"]
    assert "is skipped" in capsys.readouterr().err
    (tmp_path / "model.py").touch()
    assert peers.absent("gpt-fast", tmp_path) is None


def line_by_line(code, limit_s=20.0):
    return peers.lines_of([sys.executable, "-c", code], limit_s, {})


def test_a_peer_speaks_in_lines_and_is_stopped_in_time():
    one = 'import json; print("noise"); print(json.dumps({"name": "a", "samples": [1.0]}), flush=True)'
    assert [r["name"] for r in line_by_line(one)] == ["a"]
    found = []
    with pytest.raises(TimeoutError, match="stopped after 2 s"):
        for record in line_by_line(one + "; import time; time.sleep(60)", 2.0):
            found.append(record["name"])
    assert found == ["a"]  # what came before is kept
    with pytest.raises(RuntimeError, match="code 3"):
        list(line_by_line(one + "; raise SystemExit(3)"))


def test_a_peer_imports_what_this_process_can(monkeypatch, tmp_path):
    """A package that only a path of this process leads to, as on a machine where packages lie in a folder."""
    (tmp_path / "only_there.py").write_text("NAME = 'found'\n")
    asked = "import json, only_there, helpers; print(json.dumps({'name': only_there.NAME}))"
    with pytest.raises(RuntimeError, match="code 1"):  # control: without the path it is not there
        list(line_by_line(asked))
    monkeypatch.syspath_prepend(tmp_path)
    assert [r["name"] for r in line_by_line(asked)] == ["found"]


def test_a_peer_is_held_against_ours(monkeypatch):
    lines = [
        {"name": "transformers eager, batch 32", "batch": 32, "samples": [100.0, 90.0, 110.0]},
        {"name": "transformers static cache + compile, batch 32", "batch": 32, "failed": "planted"},
    ]
    monkeypatch.setattr(peers, "lines_of", lambda words, limit_s, settings: iter(lines))
    found = list(peers.run("transformers", "llama-8b", "cuda", 10.0, {"end to end": 250.0}))
    assert [(p["name"], p["value"]) for p in found] == [
        ("transformers eager, batch 32", 100.0),
        ("ours / transformers eager, batch 32", 2.5),
        ("transformers static cache + compile, batch 32 (failed)", 0.0),
    ]
    assert found[1]["met"] is False  # 3 was asked for
    assert "met" not in list(peers.run("transformers", "tiny", "cpu", 10.0, {"end to end": 250.0}))[1]


def test_the_command_writes_its_record(tmp_path, capsys):
    path = tmp_path / "engine.json"
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "engine", "--preset", "tiny", "--device", "cpu", "--part", "moe", "--json", str(path)])
    out = capsys.readouterr().out
    line = json.loads(out.strip().splitlines()[-1])
    written = json.loads(path.read_text())
    assert not ended.value.code
    assert list(written["parts"]) == list(line["parts"]) == ["ceilings", "moe"]
    assert "failed" not in written["parts"]["moe"]
    assert written["kind"] == "measured"
    assert {"torch", "triton", "transformers", "numpy", "python"} <= set(written["versions"])
    assert written["parts"]["ceilings"]["points"][0]["samples"]
    assert line["missed"] == line["failed"] == []


def test_the_command_says_with_its_code_that_a_part_failed(monkeypatch, capsys):
    def fails(*_):
        raise ValueError("planted")

    monkeypatch.setattr(parts, "moe", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "engine", "--preset", "tiny", "--device", "cpu", "--part", "moe"])
    assert ended.value.code == 1 and json.loads(capsys.readouterr().out.splitlines()[-1])["failed"] == ["moe"]


def test_a_point_that_failed_counts_and_a_part_that_was_skipped_does_not():
    whole = {"points": [point("x", 1.0, "ms")]}
    assert failed_in({"a": whole, "b": {"points": [], "skipped": "the budget was spent"}}) == []
    assert failed_in({"a": {"points": [point("x", 0.0, "ms", failed="planted")]}, "b": whole}) == ["a"]


def test_packs_are_by_device_and_preset(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.bench.engine.speed.DATA", tmp_path)
    assert pack_path("h100_80gb_hbm3", "llama-8b") == tmp_path / "packs" / "h100_80gb_hbm3" / "engine_llama-8b.json"
    assert Path(pack_path("h100_80gb_hbm3", "1b")).parent.is_dir()


def test_ceilings_that_failed_do_not_stop_the_rest(monkeypatch):
    def broken(device, dtype):
        raise RuntimeError("planted")
        yield

    monkeypatch.setattr(parts, "ceilings", broken)
    report = bench_engine("tiny", "cpu", [], ["scheduler"])
    assert "planted" in report.parts["ceilings"]["failed"]
    assert [p["name"] for p in report.parts["scheduler"]["points"]] == ["host time a step, >= 200 sequences"]
    assert set(report.parts) <= set(PARTS)
