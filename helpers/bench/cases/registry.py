"""Every case by its name, in the order in which the book meets them."""

from helpers.bench.cases import admission, routing, scaling
from helpers.bench.cases.case import Case
from helpers.errors import InputError

CASES: dict[str, Case] = {case.name: case for room in (routing, admission, scaling) for case in room.CASES}


def chosen(names: list[str] | None) -> list[Case]:
    """The cases of these names, all without any; raises `InputError` for a name that is none."""
    for name in names or ():
        if name not in CASES:
            raise InputError(f"bench cases: {name!r} is no case; use one of {', '.join(CASES)}")
    return [CASES[name] for name in names or CASES]
