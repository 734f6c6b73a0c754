"""Records as pages read them, on small ones made by hand."""

import pytest

from helpers.errors import InputError
from helpers.lessons.records import (
    above_zero,
    arms_of,
    below_zero,
    case_of,
    held_against_live,
    live_difference,
    machine_of,
    most_moved,
    paired,
    point_of,
    priced,
    ranking,
    record,
    routed_live,
    with_interval,
    without_term,
)


def arm(name, knees, difference=None):
    rows = [{"seed": seed, "knee": {"rate_per_s": k}, "hit_rate": k / 10} for seed, k in enumerate(knees)]
    return {"arm": name, "replicates": rows, "difference": {"goodput_per_s": difference}}


def test_a_paired_difference_is_by_seed():
    """3 - 2, 5 - 4, 4 - 3: one more in each, so the interval is a point; moved on by a seed it is not."""
    told = {"arms": [arm("a", (3, 5, 4)), arm("b", (2, 4, 3)), arm("c", (3, 2, 4))]}
    found = paired(told, "a", "b")
    assert [found[key] for key in ("mean", "low", "high")] == pytest.approx([1, 1, 1])
    assert above_zero(found) and not below_zero(found)
    moved = paired(told, "a", "c")
    assert moved["mean"] == pytest.approx(1) and not above_zero(moved)
    assert paired(told, "a", "b", "hit_rate")["mean"] == pytest.approx(0.1)
    assert below_zero(paired(told, "b", "a"))


def test_prices_come_back_by_router_in_the_order_of_their_points():
    told = {"arms": [arm(f"{r}, reports every {p} ms", (1,), (r, p)) for r in ("a", "b") for p in (0, 50, 1000)]}
    points, differences = priced(told)
    assert points == [0, 50, 1000] and point_of("front ends: 8") == 8
    assert differences == {"a": [("a", 0), ("a", 50), ("a", 1000)], "b": [("b", 0), ("b", 50), ("b", 1000)]}


def test_a_claim_that_did_not_come_out_is_not_repeated():
    told = {
        "cases": [
            {"name": "yes", "holds": True, "rows": [{"a": 1}, {"a": 2}]},
            {"name": "no", "holds": False, "rows": []},
        ]
    }
    assert case_of(told, "yes") == [{"a": 1}, {"a": 2}] and case_of(told, "yes", a=2) == [{"a": 2}]
    with pytest.raises(InputError, match="did not come out"):
        case_of(told, "no")
    with pytest.raises(InputError, match="no case maybe"):
        case_of(told, "maybe")


def test_words():
    assert with_interval({"mean": 0.0567, "low": 0.05, "high": 0.0633}, 1, 100) == "5.7 (5.0 to 6.3)"
    assert with_interval({"mean": -0.001, "low": -0.006, "high": 0.004}) == "0.00 (-0.01 to 0.00)"


def test_a_record_is_found_by_name():
    assert "round_robin" in arms_of(record("sim_4x1_h100", "routers_generated"))
    with pytest.raises(InputError, match=r"nothing\.json: the data file is missing"):
        record("sim_4x1_h100", "nothing")


def test_arms_are_ranked_by_their_means():
    told = {"arms": [arm("a", (3, 5)), arm("b", (9, 0)), arm("c", (1, 2))]}
    assert ranking(told) == ["c", "a", "b"]  # 1.5, 4, 4.5
    assert ranking({"arms": told["arms"][:2]}) == ["a", "b"]
    other = {"arms": [arm("a", (9, 9)), arm("b", (1, 1)), arm("c", (2, 2))]}  # b, c, a
    assert most_moved(told, other) == 2 and most_moved(told, told) == 0


def held(name, *figures, pairs=()):
    found = [{"name": n, "error": off, "goal": goal, "verdict": said} for n, off, goal, said in figures]
    return {"held_out": [{"name": name, "figures": found}], "order_of_policies": [{"same": one} for one in pairs]}


def test_verdicts_are_counted_over_records_and_the_worst_is_named():
    """Beyond their goals: 0.08 of 0.1, 0.09 of 0.03 (three times), -0.12 of 0.05 (2.4 times). No goal, no verdict."""
    one = held("a", ("TTFT p99", 0.08, 0.1, "inside"), ("TPOT mean", 0.09, 0.03, "missed"), pairs=(True, False))
    two = held("b", ("TTFT mean", -0.12, 0.05, "within noise"), ("TTFT p50", 9.0, None, "no goal"), pairs=(True,))
    found = held_against_live(one, two)
    assert (found.figures, found.inside, found.noise, found.missed) == (3, 1, 1, 1)
    assert (found.pairs, found.same, found.worst) == (3, 2, "TPOT mean of a, +9.0%")
    assert held_against_live(two).worst == "TTFT mean of b, -12.0%"
    assert (found.verdicts, found.rank) == ("1 inside, 1 noise, 1 missed", "2 of 3")


