"""`hybrid-serving dialects`: a pack or a simulated run as five tools would report it."""

import json
from dataclasses import replace

import pytest

from helpers.cli import main
from helpers.metrics.dialects import DIALECTS
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack, write_pack
from helpers.workload.generate import generate
from helpers.workload.slo import SLO


@pytest.fixture(scope="module")
def run():
    workload = generate("conversation", requests=40, rate_per_s=4.0, seed=3)
    made = Experiment(workload, Fleet(workers=2), "least_requests").run()
    return replace(made, provenance=replace(made.provenance, commit="c" * 40))


def spoken(capsys, *arguments):
    """(exit code, lines of stdout, stderr) of `dialects`."""
    with pytest.raises(SystemExit) as left:
        main(["dialects", *map(str, arguments)])
    out, err = capsys.readouterr()
    return left.value.code or 0, out.splitlines(), err


def test_a_pack_is_reported_in_five_dialects(run, tmp_path, capsys):
    path = write_pack(run, tmp_path / "run.json.gz")
    code, lines, err = spoken(capsys, path, "--slo-ttft", "0.5")
    assert (code, err) == (0, "")
    line = json.loads(lines[-1])
    assert list(line["dialects"]) == list(DIALECTS)
    assert line["workload_sha256"] == run.provenance.workload_sha256 and line["commit"] == "c" * 40
    for name, tool in DIALECTS.items():
        assert line["dialects"][name] == tool.report(read_pack(path).log, SLO(0.5, 0.05))
        shown = [row.split("\t")[1] for row in lines if row.startswith(f"{name}\t")]
        assert shown == list(tool.METRICS)
    assert not any("keeps no steps" in row for row in lines)
    other = json.loads(spoken(capsys, path, "--slo-ttft", "0.001")[1][-1])["dialects"]  # the bound given is used
    assert other["AIPerf"]["good_request_count"] == 0 < line["dialects"]["AIPerf"]["good_request_count"]


def test_a_pack_without_steps_says_so(run, tmp_path, capsys):
    code, lines, _ = spoken(capsys, write_pack(run, tmp_path / "run.json.gz", steps=False))
    assert code == 0
    assert any("keeps no steps" in row for row in lines)
    assert "vLLM bench serve\tmean_itl_ms\t-\tmean: gaps between tokens, pooled over all requests" in lines


def test_a_capped_client_differs_by_tool(capsys):
    few = ("--trace", "poisson", "--max-requests", "200", "--rate-scale", "4", "--workers", "1")
    free, capped = (json.loads(spoken(capsys, *few, *more)[1][-1])["dialects"] for more in ((), ("--clients", "2")))

    def medians_s(found):
        scheduled = found["MLPerf LoadGen"]["50.00 percentile first token latency (ns)"] / 1e9
        return found["guidellm"]["time_to_first_token_ms.median"] / 1e3, scheduled

    sent_s, scheduled_s = medians_s(capped)
    assert scheduled_s > 10 * sent_s
    sent_s, scheduled_s = medians_s(free)  # the control: nobody waits for a client
    assert scheduled_s == pytest.approx(sent_s, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.json.gz"], "no such pack"),
        (["pyproject.toml"], "cannot be read"),
        (["nowhere.json.gz", "--clients", "4"], "had its own client"),
        (["--slo-ttft", "0"], "ttft_s is 0.0"),
        (["--trace", "nothing.csv"], "nothing.csv"),
        (["--trace", "poisson", "--max-requests", "20", "--clients", "0"], "0 clients"),
        (["--router", "luck"], "router 'luck' is unknown"),
        (["--flag"], "--flag"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, capsys):
    code, lines, err = spoken(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert sentence in err and err.startswith("hybrid-serving: ") and err.count("\n") == 1
