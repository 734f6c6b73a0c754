import hashlib
import http.server
import json
import threading

import pytest
import typer
from typer.testing import CliRunner

from helpers.errors import InputError
from helpers.workload import commands
from helpers.workload.fetch import SOURCES, Source
from helpers.workload.generate import generate, open_workload
from helpers.workload.hygiene import describe, quantise
from helpers.workload.traces import load, save

ROWS = (
    '{"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1]}\n'
    '{"timestamp": 900, "input_length": 1000, "output_length": 0, "hash_ids": [0, 1]}\n'
    '{"timestamp": 800, "input_length": 600, "output_length": 9, "hash_ids": [0, 2]}\n'
)


def run(*arguments):
    app = typer.Typer()
    commands.register(app)
    return CliRunner().invoke(app, ["trace", *map(str, arguments)])


def record(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


@pytest.fixture
def ticked(tmp_path):
    return save(quantise(generate("conversation", requests=3000, seed=3), 3.0), tmp_path / "t.jsonl.gz", "mooncake")


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, InputError)
    return str(result.exception)


def test_describe_prints_tables_findings_and_one_json_line(ticked):
    told, text = record("describe", ticked)
    assert told["command"] == "trace describe"
    assert told["requests"] == 3000
    assert told["workload_sha256"] == load(ticked)[0].sha256
    assert (told["seeds"], told["repairs"], told["format"]) == ([], [], "mooncake")
    assert told["wall_s"] > 0 and told["parse_s"] > 0
    assert any(f.startswith("timestamps fall on 3 s ticks") for f in told["findings"])
    report = describe(load(ticked)[0])
    assert f"infinite cache, blocks hit\t{report.reuse.hit_blocks:.3f}" in text
    assert f"prompt\t{report.prompt_tokens.p50:,.0f}\t" in text


def test_describe_spreads_ticks_only_when_told_and_says_so(ticked):
    plain, _ = record("describe", ticked)
    spread, text = record("describe", ticked, "--spread-ticks", "--seed", "5")
    other, _ = record("describe", ticked, "--spread-ticks", "--seed", "6")
    assert spread["seeds"] == [5]
    assert spread["repairs"] == ["ticks of 3 s spread uniformly (seed 5)"]
    assert "repair: ticks of 3 s spread uniformly (seed 5)" in text
    assert not any("ticks" in f for f in spread["findings"])
    assert len({plain["workload_sha256"], spread["workload_sha256"], other["workload_sha256"]}) == 3


