"""What proves a lab can fail: on lenient judges, planted errors, leaked answers, mutants without a check."""

from dataclasses import replace

import pytest

from helpers.lessons.progress import current
from helpers.lessons.rehearsal import mutants, verdicts
from helpers.lessons.verdict import UNANSWERED
from helpers.lessons.versions import learner_cells, solution_cells
from tests.lessons.small_lab import SMALL, know, small_source


@pytest.fixture
def source(tmp_path, monkeypatch):
    know(monkeypatch)
    return small_source(tmp_path)


def test_a_sound_lab_has_no_problem(source):
    assert [v.text for v in verdicts(learner_cells(source))["double"]] == [UNANSWERED]
    assert [v.passed for v in verdicts(solution_cells(source))["double"]] == [True]
    assert [one.problem for one in mutants(source)] == ["", ""]


def test_a_judge_that_accepts_everything_is_caught(source, monkeypatch):
    know(monkeypatch, lambda double: None)
    assert all("lets it pass" in one.problem for one in mutants(source))


def test_a_judge_with_one_hint_for_all_is_caught(source, monkeypatch):
    know(monkeypatch, lambda double: "look again")
    assert all("is not in the hint: look again" in one.problem for one in mutants(source))
    assert [v.passed for v in verdicts(solution_cells(source))["double"]] == [False]


def test_a_planted_error_in_the_solution_is_caught(tmp_path, source):
    planted = small_source(tmp_path, SMALL.replace("return 2 * x", "return 2 * x + 1"))
    assert [v.text for v in verdicts(solution_cells(planted))["double"]] == ["try it with 3"]


def test_a_mutant_that_is_right_is_caught(tmp_path, source):
    planted = small_source(tmp_path, SMALL.replace("return x * x", "return x + x"))
    assert ["lets it pass" in one.problem for one in mutants(planted)] == [True, False]


def test_an_answer_in_the_learners_file_is_caught(source):
    leaked = [replace(cell, text="def my_double(x):\n    return 2 * x") if cell.name == "answer" else cell
              for cell in learner_cells(source)]  # fmt: skip
    assert [v.text for v in verdicts(leaked)["double"]] != [UNANSWERED]


def test_a_mutant_that_no_check_follows_is_caught(source):
    cells = tuple(cell for cell in source.cells if cell.name != "check")
    assert ["no cell below checks 'double'" in one.problem for one in mutants(replace(source, cells=cells))] == [
        True
    ] * 2


def test_a_mutant_changes_its_own_answer_only(tmp_path, monkeypatch):
    """Three mutants that change one dictionary in place: each starts from the solution, and so does what follows."""
    know(
        monkeypatch,
        lambda given: None if given == {"a": 1, "b": 2} else ", ".join(f"{k}={v}" for k, v in given.items()),
    )
    text = """# %% name="setup"
from helpers.lessons import check
# %% name="answer" tags=["solution"]
mine = {"a": 1, "b": 2}
# %% name="one" tags=["mutant"] exercise="double" hint="a=7, b=2"
mine |= {"a": 7}
# %% name="two" tags=["mutant"] exercise="double" hint="a=1, b=8"
mine |= {"b": 8}
# %% name="assertion"
assert mine == {"a": 1, "b": 2}
# %% name="check"
check("double", mine)
"""
    assert [one.verdict.text for one in mutants(small_source(tmp_path, text))] == ["a=7, b=2", "a=1, b=8"]


def test_a_cell_that_a_wrong_answer_stops_is_named_and_hides_no_verdict(tmp_path, source):
    text = SMALL.replace('# %% name="check"', '# %% name="figure"\nassert my_double(3) == 6\n\n# %% name="check"')
    found = mutants(small_source(tmp_path, text))
    assert [one.verdict.passed for one in found] == [False, False]
    assert ["it stops figure with AssertionError" in one.problem for one in found] == [True, True]


def test_a_cell_below_the_check_that_a_wrong_answer_stops_is_named_too(tmp_path, source):
    text = SMALL + '\n# %% name="figure"\nassert my_double(3) == 6\n'
    assert ["it stops figure with" in one.problem for one in mutants(small_source(tmp_path, text))] == [True, True]


def test_a_cell_of_a_solution_that_fails_is_raised(tmp_path, source):
    text = SMALL.replace('# %% name="check"', '# %% name="figure"\nassert my_double(3) == 7\n\n# %% name="check"')
    with pytest.raises(AssertionError):
        verdicts(solution_cells(small_source(tmp_path, text)))


def test_a_rehearsal_leaves_the_learners_file_and_folder_alone(source, learner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    current().read()
    before = sorted(tmp_path.rglob("*"))
    writing = replace(source.cells[-2], name="writes", text='open("left", "w").close()')
    verdicts([*solution_cells(source), writing])
    assert sorted(tmp_path.rglob("*")) == before and not learner.exists()
    assert current().read()["exercises"] == {}
