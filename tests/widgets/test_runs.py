"""Figures and tables of runs: the numbers are those of the metrics, and the words come from the run."""

import pytest

from helpers.metrics.goodput import goodput
from helpers.metrics.latency import distribution, tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.stats import compare, mean_interval
from helpers.metrics.timeline import Timeline
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack, write_pack
from helpers.serving.sweep import over_rates
from helpers.widgets import load_and_latency as figures
from helpers.widgets import runs as drawn
from helpers.workload.generate import generate
from helpers.workload.slo import SLO

WORDS = {"title": "A title", "alt": "What the picture shows, in a few words."}
SLO_ = SLO(ttft_s=1.0, tpot_s=0.05)


@pytest.fixture(scope="module")
def experiment():
    knobs = {"rate_per_s": 8.0, "requests": 400, "prompt_tokens": "3000", "output_tokens": "40"}
    return Experiment(generate("poisson", seed=2, **knobs), Fleet(workers=2), "round_robin")


@pytest.fixture(scope="module")
def run(experiment):
    return experiment.run()


def test_the_cdf_shows_the_percentiles(run):
    figure = drawn.latency_cdf({"a": run}, "ttft_s", 1.0, **WORDS)
    trace = figure.spec["data"][0]
    at = dict(zip(trace["y"], trace["x"], strict=True))
    for q in (50, 90, 99):
        assert at[q / 100] == pytest.approx(percentile([ttft_s(t) for t in run.timelines], q).value)
    assert trace["y"] == sorted(trace["y"]) and at[1.0] == pytest.approx(max(ttft_s(t) for t in run.timelines))


def test_the_note_says_n_fleet_and_origin(run):
    note = drawn.latency_cdf({"a": run}, "tpot_s", **WORDS).note
    assert note.startswith("Simulated.") and "N = 400 requests" in note and "2 x H100" in note
    assert "step times predicted" in note


def test_bars_leave_out_the_tail_that_n_does_not_allow(run):
    figure = drawn.latency_bars({"a": run, "b": run}, "ttft_s", **WORDS)
    assert figure.spec["data"][0]["x"] == ["p50", "p90"]  # 400 requests: no p99
    wanted = [p.value for p in distribution(ttft_s, run.timelines).percentiles]
    assert figure.spec["data"][1]["y"] == pytest.approx(wanted)


def test_attainment_lines_are_goodput(experiment):
    sweep = over_rates(experiment, (2.0, 30.0))
    figure = drawn.attainment_lines({"a": sweep}, SLO_, 0.8, **WORDS)
    wanted = [goodput(run.log, SLO_).attainment for run in sweep.values()]
    assert figure.spec["data"][0]["y"] == pytest.approx(wanted) and wanted[0] > 0.9 > 0.5 > wanted[1]
    assert figure.spec["layout"]["shapes"][0]["y0"] == 0.8


def test_tables_hold_the_metrics(run):
    table = drawn.latency_table({"a": run}, ["tpot_s"], caption="Pace")
    assert table.columns == ["run", "latency", "mean", "p50", "p90", "N"] and table.rows[0][-1] == "400"
    assert table.rows[0][2] == drawn.seconds(distribution(tpot_s, run.timelines).mean)


def test_a_run_without_its_tail_leaves_the_cell_empty(run):
    many = Experiment(generate("poisson", seed=2, rate_per_s=20.0, requests=3000), Fleet(workers=2)).run()
    table = drawn.latency_table({"few": run, "many": many}, ["ttft_s"], caption="x")
    assert table.columns[-2] == "p99" and table.rows[0][-2] == "-" != table.rows[1][-2]


def test_a_dirty_commit_stays_visible(run, tmp_path):
    from dataclasses import replace

    made = replace(run.provenance, commit="0123456789abcdef-dirty", command="hybrid-serving simulate")
    pack = read_pack(write_pack(replace(run, provenance=made), tmp_path / "a.json.gz", steps=False))
    row = drawn.origin_table({"a": pack}).rows[0]
    assert row[1].endswith("commit 0123456789ab-dirty") and row[2] == "hybrid-serving simulate"


def test_intervals_and_differences():
    found = {0.2: mean_interval([1.0, 3.0]), 0.4: mean_interval([2.0, 2.5])}
    series = drawn.over_intervals("a", found)
    assert list(series.y) == [2.0, 2.25] and series.low[0] == found[0.2].low and series.high[1] == found[0.4].high
    table = drawn.difference_table({"a - b": compare({0: 0.9, 1: 0.92}, {0: 0.7, 1: 0.71})}, caption="x")
    assert table.rows[0][1] == "+20.5" and table.rows[0][3:] == ["2", "a higher"]


def test_seconds_for_people():
    assert [drawn.seconds(v) for v in (None, 0.0123, 1.5)] == ["-", "12 ms", "1.50 s"]


def test_the_requests_of_the_lab_have_a_column_each():
    table = figures.cases(
        [Timeline(7, 1.0, 80, 5, "finished", "", 0, 0, 1.5, 2.0, 2.5, 3.5, 5), Timeline(8, 4.0, 9, 7, "rejected")]
    )
    assert list(table.columns) == ["", "request 7", "request 8"]
    assert [row[1] for row in table.rows] == ["finished", "5", "1.0", "1.5", "2.0", "2.5", "3.5"]
    assert table.rows[-1] == ["finished_s", "3.5", "None"]


def test_a_readers_empty_answer_is_a_gap():
    figure = figures.own_waits([0.1, 0.2], {0: [object(), 0.5], 4: [None, 1.0]}, 0.3)
    assert [trace["y"] for trace in figure.spec["data"]] == [[0.3, 0.3], [None, 0.5], [None, 1.0]]
