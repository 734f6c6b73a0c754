"""What to take on which traffic: differences that records hold, and choices that these bear out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helpers.errors import InputError
from helpers.lessons.records import above_zero, below_zero, live_difference, machine_of, paired, point_of, with_interval


@dataclass(frozen=True, slots=True)
class Figure:
    """What a difference is of, in which unit, times what it is in that unit, with how many digits it is written.

    `less` says that less is better.
    """

    name: str
    unit: str = "requests/s"
    scale: float = 1.0
    digits: int = 2
    less: bool = False


LIVE = {"TTFT mean": Figure("TTFT", "ms", 1e3, 1, less=True), "attainment": Figure("in time", "points", 1e2, 0)}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The difference `first` - `second` of a figure, each draw or repeat paired with itself.

    `found` has its mean, the ends of its interval and `n`, as the record has it. `made` is how it came about, such as
    `simulated, 10 draws`; `where`, at which point of the record.
    """

    first: str
    second: str
    found: Mapping[str, float]
    figure: Figure
    made: str
    where: str = ""

    @property
    def better(self) -> str | None:
        """The one of the two that the interval shows to be better; None where it holds 0."""
        if not above_zero(self.found) and not below_zero(self.found):
            return None
        return self.first if below_zero(self.found) == self.figure.less else self.second

    def __str__(self) -> str:
        said = {self.first: "wins", self.second: "loses", None: "is not told apart"}[self.better]
        amount = f"{with_interval(self.found, self.figure.digits, self.figure.scale)} {self.figure.unit}"
        where = f", {self.where}" if self.where else ""
        return f"{said}: {self.figure.name} {amount} against {self.second}{where}; {self.made}"


def at_knee(told: dict, first: str, second: str) -> Evidence:
    """The difference of the knees in a record of `simulate --knee`."""
    return _simulated(first, second, paired(told, first, second), "knee")


def priced(told: dict, point: float, first: str, second: str) -> Evidence:
    """The difference of goodput at a point of a record of `price`; raises `InputError` for a point it has not."""
    words = {point_of(words): words for words in (arm["arm"].partition(", ")[2] for arm in told["arms"])}
    if point not in words:
        raise InputError(f"the record has no point {point:g}; it has {', '.join(f'{one:g}' for one in words)}")
    arms = (f"{router}, {words[point]}" for router in (first, second))
    return _simulated(first, second, paired(told, *arms, "goodput_per_s"), "goodput", words[point])


def since(told: dict, first: str, second: str) -> float:
    """The first point of a record of `price` where `first` is shown to be better than `second`.

    Raises `InputError` where it is nowhere.
    """
    for point in dict.fromkeys(point_of(arm["arm"].partition(", ")[2]) for arm in told["arms"]):
        if priced(told, point, first, second).better == first:
            return point
    raise InputError(f"{first} is nowhere shown to be better than {second}")


def in_case(rows: Iterable[dict], first: str, second: str) -> Evidence:
    """The difference of goodput of two arms of a case, one of which is what all others are paired with.

    Raises `InputError` where neither is.
    """
    by = {row["arm"]: row for row in rows}
    one, other = (by[arm]["difference_per_s"] for arm in (first, second))
    if (one is None) == (other is None):
        raise InputError(f"{first} and {second} are not paired in this case; ask for one against its baseline")
    found = one or {**other, "mean": -other["mean"], "low": -other["high"], "high": -other["low"]}
    where = f"{by[first]['rate_per_s']:g} requests/s sent" if "rate_per_s" in by[first] else ""
    return _simulated(first, second, found, "goodput", where)


def live(told: dict, first: str, second: str, load: float | None = None, of: str = "TTFT mean") -> Evidence:
    """The difference between live runs of a record of `fidelity`, or of one made by `records.routed_live`."""
    found = live_difference(told, first, second, load, of)
    made = f"measured on {machine_of(told)}, {found['n']} {told.get('of', 'runs')}"
    return Evidence(first, second, found, LIVE[of], made, "" if load is None else f"load {load:g}")


def _simulated(first: str, second: str, found: Mapping[str, float], figure: str, where: str = "") -> Evidence:
    return Evidence(first, second, found, Figure(figure), f"simulated, {found['n']} draws", where)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take on some traffic, what shows it, and a change that takes it away, with what shows that."""

    traffic: str
    because: Evidence
    change: str
    against: Evidence

    @property
    def take(self) -> str:
        """The policy that is chosen."""
        return self.because.first

    @property
    def borne_out(self) -> bool:
        """Whether the records show that the choice is better, and that after the change it is not."""
        return self.because.better == self.take != self.against.better


def decide(because: Mapping[str, Evidence], unless: Mapping[str, Evidence]) -> list[Choice]:
    """A choice for each kind of traffic, and in the same order what would change it.

    Raises `InputError` where the two are not about one policy.
    """
    made = []
    for (traffic, shown), (change, against) in zip(because.items(), unless.items(), strict=True):
        if shown.first != against.first:
            raise InputError(f"{traffic!r} takes {shown.first}, but what would change it is about {against.first}")
        made.append(Choice(traffic, shown, change, against))
    return made
