"""Figures and tables of a recording: what is drawn is what the record says, misses among it."""

import pytest

from helpers.cost.fit import Residuals
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Timeline
from helpers.serving.run import Provenance, Run
from helpers.widgets import recorded
from helpers.widgets.recorded import Goal


def point(name, value, unit, **more):
    return {"name": name, "value": value, "unit": unit, "n": 1} | more


def record(**sections):
    return {"part": "engine", "device": "NVIDIA X1", "parts": {k: {"points": v} for k, v in sections.items()}}


ENGINE = record(
    decode=[
        point("loop", 8.0, "ms/step", n=40, min=7.5, max=8.25, floor=6.0),
        point("share", 0.75, "of copy", target=0.7, met=True),
    ],
    host=[point("time", 0.25, "ms", target=0.4, met=True), point("slow", 0.5, "ms", target=0.4, met=False)],
    peers=[
        point("peer", 1079.16, "output tok/s", n=2, min=1061.5, max=1096.9),
        point("ours / peer", 2.968, "x", target=3.0, met=False),
    ],
)
ROWS = (
    Goal("a step", "decode", "loop", "share"),
    Goal("the host", "host", "time"),
    Goal("a slow host", "host", "slow"),
)
PEER = Goal("the peer", "peers", "ours / peer", peer="peer")
LIMITS = {"decode": "memory", "peers": "not profiled"}


def cells(column, rows=ROWS, told=ENGINE):
    return [row[recorded.GOAL_COLUMNS.index(column)] for row in recorded.goals(told, rows, "goals", LIMITS).rows]


def test_a_row_has_what_was_measured_its_floor_and_its_spread():
    assert cells("what") == ["a step (ms)", "the host (ms)", "a slow host (ms)"]
    assert cells("measured") == ["8", "0.25", "0.5"] and cells("floor") == ["6", "", ""]
    assert cells("N: range") == ["40: 7.5 to 8.25", "1", "1"]
    assert cells("what limits it") == ["memory", "", ""]


def test_what_is_reached_is_the_verdicts_share_or_the_ratio_to_the_floor():
    assert cells("reached") == ["75.0%", "", ""]
    assert cells("reached", [Goal("a step", "decode", "loop")]) == ["75.0%"]  # 6 ms of 8 ms
    rate = record(rates=[point("rate", 300.0, "tok/s", floor=400.0, target=350.0, met=False)])
    assert cells("reached", [Goal("a rate", "rates", "rate")], rate) == ["75.0%"]  # higher is better here


def test_a_miss_is_said_and_the_side_of_a_target_follows_from_its_verdict():
    assert cells("target") == ["≥ 70%: met", "≤ 0.4: met", "≤ 0.4: MISSED"]


def test_a_peer_stands_beside_the_ratio_to_it():
    (row,) = recorded.against(ENGINE, [PEER], "peers", LIMITS).rows
    assert row == ["the peer", "2.968", "≥ 3: MISSED", "1,079", "2: 1,062 to 1,097", "not profiled"]


@pytest.mark.parametrize("row", [Goal("x", "decode", "nothing"), Goal("x", "nowhere", "loop")])
def test_a_point_that_is_missing_is_no_empty_row(row):
    with pytest.raises(InputError, match=r"the record of part 'engine' has no point"):
        cells("measured", [row])


def test_a_point_of_an_earlier_try_does_not_count():
    told = record(decode=[point("loop", 1.0, "ms", kept=True)])
    with pytest.raises(InputError):
        cells("measured", [Goal("x", "decode", "loop")], told)


def step(batch, how, value, floor, n=40):
    return point(f"batch {batch} {how}", value, "ms/step", n=n, floor=floor)


def test_the_floor_is_a_line_and_what_was_measured_has_a_marker_of_its_own():
    told = record(
        decode=[
            *(step(1, "overlapped loop", 6.0, 5.0), step(1, "eager", 16.0, 5.0, n=4)),
            *(step(32, "overlapped loop", 7.5, 6.5), step(32, "eager", 8.0, 6.5, n=8)),
        ]
    )
    figure = recorded.steps_over_batch(told, {1: 0.0055, 32: 0.007}, (1, 32))
    floor, *points = figure.spec["data"]
    assert (floor["mode"], list(floor["x"]), list(floor["y"])) == ("lines", [1, 32], [5.0, 6.5])
    assert floor["name"].endswith(", predicted") and "marker" not in floor
    drawn = {one["name"]: (list(one["y"]), one["mode"], one["marker"]["symbol"]) for one in points}
    assert drawn == {
        "decode step, measured": ([6.0, 7.5], "markers", "square"),
        "launched kernel by kernel, measured": ([16.0, 8.0], "markers", "diamond"),
        "decode step by the data sheet, predicted": ([5.5, 7.0], "markers", "triangle-up-open"),
    }
    assert "medians of 40 steps, kernel by kernel of 4 to 8." in figure.note and "X1," in figure.note
    assert figure.alt.endswith("the smallest batch takes 2.7 times as long.")  # 16 ms of 6


def test_two_predictions_of_another_machine_stand_beside_its_step_with_their_errors():
    slow, fast = point("loop", 6.0, "ms/step", n=40), point("loop", 4.0, "ms/step", n=30, min=3.5, max=4.25)
    table = recorded.carried({1: (slow, fast, 3.0, 4.5), 8: (slow, fast, 4.0, 5.0)}, ("X1", "X2"), "carried over")
    assert table.rows[0] == ["1", "6", "4", "30: 3.5 to 4.25", "3 (-25.0%)", "4.5 (+12.5%)"]
    assert table.rows[1][4:] == ["4 (+0.0%)", "5 (+25.0%)"]
    assert table.columns[1:3] == ("X1: ms, measured", "X2: ms, measured")


