"""What the catalogue says of a policy: its constructor, its parameters, its source."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args

from helpers.policies.facts import Facts

# How the text of a command line becomes a value, the narrowest type first. A word that is not there is no such value.
READ: dict[type, Callable[[str], object]] = {
    NoneType: {"none": None, "nothing": None}.__getitem__,
    bool: {"true": True, "false": False}.__getitem__,
    int: int,
    float: float,
    str: str,
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a policy: the types it takes, its default, and what it means."""

    name: str
    types: tuple[type, ...]
    default: object
    meaning: str

    def accepts(self, value: object) -> bool:
        """Whether `value` has a type of this parameter; a whole number is also a number, true and false are none."""
        return type(value) in self.types or (type(value) is int and float in self.types)

    def read(self, text: str) -> object:
        """The value that `text` stands for, of the first of its types that it fits; else the text itself."""
        for kind, reads in READ.items():
            if kind in self.types:
                try:
                    return reads(text)
                except (KeyError, ValueError):
                    continue
        return text


@dataclass(frozen=True)
class Entry:
    """A policy in the catalogue: its constructor, one line on what it does, and its source."""

    make: Callable[..., Any]
    summary: str
    source: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that may be set, in the order of the constructor."""
        return tuple(
            Parameter(one.name, get_args(one.type) or (one.type,), one.default, one.metadata["meaning"])
            for one in fields(self.make)
            if "meaning" in one.metadata
        )

    def facts(self, known: Facts) -> dict[str, object]:
        """Those of the `known` facts that it has a field for."""
        asked = {one.name for one in fields(self.make)}
        return {one.name: getattr(known, one.name) for one in fields(known) if one.name in asked}
