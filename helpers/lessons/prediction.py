"""A learner's guess, which stands before the evidence does.

Until the evidence is shown a guess may be changed. From then on the first one counts: a later one is kept beside it
and never replaces it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from helpers.errors import InputError
from helpers.lessons.entry import offer_entry
from helpers.lessons.front_end import has_front_end, show
from helpers.lessons.note import Note
from helpers.lessons.progress import current, now

Value = float | str


@dataclass(frozen=True)
class Guess:
    """A question that is answered before the run: its name, the unit, and what stands in for an answer.

    `choices` is empty for a number. The guess itself lies in the progress and is read anew each time.
    """

    name: str
    unit: str
    default: Value
    choices: tuple[str, ...] = ()

    @property
    def value(self) -> Value:
        """The guess that counts: the first one, or the recorded default while there is none."""
        counted = first_guess(self.entry())
        return self.default if counted is None else counted

    @property
    def own(self) -> bool:
        """True when the guess that counts is the learner's and not the recorded default."""
        return first_guess(self.entry()) is not None

    @property
    def later(self) -> Value | None:
        """What was guessed last after the evidence was shown, None when nothing was."""
        late = [one["value"] for one in self.entry()["attempts"] if one["late"]]
        return late[-1] if late else None

    def entry(self) -> dict:
        """What the progress says of this question; a new entry when it says nothing or was asked in another unit."""
        entry = current().read()["predictions"].get(self.name)
        return entry if self._fits(entry) else self._new()

    def take(self, value: Value) -> str:
        """Note a guess and say, in a sentence, what became of it. Never raises for what a learner enters."""
        problem = self._problem(value)
        if problem:
            return f"{problem} {self._standing()}"

        def edit(data: dict) -> None:
            entry = data["predictions"].get(self.name)
            if not self._fits(entry):
                entry = data["predictions"][self.name] = self._new()
            attempts, late = entry["attempts"], entry["evidence_at"] is not None
            if attempts and attempts[-1]["value"] == value:
                return
            if not late:
                attempts.clear()
            attempts.append({"value": value, "at": now(), "late": late})

        current().change(edit)
        return self._standing()

    def lock(self, *, quiet: bool = False) -> None:
        """Say that the evidence comes now: from here on the guess that stands is the one that counts.

        Shows a line; a second call changes nothing.
        """

        def edit(data: dict) -> None:
            entry = data["predictions"].get(self.name)
            if not self._fits(entry):
                entry = data["predictions"][self.name] = self._new()
            entry["evidence_at"] = entry["evidence_at"] or now()

        current().change(edit)
        if not quiet:
            show(Note(f"Locked, {self.name}", self._standing()))

    def words(self, value: Value) -> str:
        """A value with its unit."""
        shown = value if isinstance(value, str) else f"{value:.4g}"
        return f"{shown} {self.unit}".strip()

    def _standing(self) -> str:
        entry = self.entry()
        counted = first_guess(entry)
        locked = entry["evidence_at"] is not None
        if counted is None:
            text = f"The recorded default, {self.words(self.default)}, stands in: no guess was made"
            text += " before the evidence." if locked else " yet."
        else:
            text = f"Your guess is {self.words(counted)}."
            text += "" if locked else " You may change it until the evidence is shown."
        if self.later is not None:
            text += f" {self.words(self.later)} came after the evidence: it is kept as a later attempt,"
            text += " and the first one counts." if counted is not None else " and does not count."
        return text

    def _problem(self, value: object) -> str:
        if self.choices:
            return "" if value in self.choices else f"{value!r} is none of {', '.join(self.choices)}."
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        return "" if number else f"{value!r} is no number."

    def _fits(self, entry: dict | None) -> bool:
        return entry is not None and entry.get("unit") == self.unit and "evidence_at" in entry

    def _new(self) -> dict:
        return {"unit": self.unit, "attempts": [], "evidence_at": None, "truth": None}


def first_guess(entry: Mapping) -> Value | None:
    """The guess that counts of what the progress says of a question: the first before the evidence; None without."""
    return next((one["value"] for one in entry["attempts"] if not one["late"]), None)


def ratio(value: object, true: object) -> float | None:
    """How many times the true value was guessed; None where that is no question (a choice, zero, another sign)."""
    numbers = isinstance(value, int | float) and isinstance(true, int | float)
    return value / true if numbers and value * true > 0 else None


def predict(
    name: str,
    unit: str,
    value: Value | None = None,
    *,
    default: Value,
    ask: str = "",
    choices: Sequence[str] = (),
) -> Guess:
    """Ask for a guess, show what stands, and return it.

    `name` is unique over the course, `unit` is that of the number ("" for a choice or a pure count). A `value` in the
    call is the guess. Without one a notebook that somebody has open shows a field to fill in; elsewhere `default`, the
    recorded default, stands in, and that is said. Raises `InputError` for a default that is no answer itself.
    """
    guess = Guess(name, unit, default, tuple(choices))
    if not name.strip():
        raise InputError("predict: the name is empty; name the guess in a few words")
    problem = guess._problem(default)
    if problem:
        raise InputError(f"predict {name!r}: the recorded default does not do: {problem}")
    told = guess.take(value) if value is not None else guess._standing()
    head = ask or f"Your guess: {name}"
    if value is None and has_front_end() and offer_entry(guess, head, told):
        return guess
    show(Note(head, told))
    return guess
