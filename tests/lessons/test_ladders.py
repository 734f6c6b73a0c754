"""The readers of live records: the right runs, the right spread, and no page over a record that is not sound."""

from copy import deepcopy

import pytest

from helpers.bench.fidelity.compared import INSIDE
from helpers.bench.record.files import read_record
from helpers.errors import InputError
from helpers.lessons import ladders
from helpers.paths import data_file


def arm(name, ttft, exposed=None):
    return {"arm": name, "samples": {"ttft_mean_s": ttft, "tokens_per_s": [9.0] * 3, "exposed_mean_s": exposed or []}}


TARGETS = {
    "targets": [
        {"target": "disagg:another", "sound": True},
        {
            "target": ladders.TARGET,
            "sound": True,
            "seeds": [0, 1, 4],
            "checks": [{"name": "answers", "passed": True}],
            "controls": [{"name": "slow link", "passed": True}],
            "scenarios": [
                {
                    "name": "ladder",
                    "arms": [arm("together", [1.0, 2.0, 3.0]), arm("synced", [2.0, 4.0, None], [0.5, 0.5, 0.2])],
                }
            ],
        },
    ]
}


def test_a_ladder_of_targets_by_seed_in_the_order_of_the_rungs():
    found = ladders.ladder_of_targets(TARGETS)
    assert list(found) == ["synced", "together"]
    assert found["synced"].samples == {"ttft_mean_s": {0: 2.0, 1: 4.0}, "exposed_mean_s": {0: 0.5, 1: 0.5, 4: 0.2}}
    later = ladders.Rung("later", {"ttft_mean_s": {4: 3.5, 0: 2.0, 1: 4.0}})
    assert later.less(found["together"], "ttft_mean_s").difference.mean == pytest.approx((1 + 2 + 0.5) / 3)
    with pytest.raises(InputError, match="4 in one arm only"):
        found["synced"].less(found["together"], "ttft_mean_s")
    with pytest.raises(InputError, match=r"\[2, 3\] draws"):
        ladders.draws(found)
    assert ladders.draws({"together": found["together"]}) == 3


def test_three_draws_have_an_interval_and_two_a_range():
    """Of 1, 2, 3 the deviation is 1, and t with two degrees of freedom 4.303: 2 -+ 4.303 / sqrt(3) = 2 -+ 2.484."""
    found = ladders.ladder_of_targets(TARGETS)
    over = found["together"].over("ttft_mean_s")
    assert (over.mean, over.n) == (2.0, 3) and over.low == pytest.approx(2 - 2.484, abs=1e-3)
    two = found["synced"].over("ttft_mean_s")
    assert (two.mean, two.low, two.high, two.n) == (3.0, 2.0, 4.0, 2)
    assert found["together"].over("exposed_mean_s") is None


def test_a_record_that_is_not_sound_is_no_page():
    spoiled = deepcopy(TARGETS)
    spoiled["targets"][1] |= {"sound": False, "controls": [{"name": "slow link", "passed": False}]}
    with pytest.raises(InputError, match=r"not sound \(slow link\)"):
        ladders.ladder_of_targets(spoiled)
    with pytest.raises(InputError, match="it has disagg:another"):
        ladders.ladder_of_targets({"targets": TARGETS["targets"][:1]})


def point(name, ttft, **more):
    run = {"ttft_mean_s": ttft, "exposed_mean_s": None, "moved_gb": 1.0}
    return {"name": name, "arm": name.partition(",")[0].partition(":")[0], "run": run, **more}


RECORDING = {
    "parts": {
        "ladder": {
            "points": [
                {"name": "workers started", "value": 9.0},
                point("synced: first use", 90.0),
                point("synced, seed 0", 1.0),
                point("synced, seed 1", 3.0),
                point("together, seed 1", 2.0),
                point("together, seed 0", 2.5),
                point("together, seed 2", 70.0, kept=True),
                point("together, seed 3", 80.0, failed="it hung"),
            ]
        }
    }
}


def test_a_ladder_of_a_recording_has_only_what_was_measured_then():
    found = ladders.ladder_of_recording(RECORDING)
    assert {name: rung.samples for name, rung in found.items()} == {
        "synced": {"ttft_mean_s": {0: 1.0, 1: 3.0}},
        "together": {"ttft_mean_s": {1: 2.0, 0: 2.5}},
    }
    assert ladders.draws(found) == 2
    with pytest.raises(InputError, match="no runs in 'rival'"):
        ladders.ladder_of_recording(RECORDING, "rival")


def run(split, mover, tamper="", lose="", wrong=0, error=1e-7, equal=8, wanted=True):
    return {
        "split": split, "mover": mover, "tamper": tamper, "lose": lose, "pages_checked": 40, "pages_wrong": wrong,
        "logits_error": error, "tokens_equal": equal, "requests": 8, "as_wanted": wanted,
    }  # fmt: skip


ARMS = [
    run("1P1D", "blocking"),
    run("1P1D", "layerwise", error=3e-7),
    run("2P2D", "blocking", error=2e-7),
    run("1P1D", "blocking", "zero_cache", wrong=40, error=1.0, equal=0),
    run("2P2D", "blocking", lose="decode"),
]


def test_exactness_is_summed_by_split_with_the_largest_error():
    rows = ladders.exactness({"arms": ARMS})
    assert [row.name for row in rows] == [
        "1P1D, each of 2 movers",
        "2P2D, each of 1 movers",
        "2P2D, a decode worker killed",
        "control: zero cache",
    ]
    first, last = rows[0], rows[-1]
    assert (first.pages_checked, first.pages_wrong, first.tokens_equal, first.requests) == (80, 0, 16, 16)
    assert first.logits_error == 3e-7 and (last.pages_wrong, last.tokens_equal) == (40, 0)


