"""A verdict on an answer: shown, never raised, so that an unsolved lab runs from top to bottom."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape


class NotYet:
    """The value of an answer that nobody has given yet; a stub holds or returns it."""

    def __repr__(self) -> str:
        return "NOT_YET"


NOT_YET = NotYet()

UNANSWERED = "replace NOT_YET by your answer, run its cell, then this one again"


@dataclass(frozen=True)
class Verdict:
    """What became of one exercise: `passed`, and the words that say why or what to try."""

    exercise: str
    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'not yet'}: {self.exercise}: {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign, word = ("✔", "passed") if self.passed else ("○", "not yet")
        return f'<p class="hs-verdict"><strong>{sign} {word}, {escape(self.exercise)}:</strong> {escape(self.text)}</p>'


class Unanswered(Exception):
    """An answer, or what a function that was asked for returns, is still NOT_YET."""


def answer(value: object) -> object:
    """`value`, unless it is, or holds, NOT_YET; then raises `Unanswered`."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if value is NOT_YET or any(one is NOT_YET for one in inner):
        raise Unanswered
    return value


def judged(exercise: str, judge: Callable[..., str | None], *answers: object) -> Verdict:
    """The verdict of `judge(*answers)`: passed when it returns None, else "not yet" with the hint it returns.

    Never raises: an answer that fails in the judge's hands is "not yet" too, with what it raised, and so is one
    that tries to end the program.
    """
    try:
        hint = judge(*(answer(one) for one in answers))
    except Unanswered:
        hint = UNANSWERED
    except (Exception, SystemExit) as error:
        hint = f"your answer stops with {type(error).__name__}: {error}"
    return Verdict(exercise, hint is None, "that is right." if hint is None else str(hint))
