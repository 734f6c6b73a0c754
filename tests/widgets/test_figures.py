"""Figures draw exactly the numbers that they are given, and refuse what a reader could not read."""

import json

import plotly.graph_objects as go
import pytest

from helpers.errors import InputError
from helpers.widgets import Axis, Dot, Interval, Mark, Series, bars, cdf, dots, gantt, lines, scatter, timeseries
from helpers.widgets.drawing import TABLE_ROWS_PER_SERIES
from helpers.widgets.figures import MOST_MARKERS
from helpers.widgets.style import MOST_SERIES, whole_ticks

WORDS = {
    "title": "Latency against load",
    "note": "N = 3,000 requests; 95 % interval over 5 seeds.",
    "origin": "simulated",
    "alt": "Two rising curves; the second one leaves the page first.",
}
LOAD = Axis("offered rate", "requests/s")
TTFT = Axis("TTFT p90", "s")
ONE = Series("round_robin", [1, 2, 4], [0.1, 0.2, 0.9])
TWO = Series("prefix_exact", [1, 2, 4], [0.1, 0.15, 0.4], low=[0.05, 0.1, 0.3], high=[0.2, 0.3, 0.8])


def every_kind():
    work = [Interval("worker 0", 0.0, 0.5, "prefill"), Interval("worker 1", 0.25, 0.75, "decode", "12 requests")]
    shares = [Series("TTFT", [0.1, 0.2, 0.3], [0.25, 0.5, 1.0])]
    routers = [Series("TTFT", ["round_robin", "random"], [0.3, 0.4], low=[0.2, 0.3], high=[0.4, 0.6])]
    return {
        "lines": lines([ONE, TWO], LOAD, TTFT, **WORDS),
        "scatter": scatter([ONE, TWO], LOAD, TTFT, **WORDS),
        "timeseries": timeseries([ONE], Axis("time", "s"), Axis("queue length", "requests"), **WORDS),
        "cdf": cdf(shares, Axis("TTFT", "s", log=True), marks=[Mark(0.2, "p50")], **WORDS),
        "bars": bars(routers, Axis("router", ""), TTFT, **WORDS),
        "bars, horizontal": bars(routers, Axis("router", ""), TTFT, horizontal=True, **WORDS),
        "dots": dots(
            [Dot("you", "guess", 6.0), Dot("simulated", "own run", 3.5)], LOAD, marks=[Mark(4, "SLO")], **WORDS
        ),
        "gantt": gantt(work, ["worker 0", "worker 1"], Axis("time", "s"), **WORDS),
    }


@pytest.mark.parametrize("kind", sorted(every_kind()))
def test_every_kind_is_a_valid_plotly_figure(kind):
    spec = every_kind()[kind].spec
    figure = go.Figure(spec)
    assert len(figure.data) == len(spec["data"]) > 0
    json.dumps(spec, allow_nan=False)


def test_an_invalid_dictionary_is_refused_by_the_same_validation():
    spec = every_kind()["lines"].spec
    broken = {**spec, "data": [{**spec["data"][0], "mode": "curves"}]}
    with pytest.raises(ValueError, match="mode"):
        go.Figure(broken)


@pytest.mark.parametrize("kind", sorted(every_kind()))
def test_axes_name_their_units_and_the_note_says_where_the_numbers_come_from(kind):
    layout = every_kind()[kind].spec["layout"]
    assert layout["xaxis"]["title"]["text"] and layout["yaxis"]["title"]["text"]
    assert layout["title"]["subtitle"]["text"] == "Simulated. N = 3,000 requests; 95 % interval over 5 seeds."
    if kind == "lines":
        assert layout["xaxis"]["title"]["text"] == "offered rate (requests/s)"


def test_the_drawn_numbers_are_the_given_numbers():
    trace = lines([TWO], LOAD, TTFT, **WORDS).spec["data"][0]
    assert (trace["x"], trace["y"]) == ([1, 2, 4], [0.1, 0.15, 0.4])
    above, below = trace["error_y"]["array"], trace["error_y"]["arrayminus"]
    assert [y + up for y, up in zip(trace["y"], above, strict=True)] == pytest.approx([0.2, 0.3, 0.8])
    assert [y - down for y, down in zip(trace["y"], below, strict=True)] == pytest.approx([0.05, 0.1, 0.3])


def test_the_table_holds_every_number_of_a_small_figure():
    figure = lines([ONE, TWO], LOAD, TTFT, **WORDS)
    assert figure.columns == ("series", "offered rate (requests/s)", "TTFT p90 (s)", "low", "high")
    assert figure.rows[0] == ("round_robin", 1, 0.1, None, None)
    assert figure.rows[5] == ("prefix_exact", 4, 0.4, 0.3, 0.8)
    assert (len(figure.rows), figure.rows_left_out) == (6, 0)


