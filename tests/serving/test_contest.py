"""Arms on the same draws: an arm equals itself exactly, a wrong pairing is caught, intervals are those by hand."""

from copy import deepcopy
from dataclasses import replace
from math import sqrt

import pytest

from helpers.errors import InputError
from helpers.serving.arms import arms_of
from helpers.serving.contest import Arrivals, Plan, check_paired, contest, figure
from helpers.serving.draws import UNDRAWN, Draws
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.report import contest_record, difference, over_blocks, report, spread, ttft_ratio
from helpers.serving.table import interval_text, table, title

QUESTION = Experiment(UNDRAWN, Fleet())
DRAWN = Draws("generated:conversation", max_requests=150)
PLAN = Plan(DRAWN, (0, 1, 2), target=0.6, decisions=20)


@pytest.fixture(scope="module")
def results():
    """The same router under two names, and another one, with knees and regret."""
    same = replace(QUESTION, router="least_tokens")
    return contest({"a": same, "b": same, "other": replace(QUESTION, router="random")}, PLAN)


@pytest.fixture(scope="module")
def records(results):
    return {r["arm"]: r for r in report(results, PLAN)}


def test_an_arm_differs_from_itself_by_exactly_nothing(records):
    found = records["b"]["difference"]
    assert set(found) == {
        *("goodput_per_s", "attainment", "hit_rate", "knee.rate_per_s", "knee.goodput_per_s", "regret.mean")
    }
    for one in found.values():
        assert (one["mean"], one["low"], one["high"], one["n"]) == (0.0, 0.0, 0.0, 3)
        assert one["verdict"] == "no effect shown"
    other = records["other"]["difference"]  # the control
    assert all(other[name]["mean"] != 0.0 for name in found)
    assert other["goodput_per_s"]["verdict"] in ("lower", "no effect shown") and other["goodput_per_s"]["mean"] < 0


def test_every_seed_is_kept_raw(records):
    rows = records["a"]["replicates"]
    assert [row["seed"] for row in rows] == [0, 1, 2] and len({row["workload_sha256"] for row in rows}) == 3
    for row in rows:
        assert row["knee"]["attainment"] >= 0.6 and row["regret"]["n"] == 20 and row["goodput_per_s"] > 0


def test_several_processes_give_the_same(records):
    arms = {"a": replace(QUESTION, router="least_tokens"), "other": replace(QUESTION, router="random")}
    plan = replace(PLAN, seeds=(0, 1), target=None, decisions=0)
    alone, together = (report(contest(arms, plan, jobs), plan) for jobs in (1, 2))
    for one, two in zip(alone, together, strict=True):
        for row in (*one["replicates"], *two["replicates"]):
            row.pop("wall_s")
        assert one == two


def test_the_oracle_goes_first_and_comes_back_in_its_place():
    arms = arms_of(QUESTION, ("random", "oracle", "round_robin"))
    seen = []
    found = contest(arms, Plan(Draws("generated:conversation", max_requests=30), (0,)), done=seen.append)
    assert [one.name for one in found] == ["random", "oracle", "round_robin"]
    names = [[one.name for one in results] for results in seen]  # what is there after each, for a record so far
    assert names == [["oracle"], ["random", "oracle"], ["random", "oracle", "round_robin"]]


def test_a_wrong_pairing_is_caught(results):
    a, b, _ = results
    check_paired(a, b)
    swapped = [replace(o, seed=seed) for o, seed in zip(b.outcomes, (1, 0, 2), strict=True)]
    with pytest.raises(InputError, match="arms a and b were not given the same draw for seed 0, 1"):
        check_paired(a, replace(b, outcomes=tuple(swapped)))
    with pytest.raises(InputError, match="seed 2"):
        check_paired(a, replace(b, outcomes=b.outcomes[:2]))


def test_values_of_other_seeds_are_not_paired():
    with pytest.raises(InputError, match="same seeds"):
        difference({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0}, 2, redrawn=True)
    with pytest.raises(InputError, match="same seeds"):
        difference({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0}, 2, redrawn=False)


def test_intervals_by_hand():
    """Of 1, 2, 3: mean 2, standard error sqrt(1 / 3), t of 2 degrees of freedom 4.3027."""
    found = spread({0: 1.0, 1: 2.0, 2: 3.0}, 3, redrawn=True)
    half = 4.30265 * sqrt(1 / 3)
    assert (found["mean"], found["n"]) == (2.0, 3)
    assert (found["low"], found["high"]) == (pytest.approx(2 - half, rel=1e-5), pytest.approx(2 + half, rel=1e-5))
    paired = difference({0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0}, 3, redrawn=True)
    assert (paired["low"], paired["high"]) == (pytest.approx(found["low"]), pytest.approx(found["high"]))
    assert paired["verdict"] == "no effect shown"
    assert difference({0: 5.0, 1: 5.1}, {0: 1.0, 1: 1.1}, 2, redrawn=True)["verdict"] == "higher"


def test_the_last_digits_of_a_time_are_no_difference():
    values = {0: 3.0, 1: 2.0, 2: 4.0}
    moved = {seed: v * (1 + 1e-14) for seed, v in values.items()}
    found = difference(moved, values, 3, redrawn=True)
    assert (found["mean"], found["low"], found["high"], found["verdict"]) == (0.0, 0.0, 0.0, "no effect shown")
    real = {seed: v + 1e-6 for seed, v in values.items()}  # the control
    assert difference(real, values, 3, redrawn=True)["verdict"] == "higher"