def test_describe_writes_the_whole_report(ticked, tmp_path):
    told, _ = record("describe", ticked, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["load"]["loaded"] == told["requests"] == report["hygiene"]["n"]
    assert report["hygiene"]["ticks"]["tick_s"] == 3.0
    assert report["hygiene"]["reuse"]["hit_blocks"] == describe(load(ticked)[0]).reuse.hit_blocks
    assert "nothing can be written there" in refused("describe", ticked, "--json", tmp_path / "no" / "r.json")


def test_describe_skips_and_counts_bad_rows_only_when_told(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(ROWS)
    assert "line 2, field output_length: zero length" in refused("describe", path)
    told, text = record("describe", path, "--skip-bad")
    assert told["skipped"] == {"output_length: zero length (a failed request)": 1}
    assert told["requests"] == 2
    assert "skipped 1 rows: output_length: zero length" in text


def test_describe_reports_rows_out_of_order(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(ROWS.replace('"output_length": 0', '"output_length": 1'))
    told, text = record("describe", path)
    assert told["out_of_order"] == 1
    assert "1 rows were earlier than the row before them" in text


def test_describe_takes_names_and_limits(tmp_path):
    told, _ = record("describe", "chat", "--max-requests", "50")
    assert told["workload_sha256"] == open_workload("chat", max_requests=50)[0].sha256
    told, _ = record("describe", "generated:chat", "--seed", "4", "--max-requests", "50")
    assert (told["requests"], told["seeds"]) == (50, [4])
    assert "exceed the context of 100" in refused("describe", "chat", "--max-context", "100")
    assert "no file and no workload" in refused("describe", "nothing")
    assert "is unknown" in refused("describe", "chat", "--format", "parquet")


def test_generate_writes_what_the_json_line_says(tmp_path):
    out = tmp_path / "a.jsonl.gz"
    told, _ = record("generate", "agents", "--requests", "200", "--seed", "3", "--rate", "2", "--out", out)
    workload, report = load(out)
    assert report.format == "own-jsonl"
    assert told["workload_sha256"] == workload.sha256 == generate("agents", requests=200, seed=3, rate_per_s=2.0).sha256
    assert (told["command"], told["requests"], told["seeds"]) == ("trace generate", 200, [3])
    told, _ = record("generate", "chat", "--duration", "60", "--format", "azure", "--out", tmp_path / "c.csv")
    assert told["workload_sha256"] == load(tmp_path / "c.csv")[0].sha256  # times as the file rounds them
    assert told["requests"] == len(generate("chat", duration_s=60.0))


def test_generate_passes_knobs_ticks_blocks_and_exact_rate(tmp_path):
    out = tmp_path / "p.jsonl"
    knobs = ("--knob", "burstiness=0.5", "--knob", "prompt_tokens=lognormal:500:0.4", "--knob", "blocks=true")
    record("generate", "poisson", "--requests", "100", *knobs, "--block-tokens", "16", "--out", out)
    made = generate(
        "poisson", requests=100, burstiness=0.5, prompt_tokens="lognormal:500:0.4", blocks=True, block_tokens=16
    )
    assert load(out, block_tokens=16)[0].sha256 == made.sha256
    record("generate", "poisson", "--requests", "400", "--rate", "8", "--exact-rate", "--out", out)
    assert load(out)[0].requests[-1].arrival_s == pytest.approx(50.0)
    _, text = record("generate", "poisson", "--requests", "400", "--tick", "3", "--out", out)
    assert {r.arrival_s % 3 for r in load(out)[0]} == {0.0}
    assert "arrivals cut to ticks of 3 s" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing",), "there is no generator 'nothing'"),
        (("poisson", "--rate", "-1"), "rate_per_s is -1"),
        (("poisson", "--requests", "0"), "requests is 0"),
        (("poisson", "--knob", "burstyness=1"), "has no knob 'burstyness'"),
        (("poisson", "--knob", "burstiness"), "NAME=VALUE"),
        (("poisson", "--knob", "burstiness=1", "--knob", "burstiness=2"), "once"),
        (("poisson", "--knob", "seed=1"), "are options of the command"),
        (("poisson", "--requests", "5", "--format", "parquet"), "cannot write the format"),
        (("poisson", "--requests", "5", "--format", "mooncake"), "needs prefix blocks"),
        (("poisson", "--requests", "5", "--tick", "0"), "tick is 0"),
    ],
)
def test_generate_refuses_in_one_sentence(tmp_path, arguments, sentence):
    out = tmp_path / "x.jsonl"
    assert sentence in refused("generate", *arguments, "--out", out)
    assert not out.exists()


def test_fetch_checks_and_counts(tmp_path, monkeypatch):
    content = ROWS.splitlines(keepends=True)[0].encode()
    digest = hashlib.sha256(content).hexdigest()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/o/r/c0ffee/one.jsonl" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        mirror = ("--mirror", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setitem(SOURCES, "one", Source("o/r", "c0ffee", "one.jsonl", digest, 1, "CC0", "Nobody, 2026"))
        told, text = record("fetch", "one", "--to", tmp_path, *mirror)
        assert (told["command"], told["requests"], told["sha256"]) == ("trace fetch", 1, digest)
        assert told["workload_sha256"] == load(tmp_path / "one.jsonl")[0].sha256
        assert "Nobody, 2026" in text and "CC0" in text
        monkeypatch.setitem(SOURCES, "two", Source("o/r", "c0ffee", "two.jsonl", digest, 1, "CC0", "Nobody, 2026"))
        assert "HTTP status 404" in refused("fetch", "two", "--to", tmp_path, *mirror)
        monkeypatch.setitem(SOURCES, "bad", Source("o/r", "c0ffee", "one.jsonl", "0" * 64, 1, "CC0", "Nobody, 2026"))
        assert "sha256" in refused("fetch", "bad", "--to", tmp_path / "bad", *mirror)
        server.shutdown()
    assert "there is no public trace" in refused("fetch", "sharegpt")


def test_unknown_flags_are_refused():
    assert run("describe", "chat", "--spread").exit_code == 2
    assert run("generate", "poisson").exit_code == 2  # no --out
    assert run("explode").exit_code == 2
