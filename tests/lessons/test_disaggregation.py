"""The judges of lab 3: starts worked by hand, splits held against fair rivals, and flaws that are in the runs."""

from dataclasses import replace
from statistics import fmean

import pytest

from helpers.cost.calibration import COEFFICIENTS, DESIGNED, SERVED, read_cost
from helpers.errors import InputError
from helpers.lessons import disaggregation as lab
from helpers.lessons import hand_off, split_choice
from helpers.lessons import split_reports as files
from helpers.lessons.building import LABS
from helpers.lessons.hand_off import Case
from helpers.lessons.live_hand_off import LINK_SHARE, live
from helpers.lessons.split_choice import DRAWS, FIGURES, GPUS, Setup
from helpers.lessons.verdict import NOT_YET, Unanswered
from helpers.metrics.stats import compare
from helpers.paths import ROOT

FLEET = {"split": "2P2D", "chunk_tokens": 2048, "router": "least_tokens"}
RIVAL = {"workers": 4, "chunk_tokens": 256, "router": "least_tokens"}
DEFENCE = {"rival": RIVAL, "figure": FIGURES[0], "draws": list(DRAWS)}


def starts(compute_s, transfer_s):
    return hand_off.right_starts(Case(tuple(compute_s), tuple(transfer_s)))


def exposed(starts_s, compute_s, transfer_s):
    return starts_s[-1] + transfer_s[-1] - sum(compute_s)


# Part 1


def test_starts_and_exposed_time_by_hand():
    """Layers take 2, 1, 1 s to compute and 1, 3, 1 s to send: ready at 2, 3, 4; sent at 2, 3, 6; the last arrives at
    7, and 7 - 4 = 3 s are exposed. Blocking, 1 + 3 + 1 = 5 s are."""
    case = Case((2.0, 1.0, 1.0), (1.0, 3.0, 1.0))
    assert hand_off.right_starts(case) == [2.0, 3.0, 6.0]
    assert hand_off.right_exposed_s(case) == 3.0
    blocking = hand_off.blocking_starts(case.compute_s, case.transfer_s)
    assert blocking == [4.0, 5.0, 8.0]
    assert exposed(blocking, case.compute_s, case.transfer_s) == 5.0


@pytest.mark.parametrize("bytes_per_s", [1e9, 4e9, hand_off.CARD_BYTES_PER_S, 100e9])
def test_equal_layers_agree_with_the_closed_form(bytes_per_s):
    found = hand_off.exposed_s(starts, exposed, bytes_per_s)
    assert found == pytest.approx(hand_off.bound_s(bytes_per_s))
    whole_s = sum(hand_off.prompt_case(bytes_per_s).transfer_s)
    assert whole_s == pytest.approx(8192 * 131_072 / bytes_per_s) and found < whole_s


def test_a_right_hand_off_passes_and_blocking_does_not():
    assert hand_off.judge_hand_off(starts, exposed) is None
    assert "waits for the whole prefill" in hand_off.judge_hand_off(hand_off.blocking_starts, exposed)
    assert "waits for the whole prefill" not in hand_off.judge_hand_off(
        lambda compute_s, transfer_s: [one + 1e-4 for one in starts(compute_s, transfer_s)], exposed
    )


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda c, t: [sum(t[:i]) for i in range(len(t))], "before it is computed"),
        (lambda c, t: [sum(c[: i + 1]) for i in range(len(c))], "while the link is busy with layer"),
        (lambda c, t: starts(c, t)[::-1], "it carries one at a time"),
        (lambda c, t: [one + 0.01 for one in starts(c, t)], "the link is idle"),
        (lambda c, t: starts(c, t)[:-1] or None, "return a list"),
        (lambda c, t: [float("nan")] * len(c), "every start is a number"),
        (lambda c, t: 0.0, "return a list"),
    ],
)
def test_wrong_starts_are_told_why(wrong, hint):
    assert hint in hand_off.judge_hand_off(wrong, exposed)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda s, c, t: s[-1] - sum(c), "last layer is left out"),
        (lambda s, c, t: sum(t), "that is the whole transfer"),
        (lambda s, c, t: s[-1] + t[-1], "from the start of the prefill"),
        (lambda s, c, t: max(0.0, sum(t) - sum(c)), "two sums do not tell it"),
        (lambda s, c, t: t[-1], "when has the last layer arrived"),
        (lambda s, c, t: None, "return a number of seconds"),
    ],
)
def test_wrong_exposed_times_are_told_why(wrong, hint):
    assert hint in hand_off.judge_hand_off(starts, wrong)


def test_a_stub_is_unanswered_and_draws_no_schedule():
    with pytest.raises(Unanswered):
        hand_off.judge_hand_off(lambda c, t: NOT_YET, exposed)
    assert set(hand_off.schedules(lambda c, t: NOT_YET)[1]) == {"blocking"}
    assert set(hand_off.schedules(starts)[1]) == {"blocking", "yours"}
    assert set(hand_off.schedules(lambda c, t: c[99])[1]) == {"blocking"}