def test_on_a_recorded_trace_there_is_a_range_and_no_interval():
    values, other = {0: 1.0, 1: 2.0, 2: 6.0}, {0: 0.0, 1: 2.0, 2: 3.0}
    assert spread(values, 3, redrawn=False) == {"mean": 3.0, "min": 1.0, "max": 6.0, "n": 3}
    assert difference(values, other, 3, redrawn=False) == {"mean": 4 / 3, "min": 0.0, "max": 3.0, "n": 3}


def test_a_seed_without_the_figure_leaves_none():
    assert spread({0: 1.0, 1: 2.0}, 3, redrawn=True) is None
    assert spread({}, 1, redrawn=True) is None
    assert spread({0: 4.0}, 1, redrawn=True) == {"mean": 4.0, "n": 1}
    assert difference({0: 1.0}, {0: 1.0, 1: 2.0}, 2, redrawn=True) is None


def with_arrivals(result, met, longest_s):
    """200 requests, one a second from 0.5 s on; `met(i)` says which met their SLO."""
    times = tuple(i + 0.5 for i in range(200))
    return replace(result, arrivals=Arrivals(times, tuple(met(i) for i in range(200)), longest_s))


def test_blocks_by_hand(results):
    """Up to the last arrival, 199.5 s, four blocks of 49.875 s are the most of ten times 4 s. All meet in one arm, and
    in the other all but every request of the first two blocks: 50 or 49 arrivals a block, 0 in the first two."""
    a = with_arrivals(results[0], lambda i: True, 4.0)
    b = with_arrivals(results[2], lambda i: i >= 100, 2.0)
    found = over_blocks(b, a, 0.0)
    assert (found["n"], found["block_s"]) == (4, pytest.approx(49.875))
    assert found["goodput_per_s"]["mean"] == pytest.approx(99 / 4 / 49.875)  # the last arrival ends the last block
    assert found["difference"]["mean"] == pytest.approx(-100 / 4 / 49.875)
    assert found["difference"]["low"] < -100 / 4 / 49.875 < found["difference"]["high"]
    same = over_blocks(a, a, 0.0)["difference"]
    assert (same["mean"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


def test_blocks_that_would_hang_together_are_refused(results):
    a = with_arrivals(results[0], lambda i: True, 4.0)
    slow = with_arrivals(results[2], lambda i: True, 10.1)
    assert "block" in over_blocks(slow, a, 0.0)["refused"]
    assert over_blocks(with_arrivals(results[2], lambda i: True, 9.9), a, 0.0)["n"] == 2  # the control


def test_no_ttft_ratio_past_the_knee(results):
    a, _, other = results
    with_verdict = lambda one, stable: replace(  # noqa: E731
        one, outcomes=tuple(replace(o, summary={**o.summary, "stable": stable}) for o in one.outcomes)
    )
    ratio = ttft_ratio(with_verdict(other, True), with_verdict(a, True), True)
    assert ratio["mean"] > 1 and ratio["n"] == 3 and ratio["low"] < ratio["mean"] < ratio["high"]
    for stable in (False, None):
        assert (
            "no TTFT ratio: a is not shown"
            in ttft_ratio(other and with_verdict(other, True), with_verdict(a, stable), True)["refused"]
        )
        assert "no TTFT ratio: other" in ttft_ratio(with_verdict(other, stable), with_verdict(a, True), True)["refused"]


def test_the_table_has_a_row_an_arm(results, records):
    columns, rows = table(list(records.values()), PLAN)
    assert len(rows) == 3 and all(len(row) == len(columns) for row in rows)
    goodput = figure(results[0], "goodput_per_s")
    assert rows[0][1].startswith(f"{sum(goodput.values()) / 3:.4g} [")
    assert rows[0][2] == "-" and rows[1][2] == "0 [0, 0]"
    assert "p99" in columns and rows[0][columns.index("p99")] == "-"  # 150 requests have none
    assert "95 % interval" in title("x", PLAN)
    recorded = replace(PLAN, draws=Draws("conversation", max_requests=150))
    assert "sensitivity, not an interval" in title("x", recorded)
    assert "no interval" in title("x", replace(PLAN, seeds=(0,)))


def test_a_knee_says_in_how_many_runs_the_queue_did_not_grow(records):
    """Past its knee a short trace can end before its queue is felt, so a rate alone may promise too much."""
    one = deepcopy(next(iter(records.values())))
    for stable, row in zip((True, False, None), one["replicates"], strict=True):
        row["knee"]["stable"], row["stable"] = stable, True
    columns, rows = table([one], PLAN)
    assert rows[0][columns.index("stable at the knee")] == "1 of 3"
    assert rows[0][columns.index("stable")] == "3 of 3"  # control: at the offered rate, another figure


def test_texts_of_intervals():
    assert interval_text({"mean": 2.0, "low": 1.0, "high": 3.0, "n": 3}, 1e3) == "2000 [1000, 3000]"
    assert interval_text({"mean": 2.0, "min": 1.0, "max": 3.0, "n": 3}) == "2 (1 to 3)"
    assert interval_text({"mean": 2.0, "n": 1}) == "2" and interval_text(None) == "-"


def test_the_last_line_has_what_one_run_has(results):
    line = contest_record("hybrid-serving simulate", results, PLAN, 0.1)
    for name in ("parse_s", "requests", "completed", "rejected", "ttft_s", "tpot_s", "goodput_per_s", "fleet"):
        assert line[name] is not None
    assert line["goodput_per_s"] == line["arms"][0]["replicates"][0]["goodput_per_s"]
    assert line["seeds"] == [0, 1, 2] and "mean" not in line


def test_a_recorded_trace_has_blocks_or_says_why_not():
    plan = Plan(Draws("conversation", max_requests=150), (0, 1))
    found = report(contest(arms_of(QUESTION, ("round_robin",)), plan), plan)[0]
    assert "refused" in found["blocks"] and "sensitivity" in found and "mean" not in found