def test_what_a_change_brought_stands_beside_what_was_before_a_loss_too():
    before = record(
        decode=[point("loop", 10.0, "ms/step", n=40), point("share", 0.6, "of copy", target=0.7, met=False)]
    )
    table = recorded.tuned(before, ENGINE, "tuned", [Goal("a step", "decode", "loop", "share")])
    assert table.rows == [["a step (ms)", "10", "8", "-20.0%", "40: 7.5 to 8.25", "75.0%", "≥ 70%: met"]]
    (turned,) = recorded.tuned(ENGINE, before, "turned", [Goal("a step", "decode", "loop", "share")]).rows
    assert turned[3] == "+25.0%" and turned[6] == "≥ 70%: MISSED"


def test_a_step_that_is_slower_when_captured_is_drawn_slower():
    def chunk(n, how, value, low, high):
        return point(f"{n} tokens beside 4 decodes, {how}", value, "ms/step", n=10, min=low, max=high, floor=5.0)

    mixed = [chunk(128, "captured", 9.0, 8.0, 9.5), chunk(128, "kernel by kernel", 14.0, 13.0, 22.0)]
    mixed += [chunk(1024, "captured", 28.0, 27.0, 29.0), chunk(1024, "kernel by kernel", 26.0, 25.0, 27.0)]
    floor, captured, one_by_one = recorded.chunks_captured(record(mixed=mixed), (128, 1024), 4).spec["data"]
    assert [list(one["y"]) for one in (floor, captured, one_by_one)] == [[5.0, 5.0], [9.0, 28.0], [14.0, 26.0]]
    assert list(captured["x"]) == ["128", "1,024"]
    assert one_by_one["error_y"]["array"] == [8.0, 1.0] and one_by_one["error_y"]["arrayminus"] == [1.0, 1.0]


def test_kernels_stand_worst_first_under_the_names_of_the_page():
    told = record(kernels=[point("k1", 10.0, "us", of_floor=0.9), point("k2", 20.0, "us", of_floor=0.25)])
    figure = recorded.kernels(told, {"k1": "matrix product", "k2": "attention"})
    assert list(figure.spec["data"][0]["y"]) == ["attention", "matrix product"]
    assert list(figure.spec["data"][0]["x"]) == [0.25, 0.9]
    with pytest.raises(InputError):
        recorded.kernels(told, {"k3": "norm"})


def run(kind, *ttfts_s):
    served = [
        Timeline(i, 1.0, 8, 2, "finished", prefill_worker=0, first_token_s=1.0 + ttft, finished_s=9.0)
        for i, ttft in enumerate(ttfts_s)
    ]
    rejected = Timeline(9, 1.0, 8, 2, "rejected", reason="full")
    made = Provenance(kind, "x", "c", "0" * 40, "m", (0,), "w", "d", (), {}, {}, {})
    return Run(EventLog((*served, rejected), (), (), 9.0, {}), made, 1.0)


def test_the_engine_and_the_simulator_are_drawn_and_named():
    figure = recorded.beside_engine(run("measured", 0.5, 1.5), {"served steps": run("simulated", 0.25, 1.0)}, "0.95")
    engine, simulated = figure.spec["data"]
    assert (engine["name"], simulated["name"]) == ("engine, measured", "served steps, simulated")
    assert (min(engine["x"]), max(engine["x"])) == (0.5, 1.5) and (min(simulated["x"]), max(simulated["x"])) == (
        0.25,
        1,
    )
    assert figure.note.startswith("Measured. N = 2 requests")


def test_errors_stand_below_what_they_are_errors_of():
    points = [
        point("TTFT mean", 0.0409, "s", n=555, errors={"served": -0.115, "designed": -0.27}),
        point("throughput", 4171.1, "output tok/s", n=555, errors={"served": 0.006, "designed": -0.023}),
    ]
    table = recorded.served(record(**{"none at 0.7": points}), ["none at 0.7"], ("served", "designed"), "errors")
    measured, served, designed = table.rows
    assert table.columns[3] == "TTFT mean (ms)"
    assert measured == ["none at 0.7", "555", "measured", "40.9", "", "", "4,171"]
    assert served == ["", "", "simulated, served", "-11.5%", "", "", "+0.6%"]
    assert designed == ["", "", "simulated, designed", "-27.0%", "", "", "-2.3%"]


def test_each_cost_has_its_own_column():
    found = {
        "served": [Residuals("decode", 7, 0.01, 0.02, -0.003)],
        "designed": [Residuals("decode", 7, 0.05, 0.1, 0.04)],
    }
    table = recorded.costs({"under load": found}, "costs")
    assert table.rows == [["under load: decode", "7", "-0.3% (1.0%)", "+4.0% (5.0%)"]]
    assert list(table.columns[2:]) == ["served: mean (median size)", "designed: mean (median size)"]


def test_an_origin_names_device_driver_commit_and_command():
    told = record() | {
        "gpu": {"driver_version": "580", "power.limit": "700 W"},
        "versions": {"torch": "2.11", "triton": "3.6"},
        "made": "2026-11-25T18:50:34+00:00",
        "commit": "9824d35f801fb49518dcbdc8a545bceb692b971f",
        "command": "hybrid-serving record",
    }
    ((name, origin, command),) = recorded.origins({"engine": told}).rows
    assert (name, command) == ("engine", "hybrid-serving record")
    for word in ("X1", "driver 580", "700 W", "torch 2.11", "2026-11-25T18:50", "9824d35f801f"):
        assert word in origin
    with pytest.raises(KeyError):
        recorded.origins({"engine": {k: v for k, v in told.items() if k != "commit"}})