def test_the_cases_are_the_same_each_time_and_of_many_sizes():
    assert hand_off.cases() == hand_off.cases()
    assert {len(case.compute_s) for case in hand_off.cases()} == set(range(1, 13))


def test_frozen_step_times_are_those_of_the_record():
    found = read_cost(ROOT / "data/packs/h100_80gb_hbm3/engine_llama-8b_serve.json", SERVED)
    for name in COEFFICIENTS:
        assert getattr(hand_off.COST, name) == pytest.approx(getattr(found, name), rel=0.05)
    designed = read_cost(ROOT / "data/packs/h100_80gb_hbm3/engine_llama-8b_calibrate.json", DESIGNED)
    assert hand_off.COST.per_prefill_token_s != pytest.approx(designed.per_prefill_token_s, rel=0.05)  # the control


# Part 2


def test_the_draws_are_the_frozen_ones(monkeypatch):
    assert tuple(split_choice.FROZEN) == DRAWS
    for seed in DRAWS:
        assert len(split_choice.draw(seed)) == split_choice.REQUESTS
    monkeypatch.setitem(split_choice.FROZEN, 1, "0" * 16)
    with pytest.raises(InputError, match="not the frozen one"):
        split_choice.draw.__wrapped__(1)


def test_the_split_of_the_solution_is_right_and_no_other_split_is():
    assert lab.judge_split(FLEET, DEFENCE) is None
    for split in ("1P3D", "3P1D"):
        assert lab.judge_split(FLEET | {"split": split}, DEFENCE) is not None


@pytest.mark.parametrize(
    ("own", "defence", "hint"),
    [
        ({"split": "3P3D"}, {}, "unequal GPUs: the split has 6"),
        ({}, {"rival": RIVAL | {"workers": 2}}, "unequal GPUs: the rival has 2"),
        ({}, {"figure": FIGURES[1]}, "past the knees of both"),
        ({"split": "3P1D"}, {}, "too few workers decode"),
        ({"split": "1P3D"}, {}, "too few workers prefill"),
        ({"chunk_tokens": 512}, {}, "each chunk costs a step"),
        ({"router": "round_robin"}, {}, "does not look at how long"),
        ({}, {"rival": RIVAL | {"chunk_tokens": 2048}}, "too large"),
        ({}, {"rival": RIVAL | {"router": "round_robin"}}, "the router that you would give yourself"),
        ({}, {"draws": [1]}, "one draw has no interval"),
        ({}, {"draws": [1, 1, 1, 1, 1]}, "one draw has no interval"),
        ({"chunk_tokens": 100}, {}, "chunk_tokens is 100"),
        ({"split": "four"}, {}, "write prefill and decode workers like 2P2D"),
        ({}, {"figure": "TPOT"}, "the figure is one of"),
        ({}, {"draws": [7]}, "the draws are some of"),
        ({}, {"draws": "all"}, "the draws are some of"),
        ({"chunk_tokens": "2048"}, {}, "chunk_tokens is '2048'"),
        ({}, {"rival": RIVAL | {"chunk_tokens": "256"}}, "the rival's chunk_tokens is '256'"),
    ],
)
def test_a_weak_defence_is_told_why(own, defence, hint):
    assert hint in lab.judge_split(FLEET | own, DEFENCE | defence)


def test_an_empty_answer_is_unanswered_and_draws_nothing():
    empty = DEFENCE | {"rival": dict.fromkeys(RIVAL, NOT_YET)}
    with pytest.raises(Unanswered):
        lab.judge_split(FLEET, empty)
    assert lab.duel(FLEET, empty) is None
    assert lab.over_links(dict.fromkeys(FLEET, NOT_YET), [10.0]) == {}


def test_a_fleet_or_a_threshold_that_cannot_be_tried_is_told_so_and_stops_no_table():
    for broken in (FLEET | {"split": (2, 2)}, FLEET | {"chunk_tokens": "2048"}, {"split": "2P2D"}):
        assert lab.over_links(broken, [10.0]) == {}
        assert lab.judge_threshold(broken, 100) == split_choice.unlike_fleet(broken) != split_choice.unlike_fleet(FLEET)
    for broken in ("100 GB/s", 0, 2.9, 3334):
        assert "give a number of GB/s from 3 to 3,333" in lab.judge_threshold(FLEET, broken)


def test_24_requests_a_second_are_past_both_knees():
    for side in (Setup("2P2D", GPUS, 2048, "least_tokens"), split_choice.best_rival()):
        knees = [split_choice.knee(side, seed)[0] for seed in DRAWS]
        assert max(knees) < split_choice.PAST_PER_S
        assert split_choice.look(side, split_choice.PAST_PER_S).ttft_missed > 0.5


