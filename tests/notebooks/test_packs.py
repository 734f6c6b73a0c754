"""The packs that pages replay: whole, small, made by a public command, and true to that command's words."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.bench.record.files import read_record
from helpers.bench.record.serving import outcomes
from helpers.metrics.latency import distribution, ttft_s
from helpers.metrics.queueing import littles_law
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack
from helpers.workload.hygiene import spread_ticks
from helpers.workload.traces import load

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "data" / "packs"
ALL = sorted(FOLDER.rglob("*.json.gz"))
MEASURED = [path for path in ALL if not path.parent.name.startswith("sim_")]
PACKS = [path for path in ALL if path not in MEASURED]
RECORDS = sorted(path for path in FOLDER.glob("*/engine_*.json") if not path.parent.name.startswith("sim_"))
MOST_BYTES = 5_500_000


def test_packs_are_small():
    assert PACKS and sum(path.stat().st_size for path in [*ALL, *RECORDS]) < MOST_BYTES


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_record_of_a_machine_says_how_it_was_made(path):
    record = read_record(path)
    words = shlex.split(record["command"])
    assert words[:2] == ["hybrid-serving", "record"] and not any(word.startswith("/") for word in words)
    assert path.parent.name == record["hardware_key"]
    # A second record of a part says in its name which one it is, such as `engine-earlier`.
    part, _, which = path.stem.removeprefix(f"engine_{record['preset']}_").partition("-")
    assert record["part"] in (part, f"{part}-{which}") and which in ("", "earlier")


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_served_slice_is_whole_and_belongs_to_a_record(path):
    run = read_pack(path)  # which audits every token
    made = run.provenance
    assert (made.kind, made.hardware_key) == ("measured", path.parent.name)
    assert shlex.split(made.command)[:2] == ["hybrid-serving", "record"]
    part = {"serve": "serve", "route": "routing", "live": "fidelity"}[path.name.partition("_")[0]]
    records = [read_record(other) for other in path.parent.glob(f"engine_*_{part}.json")]
    sections = [section for record in records for section in record["parts"].values()]
    told = [one for section in sections for one in (section, *section["points"]) if one.get("pack") == path.name]
    assert [one["sha256"] for one in told] == [made.workload_sha256]
    if part == "serve":
        assert told[0]["outcomes"] == outcomes(run)
        return
    figures = told[0]["figures" if part == "fidelity" else "live"]
    assert figures["TTFT mean"] == pytest.approx(distribution(ttft_s, run.timelines).mean, rel=1e-6)
    if part == "routing":
        assert (told[0]["n"], told[0]["router"]) == (len(run.timelines), made.policy["router"])


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.name)
def test_a_pack_says_how_it_was_made(path):
    made = read_pack(path).provenance
    words = shlex.split(made.command)
    assert words[:2] == ["hybrid-serving", "simulate"] and not any(word.startswith("/") for word in words)
    option = dict(pairwise(words))
    assert option["--pack"] == str(path.relative_to(ROOT))
    assert option["--router"] == made.policy["router"] and int(option["--workers"]) == made.fleet["workers"]
    assert path.parent.name == made.hardware_key and not made.commit.endswith("-dirty")
    assert ("--spread-ticks" in words) == bool(made.repairs)


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.name)
def test_a_pack_holds_every_request(path):
    run = read_pack(path)
    law = littles_law(run.log)
    assert law.missing == 0 and law.relative_error < 1e-6  # times in packs are rounded
    assert {t.status for t in run.timelines} == {"finished"} and len(run.timelines) == 12_031


def test_a_pack_comes_out_again(traces_dir):
    """The simulator of today gives the pack's times: else make the packs again (data/packs/README.md)."""
    workload, _ = load(traces_dir / "mooncake_conversation.jsonl.gz")
    name = "mooncake_conversation_prefix_exact_spread.json.gz"
    stored = read_pack(ROOT / "data" / "packs" / "sim_4x1_h100" / name)
    run = Experiment(spread_ticks(workload, 0), Fleet(workers=4), "prefix_exact").run()
    assert run.provenance.workload_sha256 == stored.provenance.workload_sha256
    found, wanted = (distribution(ttft_s, one.timelines) for one in (run, stored))
    assert found.mean == pytest.approx(wanted.mean, rel=1e-6)
    assert [p.value for p in found.percentiles] == pytest.approx([p.value for p in wanted.percentiles], rel=1e-6)