@pytest.mark.parametrize("at", range(5))
def test_one_run_that_did_not_come_out_stops_the_page(at):
    spoiled = [dict(one) for one in ARMS]
    spoiled[at]["as_wanted"] = False
    with pytest.raises(InputError, match="did not come out for"):
        ladders.exactness({"arms": spoiled})


def test_a_request_that_was_lost_stops_the_page():
    cases = [{"case": "nothing fails", "sound": True}, {"case": "a slow link", "sound": True}]
    assert ladders.faults({"cases": cases}) == cases
    with pytest.raises(InputError, match="a slow link"):
        ladders.faults({"cases": [cases[0], {"case": "a slow link", "sound": False}]})


def test_only_split_fleets_are_kept_and_the_furthest_error_is_named():
    def row(fleet, *errors):
        return {"fleet": fleet, "figures": [{"name": "TTFT mean", "error": e} for e in errors]}

    record = {"held_out": [row("2", 0.9), row("1P1D", 0.1), row("1P1D", -0.35)], "repeats": 4, "more": 1}
    found = ladders.split_rows(record)
    assert found == {"held_out": record["held_out"][1:], "repeats": 4}
    assert ladders.furthest(found, "TTFT mean") == "-35%"
    assert ladders.furthest({"held_out": [row("2", -0.003, 0.002)]}, "TTFT mean", digits=1) == "-0.3%"
    with pytest.raises(InputError, match="no split fleet"):
        ladders.split_rows({"held_out": record["held_out"][:1], "repeats": 4})


def test_a_page_may_say_that_all_goals_are_missed_only_where_all_are():
    def record(*verdicts):
        figures = [{"name": name, "verdict": v} for name, v in zip(("TTFT mean", "TPOT mean"), verdicts, strict=True)]
        return {"held_out": [{"figures": figures}, {"figures": [{"name": "TTFT mean", "verdict": "missed"}]}]}

    both = "TTFT mean", "TPOT mean"
    assert ladders.all_missed(record("missed", "missed"), *both)
    assert not ladders.all_missed(record("missed", "within noise"), *both)
    assert ladders.all_missed(record("missed", "within noise"), "TTFT mean")
    with pytest.raises(InputError, match="has no throughput"):
        ladders.all_missed(record("missed", "missed"), "throughput")


def test_how_short_steps_are_is_said_where_those_of_every_slice_are():
    def record(*errors):
        return {"steps_by_the_cost": {str(i): {"served": {"prefill": e, "decode": 0.5}} for i, e in enumerate(errors)}}

    assert ladders.short(record(-0.045, -0.0241), "prefill") == "2.4% to 4.5%"
    for control in (record(-0.045, 0.01), record()):
        with pytest.raises(InputError, match="prefill steps are not too short"):
            ladders.short(control, "prefill")


def test_means_in_words_have_the_digits_that_they_deserve():
    assert ladders.in_words(ladders.Spread(0.0016, 0, 0, 2), ladders.Spread(0.1637, 0, 0, 2)) == ["1.6 ms", "164 ms"]


def test_higher_is_shown_by_paired_draws_or_by_all_of_a_few():
    """Differences of 1, 1, 1.1 exclude 0 although the ranges overlap; 2 and 4 against 1 and 3 show nothing."""

    def rung(*values):
        return ladders.Rung("planted", {"ttft_mean_s": dict(enumerate(values))})

    assert rung(2, 3, 4.1).is_above(rung(1, 2, 3), "ttft_mean_s")
    assert not rung(1, 2, 3).is_above(rung(2, 3, 4.1), "ttft_mean_s")
    assert not rung(2, 1, 4).is_above(rung(1, 2, 3), "ttft_mean_s")
    assert not rung(2, 4).is_above(rung(1, 3), "ttft_mean_s")
    assert rung(3.5, 4).is_above(rung(1, 3), "ttft_mean_s")


def test_a_page_says_when_few_draws_do_not_show_what_the_means_say():
    def rung(*values):
        return ladders.Rung("planted", {"ttft_mean_s": dict(enumerate(values))})

    assert ladders.unless_above(rung(3.5, 4), rung(1, 3), "ttft_mean_s") == ""
    assert ladders.unless_above(rung(2, 4), rung(1, 3), "ttft_mean_s") == " (not shown by 2 draws)"
    with pytest.raises(InputError, match="is not above that of planted"):
        ladders.unless_above(rung(1, 3), rung(2, 4), "ttft_mean_s")


def test_a_split_that_was_missed_is_inside_by_what_is_learnt_of_it_now():
    """Controls: of workers that do both nothing else is learnt, so that their errors stay; p50 has no goal."""
    record = read_record(data_file("packs", "2x_h200", ladders.FIDELITY))["parts"]
    assert ladders.all_missed(record["1P1D"], "TTFT mean")
    now = ladders.learnt_anew("2x_h200", "1P1D", "TTFT mean")
    assert [one.verdict for one in now] == [INSIDE, INSIDE]
    words = ladders.inside_now("2x_h200", "1P1D", "TTFT mean")
    assert [float(one) for one in words.replace("%", "").split(" and ")] == [round(100 * one.error, 1) for one in now]
    with pytest.raises(InputError, match="TTFT p50 of 1P1D is not within its goal everywhere"):
        ladders.inside_now("2x_h200", "1P1D", "TTFT p50")
    both = ladders.learnt_anew("2x_h200", "two workers", "TTFT mean")
    kept = [f["error"] for row in record["two workers"]["held_out"] for f in row["figures"] if f["name"] == "TTFT mean"]
    assert [one.error for one in both] == pytest.approx(kept, abs=2e-4)
