"""The table of a fidelity: errors with their signs, and a miss that says so."""

from helpers.widgets.fidelity import cell, fidelity


def figure(name, error, verdict, mean=0.02):
    live = {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean}
    return {"name": name, "live": live, "error": error, "live_error": 0.05, "verdict": verdict}


def record(*configurations):
    return {"held_out": [{"name": name, "figures": list(figures)} for name, figures in configurations]}


THREE = (figure("TTFT mean", 0.012, "inside"), figure("TPOT mean", -0.2, "missed"), figure("throughput", 0.0, "inside"))


def test_a_row_has_every_goal_and_a_miss_says_so():
    table = fidelity(record(("a", THREE), ("b", (*THREE, figure("TTFT p99", 0.3, "within noise")))), "live")
    first, second = table.rows
    assert first[1] == "20.0 (18.0 to 22.0)"
    assert first[2:] == ["+1.2% (live 5.0%)", "-20.0% (live 5.0%), missed", "+0.0% (live 5.0%)", ""]
    assert second[-1] == "+30.0% (live 5.0%), within noise"


def test_control_what_is_inside_says_nothing_and_what_is_not_does():
    assert "missed" not in cell(figure("TTFT mean", 0.012, "inside"))
    assert cell(figure("TTFT mean", 0.012, "missed")).endswith("missed")
