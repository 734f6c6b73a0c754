"""Choices by records, on small ones made by hand: a choice stands only where its record shows it, whichever way."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.lessons.choice import Choice, Evidence, Figure, at_knee, decide, in_case, live, priced, since

UP = {"mean": 2.0, "low": 1.0, "high": 3.0, "n": 5}
DOWN = {"mean": -2.0, "low": -3.0, "high": -1.0, "n": 5}
LEVEL = {"mean": 1.0, "low": -1.0, "high": 3.0, "n": 5}
MORE, LESS = Figure("goodput"), Figure("TTFT", "ms", 1e3, 1, less=True)


def evidence(found, figure=MORE, first="a", second="b"):
    return Evidence(first, second, found, figure, "simulated, 5 draws")


def test_who_is_better_depends_on_the_sign_and_on_whether_less_is():
    assert [evidence(one).better for one in (UP, DOWN, LEVEL)] == ["a", "b", None]
    assert [evidence(one, LESS).better for one in (UP, DOWN, LEVEL)] == ["b", "a", None]


def test_evidence_says_what_won_where_and_how_it_is_known():
    """2 s are 2,000 ms; the interval goes along."""
    assert str(evidence(UP)) == "wins: goodput 2.00 (1.00 to 3.00) requests/s against b; simulated, 5 draws"
    late = replace(evidence(UP, LESS), where="load 1")
    assert str(late) == "loses: TTFT 2000.0 (1000.0 to 3000.0) ms against b, load 1; simulated, 5 draws"
    assert str(evidence(LEVEL)).startswith("is not told apart: ")


@pytest.mark.parametrize(
    ("because", "against", "stands"),
    [
        (UP, DOWN, True),
        (UP, LEVEL, True),
        (DOWN, DOWN, False),  # arms swapped
        (LEVEL, DOWN, False),  # nothing shown
        (UP, UP, False),  # what is called a change changes nothing
    ],
)
def test_a_choice_stands_where_its_record_shows_it_and_the_change_takes_it_away(because, against, stands):
    assert Choice("some traffic", evidence(because), "a change", evidence(against)).borne_out is stands


def test_both_columns_of_a_row_are_about_one_policy():
    (one,) = decide({"traffic": evidence(UP)}, {"change": evidence(DOWN, second="c")})
    assert (one.take, one.traffic, one.change, one.against.second) == ("a", "traffic", "change", "c")
    with pytest.raises(InputError, match="takes a, but what would change it is about c"):
        decide({"traffic": evidence(UP)}, {"change": evidence(DOWN, first="c")})
    with pytest.raises(ValueError, match="shorter"):
        decide({"traffic": evidence(UP)}, {})


def arm(name, values):
    rows = [{"seed": seed, "knee": {"rate_per_s": v}, "goodput_per_s": v} for seed, v in enumerate(values)]
    return {"arm": name, "replicates": rows}


def test_knees_are_paired_by_seed():
    """3 - 2, 5 - 4, 4 - 3: one more in each draw; with the seeds moved on nothing is shown."""
    told = {"arms": [arm("a", (3, 5, 4)), arm("b", (2, 4, 3)), arm("moved", (4, 3, 2))]}
    found = at_knee(told, "a", "b")
    assert (found.better, found.found["mean"], found.made) == ("a", 1.0, "simulated, 3 draws")
    assert at_knee(told, "b", "a").better == "a" and at_knee(told, "a", "moved").better is None


def test_a_price_is_read_at_a_point_and_since_when_it_is_paid():
    """`b` is behind by 1 with live reports, level at 50 ms, and 1 ahead from 100 ms on."""
    by_age = {0: (1, 1.1, 0.9), 50: (2.5, 1.5, 2), 100: (3, 3.1, 2.9)}
    told = {"arms": [arm(f"a, reports every {age} ms", (2, 2, 2)) for age in by_age]}
    told["arms"] += [arm(f"b, reports every {age} ms", values) for age, values in by_age.items()]
    assert [priced(told, age, "a", "b").better for age in by_age] == ["a", None, "b"]
    assert priced(told, 100, "a", "b").where == "reports every 100 ms"
    assert (since(told, "b", "a"), since(told, "a", "b")) == (100, 0)
    with pytest.raises(InputError, match="no point 10; it has 0, 50, 100"):
        priced(told, 10, "a", "b")
    with pytest.raises(InputError, match="a is nowhere shown"):
        since({"arms": told["arms"][1:2] + told["arms"][4:5]}, "a", "b")


def test_a_case_knows_differences_to_its_baseline_in_both_directions():
    rows = [{"arm": name, "difference_per_s": one} for name, one in (("none", None), ("a", UP), ("b", LEVEL))]
    assert in_case(rows, "a", "none").found == UP
    turned = in_case(rows, "none", "a")
    assert (turned.found, turned.better) == (DOWN, "a")
    for pair in (("a", "b"), ("none", "none")):
        with pytest.raises(InputError, match="not paired in this case"):
            in_case(rows, *pair)
    sent = [{**row, "rate_per_s": 6.0} for row in rows]
    assert (in_case(sent, "a", "none").where, in_case(rows, "a", "none").where) == ("6 requests/s sent", "")


def held(load="", **samples):
    return [
        {
            "name": name + load,
            "figures": [{"name": "TTFT mean", "samples": ttft}, {"name": "attainment", "samples": met}],
        }
        for name, (ttft, met) in samples.items()
    ]


def test_live_runs_say_on_what_they_ran_and_the_shorter_wait_wins():
    """0.2 s in each run, but a share that changes sides."""
    arms = {"a": ((0.3, 0.5, 0.4), (0.9, 0.7, 0.8)), "b": ((0.1, 0.3, 0.2), (0.8, 0.9, 0.8))}
    cores = {"device": {"cores": 2, "name": "Some"}, "held_out": held(**arms)}
    found = live(cores, "a", "b")
    assert str(found) == "loses: TTFT 200.0 (200.0 to 200.0) ms against b; measured on 2 cores of Some, 3 runs"
    assert live(cores, "b", "a").better == "b" and live(cores, "a", "b", of="attainment").better is None
    gpus = {"device": "GPU", "workers": "2, one GPU each", "of": "draws", "held_out": held(" at 0.7", **arms)}
    assert str(live(gpus, "a", "b", 0.7)).endswith(" against b, load 0.7; measured on 2 GPU, 3 draws")
    with pytest.raises(InputError, match=r"no live run of a at 1; there are a at 0\.7, b at 0\.7"):
        live(gpus, "a", "b", 1)
