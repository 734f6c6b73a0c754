"""The tables of a fidelity: errors with their signs, and a miss that says so."""

from helpers.widgets.fidelity import TOGETHER, contest, error, fidelity, ms, routed

GOAL = {"TTFT mean": 0.05, "TPOT mean": 0.03, "throughput": 0.02, "TTFT p99": 0.1}


def figure(name, off, verdict, mean=0.02):
    live = {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean}
    common = {"name": name, "live": live, "error": off, "live_error": 0.05, "verdict": verdict, "goal": GOAL.get(name)}
    return common | {"simulated": mean + off if name not in GOAL else mean * (1 + off)}


def record(*configurations):
    return {"repeats": 5, "held_out": [{"name": name, "figures": list(figures)} for name, figures in configurations]}


def plain(table):
    """The rows with ordinary spaces."""
    return [[cell.replace(TOGETHER, " ") for cell in row] for row in table.rows]


THREE = (figure("TTFT mean", 0.012, "inside"), figure("TPOT mean", -0.2, "missed"), figure("throughput", 0.0, "inside"))
SHARES = (figure("attainment", -0.25, "no goal", 0.75), figure("rejected", 0.125, "no goal", 0.0))


def test_a_row_has_every_goal_and_a_miss_says_so():
    table = fidelity(record(("a", THREE), ("b", (*THREE, figure("TTFT p99", 0.3, "within noise")))), "live")
    first, second = plain(table)
    assert table.caption == "live: live (measured; mean, ± 95 %) beside simulated with its error, 5 runs each"
    assert first[1] == "20.0 ± 2.0"
    assert first[2:] == ["+1.2% (live 5.0%)", "-20.0% (live 5.0%), missed", "+0.0% (live 5.0%)", ""]
    assert second[-1] == "+30.0% (live 5.0%), noise"
    assert table.columns[2:] == [f"{name}: error, goal {goal:.0%}" for name, goal in GOAL.items()]


def test_an_arm_has_live_and_simulated_side_by_side():
    """20 ms live and 1.2 % more simulated: 20.24. Of all, 75 % in time live and 25 points fewer simulated."""
    target = {"target": "routers:some_question", **record(("turns", (*THREE, *SHARES)))}
    table = contest({"targets": [target, target]}, "live")
    assert len(table.rows) == 2
    assert plain(table)[0] == [
        "some question: turns",
        "20.0 ± 2.0",
        "20.2: +1.2%",
        "20.0 ± 2.0",
        "16.0: -20.0%, missed",
        "75 / 50",
        "0 / 12",
    ]


def test_control_what_is_inside_says_nothing_and_what_is_not_does():
    assert "missed" not in error(figure("TTFT mean", 0.012, "inside"))
    assert error(figure("TTFT mean", 0.012, "missed")).endswith("missed")


def test_routers_on_gpus_have_the_interval_of_their_draws_and_the_verdict_of_the_simulator():
    """20 ms live and 10 % more simulated: 22. Half of the tokens cached, and a quarter more simulated."""
    figures = (figure("TTFT mean", 0.1, "within noise"), figure("TPOT mean", -0.2, "missed"))
    told = record(("turns at 0.7", (*figures, figure("cached", 0.25, "no goal", 0.5)))) | {"repeats": 3, "of": "draws"}
    table = routed(told, "live")
    assert table.caption == "live: live (measured; mean, ± 95 %) beside simulated with its error, 3 draws each"
    cells = ["20.0 ± 2.0", "22.0: +10.0%, noise", "20.0 ± 2.0", "16.0: -20.0%, missed", "50.0 / 75.0"]
    assert plain(table) == [["turns at 0.7", *cells]]


def test_what_is_a_tenth_of_a_second_and_more_has_no_decimals():
    assert [ms(seconds) for seconds in (0.00926, 0.0999, 0.1, 1.2426)] == ["9.3", "99.9", "100", "1243"]
