"""What routers share that count the requests which they have under way themselves."""

from dataclasses import dataclass, field
from typing import ClassVar

from helpers.policies.loads import OwnLoad
from helpers.policies.pairing import Pairing
from helpers.policies.routing import STATE, LiveMask, candidates
from helpers.policies.view import Dispatched, Event, Finished, FirstToken, Rejected, Views, WorkerLost

# The events that the count is made from.
COUNTED = frozenset({Dispatched, FirstToken, Finished, Rejected, WorkerLost})


@dataclass(frozen=True, slots=True)
class CountingRouter:
    """Counts its own requests on each worker, as `own.load[worker]`: no view is read for it, so it is never stale.

    A request counts on its prefill worker from the dispatch on, from its first token on its decode worker,
    until it has finished or is given up. What other front ends send is not counted.
    """

    name: ClassVar[str]
    observes: ClassVar[frozenset[type]] = COUNTED
    own: OwnLoad = field(default_factory=OwnLoad, **STATE)
    pairing: Pairing = field(default_factory=Pairing, **STATE)
    _mask: LiveMask = field(default_factory=LiveMask, **STATE)

    def observe(self, event: Event, now: float) -> None:
        kind = type(event)
        if kind is Dispatched:
            self.own.dispatched(event.request.id, event.decision, 1)
        elif kind is FirstToken:
            self.own.first_token(event.request.id, 1)
        elif kind is Finished or kind is Rejected:
            self.own.finished(event.request.id)
        elif kind is WorkerLost:
            self.own.lost(event.worker)

    def _live(self, views: Views) -> int:
        """The mask of the live workers that take prefills; each of them has a count."""
        live = self._mask(candidates(views))
        self.own.grow(live.bit_length())
        return live
