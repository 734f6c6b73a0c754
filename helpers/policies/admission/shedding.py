"""Admission by chance: the fuller the fleet, the more of the requests that may be shed are shed."""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.routing import parameter
from helpers.policies.view import ACCEPT, Decision, Verdict, Views
from helpers.workload.request import Request

SHED = Verdict("reject", "shed by chance")


@dataclass(frozen=True, slots=True)
class Probabilistic:
    """A request that may be shed is rejected with a probability that climbs with the saturation of the fleet.

    saturation = mean over live workers of max(waiting / queue_depth, KV use / kv_use)
    p          = min(gain x saturation ** power, 1)

    llm-d's probabilistic admitter, with its defaults (5 waiting, 0.8 of the KV, power 5, gain 300; read in
    its documentation of 2026-05). There all is shed at a saturation of (1 / 300) ** (1 / 5) = 0.320, although
    that documentation says 0.34. llm-d sheds priorities below 0; here a lower priority is served first,
    and those above `sheddable_above` may be shed. Each decision looks at every worker.
    """

    name: ClassVar[str] = "probabilistic"
    queue_depth: float = parameter(5.0, "requests waiting on a worker that count as full")
    kv_use: float = parameter(0.8, "share of the KV blocks in use that counts as full")
    power: float = parameter(5.0, "how late and how steeply shedding sets in")
    gain: float = parameter(300.0, "probability at a saturation of 1, before it is cut off at 1")
    sheddable_above: int = parameter(0, "priorities above this may be shed")

    def __post_init__(self) -> None:
        for name in ("queue_depth", "kv_use", "power", "gain"):
            if not getattr(self, name) > 0:
                raise InputError(f"admission probabilistic: {name} is {getattr(self, name)}; give a number above 0")

    def admit(self, request: Request, views: Views, decision: Decision, now: float, rng: Random) -> Verdict:
        if request.priority <= self.sheddable_above:
            return ACCEPT
        return SHED if rng.random() < self.probability(self.saturation(views)) else ACCEPT

    def probability(self, saturation: float) -> float:
        """The share of sheddable requests that is rejected at a saturation."""
        return min(self.gain * saturation**self.power, 1.0)

    def saturation(self, views: Views) -> float:
        """How full the live workers are on average: 1 is full by queue or by memory."""
        workers = views.prefill if views.prefill == views.decode else sorted({*views.prefill, *views.decode})
        full = 0.0
        for worker in workers:
            view = views[worker]
            full += max(view.waiting / self.queue_depth, view.kv_used_blocks / view.kv_total_blocks / self.kv_use)
        return full / len(workers)
