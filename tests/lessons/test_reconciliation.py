"""Reconciling: every value on one axis, judged by the true one, and a chart of all guesses."""

import pytest

from helpers.errors import InputError
from helpers.lessons import NOT_YET, calibration, predict, reconcile
from helpers.lessons.note import Note

KNEES = {"round_robin": 3.0, "least_tokens": 4.0}


def guessed(value=None, name="knee"):
    return predict(name, "requests/s", value, default=6)


def drawn(figure) -> dict[str, tuple[str, float]]:
    return {row: (kind, value) for row, kind, value in figure.rows}


def test_all_four_stand_on_one_axis_with_their_kind():
    figure = reconcile(guessed(8), bound=5.0, recorded={"H100": 4.5}, own=KNEES, truth="least_tokens", note="N = 3.")
    assert drawn(figure) == {
        "your guess": ("guess", 8.0),
        "bound": ("bound", 5.0),
        "H100": ("recording", 4.5),
        "round_robin": ("own run", 3.0),
        "least_tokens": ("own run", 4.0),
    }
    symbols = [trace["marker"]["symbol"] for trace in figure.spec["data"]]
    assert len(symbols) == len(set(symbols)) == 4
    assert "requests/s" in figure.columns[2] and "N = 3." in figure.note


def test_the_guess_is_judged_by_the_true_value():
    # 8 / 4.0 = 2.00, and by the other label 8 / 3.0 = 2.67
    assert "2.00 times the true value (least_tokens" in reconcile(guessed(8), own=KNEES, truth="least_tokens").note
    assert "2.67 times the true value (round_robin" in reconcile(guessed(8), own=KNEES, truth="round_robin").note


def test_the_own_run_goes_before_the_recording():
    assert "(own run, 4 requests/s)" in reconcile(guessed(8), recorded=5.0, own=4.0).note
    assert "(recording, 5 requests/s)" in reconcile(guessed(8), recorded=5.0, bound=4.0).note


def test_the_recorded_default_is_called_that():
    figure = reconcile(guessed(), own=4.0)
    assert "recorded default" in drawn(figure) and "The recorded default is 1.50 times" in figure.note


def test_reconciling_locks():
    reconcile(guessed(8), own=4.0)
    figure = reconcile(guessed(4), own=4.0)
    assert drawn(figure)["your guess"][1] == 8.0
    assert drawn(figure)["your guess after the evidence"][1] == 4.0


def test_nothing_is_locked_or_told_before_the_answer():
    note = reconcile(guessed(8), own={"your knee": NOT_YET})
    assert isinstance(note, Note) and "once the check above has passed" in str(note)
    assert guessed(4).value == 4


def test_what_was_not_found_is_left_out():
    assert set(drawn(reconcile(guessed(8), own={"a": None, "b": 4.0}))) == {"your guess", "b"}


@pytest.mark.parametrize(
    "stated", [{"own": KNEES}, {"bound": 4.0}, {}, {"own": 4.0, "truth": "knee"}, {"own": {"a": None}}]
)
def test_a_reconciliation_without_a_truth_is_refused(stated):
    with pytest.raises(InputError, match=r"true|truth"):
        reconcile(guessed(8), **stated)


def test_zero_is_no_ratio():
    assert "Your guess is 0 requests/s (own run" in reconcile(guessed(0), own=4.0).note


def choice(value=None):
    return predict("the sound report", "", value, default="B", choices="ABCD")


def test_a_choice_is_reconciled_in_a_sentence():
    assert str(reconcile(choice("A"), truth="C")).startswith("It is C; you guessed A.")
    assert choice("C").value == "A"


def test_a_choice_by_default_is_called_that():
    assert "the recorded default is B" in str(reconcile(choice(), truth="C"))


def test_a_truth_that_is_no_choice_is_refused():
    with pytest.raises(InputError, match="none of A, B, C, D"):
        reconcile(choice(), truth="E")


def test_the_calibration_holds_the_first_guess_of_each_question():
    reconcile(guessed(8, "one"), own=4.0)  # 8 / 4 = 2
    reconcile(guessed(4, "one"), own=4.0)  # a later attempt, which does not count
    reconcile(guessed(2, "two"), own=8.0)  # 2 / 8 = 0.25, four times too low
    reconcile(guessed(9, "three"), own=3.0)  # 9 / 3 = 3
    reconcile(guessed(None, "four"), own=3.0)  # the default is nobody's guess
    guessed(5, "five")  # not reconciled
    reconcile(choice("C"), truth="C")
    figure = calibration()
    assert drawn(figure) == {name: ("your first guess", r) for name, r in (("one", 2.0), ("two", 0.25), ("three", 3.0))}
    # factors 2, 4 and 3: their median is 3
    assert "N = 3; half of them are within a factor of 3" in figure.note


def test_without_a_guess_of_ones_own_there_is_no_chart():
    reconcile(guessed(), own=4.0)
    assert "once you have made a guess" in str(calibration())


def test_the_chart_survives_a_restart(learner, fresh_kernel):
    reconcile(guessed(8), own=4.0)
    fresh_kernel()
    assert drawn(calibration()) == {"knee": ("your first guess", 2.0)}
