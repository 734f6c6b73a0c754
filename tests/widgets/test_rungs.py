"""The ladder of one engine as tables: what is shown is what the record says, and what it lacks is not made up."""

import pytest

from helpers.errors import InputError
from helpers.widgets import rungs


def point(name, value, unit="s", **more):
    return {"name": name, "value": value, "unit": unit, "n": 2, **more}


SPENT = {
    "in_steps": 0.9, "between_steps": 0.08, "nothing_to_do": 0.02, "host_launch_s": 0.002, "host_wait_s": 0.001,
    "host_schedule_s": 0.0005, "host_rest_s": 0.00025, "steps": 1200.0, "mean_batch": 7.25, "computed_tokens": 3000.0,
    "cached_tokens": 1500.0,
}  # fmt: skip


def rung(name, e2e_s, **more):
    seconds = {"ttft_mean_s": e2e_s / 10, "tpot_mean_s": e2e_s / 100, "longest_gap_s": e2e_s / 50}
    yield point(
        f"{name}: e2e_mean_s", e2e_s, samples=[e2e_s - 0.5, e2e_s + 0.5], min=e2e_s - 0.5, max=e2e_s + 0.5, **more
    )
    yield from (point(f"{name}: {key}", value) for key, value in {**seconds, "tokens_per_s": 100.0, **SPENT}.items())


APART = {"difference": {"mean": -2.0, "low": -3.0, "high": -1.0, "n": 2}, "mean": -2.0, "said": "lower"}


def answers(equal, parted, before):
    return point("b: answers as of a", equal / 4, "share", answers=4, equal=equal, before_equal=before,
                 first_other_token=parted)  # fmt: skip


def record():
    counts = {"kernels": 12.0, "launches": 11.0}
    watched = [
        *(point(name, value) for name, value in counts.items()),
        *(point(name, value) for name, value in {"kernels running": 0.5, "a step, profiled": 0.010}.items()),
        point("launching, host", 0.0015),
        *(point(name, value, kind=True) for name, value in {"attention": 0.001, "matrix products": 0.004}.items()),
    ]
    return {
        "part": "inference",
        "load": {"requests": 4, "rate_per_s": 2.0},
        "parts": {
            "draw 0": {"points": [answers(3, [7], 4)], "count": 1},
            "draw 1": {"points": [answers(1, [0, 2, 9], 2)], "count": 1},
            "draw 2": {"points": [answers(0, [5, 5, 5, 5], 0)], "count": 9},  # broken off: it does not count
            "ladder": {
                "points": [
                    *rung("a", 5.0, predicted={"formula": 4.0}),
                    *rung("b", 3.0, predicted={"formula": 3.5}, before=APART),
                ]
            },
            "one at a time": {"points": [answers(4, [], 4)], "count": 1},
            "profile: a": {"points": watched},
            "profile: b": {"points": [], "skipped": "no time"},
        },
    }


def test_a_rung_has_its_draws_and_its_difference_to_the_one_before():
    first, second = rungs.climbed(record(), "c").rows
    assert first == ["a", "5", "4.50 5.50", "4", "", "500", "50", "100"]
    assert second[1:5] == ["3", "2.50 3.50", "3.5", "-2.00 [-3.00, -1.00]: lower"]


def test_one_draw_has_no_interval_and_nothing_foretold_is_no_number():
    told = record()
    one = told["parts"]["ladder"]["points"]
    one[:] = [{k: v for k, v in p.items() if k != "predicted"} for p in one]
    at = next(p for p in one if p["name"] == "b: e2e_mean_s")
    at["before"] = {"difference": None, "mean": -2.0, "said": "not shown"}
    assert rungs.climbed(told, "c").rows[1][3:5] == ["", "-2.00: not shown"]
    assert [trace["name"] for trace in rungs.ladder_figure(told).spec["data"]] == ["measured"]
    assert len(rungs.ladder_figure(record()).spec["data"]) == 2


def test_where_the_time_went():
    """Of the host 2 ms launching, 1 waiting, and 0.5 + 0.25 for the rest."""
    row = rungs.time_went(record(), "t").rows[0]
    assert row == ["a", "90.0%", "8.0%", "2.0%", "2.00 + 1.00 + 0.75", "1,200", "7.2", "3,000 + 1,500"]


def test_a_profile_has_shares_of_the_kernels_and_only_what_was_watched():
    """4 ms of products and 1 of attention are 80 and 20 % of the 5 ms in which kernels ran."""
    assert rungs.profiled(record()) == ["a"]
    rows = dict(rungs.profile_table(record(), ["a"], "p").rows)
    assert rows["matrix products (ms)"] == "4.00 (80%)" and rows["attention (ms)"] == "1.00 (20%)"
    assert (rows["kernels running"], rows["launches a step"], rows["steps watched"]) == ("50%", "11", "2")


def test_answers_are_counted_over_whole_draws():
    (row,) = rungs.answers_table(record(), "a").rows
    assert row == ["b", "4 of 8", "6 of 8", "4 (0)", "4 of 4"]  # parted at 7, 0, 2 and 9: 4.5, which is even


def test_a_record_without_a_rung_says_so():
    with pytest.raises(InputError, match="has no point 'c: e2e_mean_s' in 'ladder'"):
        rungs.of(record(), "c", "e2e_mean_s")


def test_ties_stand_beside_a_place_of_which_nothing_is_known():
    told = record()
    shown = {"b from a: apart": (0.01, 0.04), "b from a: rounding": (0.02, 0.03)}
    shown["in the middle of an answer: lead"] = (0.5, 2.0)
    told["parts"]["where answers part"] = {
        "points": [
            *(point(name, middle, "logits", max=most) for name, (middle, most) in shown.items()),
            point("b from a: among the two best", 0.75, "share"),
        ]
    }
    assert rungs.ties_table(told, "t").rows == [
        ["b parts from a", "2", "0.010 (0.040)", "0.020 (0.030)", "75%"],
        ["in the middle of an answer: best and second", "2", "0.500 (2.000)", "", ""],
    ]
