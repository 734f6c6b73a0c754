"""Chapter 2 and its records: made by a public command, paired, numbers that come again, and claims that can fail."""

import json
import shlex
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from helpers.bench.cases import routing
from helpers.bench.fleet_sizes import Setup, rows_of
from helpers.errors import InputError
from helpers.lessons.records import case_of, paired, values
from helpers.metrics.goodput import goodput
from helpers.metrics.stats import mean_interval
from helpers.serving.draws import Draws
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.knees import counted
from helpers.serving.simulate import outcome_of
from helpers.simulator.views import Telemetry
from helpers.workload.slo import SLO

ROOT = Path(__file__).resolve().parent.parent.parent
CHAPTER = "chapters/02_routers.ipynb"
PACKS = ROOT / "data" / "packs"
CASES, SIZES = PACKS / "sim_4x1_h100" / "cases.json", PACKS / "sim_64x1_h100" / "fleet_sizes.json"
FOUR = PACKS / "sim_64x1_h100" / "fleet_of_four.json"
PRICES = sorted((PACKS / "sim_64x1_h100").glob("price_of_*.json"))


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def option(path):
    return dict(pairwise(shlex.split(read(path)["command"])))


@pytest.mark.parametrize("path", [CASES, SIZES, FOUR, *PRICES], ids=lambda path: path.name)
def test_a_record_says_how_it_was_made(path):
    record = read(path)
    words = shlex.split(record["command"])
    assert words[0] == "hybrid-serving" and not any(word.startswith("/") for word in words)
    assert option(path)["--json"] == str(path.relative_to(ROOT))
    assert record["kind"] == "simulated" and len(record["commit"]) == 40 and len(record["seeds"]) >= 5


@pytest.mark.parametrize("path", PRICES, ids=lambda path: path.name)
def test_every_point_of_a_price_saw_the_same_draws_and_is_paired_with_its_first(path):
    record = read(path)
    draws = [[(row["seed"], row["workload_sha256"]) for row in arm["replicates"]] for arm in record["arms"]]
    assert record["complete"] and all(one == draws[0] for one in draws)
    for arm in record["arms"]:
        found = paired(record, arm["arm"], arm["to"], "goodput_per_s")
        stated = arm["difference"]["goodput_per_s"]
        assert [found[key] for key in ("mean", "low", "high")] == pytest.approx(
            [stated[key] for key in ("mean", "low", "high")], abs=1e-9
        )


def test_a_price_comes_out_again():
    record, chosen = read(PRICES[1]), "least_tokens, reports every 50 ms"
    assert "price staleness" in record["command"]
    rows = {arm["arm"]: arm for arm in record["arms"]}
    told = option(PRICES[1])
    draws = Draws("generated:conversation", rate_per_s=float(told["--rate"]), max_requests=int(told["--max-requests"]))
    fleet = Fleet(workers=16, telemetry=Telemetry(0.05))
    found = outcome_of(Experiment(draws.open(0)[0], fleet, "least_tokens"), record["warmup_s"])
    stored = values(rows[chosen], "goodput_per_s")[0]
    assert found.summary["goodput_per_s"] == pytest.approx(stored, rel=1e-6)
    # The control: with live views it is another number.
    assert stored != pytest.approx(values(rows["least_tokens, reports every 0 ms"], "goodput_per_s")[0], rel=1e-3)


@pytest.mark.parametrize("path", [SIZES, FOUR], ids=lambda path: path.name)
def test_the_rows_of_the_sizes_are_those_of_their_raw_values(path):
    record = read(path)
    assert record["rows"] == rows_of(record["raw"])
    draws = {}
    for one in record["raw"]:
        draws.setdefault((one["workers"], one["seed"]), set()).add(one["workload_sha256"])
    assert {len(shas) for shas in draws.values()} == {1} and len({sha for (sha,) in draws.values()}) == len(draws)


def test_a_size_comes_out_again():
    record = read(FOUR)
    setup = Setup(requests=1)
    assert record["setup"]["duration_s"] == setup.duration_s and record["setup"]["requests"] == 1
    stored = {(one["router"], one["seed"]): one for one in record["raw"]}["round_robin", 0]
    draw = setup.draw(4, 0)
    assert draw.sha256 == stored["workload_sha256"] != setup.draw(4, 1).sha256
    run = Experiment(draw, Fleet(workers=4), "round_robin", slo=setup.slo).run()
    found = goodput(run.log, setup.slo, counted(draw, setup.warmup_s))
    assert found.per_s == pytest.approx(stored["goodput_per_s"], rel=1e-9)


def test_with_news_of_half_a_second_the_fewest_tokens_lose_to_taking_turns():
    late = [f"{name}, reports every {{}} ms" for name in ("least_tokens", "round_robin")]
    behind, ahead = (paired(read(PRICES[1]), *(name.format(age) for name in late), "goodput_per_s") for age in (500, 0))
    assert behind["high"] < 0 < ahead["low"]


def test_taking_turns_finds_less_in_a_larger_fleet_and_following_prefixes_does_not():
    few, many = ({r["router"]: r["hit_rate"] for r in read(path)["rows"] if r["workers"] == n} for path, n in SIDES)
    assert many["round_robin"]["high"] < few["round_robin"]["low"]
    assert many["prefix_exact"]["high"] > few["prefix_exact"]["mean"]


