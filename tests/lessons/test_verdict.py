"""Verdicts: shown, never raised, and never passed by accident."""

import pytest

from helpers.lessons.verdict import NOT_YET, UNANSWERED, answer, judged


def test_none_from_the_judge_is_a_pass():
    verdict = judged("sum", lambda value: None if value == 4 else "look again", 4)
    assert verdict.passed and str(verdict).startswith("passed: sum")


def test_a_hint_is_not_yet():
    verdict = judged("sum", lambda value: None if value == 4 else "look again", 5)
    assert not verdict.passed and str(verdict) == "not yet: sum: look again"


@pytest.mark.parametrize("stub", [NOT_YET, {"A": 1, "B": NOT_YET}, [NOT_YET], (1, NOT_YET)])
def test_an_unanswered_exercise_never_passes(stub):
    verdict = judged("sum", lambda value: None, stub)
    assert not verdict.passed and verdict.text == UNANSWERED


def test_a_function_that_returns_the_stub_is_unanswered():
    verdict = judged("sum", lambda function: None if answer(function()) == 4 else "look again", lambda: NOT_YET)
    assert not verdict.passed and verdict.text == UNANSWERED


def test_an_answer_that_raises_is_a_verdict():
    verdict = judged("sum", lambda function: None if function() == 4 else "look again", lambda: 1 / 0)
    assert not verdict.passed and "ZeroDivisionError" in verdict.text


def test_the_page_shows_the_words_and_no_markup_of_an_answer():
    html = judged("sum", lambda value: f"{value} is no sum", "<b>")._repr_html_()
    assert "not yet" in html and "&lt;b&gt;" in html and "<b>" not in html


def test_an_answer_that_ends_the_program_is_a_verdict():
    verdict = judged("sum", lambda function: None if function() == 4 else "look again", lambda: exit(3))
    assert not verdict.passed and "SystemExit" in verdict.text


def test_a_judge_that_raises_is_never_a_pass():
    assert not judged("sum", lambda value: {}["missing"], 4).passed
