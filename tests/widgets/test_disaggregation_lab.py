"""The figures and tables of lab 3 show what they are given, in its order."""

from types import SimpleNamespace

from helpers.metrics.stats import compare
from helpers.widgets import disaggregation_lab as figures


def test_what_is_sent_after_the_prefill_is_exposed():
    """Layers of 2 and 1 s; sent from 2 for 3 s and from 5 for 1 s: until 3 hidden, from 3 to 5 and 5 to 6 exposed."""
    case = SimpleNamespace(compute_s=(2.0, 1.0), transfer_s=(3.0, 1.0), ready_s=[2.0, 3.0])
    spec = figures.hand_offs(case, {"yours": [2.0, 5.0]}).spec
    drawn = {trace["name"]: (list(trace["base"]), list(trace["x"])) for trace in spec["data"]}
    assert drawn == {
        figures.COMPUTED: ([0.0, 2.0], [2.0, 1.0]),
        figures.HIDDEN: ([2.0], [1.0]),
        figures.EXPOSED: ([3.0, 5.0], [2.0, 1.0]),
    }
    assert [shape["x0"] for shape in spec["layout"]["shapes"]] == [3.0]


def test_exactness_has_a_row_for_each_run():
    one = SimpleNamespace(pages_checked=88, pages_wrong=8, logits_error=0.5, tokens_equal=3, requests=8)
    assert figures.exactness({"damaged": one}).rows == [["damaged", "8 of 88", "5.0e-01", "3 of 8"]]


def test_a_duel_shows_both_sides_and_nothing_without_an_answer():
    below, past = (SimpleNamespace(ttft_missed=share, tpot_missed=0.25, ttft_p50_s=1.5) for share in (0.0, 0.75))
    sides = {"split": (None, below, past, {1: 2.0, 2: 3.0}), "together": (None, past, past, {1: 1.0, 2: 1.0})}
    table = figures.duel(sides, (18, 24))
    assert list(table.columns) == ["figure", "split", "together"] and len(table.rows) == 2 + 1 + 2 * 3
    rows = {name: values for name, *values in table.rows}
    assert rows["goodput at the knee, draw 2 (requests/s)"] == ["3.0", "1.0"] and rows["mean of them"] == [
        "2.50",
        "1.00",
    ]
    assert rows["TTFT missed at 18 requests/s"] == ["0%", "75%"] and rows["TPOT missed at 24 requests/s"] == [
        "25%",
        "25%",
    ]
    assert rows["median TTFT at 24 requests/s"] == ["1.50 s", "1.50 s"] and figures.duel(None, (18, 24)).rows == []


def test_links_are_drawn_in_order_with_their_intervals():
    better, worse = compare({1: 3.0, 2: 4.5}, {1: 2.0, 2: 3.0}), compare({1: 1.0, 2: 1.5}, {1: 2.0, 2: 3.0})
    (trace,) = figures.links({50.0: better, 10.0: worse}).spec["data"]
    assert list(trace["x"]) == [10.0, 50.0] and list(trace["y"]) == [-1.25, 1.25]
    assert figures.links({}).rows == []


def test_findings_have_a_column_for_each_arm():
    none = dict.fromkeys(("clock_s", "startup_s", "goodput_per_s", "compared", "equal"))
    first = SimpleNamespace(differs="–", draws=1, **none)
    second = SimpleNamespace(differs="mover", draws=5, **none | {"goodput_per_s": 12.34, "equal": 0})
    table = figures.findings({"a": first, "b": second})
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(table.columns) == ["fact", "a", "b"] and rows["draws"] == ["1", "5"]
    assert rows["goodput at the knee (requests/s), mean"] == ["–", "12.3"] and rows["of them, equal"] == ["–", "0"]