def test_the_threshold_is_where_the_sign_changes():
    for right in (7, 17, 37):
        assert lab.judge_threshold(FLEET, right) is None
    assert "does not lose yet" in lab.judge_threshold(FLEET, 100)
    assert "does not win either" in lab.judge_threshold(FLEET, 3)
    assert "do not agree" in lab.judge_threshold(FLEET, 45)
    blocking, layerwise = (lab.at_link(FLEET, 9.375, mode).difference for mode in ("blocking", "layerwise"))
    assert blocking.high < 0 < layerwise.low  # over one 100G card the overlap decides
    assert abs(lab.at_link(FLEET, 18.75).difference.mean) < 0.1 * layerwise.mean  # one of 200G leaves hardly any lead
    blocking, layerwise = (lab.at_link(FLEET, 37.5, mode).difference for mode in ("blocking", "layerwise"))
    assert 0.4 < blocking.mean / layerwise.mean < 0.6  # over one of 400G half of the lead is left
    with pytest.raises(InputError, match="give a number from"):
        lab.at_link(FLEET, 0)


def test_what_is_asked_stands_in_the_lab():
    text = " ".join((LABS / "source" / f"{lab.LAB}.py").read_text(encoding="utf-8").replace("\n#", " ").split())
    promise = split_choice.PROMISE
    for words in (
        f"TTFT of {promise.ttft_s:g} s and a TPOT of {1e3 * promise.tpot_s:g} ms",
        f"carry {100 * (split_choice.GAIN - 1):.0f} % more",
        f"A prompt of {hand_off.PROMPT_TOKENS:,} tokens",
        f"so slow that the KV takes {LINK_SHARE:g} times as long",
        "wins over a link three times as fast and loses over one a third as fast",
        f"at {split_choice.BELOW_PER_S:g} and at {split_choice.PAST_PER_S:g} requests/s",
    ):
        assert words in text
    assert split_choice.NEAR_TRUTH == 3


# Part 3


@pytest.fixture(scope="module")
def reported():
    return files.reports()


def test_each_flaw_is_really_there_and_nowhere_else(reported):
    first_two = {name: list(report.arms.values())[:2] for name, report in reported.items()}
    two = {name for name, (_, after) in first_two.items() if "," in after.differs}
    clocked = {name for name, arms in first_two.items() if len({bool(one.startup_s) for one in arms}) == 2}
    zeros = {
        name
        for name, (own, damaged) in first_two.items()
        if own.compared and own.equal == damaged.equal == damaged.compared
    }
    right = {flaw: {name for name, a in files.ANSWERS.items() if a == flaw} for flaw in files.FLAWS}
    assert {"two changes at once": two, "start-up in the clock": clocked, "a test that zeros pass": zeros} == {
        flaw: of for flaw, of in right.items() if flaw != "none"
    }
    assert right["none"] == set(reported) - two - clocked - zeros


def test_what_the_wrong_reports_conclude_is_wrong(reported):
    arms = reported["A"].arms
    whole = arms["after"].goodput_per_s - arms["before"].goodput_per_s
    mover = arms["mover alone"].goodput_per_s - arms["before"].goodput_per_s
    router = arms["router alone"].goodput_per_s - arms["before"].goodput_per_s
    assert whole > 1.0 and mover < whole / 3 and router > whole / 2  # the router brings most of it
    blocking = reported["B"].arms["blocking"]
    assert 0 < blocking.startup_s < blocking.clock_s
    seen = live()
    zeros = {one.arm.name: one for one in seen.verdicts}[files.ZEROS]
    assert zeros.tokens_equal < zeros.requests and zeros.pages_wrong == zeros.pages_checked  # nothing has arrived
    assert files.same_first_tokens(seen.runs["whole"], seen.runs[files.ZEROS]) == (8, 8)


def test_the_sound_report_is_sound(reported):
    """One change, every draw gains, the gain holds on draws that the report has not used, and none without a link."""
    before, after = reported["C"].arms.values()
    assert (before.differs, after.differs, after.draws) == ("–", "mover", len(DRAWS))
    blocking = Setup("2P2D", GPUS, 2048, "least_tokens", files.CARD_GB_PER_S, "blocking")
    layerwise = replace(blocking, mode="layerwise")
    assert min(files.ratios_of(blocking, layerwise)) > 1.1
    unseen = (11, 12)
    found = compare(split_choice.goodputs(layerwise, unseen), split_choice.goodputs(blocking, unseen))
    assert found.ratio.mean > 1.1
    assert (
        f"{100 * (compare(split_choice.goodputs(layerwise), split_choice.goodputs(blocking)).ratio.mean - 1):.0f} %"
        in (reported["C"].claim)
    )
    fast = replace(blocking, gb_per_s=files.NVLINK_GB_PER_S)  # the control: where the link is no matter, no gain
    means = [fmean(split_choice.goodputs(one).values()) for one in (fast, replace(fast, mode="layerwise"))]
    assert means[1] == pytest.approx(means[0], rel=0.05)


def test_flaws_are_judged():
    assert lab.judge_flaws(dict(files.ANSWERS)) is None
    assert "no flaw in the list" in lab.judge_flaws({**files.ANSWERS, "B": "cosmic rays"})
    assert "one flaw for each" in lab.judge_flaws({"A": "none"})
    for name in files.ANSWERS:
        for flaw in files.FLAWS:
            hint = lab.judge_flaws({**files.ANSWERS, name: flaw})
            assert (hint is None) == (flaw == files.ANSWERS[name])
            assert hint is None or files.ANSWERS[name] not in hint
