"""Exercises by name: judged, noted, and shown with what they ask of the learner."""

import pytest

from helpers.errors import InputError
from helpers.lessons import NOT_YET, Exercise, check, exercise, exercises, register
from helpers.lessons.progress import current
from tests.lessons.small_lab import judge_double, know


@pytest.fixture(autouse=True)
def double(monkeypatch):
    know(monkeypatch)


def entry() -> dict:
    return current().read()["exercises"].get("double")


def test_a_right_answer_passes_and_a_wrong_one_gets_its_hint():
    assert check("double", lambda x: 2 * x).passed
    wrong = check("double", lambda x: x * x)
    assert not wrong.passed and "square" in wrong.text


@pytest.mark.parametrize(
    "arguments", [("trouble", 1), ("double",), ("double", 1, 2), ("double", lambda x: 1 / 0), (7, 1)]
)
def test_a_check_never_raises(arguments):
    assert not check(*arguments).passed


def test_an_unknown_name_says_which_there_are():
    assert "double" in check("trouble", 1).text


def test_tries_are_counted_until_the_exercise_is_passed():
    check("double", lambda x: x * x)
    check("double", lambda x: x / 2)
    assert entry()["tries"] == 2 and entry()["passed_at"] is None
    check("double", lambda x: 2 * x)
    passed = entry()
    check("double", lambda x: x * x)
    assert entry() == passed and passed["tries"] == 3 and passed["passed_at"]


def test_an_answer_that_was_not_given_is_no_try():
    check("double", lambda x: NOT_YET)
    check("double", NOT_YET)
    assert entry() is None


def test_the_card_shows_difficulty_importance_minutes():
    card = str(exercise("double"))
    assert card == "double: difficulty ★☆☆ · importance ★★☆ · 5 minutes"
    assert "★★☆" in exercise("double")._repr_html_()


def test_the_card_shows_how_far_the_learner_is(learner):
    assert str(exercise("double")).endswith("not tried yet")
    check("double", lambda x: x)
    assert str(exercise("double")).endswith("not yet, 1 try so far")
    check("double", lambda x: 2 * x)
    assert "passed on 2" in str(exercise("double")) and str(exercise("double")).endswith("after 2 tries")


def test_a_card_of_an_unknown_exercise_is_refused():
    with pytest.raises(InputError, match="known are double"):
        exercise("trouble")


def test_a_name_that_another_lab_has_is_refused():
    with pytest.raises(InputError, match="98_small_lab has one of that name"):
        register(Exercise("double", judge_double, "99_other_lab", 1, 1, 5))
    register(Exercise("double", judge_double, "98_small_lab", 3, 3, 5))  # a module that is loaded again
    assert exercises._known["double"].difficulty == 3


@pytest.mark.parametrize("stars", [(0, 1, 5), (4, 1, 5), (1, 0, 5), (1, 4, 5), (1, 1, 0)])
def test_stars_and_minutes_that_make_no_sense_are_refused(stars):
    with pytest.raises(InputError, match="difficulty"):
        Exercise("double", judge_double, "98_small_lab", *stars)