def test_a_long_table_keeps_the_ends_and_says_what_it_left_out():
    count = 1000
    figure = timeseries([Series("queue", range(count), range(count))], Axis("time", "s"), Axis("queue", ""), **WORDS)
    assert len(figure.spec["data"][0]["x"]) == count
    assert (len(figure.rows), figure.rows_left_out) == (TABLE_ROWS_PER_SERIES, count - TABLE_ROWS_PER_SERIES)
    assert (figure.rows[0][1], figure.rows[-1][1]) == (0, count - 1)


def test_two_series_differ_in_more_than_colour():
    first, second = lines([ONE, TWO], LOAD, TTFT, **WORDS).spec["data"]
    assert first["marker"]["symbol"] != second["marker"]["symbol"]
    assert first["line"]["dash"] != second["line"]["dash"]
    groups = bars([Series(n, ["a"], [1]) for n in ("p50", "p99")], Axis("router", ""), TTFT, **WORDS).spec["data"]
    assert groups[0]["marker"]["pattern"]["shape"] != groups[1]["marker"]["pattern"]["shape"]


def test_a_dense_line_carries_no_markers():
    few, many = (
        lines([Series("a", range(n), range(n))], LOAD, TTFT, **WORDS).spec["data"][0]
        for n in (MOST_MARKERS, MOST_MARKERS + 1)
    )
    assert (few["mode"], many["mode"]) == ("lines+markers", "lines")


def test_a_gap_stays_a_gap():
    trace = lines([Series("a", [1, 2, 3], [0.1, None, 0.3])], LOAD, TTFT, **WORDS).spec["data"][0]
    assert trace["y"] == [0.1, None, 0.3]


def test_gantt_bars_start_and_end_where_the_work_did():
    spec = every_kind()["gantt"].spec
    decode = next(trace for trace in spec["data"] if trace["name"] == "decode")
    assert (decode["y"], decode["base"], decode["x"]) == (["worker 1"], [0.25], [0.5])
    assert spec["layout"]["yaxis"]["categoryarray"] == ["worker 0", "worker 1"]
    assert spec["layout"]["yaxis"]["autorange"] == "reversed"


def test_a_mark_on_a_logarithmic_axis_stands_at_its_value():
    layout = every_kind()["cdf"].spec["layout"]
    assert layout["shapes"][0]["x0"] == layout["shapes"][0]["x1"] == 0.2
    assert 10 ** layout["annotations"][0]["x"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("axis", "at_start", "place", "anchor"),
    [("x", False, 1, "top"), ("x", True, 0, "bottom"), ("y", False, 1, "right"), ("y", True, 0, "left")],
)
def test_the_label_of_a_mark_lies_inside_the_picture_at_either_end(axis, at_start, place, anchor):
    label = lines([ONE], LOAD, TTFT, marks=[Mark(2, "SLO", axis, at_start)], **WORDS).spec["layout"]["annotations"][0]
    along, across, side = ("x", "y", "yanchor") if axis == "x" else ("y", "x", "xanchor")
    assert (label[along], label[across], label[side]) == (2, place, anchor)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"alt": " "}, "alt"),
        ({"alt": "a plot"}, "alt"),
        ({"note": ""}, "note"),
        ({"title": ""}, "title"),
        ({"origin": "guessed"}, "origin"),
        ({"marks": [Mark(float("nan"), "SLO")]}, "SLO"),
        ({"marks": [Mark(1.0, "SLO", axis="z")]}, "SLO"),
    ],
)
def test_unusable_words_are_refused(changes, word):
    with pytest.raises(InputError, match=word):
        lines([ONE], LOAD, TTFT, **{**WORDS, **changes})


@pytest.mark.parametrize(
    "series",
    [
        [],
        [Series("a", [], [])],
        [Series("a", [1, 2], [1])],
        [Series("a", [1, 2], [1, 2], low=[1], high=[1, 2])],
        [Series("a", [1, 2], [1, 2], low=[0, 1])],
        [Series("a", [1], [2], low=[2.5], high=[3])],
        [Series("a", [1], [float("inf")])],
        [Series("a", ["one"], [1])],
        [ONE, ONE],
        [Series(str(i), [1], [1]) for i in range(MOST_SERIES + 1)],
    ],
)
def test_unusable_series_are_refused(series):
    with pytest.raises(InputError):
        lines(series, LOAD, TTFT, **WORDS)


def test_zero_on_a_logarithmic_axis_is_refused():
    with pytest.raises(InputError, match="logarithmic"):
        lines([Series("a", [0, 1], [1, 2])], Axis("rate", "1/s", log=True), TTFT, **WORDS)


@pytest.mark.parametrize("shares", [[0.2, 0.1], [0.5, 1.5], [-0.1, 0.5], [0.1, None]])
def test_shares_that_are_not_cumulative_are_refused(shares):
    with pytest.raises(InputError, match="shares"):
        cdf([Series("a", [1, 2], shares)], LOAD, **WORDS)


def test_bars_with_other_categories_are_refused():
    with pytest.raises(InputError, match="category"):
        bars([Series("a", ["x"], [1]), Series("b", ["y"], [1])], Axis("router", ""), TTFT, **WORDS)


