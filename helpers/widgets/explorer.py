"""An explorer: controls, and a function that turns their values into figures. No page, no kernel, no JavaScript.

The same function answers in JupyterLab, where a kernel runs it, and in the rendered page, where a worker does.
What goes in and what comes out are plain values that JSON can hold. Standard library only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite

from helpers.errors import InputError
from helpers.sources import one_of
from helpers.widgets.hardware import MINE, mine
from helpers.widgets.show import Figure

Value = float | int | str
# What `hybrid-serving calibrate --json` wrote, when the reader has given it.
Record = Mapping[str, object] | None
RANGE, CHOICE = "range", "choice"


@dataclass(frozen=True, slots=True)
class Control:
    """Something to set: a number within bounds (`range`) or one of several `options` of (value, label) (`choice`).

    A range whose `step` is a whole number takes whole numbers only. `log` asks for a logarithmic slider, on which
    `step` only says how fine the number is. `help` is one short sentence.
    """

    name: str
    label: str
    kind: str
    value: Value
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    unit: str = ""
    log: bool = False
    options: tuple[tuple[str, str], ...] = ()
    help: str = ""

    def checked(self, value: object) -> Value:
        """`value` when the control can stand there; raises `InputError`, in the reader's words, when it cannot."""
        if self.kind == CHOICE:
            known = [option for option, _ in self.options]
            if value not in known:
                raise one_of(self.label, str(value), known)
            return value
        unit = f" {self.unit}" if self.unit else ""
        bounds = f"{self.label}: give a number from {self.minimum:g} to {self.maximum:g}{unit}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise InputError(f"{bounds}, not {value!r}")
        if not self.minimum <= value <= self.maximum:
            raise InputError(f"{bounds}, not {value:g}")
        if isinstance(self.step, int):
            if value != int(value):
                raise InputError(f"{bounds}, a whole one, not {value:g}")
            return int(value)
        return float(value)

    def plain(self) -> dict:
        """The control as JSON holds it: what its kind has no use for is left out."""
        common = {"name": self.name, "label": self.label, "kind": self.kind, "value": self.value, "help": self.help}
        if self.kind == CHOICE:
            return common | {"options": [list(option) for option in self.options]}
        bounds = {"minimum": self.minimum, "maximum": self.maximum, "step": self.step}
        return common | bounds | {"unit": self.unit, "log": self.log}


def number(
    name: str,
    label: str,
    value: float,
    bounds: tuple[float, float],
    step: float,
    unit: str = "",
    log: bool = False,
    help: str = "",
) -> Control:
    """A control of the kind `range`."""
    return Control(name, label, RANGE, value, *bounds, step, unit, log, help=help)


def choice(name: str, label: str, value: str, options: Mapping[str, str], help: str = "") -> Control:
    """A control of the kind `choice`; `options` are the labels by value."""
    return Control(name, label, CHOICE, value, options=tuple(options.items()), help=help)


@dataclass(frozen=True, slots=True)
class Readout:
    """A number with its unit, as words, under a label; `of` names whose it is where several are compared.

    Readouts with `of` stand in a table, a row for each label and a column for each `of`.
    """

    label: str
    text: str
    of: str = ""

    def plain(self) -> dict:
        """The readout as JSON holds it, `of` only where it is given."""
        return {"label": self.label, "text": self.text} | ({"of": self.of} if self.of else {})


@dataclass(frozen=True, slots=True)
class Answer:
    """What an explorer says to the values of its controls; `summary` is one sentence, for a reader who listens."""

    figures: tuple[Figure, ...]
    readouts: tuple[Readout, ...]
    summary: str


Compute = Callable[[Mapping[str, Value], Record], Answer]


@dataclass(frozen=True, slots=True)
class Explorer:
    """A name, a title, an intro of a sentence or two, the controls in their order, and the computation.

    `compute` takes checked values and the record of the reader's own calibration, None when there is none. It is a
    pure function: the same values give the same answer. It raises `InputError` for values that do not go together.
    """

    name: str
    title: str
    intro: str
    controls: tuple[Control, ...]
    compute: Compute


def with_mine(explorer: Explorer, record: Record) -> Explorer:
    """The explorer with `mine` among the options of the control `hardware`, when there is a calibration.

    Raises `InputError` when the record holds no cost.
    """
    if record is None:
        return explorer
    own = (MINE, mine(record).label)
    controls = tuple(
        replace(one, options=(*one.options, own)) if one.name == "hardware" else one for one in explorer.controls
    )
    return replace(explorer, controls=controls)


def checked(explorer: Explorer, values: Mapping[str, object], record: Record = None) -> dict[str, Value]:
    """A value for every control, the default where none is given.

    Raises `InputError` for an unknown name, and for a value outside the range or the options of its control.
    """
    controls = {one.name: one for one in with_mine(explorer, record).controls}
    for name in values:
        if name not in controls:
            raise one_of("control", name, controls)
    return {name: one.checked(values.get(name, one.value)) for name, one in controls.items()}


def description(explorer: Explorer, record: Record = None, values: Mapping[str, Value] | None = None) -> dict:
    """What a page or a widget draws the controls from: `name`, `title`, `intro`, `controls`.

    The `value` of a control is where it stands at first and after a reset: what `values` say of it, else its default.
    """
    controls = [one.plain() for one in with_mine(explorer, record).controls]
    for one in controls:
        one["value"] = (values or {}).get(one["name"], one["value"])
    return {"name": explorer.name, "title": explorer.title, "intro": explorer.intro, "controls": controls}


def answer(explorer: Explorer, values: Mapping[str, object], record: Record = None) -> dict:
    """The answer to some values: `values` (all of them), `summary`, `readouts`, `figures`. Raises as `checked` does."""
    every = checked(explorer, values, record)
    found = explorer.compute(every, record)
    return {
        "values": every,
        "summary": found.summary,
        "readouts": [one.plain() for one in found.readouts],
        "figures": [figure.to_dict() for figure in found.figures],
    }
