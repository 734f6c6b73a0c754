"""The sides of a comparison: routers by name, with the parameters that were set as text."""

from collections.abc import Sequence
from dataclasses import replace

from helpers.errors import InputError
from helpers.policies import registry
from helpers.policies.catalogue import KINDS
from helpers.policies.entry import Entry
from helpers.serving.experiment import Experiment
from helpers.simulator.oracle import ENTRY, Oracle

ALL = "all"

Arms = dict[str, Experiment]


def routers_of(names: Sequence[str]) -> tuple[str, ...]:
    """The routers that were asked for, in that order; `all` stands for every one of the catalogue not named besides.

    Raises `InputError` for an unknown name and for one named twice.
    """
    others = [name for name in KINDS["router"] if name not in names]
    chosen = tuple(one for name in names for one in (others if name == ALL else [name]))
    for name in chosen:
        entry_of("router", name)
        if chosen.count(name) > 1:
            raise InputError(f"router {name} was given twice; an arm is compared with others, not with itself")
    return chosen


def entry_of(kind: str, name: str) -> Entry:
    """What is known of a policy, the simulator's oracle among the routers; raises `InputError` for an unknown name."""
    return ENTRY if (kind, name) == ("router", Oracle.name) else registry.find(kind, name)


def settings(kind: str, names: Sequence[str], texts: Sequence[str]) -> dict[str, dict[str, object]]:
    """The parameters of each policy, from texts such as `kv_weight=0.2`, each read as the parameter's own type.

    With several policies, a parameter goes to those that have it. Raises `InputError` for a text of another form, a
    parameter that none has or that was given twice, and a value of the wrong type.
    """
    found: dict[str, dict[str, object]] = {name: {} for name in names}
    known = {name: {one.name: one for one in entry_of(kind, name).parameters} for name in names}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise InputError(f"{kind} parameter {text!r}; write KEY=VALUE")
        having = [name for name in names if key in known[name]]
        if not having:
            if len(names) > 1:
                raise InputError(f"none of the {kind}s has a parameter {key!r}; see `hybrid-serving policies NAME`")
            registry.checked(entry_of(kind, names[0]), f"{kind} {names[0]}", {key: value})
        for name in having:
            if key in found[name]:
                raise InputError(f"{kind} {name}: {key} was given twice; give it once")
            found[name][key] = known[name][key].read(value)
    for name, given in found.items():
        registry.checked(entry_of(kind, name), f"{kind} {name}", given)
    return found


def arms_of(question: Experiment, routers: Sequence[str], texts: Sequence[str] = ()) -> Arms:
    """`question` once for each router, by its name, with the router parameters in `texts`; see `settings`."""
    parameters = settings("router", routers, texts)
    return {name: replace(question, router=name, router_parameters=parameters[name]) for name in routers}
