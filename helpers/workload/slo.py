"""Service level objectives: the latency bounds that a request of a class is promised."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

from helpers.errors import InputError


@dataclass(frozen=True, slots=True)
class SLO:
    """Upper bounds in seconds, each optional; a request meets the SLO when it finished within all of them.

    Raises InputError on a bound that is not above 0.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            bound = getattr(self, name)
            if bound is not None and not 0 < bound < inf:
                raise InputError(f"the SLO {name} is {bound}; give a finite number of seconds above 0, or leave it out")


SLOs = SLO | Mapping[str, SLO]


class Classed(Protocol):
    """A request, or the timeline of one."""

    id: int
    slo_class: str


def slo_of(request: Classed, slos: SLOs) -> SLO:
    """The SLO that holds for a request: the one given, or that of its class. Raises InputError when it has none."""
    if isinstance(slos, SLO):
        return slos
    slo = slos.get(request.slo_class)
    if slo is None:
        raise InputError(
            f"request {request.id} is of class {request.slo_class!r}, which has no SLO; "
            f"add it to the classes given ({', '.join(sorted(slos)) or 'none'})"
        )
    return slo
