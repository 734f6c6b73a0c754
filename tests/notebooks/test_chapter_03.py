"""Chapter 3 and its record: made by a public command, paired, numbers that come again, and claims that can fail."""

import json
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from helpers.bench.cluster.exactness import LOSSES, MOVERS, SPLITS
from helpers.bench.cluster.faults import CASES
from helpers.bench.splits import BLIND, FACTORIAL, QUESTIONS, TARGET, WARMUP, Arm, fleet_of, row_of
from helpers.bench.targets.disagg import FROZEN
from helpers.cluster.tamper import KINDS
from helpers.errors import InputError
from helpers.lessons import ladders, splits
from helpers.metrics.latency import tpot_s, ttft_s
from helpers.metrics.stats import mean_interval
from helpers.serving.draws import offered_per_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.slo import SLO

ROOT = Path(__file__).resolve().parent.parent.parent
CHAPTER = "chapters/03_disaggregated_inference.ipynb"
RECORD = ROOT / "data" / "packs" / "sim_8x1_h100" / "splits.json"
LONG = QUESTIONS[0]
LIVE = ROOT / "data" / "packs" / "cpu_amd_epyc_2c"


@pytest.fixture(scope="module")
def told():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_record_says_how_it_was_made(told):
    words = shlex.split(told["command"])
    assert words[:3] == ["hybrid-serving", "bench", "splits"] and not any(word.startswith("/") for word in words)
    option = dict(pairwise(words))
    assert option["--json"] == str(RECORD.relative_to(ROOT)) and (ROOT / option["--calibration"]).is_file()
    assert told["kind"] == "simulated" and len(told["commit"]) == 40 and len(told["seeds"]) >= 8
    assert told["calibration"]["hardware_key"] == "h100_80gb_hbm3" and len(told["calibration"]["commit"]) == 40


def test_the_questions_are_those_of_the_code_and_every_arm_saw_the_same_draws(told):
    assert [one["name"] for one in told["questions"]] == [one.name for one in QUESTIONS]
    for stored, asked in zip(told["questions"], QUESTIONS, strict=True):
        assert {row["arm"] for row in stored["rows"]} == {one.name for one in asked.arms}
        assert len(stored["workload_sha256"]) == len(set(stored["workload_sha256"])) == len(told["seeds"])
        assert {tuple(row["knees"]) for row in stored["rows"]} == {tuple(map(str, told["seeds"]))}


def test_the_intervals_are_those_of_their_knees(told):
    for question in told["questions"]:
        for row in question["rows"]:
            found = mean_interval(list(row["knees"].values()))
            assert [row["knee"][end] for end in ("mean", "low", "high")] == [found.mean, found.low, found.high]


@pytest.mark.parametrize("name", ["bench_disagg", "faults", "exactness"])
def test_a_live_record_says_how_it_was_made(name):
    found = json.loads((LIVE / f"{name}.json").read_text(encoding="utf-8"))
    assert found["command"].endswith(f" --json {name}.json") or found["command"].endswith(f"/{name}.json")
    assert found["kind"] == "measured" and found["hardware_key"] == LIVE.name and len(found["commit"]) == 40
    assert {"torch", "pyzmq"} <= set(found["versions"])


