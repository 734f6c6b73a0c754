"""The figures and tables of lab 2 show what they are given, in its order."""

from types import SimpleNamespace

from helpers.widgets import routers_lab as figures


def seen(met, question):
    return SimpleNamespace(
        met=met, goodput_per_s=1.234, hit_rate=0.5, busiest=1.1, accepted=0.75, in_time=0.9,
        met_of={"question": question, "summary": 0.25},
    )  # fmt: skip


def test_bars_are_the_goodput_of_each_draw():
    figure = figures.goodput_by_draw({"one": {1: 2.0, 2: 3.0}, "other": {1: 4.0, 2: 5.0}}, 1200).spec
    assert [(trace["name"], list(trace["x"]), list(trace["y"])) for trace in figure["data"]] == [
        ("one", ["draw 1", "draw 2"], [2.0, 3.0]),
        ("other", ["draw 1", "draw 2"], [4.0, 5.0]),
    ]


def test_classes_stand_beside_what_was_declared():
    figure = figures.served_by_class({"one": seen(0.5, 0.75), "other": seen(0.5, 0.125)}, 0.65, 1200).spec
    assert [list(trace["y"]) for trace in figure["data"]] == [[0.75, 0.25], [0.125, 0.25]]
    assert [shape["y0"] for shape in figure["layout"]["shapes"]] == [0.65]


def test_tables_have_a_row_for_each_policy():
    looks = {"one": seen(0.5, 0.75), "yours": seen(0.625, 0.5)}
    assert figures.routed(looks, 1200).rows[1] == ["yours", "62.5%", "50.0%", "1.10", "1.23"]
    assert figures.admitted(looks, 1200).rows[0] == ["one", "75.0%", "90.0%", "1.23", "75.0%", "25.0%"]


def test_findings_have_a_column_for_each_run():
    run = SimpleNamespace(
        requests=1000, tick_s=3.0, turned_away=(0.0, 0.5), wait_p90_s=0.25, preemptions=7, twice_tokens=1234,
        lookup_hits=0.5, first_hits=0.25, met=0.75,
    )  # fmt: skip
    table = figures.findings({"a": run, "b": SimpleNamespace(**{**vars(run), "tick_s": None})})
    assert list(table.columns) == ["fact", "a", "b"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["tick of the arrivals"] == ["3 s", "none"] and rows["turned away, second half"] == ["50%", "50%"]
    assert rows["hits of all lookups"] == ["50.0%", "50.0%"] and rows["hits of first lookups"] == ["25.0%", "25.0%"]


def test_a_table_of_live_runs_says_that_there_is_none_yet():
    row = SimpleNamespace(name="TTFT mean", unit="s", live=(0.02, 0.03), simulated=0.025, error=0.25, apart=0.5)
    assert figures.live([]).caption == "No live run yet"
    table = figures.live([row])
    assert "measured" in table.caption and table.rows[0] == ["TTFT mean (ms)", "20", "30", "25", "+25.0%", "50.0%"]
