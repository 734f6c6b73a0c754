"""Guesses: free before the evidence, fixed after it, and honest about what stands in."""

import sys

import pytest

from helpers.errors import InputError
from helpers.lessons import predict
from helpers.lessons.entry import read


def ask(value=None, **words):
    return predict("knee", "requests/s", value, default=6, **words)


def test_without_a_guess_the_recorded_default_stands_in_and_that_is_said(capsys):
    guess = ask()
    assert (guess.value, guess.own) == (6, False)
    assert "recorded default, 6 requests/s, stands in" in capsys.readouterr().out


def test_a_typed_guess_counts(capsys):
    guess = ask(7.5)
    assert (guess.value, guess.own) == (7.5, True)
    assert "Your guess is 7.5 requests/s." in capsys.readouterr().out


def test_before_the_evidence_a_guess_may_be_changed():
    ask(7)
    guess = ask(8)
    assert (guess.value, guess.later) == (8, None)


def test_after_the_evidence_the_first_guess_counts_and_the_second_is_kept(capsys):
    ask(7).lock()
    capsys.readouterr()
    guess = ask(3.5)
    assert (guess.value, guess.later) == (7, 3.5)
    said = capsys.readouterr().out
    assert "3.5 requests/s came after the evidence" in said and "the first one counts" in said
    assert [one["late"] for one in guess.entry()["attempts"]] == [False, True]


def test_a_first_guess_after_the_evidence_does_not_count(capsys):
    ask().lock()
    guess = ask(3.5)
    assert (guess.value, guess.own, guess.later) == (6, False, 3.5)
    assert "does not count" in capsys.readouterr().out


def test_running_the_cell_again_is_no_second_guess():
    ask(7).lock()
    assert len(ask(7).entry()["attempts"]) == 1


def test_locking_again_keeps_the_first_moment(monkeypatch):
    guess = ask(7)
    moments = iter(["1", "2"])
    monkeypatch.setattr("helpers.lessons.prediction.now", lambda: next(moments))
    guess.lock()
    guess.lock()
    assert guess.entry()["evidence_at"] == "1"


def test_a_restarted_kernel_still_knows(learner, fresh_kernel):
    ask(7).lock()
    fresh_kernel()
    guess = ask()
    assert guess.own and guess.value == 7
    assert ask(3.5).value == 7


def test_the_same_words_in_another_unit_are_another_question():
    ask(7).lock()
    other = predict("knee", "requests/min", 400, default=360)
    assert (other.value, other.later) == (400, None)


@pytest.mark.parametrize("nonsense", ["seven", float("nan"), float("inf"), True, [7]])
def test_nonsense_is_told_and_not_taken(nonsense, capsys):
    guess = ask(nonsense)
    assert not guess.own and "is no number" in capsys.readouterr().out


def test_a_choice_is_one_of_the_choices(capsys):
    def choose(value=None):
        return predict("the sound report", "", value, default="B", choices="ABCD")

    assert choose().value == "B"
    assert choose("C").value == "C"
    assert choose("E").value == "C" and "none of A, B, C, D" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"default": "six"}, {"default": "E", "choices": "ABCD"}])
def test_a_default_that_is_no_answer_is_the_authors_mistake(wrong):
    with pytest.raises(InputError, match="recorded default"):
        predict("knee", "requests/s", **wrong)


def test_a_guess_without_a_name_is_refused():
    with pytest.raises(InputError, match="name"):
        predict(" ", "s", default=1)


# The field. ipywidgets is not among the packages of the tests; a stand-in shows what the code asks of it.


class Widget:
    def __init__(self, *parts, **words):
        self.parts, self.words, self.value, self.calls = parts, words, "", []

    def on_click(self, call):
        self.calls.append(call)


@pytest.fixture
def made(monkeypatch) -> dict[str, Widget]:
    found: dict[str, Widget] = {}

    def maker(name):
        def make(*parts, **words):
            found[name] = Widget(*parts, **words)
            return found[name]

        return make

    module = type(sys)("ipywidgets")
    for name in ("Layout", "Dropdown", "Text", "Button", "HTML", "Label", "HBox", "VBox"):
        setattr(module, name, maker(name))
    monkeypatch.setitem(sys.modules, "ipywidgets", module)
    return found


def test_with_a_front_end_a_field_is_shown_and_its_button_keeps_the_guess(learner, made):
    guess = ask()
    assert made["Text"].words["placeholder"] == "requests/s" and made["Text"].value == ""
    made["Text"].value = " 1,200.5 "
    made["Button"].calls[0]()
    assert guess.value == 1200.5
    made["Text"].value = "many"
    made["Button"].calls[0]()
    assert guess.value == 1200.5


def test_a_choice_has_a_list(learner, made):
    guess = predict("the sound report", "", default="B", choices="ABCD")
    assert made["Dropdown"].words["options"] == ["", "A", "B", "C", "D"]
    made["Dropdown"].value = "C"
    made["Button"].calls[0]()
    assert guess.value == "C"


def test_no_field_where_nobody_sits_in_front(made):
    ask()
    assert made == {}


def test_no_field_for_a_typed_guess(learner, made):
    assert ask(7).value == 7 and made == {}


def test_without_ipywidgets_the_words_are_shown(learner, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert ask().value == 6 and "stands in" in capsys.readouterr().out


def test_what_is_entered_is_a_number_where_it_can_be():
    assert read(" 1,200 ") == 1200.0 and read("7e-1") == 0.7 and read("many") == "many" and read("") == ""