def test_the_live_records_are_those_of_the_code():
    disagg, faults, exact = (
        json.loads((LIVE / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("bench_disagg", "faults", "exactness")
    )
    ladder = next(one for one in disagg["targets"] if one["target"] == ladders.TARGET)["scenarios"][0]
    assert ladder["workload_sha256"]["0"].startswith(FROZEN["ladder"])
    assert [one["case"] for one in faults["cases"]] == [one.name for one in CASES]
    plain = [(one["split"], one["mover"]) for one in exact["arms"] if not one["tamper"] and not one["lose"]]
    assert sorted(plain) == sorted((split, mover) for split in SPLITS for mover in MOVERS)
    assert {one["tamper"] for one in exact["arms"]} == {"", *KINDS}


@pytest.mark.parametrize("split", [None, "5P3D"])
def test_a_knee_comes_out_again(told, split):
    row = splits.best(splits.question_of(told, LONG.name), 0.015, split is not None)
    assert row["split"] == split
    draw = LONG.traffic.draw(32.0, 0, told["setup"]["requests"])
    assert draw.sha256 == splits.question_of(told, LONG.name)["workload_sha256"][0]
    fleet = fleet_of(LONG, Arm(row["split"], row["chunk_tokens"], row["router"]), Fleet(cost=splits.cost_of(told)))

    def attainment(per_gpu, fleet=fleet):
        scaled = draw.at_rate(8 * per_gpu / offered_per_s(draw))
        log = Experiment(scaled, fleet, row["router"]).cluster().run(scaled.requests)
        counted = log.timelines[round(WARMUP * len(scaled)) :]
        return sum(ttft_s(t) <= 1.0 and (tpot_s(t) or 0.0) <= 0.015 for t in counted) / len(counted)

    knee = row["knees"]["0"]
    assert attainment(knee) >= TARGET > attainment(1.05 * knee)
    # The control: with the chunks of another arm the same rate is not the knee.
    assert attainment(knee, replace(fleet, chunk_tokens=4096 if split is None else 256)) < TARGET


def test_a_row_is_per_gpu_and_open_where_a_seed_has_no_knee():
    row = row_of(Arm("1P1D", 2048), SLO(1.0, 0.05), {0: 2.0, 1: 4.0})
    assert (row["knee"]["mean"], row["knees"], row["split"]) == (3.0, {"0": 2.0, "1": 4.0}, "1P1D")
    assert row_of(Arm("1P1D", 2048), SLO(1.0, 0.05), {0: 2.0, 1: None})["knee"] is None


def test_the_best_of_each_kind_is_taken_and_paired():
    def row(split, knees, tpot_s=0.015):
        by_seed = dict(enumerate(knees))
        return row_of(Arm(split, 512), SLO(1.0, tpot_s), by_seed)

    rows = [
        row(None, (1, 3)),
        row(None, (2, 4)),
        row("4P4D", (5, 7)),
        row("2P6D", (9, 9), 0.05),
        row("3P5D", (4, None)),
    ]
    question = {"name": "planted", "rows": rows}
    found = splits.regime(question, question, 0.015)
    assert (found.together, found.apart) == (rows[1], rows[2])
    assert (found.difference["mean"], found.difference["low"], found.difference["high"]) == (3, 3, 3)
    assert found.times["mean"] == pytest.approx((5 / 2 * 7 / 4) ** 0.5)  # the geometric mean of the paired ratios
    with pytest.raises(InputError, match=r"^planted: no split fleet at a TPOT of 0\.02 s$"):
        splits.best(question, 0.02, True)


def test_what_counting_brings_is_paired_with_the_same_split_by_reports_alone():
    def asked(name, link, knees, by_reports):
        arm = Arm("5P3D", 2048, by_reports=by_reports)
        return {"name": name, "link": link, "rows": [row_of(arm, SLO(1.0, 0.015), dict(enumerate(knees)))]}

    planted = {
        "questions": [
            asked("long prompts", None, (5, 7), False),
            asked("slow link", "slow", (4, 4), False),
            asked(BLIND, None, (4, 6), True),
            asked(f"{BLIND}, slow link", "slow", (1, 1), True),
        ]
    }
    assert [splits.counting(planted, "5P3D", 0.015, slow)["mean"] for slow in (False, True)] == [1, 3]
    with pytest.raises(InputError, match=r"^decode by reports: no 4P4D at a TPOT of 0\.015 s$"):
        splits.counting(planted, "4P4D", 0.015)


def test_the_factorial_reads_its_levels(told):
    effects, rows = splits.crossed(told), splits.question_of(told, FACTORIAL)["rows"]
    longer = [row["knee"]["mean"] for row in rows if row["chunk_tokens"] == 2048]
    shorter = [row["knee"]["mean"] for row in rows if row["chunk_tokens"] == 512]
    assert len(longer) == len(shorter) == 4
    assert effects["chunk"].interval.mean == pytest.approx((sum(longer) - sum(shorter)) / 4)
    assert splits.arm(told, "prefix_exact", None, 2048)["arm"] == "together, chunks of 2048, prefix_exact"


def test_the_page_runs_and_every_claim_of_its_cells_comes_out(run_notebook):
    shown = run_notebook(CHAPTER)
    assert len(shown["moves"].rows) == 4 and len(shown["loses"].rows) == 5
    assert shown["reconcile"].columns
    assert [len(one.rows) for one in shown["ladder"].tables] == [6, 7]
    assert all("1P1D" in row[0] for one in shown["beside-live"].tables for row in one.rows)
    failing, exact = shown["faults"].tables
    assert len(failing.rows) == len(CASES) and len(exact.rows) == len(SPLITS) + len(LOSSES) + len(KINDS)


MUTANTS = {
    "a gain with its sides swapped": ("kinds", "loose, tight, tighter = ", "tight, loose, tighter = "),
    "a gain called a loss": ("loses", "gain, answers, two, slow, by_sheet", "two, answers, gain, slow, by_sheet"),
    "chunks the wrong way round": ("chunk-apart", "for n in (512, 2048)", "for n in (2048, 512)"),
    "the ratio upside down": ("same-split", "best(8)", "best(8)[::-1]"),
    "the two models swapped": ("small-chunk", "taken, by_sheet, by_fit =", "taken, by_fit, by_sheet ="),
    "another interaction": ("factorial", 'effects["routing x split"]', 'effects["routing x split x chunk"]'),
    "two splits that differ called even": ("same-split", "rows_at(long, 0.010)", "rows_at(long, 0.015)"),
    "a weak rival in the bound": ("reconcile", "most[t] / max(rivals[t])", "most[t] / min(rivals[t])"),
    "what shows the less called the more": ("ladder", '"asynchronous", "layerwise"', '"layerwise", "asynchronous"'),
    "the rival with large chunks for the small": ("ladder", '"rival, chunks of 512")', '"ladder")'),
    "a control among the sound runs": ("faults", 'if "control" not in', 'if "control" in'),
    "experts that move no more": ("moves", "small, _, experts, latent = rows", "small, _, latent, experts = rows"),
}


@pytest.mark.parametrize(("cell", "right", "wrong"), MUTANTS.values(), ids=MUTANTS)
def test_a_claim_that_is_false_stops_the_page(run_notebook, cell, right, wrong):
    cells = {one.id: one.source for one in nbformat.read(ROOT / CHAPTER, as_version=4).cells}
    assert right in cells[cell]
    with pytest.raises(AssertionError):
        run_notebook(CHAPTER, {cell: cells[cell].replace(right, wrong)}, until=cell)


def test_a_model_at_another_context_than_the_measurement_stops_the_page(run_notebook):
    cells = {one.id: one.source for one in nbformat.read(ROOT / CHAPTER, as_version=4).cells}
    right = "splits.modelled(of, measured)"
    assert right in cells["mixed"]
    wrong = "splits.modelled(of, splits.replace(measured, kv_tokens=32 * 1024))"
    with pytest.raises(InputError, match="data sheet is of 32 decodes at a context of 1024"):
        run_notebook(CHAPTER, {"mixed": cells["mixed"].replace(right, wrong)}, until="mixed")