def test_horizontal_bars_are_the_same_bars_with_names_on_rows_and_values_to_the_right():
    routers = [
        Series("p50", ["b", "a"], [0.3, 0.4], low=[0.2, 0.3], high=[0.5, 0.7]),
        Series("p90", ["b", "a"], [0.6, None]),
    ]
    words = WORDS | {"marks": [Mark(0.5, "SLO")]}
    flat = bars(routers, Axis("router", ""), TTFT, horizontal=True, **words)
    upright = bars(routers, Axis("router", ""), TTFT, **WORDS)
    for lying, standing in zip(flat.spec["data"], upright.spec["data"], strict=True):
        assert (lying["x"], lying["y"]) == (standing["y"], standing["x"])
        assert lying.get("error_x") == standing.get("error_y") and "error_y" not in lying
        assert lying["orientation"] == "h" and "orientation" not in standing
    layout = flat.spec["layout"]
    assert layout["xaxis"]["title"]["text"] == "TTFT p90 (s)" and layout["xaxis"]["type"] == "linear"
    assert layout["yaxis"]["categoryarray"] == ["b", "a"] and layout["yaxis"]["autorange"] == "reversed"
    assert layout["shapes"][0]["x0"] == 0.5
    assert (flat.columns, flat.rows) == (upright.columns, upright.rows)


def test_a_horizontal_bar_of_zero_is_refused_on_a_logarithmic_axis():
    with pytest.raises(InputError, match="logarithmic"):
        bars([Series("a", ["x"], [0])], Axis("router", ""), Axis("TTFT", "s", log=True), horizontal=True, **WORDS)


def test_horizontal_bars_take_more_room_the_more_they_are():
    few, many = (
        bars([Series("a", [f"{i}" for i in range(n)], range(n))], LOAD, TTFT, horizontal=True, **WORDS) for n in (3, 23)
    )
    assert few.spec["layout"]["height"] < many.spec["layout"]["height"]


@pytest.mark.parametrize("work", [Interval("worker 9", 0, 1, "p"), Interval("worker 0", 2, 1, "p")])
def test_work_on_no_lane_or_backwards_in_time_is_refused(work):
    with pytest.raises(InputError, match="interval"):
        gantt([work], ["worker 0"], Axis("time", "s"), **WORDS)


def test_a_gantt_of_no_work_is_refused():
    with pytest.raises(InputError, match="series"):
        gantt([], ["worker 0"], Axis("time", "s"), **WORDS)


def test_dots_have_a_row_each_and_a_marker_for_each_kind():
    values = [Dot("a", "guess", 6.0), Dot("b", "own run", 3.0), Dot("c", "own run", 4.0)]
    figure = dots(values, Axis("knee", "requests/s"), **WORDS)
    guess, run = figure.spec["data"]
    assert (guess["x"], guess["y"]) == ([6.0], ["a"]) and (run["x"], run["y"]) == ([3.0, 4.0], ["b", "c"])
    assert guess["marker"]["symbol"] != run["marker"]["symbol"]
    assert figure.spec["layout"]["yaxis"]["categoryarray"] == ["a", "b", "c"]
    assert figure.rows == (("a", "guess", 6.0), ("b", "own run", 3.0), ("c", "own run", 4.0))


def test_two_dots_of_one_name_are_refused():
    with pytest.raises(InputError, match="two values are called 'a'"):
        dots([Dot("a", "guess", 6.0), Dot("a", "bound", 3.0)], Axis("knee", "requests/s"), **WORDS)


def test_a_dot_at_zero_is_refused_on_a_logarithmic_axis():
    with pytest.raises(InputError, match="logarithmic"):
        dots([Dot("a", "guess", 0.0)], Axis("ratio", "", log=True), **WORDS)


def test_dots_that_lie_close_together_on_a_logarithmic_axis_have_ticks_between_them():
    near = dots([Dot("a", "guess", 0.8), Dot("b", "guess", 1.25)], Axis("ratio", "", log=True), **WORDS)
    drawn = near.spec["layout"]["xaxis"]
    low, high = (10**end for end in drawn["range"])
    assert (low, high) == pytest.approx((0.4, 2.5))
    shown = [text for tick, text in zip(drawn["tickvals"], drawn["ticktext"], strict=True) if low <= tick <= high]
    assert shown == ["0.5", "1", "2"]


def test_ticks_between_powers_of_ten_are_written_out():
    drawn = lines([Series("a", [6.0, 90.0], [1.0, 2.0])], Axis("x", "ms", log=True), Axis("y", ""), **WORDS,
                  x_axis=whole_ticks((6.0, 90.0))).spec["layout"]["xaxis"]  # fmt: skip
    assert drawn["ticktext"] == ["1", "2", "5", "10", "20", "50", "100", "200", "500"]
    assert drawn["tickvals"] == [float(text) for text in drawn["ticktext"]]
    assert whole_ticks((0.02,))["ticktext"] == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
