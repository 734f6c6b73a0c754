"""A fleet of a fixed size."""

from dataclasses import dataclass
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.routing import parameter
from helpers.policies.scaling.pools import PERIOD_S, check_period
from helpers.policies.view import Event, FleetViews, Plan


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same number of workers of each role, whatever the load; lost ones are wanted back."""

    name: ClassVar[str] = "fixed"
    observes: ClassVar[frozenset[type]] = frozenset()
    mixed: int = parameter(1, "mixed workers wanted")
    prefill: int = parameter(0, "prefill workers wanted")
    decode: int = parameter(0, "decode workers wanted")
    period_s: float = parameter(PERIOD_S, "seconds between two looks at the fleet")

    def __post_init__(self) -> None:
        check_period(self.name, self.period_s)
        wanted = {"mixed": self.mixed, "prefill": self.prefill, "decode": self.decode}
        for role, count in wanted.items():
            if count < 0:
                raise InputError(f"scaler fixed: {role} is {count}; give 0 or more")
        if not self.mixed and not (self.prefill and self.decode):
            raise InputError(
                "scaler fixed: no worker takes whole requests; want a mixed one, or a prefill and a decode one"
            )

    def scale(self, views: FleetViews, now: float) -> Plan:
        return Plan({"mixed": self.mixed, "prefill": self.prefill, "decode": self.decode}, "the fleet is fixed")

    def observe(self, event: Event, now: float) -> None:
        """Nothing to learn from events."""