SIDES = ((FOUR, 4), (SIZES, 64))


def test_a_case_comes_out_again():
    record = read(CASES)
    knobs = {"prompt_tokens": "9800", "output_tokens": "430", "shared_tokens": 3584}
    arm = routing.arm(Fleet(workers=2), SLO(ttft_s=2.0, tpot_s=0.05), "round_robin")
    draw = routing.partial(routing.generate, "poisson", requests=600, rate_per_s=3.0, **knobs)
    (row,) = routing.rows_of({"round_robin": arm}, draw, record["seeds"], "round_robin")
    (stored,) = case_of(record, "affinity_loses", arm="round_robin")
    assert row["goodput_per_s"] == pytest.approx(stored["goodput_per_s"])
    assert row["goodput_per_s"] != asdict(mean_interval([1.0, 2.0]))


def test_the_page_runs_and_every_claim_of_its_cells_comes_out(run_notebook):
    shown = run_notebook(CHAPTER)
    assert len(shown["worked"].rows) == 9 and len({row[-2][0] for row in shown["worked"].rows}) == 4
    assert shown["reconcile"].columns and len(shown["decide"].rows) == 7


MUTANTS = {
    "a gain with its sides swapped": ("knees", '"prefix_exact", "least_tokens"', '"least_tokens", "prefix_exact"'),
    "a loss with its sides swapped": ("knees", '"llm_d", "least_tokens"', '"least_tokens", "llm_d"'),
    "live reports called old": ("settling", "Experiment(step, fleet, router)", "Experiment(step, views[0], router)"),
    "a cap called a prediction": ("admission", '("token_cap", "predicted_slo")', '("predicted_slo", "none")'),
}


@pytest.mark.parametrize(("cell", "right", "wrong"), MUTANTS.values(), ids=MUTANTS)
def test_a_claim_that_is_false_stops_the_page(run_notebook, cell, right, wrong):
    cells = {one.id: one.source for one in nbformat.read(ROOT / CHAPTER, as_version=4).cells}
    assert right in cells[cell]
    skipped = {} if cell == "settling" else {"settling": "pass"}
    with pytest.raises((AssertionError, TypeError)):
        run_notebook(CHAPTER, {**skipped, cell: cells[cell].replace(right, wrong)}, until=cell)


LIVE_FAULTS = {
    "a gain with its sides swapped": ('"round_robin", "prefix_exact", 0.7', '"prefix_exact", "round_robin", 0.7'),
    "a loss on one pair of GPUs said of the other": ("level, worse = (", "worse, level = ("),
    "the worst figure called that of another router": ("TTFT mean of {least} at 1", "TTFT mean of random at 1"),
    "nothing left to decisions": ("error < 0.1", "error > 0.1"),
}


def test_live_workers_are_shown_and_a_false_claim_about_them_stops_the_page(run_notebook):
    """Only the section itself runs: it needs nothing of the page but its imports."""
    cells = {one.id: one.source for one in nbformat.read(ROOT / CHAPTER, as_version=4).cells if one.cell_type == "code"}
    alone = {name: "pass" for name in cells if name not in ("setup", "live")}
    routed, arms, loads = run_notebook(CHAPTER, alone, until="live")["live"].tables
    assert len(routed.rows) == 8 and len(arms.rows) == 11 and len(loads.rows) == 8
    for right, wrong in LIVE_FAULTS.values():
        assert cells["live"].count(right) == 1
        with pytest.raises(AssertionError):
            run_notebook(CHAPTER, {**alone, "live": cells["live"].replace(right, wrong)}, until="live")


SWAPPED = {
    "another router is better": ('at_knee(told, tokens, "least_requests")', 'at_knee(told, tokens, "predicted_ttft")'),
    "nothing is shown": ('in_case(loses, turns, "sglang_cache_aware")', 'in_case(loses, turns, "dynamo")'),
    "a change that changes nothing": ("priced(several, 1, tokens, own)", "priced(several, many, tokens, own)"),
    "a row with its arms swapped": ("live(h100, own, turns, 1)", "live(h100, turns, own, 1)"),
}


def test_a_choice_stands_only_while_its_record_bears_it_out(run_notebook):
    """Only the records of the table are read; then an arm of a row is another, and the cell stops the page."""
    cells = {one.id: one.source for one in nbformat.read(ROOT / CHAPTER, as_version=4).cells if one.cell_type == "code"}
    needed = ("setup", "staleness", "fronts", "collapse", "loses", "admission", "live", "decide")
    alone = {name: "pass" for name in cells if name not in needed}
    alone["predict"] = 'told = records.record("sim_4x1_h100", "routers_generated")'
    rows = run_notebook(CHAPTER, alone, until="decide")["decide"].rows
    assert len(rows) == 7 and all(row[2].startswith("wins: ") and " it wins: " not in row[3] for row in rows)
    assert all("simulated" in cell or "measured" in cell for row in rows for cell in row[2:])
    for right, wrong in SWAPPED.values():
        assert cells["decide"].count(right) == 1
        with pytest.raises((AssertionError, InputError)):
            run_notebook(CHAPTER, {**alone, "decide": cells["decide"].replace(right, wrong)}, until="decide")
