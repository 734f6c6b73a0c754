"""Lab 3 on running workers: schedules worked by hand, judged, obeyed, and compared without a clock."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.lessons import live_hand_off as live
from helpers.lessons import split_reports as files
from helpers.lessons.hand_off import Case, blocking_starts, cases, right_exposed_s, right_starts
from helpers.lessons.verdict import NOT_YET, Unanswered
from helpers.widgets import disaggregation_lab as figures

CASE = Case((2.0, 1.0, 1.0), (1.0, 3.0, 1.0))  # ready at 2, 3, 4


def starts(compute_s, transfer_s):
    return right_starts(Case(tuple(compute_s), tuple(transfer_s)))


def after(starts_s, compute_s):
    case = Case(tuple(compute_s), (1.0,) * len(compute_s))
    return live.right_release(starts_s, case)


def test_a_schedule_by_hand():
    """Sent at 2, 3 and 6: one layer is computed at 2, two at 3, three at 6. After 4 all of them are."""
    assert live.right_release([2.0, 3.0, 6.0], CASE) == [1, 2, 3]
    assert live.right_release([4.0, 5.0, 8.0], CASE) == [3, 3, 3]
    assert live.right_release([1.9, 3.5, 3.9], CASE) == [0, 2, 2]


def test_what_a_schedule_exposes_by_hand():
    """As soon as possible: sent at 2, 3, 6, the last arrives at 7, and 7 - 4 = 3 s are exposed. All after the prefill:
    4 + 1 + 3 + 1 = 9, so 5. Layer 1 first: sent at 3 for 3 s, then layer 0 for 1 s, layer 2 for 1 s: 8, so 4."""
    assert live.exposed_by((1, 2, 3), CASE) == 3.0
    assert live.exposed_by((3, 3, 3), CASE) == 5.0
    assert live.exposed_by((3, 2, 3), CASE) == 4.0


@pytest.mark.parametrize("case", [live.in_ticks(one) for one in cases(20)])
def test_a_right_schedule_exposes_what_its_starts_do(case):
    assert live.exposed_by(live.right_release(right_starts(case), case), case) == pytest.approx(right_exposed_s(case))
    waits = live.right_release(blocking_starts(case.compute_s, case.transfer_s), case)
    assert live.exposed_by(waits, case) == pytest.approx(sum(case.transfer_s))


def test_sums_of_ticks_are_the_same_in_every_order():
    for case in map(live.in_ticks, cases(20)):
        assert sum(case.compute_s) == sum(reversed(case.compute_s)) == case.ready_s[-1]
    assert live.in_ticks(Case((1e-9,), (0.5,))) == Case((1 / live.TICKS,), (0.5,))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda s, c: [one - 1 for one in after(s, c)], "the first one counts as 1"),
        (lambda s, c: [one + 1 for one in after(s, c)], "never"),
        (lambda s, c: [len(c)] * len(c), "waits for the whole prefill"),
        (lambda s, c: list(range(1, len(c) + 1)), "the starts are not obeyed"),
        (lambda s, c: [min(one + 1, len(c)) for one in after(s, c)], "would go after"),
        (lambda s, c: s, "a whole number of layers"),
        (lambda s, c: 1, "return a list"),
        (lambda s, c: after(s, c)[:-1], "return a list"),
    ],
)
def test_wrong_schedules_are_told_why(wrong, hint):
    assert live.judge_release(after) is None
    assert hint in live.judge_release(wrong)


def test_a_stub_is_unanswered():
    with pytest.raises(Unanswered):
        live.judge_release(lambda s, c: NOT_YET)


def test_answers_become_a_schedule_or_say_why_not():
    case = Case((0.5,) * live.LAYERS, (0.25,) * live.LAYERS)
    assert live._released(starts, after, case) == (1, 2, 3, 4)
    assert live._released(blocking_starts, after, case) == (4, 4, 4, 4)
    assert live._released(lambda c, t: NOT_YET, after, case) is None
    assert live._released(starts, lambda s, c: NOT_YET, case) is None
    assert "layer 0 would go after 0 layers" in live._released(starts, lambda s, c: [0, 1, 2, 3], case)
    assert "return a list" in live._released(starts, lambda s, c: 7, case)
    assert "an answer stops with IndexError" in live._released(starts, lambda s, c: c[99], case)


def test_live_runs_are_exact_and_the_damaged_ones_are_caught():
    seen = live.live()
    named = {one.arm.name: one for one in seen.verdicts}
    for name in (files.BEFORE, files.AFTER):
        assert named[name].same and named[name].hand_offs == 8 and named[name].pages_checked > 0
    for name, one in named.items():
        if one.arm.tamper:
            assert one.caught and not one.same, name
    with pytest.raises(InputError, match="the lab starts 4"):
        live.live("3P2D")


def test_schedules_are_served_on_the_workers_that_are_there(monkeypatch):
    """The answers are those without a hand-off whatever goes when; a schedule that cannot be is not served."""
    running = live.crew()
    told = []
    serve = live._serve
    monkeypatch.setattr(live, "_serve", lambda fleet, **how: told.append(how.get("send_after")) or serve(fleet, **how))
    live.sent.cache_clear()
    found = live.timed(starts, after)
    assert live.crew() is running and [one for one in told if one] == [(4, 4, 4, 4), (1, 2, 3, 4)]
    assert list(found.ways) == [live.BLOCKING, live.YOURS] and not found.problem
    for one in found.ways.values():
        assert one.equal == len(one.exposed_s) == len(one.ttft_s) == live.REQUESTS
    assert found.ways[live.YOURS].predicted_s < found.ways[live.BLOCKING].predicted_s
    assert len(figures.timed(found).rows) == 2
    early = live.timed(starts, lambda s, c: [0] * len(c))
    assert list(early.ways) == [live.BLOCKING] and "layer 0 would go after 0" in figures.timed(early).caption
    assert list(live.timed(lambda c, t: NOT_YET, after).ways) == [live.BLOCKING]


def test_the_table_of_schedules_has_medians_and_ends():
    one = live.Sent((1, 2), (0.001, 0.003, 0.002), (0.1, 0.1, 0.4), 3, 0.0015)
    found = live.Timed(CASE, 25e6, {"yours": one})
    table = figures.timed(found)
    assert table.rows == [["yours", "1, 2", "1.5", "2.0 (1.0 to 3.0)", "100.0 (100.0 to 400.0)", "3 of 3"]]
    assert "25 MB/s" in table.caption and "not served" not in table.caption
    assert "not served: why" in figures.timed(replace(found, problem="why")).caption
