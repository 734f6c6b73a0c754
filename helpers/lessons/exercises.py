"""Exercises by name: who judges one, how hard and how important it is, and how far the learner is."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from helpers.errors import InputError
from helpers.lessons.progress import current, now
from helpers.lessons.verdict import UNANSWERED, Verdict, judged

STARS = 3


@dataclass(frozen=True, slots=True)
class Exercise:
    """One task of a lab.

    `judge(*answers)` returns None for a right answer, else a hint that names the likely mistake and never the answer.
    `difficulty` and `importance` are 1 to 3; `lab` is the name of its notebook. Names are unique over the course.
    Raises `InputError` for stars or minutes that make no sense.
    """

    name: str
    judge: Callable[..., str | None]
    lab: str
    difficulty: int
    importance: int
    minutes: int

    def __post_init__(self) -> None:
        if not {self.difficulty, self.importance} <= set(range(1, STARS + 1)) or self.minutes < 1:
            raise InputError(
                f"exercise {self.name!r}: difficulty and importance are 1 to {STARS}, minutes 1 or more; "
                f"got {self.difficulty}, {self.importance} and {self.minutes}"
            )


_known: dict[str, Exercise] = {}


def register(*exercises: Exercise) -> None:
    """Make exercises known by their names; raises `InputError` when another lab has one of the same name."""
    for one in exercises:
        other = _known.get(one.name)
        if other is not None and other.lab != one.lab:
            raise InputError(f"exercise {one.name!r} of {one.lab}: {other.lab} has one of that name; choose another")
        _known[one.name] = one


def exercises_of(lab: str) -> dict[str, Exercise]:
    """The exercises of a lab that are known so far, by name."""
    return {name: one for name, one in _known.items() if one.lab == lab}


def check(name: str, *answers: object) -> Verdict:
    """The verdict on the answers to the exercise `name`, which is also noted as progress.

    Never raises: a name that nobody knows, and an answer that fails in the judge's hands, are "not yet" with a hint.
    """
    one = _known.get(name)
    if one is None:
        known = ", ".join(_known) or "none yet: run the first cell of the lab"
        return Verdict(str(name), False, f"no exercise has this name; known are {known}")
    verdict = judged(name, one.judge, *answers)
    if verdict.text != UNANSWERED:
        current().change(lambda data: _note(data, one, verdict))
    return verdict


def _note(data: dict, one: Exercise, verdict: Verdict) -> None:
    entry = data["exercises"].setdefault(one.name, {"lab": one.lab, "tries": 0, "passed_at": None})
    if entry["passed_at"] is None:
        entry["tries"] += 1
        entry["passed_at"] = now() if verdict.passed else None


def state_of(entry: dict | None) -> str:
    """How far a learner is with an exercise, as words."""
    if entry is None:
        return "not tried yet"
    tries = f"{entry['tries']} {'try' if entry['tries'] == 1 else 'tries'}"
    if entry["passed_at"] is None:
        return f"not yet, {tries} so far"
    return f"passed on {entry['passed_at'][:10]} after {tries}"


@dataclass(frozen=True)
class Cards:
    """What there is to know before some exercises are begun; shows itself as the last value of a cell."""

    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(f"<li><strong>{escape(name)}</strong>: {escape(text)}</li>" for name, text in self.lines)
        return f'<ul class="hs-verdict">{items}</ul>'


def exercise(*names: str) -> Cards:
    """Difficulty, importance, minutes and progress of exercises, one line each.

    Raises `InputError` for a name that nobody knows.
    """
    unknown = [name for name in names if name not in _known]
    if unknown or not names:
        raise InputError(f"exercise {', '.join(map(repr, unknown)) or 'without a name'}: known are {', '.join(_known)}")
    progress = current()
    done = progress.read()["exercises"]
    lines = []
    for name in names:
        known = name in done or progress.kept
        lines.append((name, " · ".join([*_facts(_known[name]), *([state_of(done.get(name))] if known else [])])))
    return Cards(tuple(lines))


def _facts(one: Exercise) -> tuple[str, str, str]:
    minutes = f"{one.minutes} {'minute' if one.minutes == 1 else 'minutes'}"
    return f"difficulty {stars(one.difficulty)}", f"importance {stars(one.importance)}", minutes


def stars(count: int) -> str:
    """1 to 3 as stars."""
    return "★" * count + "☆" * (STARS - count)