def test_what_a_term_of_the_simulator_does_is_told_where_it_is_furthest_off_without():
    """Three times the goal in b, 2.5 times in a; in c the term makes no difference, and no goal is no example."""
    off = {"a": 0.01, "b": -0.02, "c": 0.5}
    told = {
        name: held(name, ("TTFT mean", error, 0.05, ""), ("TTFT p90", 9.0, None, "")) for name, error in off.items()
    }
    for name, errors in (("a", {"TTFT mean": -0.125, "TTFT p90": -9.0}), ("b", {"TTFT mean": 0.15}), ("c", None)):
        told[name]["held_out"][0]["errors_without"] = {"views": errors} if errors else {}
    said = "TTFT mean of b: +15.0% without, -2.0% with it"
    assert without_term("views", *told.values()) == without_term("views", told["b"]) == said
    assert without_term("views", told["a"], told["c"]).startswith("TTFT mean of a: -12.5%")
    assert without_term("views", *told.values(), of="TTFT mean of a").startswith("TTFT mean of a: -12.5%")
    for nothing in ((), (told["c"],)):
        with pytest.raises(InputError, match="no record has errors without 'views'"):
            without_term("views", *nothing)


def routed(**samples):
    """A record of routers over draws; each arm has a figure with its samples, and is simulated at `said`."""
    points = [
        {"name": f"{who} at 1: {figure}", "samples": list(live), "predicted": {"served": said}, "n": len(live)}
        for who, figures in samples.items()
        for figure, (live, said) in figures.items()
    ]
    pair = {"pair": ["a", "b"], "live": {"mean": -0.1}, "same": True}
    points += [
        {"name": "order at 1: TTFT mean", "told_apart": [pair]},
        {"name": "order at 1: cached", "told_apart": []},
    ]
    return {"device": "GPU", "workers": "2, one GPU each", "parts": {"routers": {"points": points}}}


def test_routers_that_ran_live_are_judged_over_draws_by_the_rule_of_every_fidelity():
    """Of draws of 9, 10 and 11 the mean is 10 +- 4.303 * 1 / sqrt(3), so 7.5 to 12.5: 10.4 is inside 5 %, 12 is not
    but within what the draws leave open, and 13 is missed. A cached share has no goal."""
    draws = (9.0, 10.0, 11.0)
    arms = {
        "a": {"TTFT mean": (draws, 10.4), "cached": ((0.5, 0.6, 0.7), 0.9)},
        "b": {"TTFT mean": (draws, 12.0)},
        "c": {"TTFT mean": (draws, 13.0)},
    }
    found = routed_live(routed(**arms))
    first = {one["name"]: one["figures"][0] for one in found["held_out"]}
    verdicts = {name: one["verdict"] for name, one in first.items()}
    assert verdicts == {"a at 1": "inside", "b at 1": "within noise", "c at 1": "missed"}
    assert first["c at 1"]["error"] == pytest.approx(0.3)
    assert found["held_out"][0]["figures"][1]["verdict"] == "no goal"
    assert (found["repeats"], found["of"], machine_of(found)) == (3, "draws", "2 GPU")
    assert held_against_live(found).verdicts == "1 inside, 1 noise, 1 missed" and held_against_live(found).pairs == 1


def test_a_live_difference_pairs_each_draw_with_itself():
    """1, 2, 6 less 0, 1, 5 is 1 each time, though the means of three draws lie far apart; shuffled it is not."""
    arms = {"a": {"cached": ((1.0, 2.0, 6.0), 1.0)}, "b": {"cached": ((0.0, 1.0, 5.0), 1.0)}}
    found = live_difference(routed_live(routed(**arms)), "a", "b", 1, "cached")
    assert (found["mean"], found["low"], found["high"], found["n"]) == (1.0, 1.0, 1.0, 3)
    arms["b"]["cached"] = ((5.0, 0.0, 1.0), 1.0)
    other = live_difference(routed_live(routed(**arms)), "a", "b", 1, "cached")
    assert other["mean"] == 1.0 and not above_zero(other)
    with pytest.raises(InputError, match=r"no live run of c at 1; there are a at 1, b at 1"):
        live_difference(routed_live(routed(**arms)), "a", "c", 1)


def test_cores_of_a_cpu_are_named_as_such():
    assert machine_of({"device": {"cores": 2, "name": "Some"}}) == "2 cores of Some"
