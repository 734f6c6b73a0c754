"""The figures of chapter 2: what is drawn is what was handed over."""

from types import SimpleNamespace

import pytest

from helpers.metrics.series import Series
from helpers.metrics.settling import Oscillation, Settling
from helpers.widgets import routers


def interval(mean, half=0.1):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 5}


def recorded(*means):
    return {name: {"mean": m, "min": m - 0.2, "max": m + 0.3} for name, m in zip("abc", means, strict=True)}


def test_the_knees_are_drawn_from_the_highest_with_their_intervals_and_ranges():
    drawn = {"a": interval(3.0), "b": interval(1.0), "c": interval(2.0)}
    here, there = routers.knees(drawn, recorded(2.5, 0.9, 1.5), "N.").spec["data"]
    assert here["y"] == there["y"] == ["a", "c", "b"]
    assert (here["x"], there["x"]) == ([3.0, 2.0, 1.0], [2.5, 1.5, 0.9])
    assert here["error_x"]["array"] == pytest.approx([0.1] * 3)
    assert there["error_x"]["array"] == pytest.approx([0.3] * 3)
    assert there["error_x"]["arrayminus"] == pytest.approx([0.2] * 3)


def test_the_control_of_the_order():
    drawn = {"a": interval(1.0), "b": interval(3.0), "c": interval(2.0)}
    assert routers.knees(drawn, recorded(1, 2, 3), "N.").spec["data"][0]["y"] == ["b", "c", "a"]


def test_sizes_are_lines_by_router_and_a_missing_knee_is_left_out():
    rows = [{"workers": n, "router": r, "knee_per_s": interval(k)} for n, r, k in ((4, "a", 0.5), (64, "a", 0.8))]
    rows += [
        {"workers": 4, "router": "b", "knee_per_s": None},
        {"workers": 64, "router": "b", "knee_per_s": interval(0.7)},
    ]
    a, b = routers.by_size(rows, "N.").spec["data"]
    assert (a["x"], a["y"]) == ([4, 64], [0.5, 0.8]) and (b["x"], b["y"]) == ([64], [0.7])


@pytest.mark.parametrize("draw", [routers.price_of_age, routers.price_of_fronts])
def test_prices_are_differences_with_intervals(draw):
    line, other = draw(
        [1, 2], {"a": [interval(0.0, 0), interval(-1.0)], "b": [interval(0.0, 0), interval(-2.0)]}, "N."
    ).spec["data"]
    assert line["y"] == [0.0, -1.0] and other["y"] == [0.0, -2.0]
    assert line["error_y"]["arrayminus"] == pytest.approx([0.0, 0.1])


def test_admission_is_grouped_by_rate():
    rows = [
        {"rate_per_s": rate, "arm": arm, "goodput_per_s": interval(rate * k)}
        for rate in (3.0, 6.0)
        for arm, k in (("x", 1), ("y", 2))
    ]
    low, high = routers.admitted(rows, ["y", "x"], "N.").spec["data"]
    assert (low["name"], low["x"], low["y"]) == ("3 requests/s", ["y", "x"], [6.0, 3.0])
    assert high["y"] == [12.0, 6.0]


def test_signals_are_drawn_as_they_are():
    herd = routers.herd([Series((1.0, 2.0), (5.0, 0.0)), Series((1.0, 2.0), (0.0, 5.0))], 1).spec["data"]
    assert [(one["name"], one["y"]) for one in herd] == [("worker 0", [5.0, 0.0]), ("worker 1", [0.0, 5.0])]
    pools = routers.pools({"prefill": Series((1.0,), (0.5,))}, "the load of now")
    assert pools.spec["data"][0]["y"] == [0.5] and "by the load of now" in pools.note


def test_looking_and_reuse():
    figure = routers.fullest((4, 64), {"one": [9.0, 25.0], "two": [1.0, 2.0]}, 100, 10)
    assert [one["y"] for one in figure.spec["data"]] == [[9.0, 25.0], [1.0, 2.0]] and "10 seeds" in figure.note
    assert routers.reuse({"endless": 0.4, "kept": 0.1}, 12).spec["data"][0]["y"] == [0.4, 0.1]


def test_the_side_by_side_table_names_the_choice_and_the_copy():
    one = SimpleNamespace(router="a", rule="least", scores={1: 2.0, 0: 1.5}, chosen=0, kv_source=None)
    two = SimpleNamespace(router="b", rule="most", scores={0: 0.25, 1: 4.0}, chosen=1, kv_source=0)
    table = routers.side_by_side([one, two], "Caption")
    assert table.rows == [["a", "1.5", "2", "0", "least"], ["b", "0.25", "4", "1, copy of 0", "most"]]


def test_tables_of_cases_say_intervals_and_no_negative_zero():
    row = {"arm": "a", "goodput_per_s": interval(2.0), "difference_per_s": None, "imbalance": 1.5, "hit_rate": 0.1}
    same = row | {"arm": "b", "difference_per_s": {"mean": -0.001, "low": -0.002, "high": 0.0}}
    table = routers.outcomes([row, same], "Case")
    assert table.rows[0] == ["a", "2.00 (1.90 to 2.10)", "-", "1.50", "10.0%"]
    assert table.rows[1][2] == "0.00 (0.00 to 0.00)"


def test_classes_and_responses():
    classes = {
        "high": {"attainment": 0.9, "rejected": 0.0},
        "low": {"attainment": 0.5, "rejected": 7.0, "difference": interval(-0.2, 0.05)},
    }
    table = routers.by_class([{"arm": "shed", "classes": classes}], "Tiers")
    assert table.rows == [["shed", "high", "90.0%", "-", "0"], ["shed", "low", "50.0%", "-20.0 (-25.0 to -15.0)", "7"]]
    calm = Settling(20, 1, 2, 1.8, 2.2, 4.0, 0.0), Oscillation(0, None, None)
    wild = Settling(20, 1, 2, 1.8, 2.2, None, 0.5), Oscillation(9, 28.0, 4.0)
    table = routers.responses({"a": {0.0: calm, 1.0: wild}}, "Step")
    assert list(table.columns[1:]) == [f"{what}, T = {t} s" for what in ("settles in", "swings every") for t in (0, 1)]
    assert table.rows == [["a", "4.0 s", "never", "steady", "4.0 s by 28"]]


def test_a_choice_is_a_row_with_both_kinds_of_evidence():
    one = SimpleNamespace(traffic="some", take="a", because="wins: more", change="with less", against="loses: few")
    table = routers.decisions([one], "differences")
    assert table.rows == [["some", "a", "wins: more", "with less, it loses: few"]] and len(table.columns) == 4
