"""A lab of one exercise, for tests that spoil it."""

from pathlib import Path

from helpers.lessons import Exercise, exercises
from helpers.lessons.source import Source, read_source
from helpers.lessons.verdict import answer

NAME = "98_small_lab"
SMALL = """# ---
# jupyter:
#   jupytext: {formats: "py:percent"}
# ---

# %% [markdown] name="title" tags=["slide"]
# # Lab 98: small
#
# As in [chapter 98](../chapters/98_small.ipynb).

# %% name="setup" tags=["slide-hidden"]
from helpers.lessons import NOT_YET, check, predict

# %% name="guess"
doubled = predict("the double of two", "", default=5)

# %% name="answer" tags=["learner", "slide"]
def my_double(x):
    return NOT_YET


# %% name="answer" tags=["solution", "slide"]
def my_double(x):
    return 2 * x


# %% name="squared" tags=["mutant"] exercise="double" hint="that is the square"
def my_double(x):
    return x * x


# %% name="halved" tags=["mutant"] exercise="double" hint="twice, not half"
def my_double(x):
    return x / 2


# %% name="check" tags=["hide-input"]
check("double", my_double)

# %% [markdown] name="notes" tags=["instructor", "slide"]
# **Answer key.** Twice. See [the lab](../labs/98_small_lab.ipynb).
"""


def judge_double(double) -> str | None:
    """Whether `double` gives twice its argument."""
    value = answer(double(3))
    hints = {9: "that is the square of it", 1.5: "it is to be twice, not half"}
    return None if value == 6 else hints.get(value, "try it with 3")


def write(labs: Path, text: str = SMALL, name: str = NAME) -> Path:
    """Put the text where a lab's source lies."""
    path = labs / "source" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def small_source(labs: Path, text: str = SMALL) -> Source:
    """The small lab, read from a folder."""
    return read_source(write(labs, text))


def know(monkeypatch, judge=judge_double) -> None:
    """Let the course have this exercise only."""
    one = Exercise("double", judge, NAME, difficulty=1, importance=2, minutes=5)
    monkeypatch.setattr(exercises, "_known", {"double": one})
