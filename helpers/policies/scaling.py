"""How many workers a fleet should have."""

from dataclasses import dataclass
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.routing import parameter
from helpers.policies.view import Plan, Views


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always the same number of workers of each role, whatever the load; lost ones are wanted back."""

    name: ClassVar[str] = "fixed"
    mixed: int = parameter(1, "mixed workers wanted")
    prefill: int = parameter(0, "prefill workers wanted")
    decode: int = parameter(0, "decode workers wanted")

    def __post_init__(self) -> None:
        wanted = {"mixed": self.mixed, "prefill": self.prefill, "decode": self.decode}
        for role, count in wanted.items():
            if count < 0:
                raise InputError(f"scaler fixed: {role} is {count}; give 0 or more")
        if not self.mixed and not (self.prefill and self.decode):
            raise InputError(
                "scaler fixed: no worker takes whole requests; want a mixed one, or a prefill and a decode one"
            )

    def scale(self, views: Views, now: float) -> Plan:
        return Plan({"mixed": self.mixed, "prefill": self.prefill, "decode": self.decode}, "the fleet is fixed")
