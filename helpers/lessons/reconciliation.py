"""A guess beside the bound, the recording and the own run; and how good all guesses of the course were."""

from collections.abc import Mapping
from statistics import median

from helpers.errors import InputError
from helpers.lessons.note import Note
from helpers.lessons.prediction import Guess, first_guess, ratio
from helpers.lessons.progress import current
from helpers.lessons.verdict import Unanswered, answer
from helpers.widgets.figures import Axis, Dot, Mark, dots
from helpers.widgets.show import Figure

Stated = float | Mapping[str, float] | None
GUESS, BOUND, RECORDING, OWN = "guess", "bound", "recording", "own run"


def reconcile(
    guess: Guess,
    *,
    bound: Stated = None,
    recorded: Stated = None,
    own: Stated = None,
    truth: str | None = None,
    note: str = "",
    origin: str = "simulated",
    title: str = "",
) -> Figure | Note:
    """The guess, a bound, recorded values and those of the own run on one axis, in the unit of the guess.

    `bound`, `recorded` and `own` are a number each, or numbers by label. The guess is judged by the value labelled
    `truth`; it need not be named when `own`, or else `recorded`, holds one value. For a guess among choices `truth`
    is the right choice, and the answer is a sentence. Locks the guess. Raises `InputError` when there is no truth to
    judge by. While a value is still NOT_YET the answer is a sentence, and nothing is locked.
    """
    try:
        answer(truth)
        stated = [answer(one) for one in (bound, recorded, own)]
    except Unanswered:
        return Note(f"Your guess and the evidence, {guess.name}", "They stand here once the check above has passed.")
    guess.lock(quiet=True)
    if guess.choices:
        return _reconciled_choice(guess, truth, note)
    kinds = (BOUND, RECORDING, OWN)
    groups = {kind: _labelled(kind, one) for kind, one in zip(kinds, stated, strict=True)}
    label, true = _truth(guess, groups, truth)
    _remember(guess, true)
    first = "your guess" if guess.own else "recorded default"
    values = [Dot(first, GUESS, guess.value)]
    if guess.later is not None:
        values.append(Dot("your guess after the evidence", GUESS, guess.later))
    values += [Dot(name, kind, value) for kind, group in groups.items() for name, value in group.items()]
    return dots(
        values,
        Axis(guess.name, guess.unit, from_zero=all(one.value >= 0 for one in values)),
        title=title or f"{guess.name[:1].upper()}{guess.name[1:]}: the guess and what was found",
        note=f"{_judged(guess, label, true)} {note}".strip(),
        origin=origin,
        alt="One axis with a dot for each value: " + ", ".join(f"{one.row} {guess.words(one.value)}" for one in values),
    )


def _labelled(kind: str, stated: Stated) -> dict[str, float]:
    """Numbers by label; a value that was not found (None) is left out."""
    named = stated if isinstance(stated, Mapping) else {kind: stated}
    return {name: float(value) for name, value in named.items() if value is not None}


def _truth(guess: Guess, groups: Mapping[str, Mapping[str, float]], label: str | None) -> tuple[str, float]:
    stated = {name: value for group in groups.values() for name, value in group.items()}
    if label is None:
        candidates = groups[OWN] or groups[RECORDING]
        if len(candidates) != 1:
            raise InputError(f"reconcile {guess.name!r}: which value is the true one? Name its label in `truth`")
        label = next(iter(candidates))
    if label not in stated:
        raise InputError(f"reconcile {guess.name!r}: truth {label!r} is not among {', '.join(stated) or 'no values'}")
    return label, stated[label]


def _reconciled_choice(guess: Guess, truth: str | None, note: str) -> Note:
    if truth not in guess.choices:
        raise InputError(f"reconcile {guess.name!r}: truth {truth!r} is none of {', '.join(guess.choices)}")
    _remember(guess, truth)
    who = "you guessed" if guess.own else "the recorded default is"
    return Note(f"It is {truth}; {who} {guess.value}", note)


def _remember(guess: Guess, true: float | str) -> None:
    def edit(data: dict) -> None:
        data["predictions"][guess.name]["truth"] = true

    current().change(edit)


def _judged(guess: Guess, label: str, true: float) -> str:
    who = "Your guess" if guess.own else "The recorded default"
    times = ratio(guess.value, true)
    far = f"is {guess.words(guess.value)}" if times is None else f"is {times:.2f} times the true value"
    return f"{who} {far} ({label}, {guess.words(true)})."


def calibration() -> Figure | Note:
    """Every guess of the learner that was reconciled, as a ratio to the true value; a sentence while there is none."""
    ratios = {}
    for name, entry in current().read()["predictions"].items():
        times = ratio(first_guess(entry), entry.get("truth"))
        if times is not None:
            ratios[name] = times
    if not ratios:
        return Note("Your calibration", "It appears here once you have made a guess of your own and seen the evidence.")
    off = median(max(times, 1 / times) for times in ratios.values())
    return dots(
        [Dot(name, "your first guess", times) for name, times in ratios.items()],
        Axis("guess / true value", "", log=True),
        rows_are="which guess",
        title="How good your guesses are",
        note=f"N = {len(ratios)}; half of them are within a factor of {off:.2g}.",
        origin="measured",
        marks=[Mark(1.0, "exact")],
        alt="A dot for each guess over its true value, with a line where both are equal: "
        + ", ".join(f"{name} {times:.2f}" for name, times in ratios.items()),
    )
