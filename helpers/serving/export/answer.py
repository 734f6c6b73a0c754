"""What is asked of an export, what a system answers, and the text and the record made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from helpers.serving.arms import entry_of
from helpers.serving.fleet import Fleet

# A parameter that changes what we write down and nothing that is decided.
OURS = ("explain",)

Flags = Mapping[str, object]  # flag -> value; None for a flag without a value


@dataclass(frozen=True)
class Choice:
    """A router and an admission policy with their parameters, on a fleet. Raises `InputError` for unknown names."""

    router: str
    admission: str = "none"
    fleet: Fleet = field(default_factory=Fleet)
    router_parameters: Mapping[str, object] = field(default_factory=dict)
    admission_parameters: Mapping[str, object] = field(default_factory=dict)

    def parameters(self, kind: str) -> dict[str, object]:
        """Every parameter of the router or the admission, the defaults included."""
        name, given = getattr(self, kind), getattr(self, f"{kind}_parameters")
        return {p.name: p.default for p in entry_of(kind, name).parameters if p.name not in OURS} | dict(given)

    def count(self, role: str) -> int:
        """How many workers have the role `mixed`, `prefill` or `decode`."""
        return self.fleet.roles.count(role)

    @property
    def split(self) -> bool:
        """Whether prefill and decode have workers of their own."""
        return self.count("prefill") > 0

    @property
    def beside(self) -> tuple[str, ...]:
        """Workers of both kinds of fleet: a sentence for the systems that have no place for them."""
        both = self.split and self.count("mixed")
        return (f"split {self.fleet.split}: mixed workers beside two pools are not described",) if both else ()


@dataclass(frozen=True)
class Carried:
    """A policy in the words of a system.

    `flags` are of its front end, `engine` of each worker, `parts` what a system of plugins is told. `used` names
    our parameters that all this expresses, `notes` says in a sentence each where the two differ.
    """

    flags: Flags = field(default_factory=dict)
    used: Sequence[str] = ()
    notes: Sequence[str] = ()
    engine: Flags = field(default_factory=dict)
    parts: Sequence[object] = ()


@dataclass(frozen=True)
class Nothing:
    """A system has no equivalent of a policy; why, or what is nearest."""

    why: str


Rule = Callable[[dict, Choice], Carried | Nothing]
Rules = Mapping[str, Rule]


@dataclass(frozen=True)
class Component:
    """A command to start, `count` times."""

    title: str
    words: tuple[str, ...]
    flags: Flags
    count: int = 1

    def lines(self) -> list[str]:
        """The command as it is typed, one flag a line."""
        flags = [name if value is None else f"{name} {shown(value)}" for name, value in self.flags.items()]
        return " \\\n    ".join([" ".join(self.words), *flags]).split("\n")


@dataclass(frozen=True)
class Export:
    """What a system is to be told: commands, a document, and in sentences what differs and what is missing."""

    system: str
    sources: tuple[str, ...]
    components: tuple[Component, ...]
    document: dict | None
    notes: tuple[str, ...]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """The text to print: shell and YAML, all else as comments."""
        text = [f"# {self.system}; flags as in {self.sources[0]}", *(f"# and {one}" for one in self.sources[1:])]
        for one in self.components:
            text += ["", f"# {one.count} x {one.title}" if one.count > 1 else f"# {one.title}", *one.lines()]
        if self.document is not None:
            text += ["", *dump(self.document).splitlines()]
        text += [""] if self.notes or self.missing else []
        text += [f"# differs: {one}" for one in self.notes]
        return text + [f"# no equivalent: {one}" for one in self.missing]

    def record(self) -> dict:
        """The same as plain values."""
        return {
            "for": self.system,
            "sources": list(self.sources),
            "components": [
                {"title": c.title, "count": c.count, "words": list(c.words), "flags": dict(c.flags)}
                for c in self.components
            ],
            "document": plain(self.document),
            "notes": list(self.notes),
            "missing": list(self.missing),
        }


def answer(rules: Rules, kind: str, choice: Choice) -> tuple[Carried, tuple[str, ...]]:
    """What a system makes of the router or the admission, and what it has no word for, in sentences.

    A policy that `rules` do not know is missing as a whole; of one they know, every parameter that is not used,
    unless it is false or none: what is switched off needs no word.
    """
    name, parameters = getattr(choice, kind), choice.parameters(kind)
    rule = rules.get(name)
    found = rule(parameters, choice) if rule else Nothing("none was looked for")
    if isinstance(found, Nothing):
        return Carried(), (f"{kind} {name}: {found.why}",)
    lost = {key: v for key, v in parameters.items() if key not in found.used and v is not False and v is not None}
    return found, tuple(f"{kind} {name}: {key} = {shown(value)}" for key, value in lost.items())


def nothing(why: str) -> Rule:
    """The rule of a policy without an equivalent."""
    return lambda parameters, choice: Nothing(why)


def shown(value: object) -> str:
    """A value as flags have it: no exponent, no trailing zero, `none` for nothing."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def plain(value: object) -> object:
    """A copy of a document, whole numbers without a point: many programs read 5.0 as no whole number."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def dump(document: dict) -> str:
    """The document as YAML, its keys in their order."""
    import yaml

    return yaml.safe_dump(plain(document), sort_keys=False, allow_unicode=True, width=110)
