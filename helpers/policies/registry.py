"""Policies made by name, with their parameters checked."""

from types import NoneType

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.catalogue import KINDS
from helpers.policies.entry import Entry
from helpers.policies.facts import Facts
from helpers.policies.view import Admission, Router, Scaler

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", NoneType: "nothing"}


def router(
    name: str, workers: int, block_tokens: int = 512, predictor: CostPredictor | None = None, **parameters: object
) -> Router:
    """A fresh router for a fleet of `workers` workers, see `make`."""
    return make("router", name, Facts(workers, block_tokens, predictor=predictor), **parameters)


def make(kind: str, name: str, facts: Facts | None = None, **parameters: object) -> Router | Admission | Scaler:
    """A fresh policy of a kind (`router`, `admission`, `scaler`), told the facts that it asks for.

    Raises `InputError` for an unknown name or parameter, and for a value of the wrong type or range.
    """
    return build(find(kind, name), f"{kind} {name}", facts, parameters)


def build(entry: Entry, label: str, facts: Facts | None, parameters: dict[str, object]) -> Router | Admission | Scaler:
    """As `make`, from an entry that need not be in the catalogue; `label` names the policy in errors."""
    return entry.make(**entry.facts(facts or Facts()), **checked(entry, label, parameters))


def find(kind: str, name: str) -> Entry:
    """The policy `name` of a kind (`router`, `admission`, `scaler`); raises `InputError` listing the known names."""
    known = KINDS[kind]
    if name not in known:
        raise InputError(f"{kind} {name!r} is unknown; use one of {', '.join(known)}")
    return known[name]


def checked(entry: Entry, label: str, given: dict[str, object]) -> dict[str, object]:
    """`given`, when each is a parameter of the policy and of its type; else raises `InputError`."""
    known = {one.name: one for one in entry.parameters}
    for key, value in given.items():
        if key not in known:
            which = f"its parameters are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{label}: parameter {key!r} is unknown; {which}")
        if not known[key].accepts(value):
            wanted = " or ".join(WORDS[one] for one in known[key].types)
            raise InputError(f"{label}: {key} is {value!r}; give {wanted}")
    return given
