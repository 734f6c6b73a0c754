"""The decode worker of a split request: the least loaded by reports, with what is on its way there counted in.

A report counts the context of the requests that run on a worker. A prompt that another worker still computes, or
whose KV is on the link, is in none, for as long as a prefill takes. Whoever goes by reports alone sends all prompts
of that time to the one decode worker that looks least loaded.
"""

from typing import ClassVar

from helpers.errors import InputError
from helpers.policies.ledger import Ledger
from helpers.policies.view import (
    Decision,
    Dispatched,
    Event,
    Finished,
    HandedOver,
    Rejected,
    Router,
    Views,
    WorkerLost,
    WorkerView,
)

# Sequences that cannot change in place, so that the same object means the same workers.
FIXED = (tuple, range)

# Reports are at least milliseconds apart, and `now - age_s` is exact to far less: a later time is a new report.
SAME_S = 1e-6


class OnTheWay:
    """The prompts that this router has sent to each decode worker and that no report of it shows yet.

    A request counts with all of its prompt from its dispatch until a report is looked at that was made after its KV
    had arrived (`HandedOver`): from then on it is in the report. So each moment has it in one of the two, however old
    reports are. Its first token would be a time too early: the KV is still to come then, and may have to wait for
    room. It also counts no more when it has finished, was rejected or given up, and when its decode worker is lost.
    The loss of its prefill worker alone changes nothing: it is dispatched again, which replaces the first time.

    What a mixed worker prefills for itself is in its reports and not counted here, nor is what other front ends send.
    """

    observes: ClassVar[frozenset[type]] = frozenset({Dispatched, HandedOver, Finished, Rejected, WorkerLost})
    __slots__ = ("_arrived", "_sent")

    def __init__(self) -> None:
        self._sent = Ledger()
        self._arrived: dict[int, dict[int, float]] = {}  # decode worker -> request -> when its KV was there

    def __len__(self) -> int:
        """Requests that are counted somewhere."""
        return len(self._sent)

    def to(self, view: WorkerView, now: float) -> tuple[int, int]:
        """(requests, prompt tokens) on their way to the worker of a view, and not in that view."""
        sent, worker = self._sent, view.worker
        arrived = self._arrived.get(worker)
        if arrived:
            made_s = now - view.age_s + SAME_S
            for request in [request for request, at_s in arrived.items() if at_s <= made_s]:
                del arrived[request]
                sent.remove(request)
        sent.grow(worker + 1)
        return sent.requests[worker], sent.amount[worker]

    def observe(self, event: Event, now: float) -> None:
        """Take in what has become of a request or a worker."""
        kind = type(event)
        if kind is Dispatched:
            self._forget(event.request.id)
            prefill, decode = event.decision.prefill, event.decision.decode
            if prefill != decode:
                self._sent.add(event.request.id, (decode,), event.request.prompt_tokens)
        elif kind is HandedOver:
            if event.worker in self._sent.workers(event.request.id):
                self._arrived.setdefault(event.worker, {})[event.request.id] = event.at_s
        elif kind is WorkerLost:
            self._sent.lost(event.worker)
            self._arrived.pop(event.worker, None)
        else:
            self._forget(event.request.id)

    def _forget(self, request: int) -> None:
        for worker in self._sent.workers(request):
            self._arrived.get(worker, {}).pop(request, None)
        self._sent.remove(request)


class Pairing:
    """Completes a choice of prefill worker to a decision, and remembers the decisions it has made.

    A mixed worker decodes what it prefilled. After a prefill worker, the decode worker is the one of `views.decode`
    with the fewest KV tokens, those `on_the_way` to it added, the lowest id among equals; that looks at each of them.
    Raises `InputError` when no live worker decodes.

    It is this course's rule, for routers that have none of their own, so that two of them differ in one thing only; a
    system that chooses both workers keeps its own (in `zoo`: Dynamo, SGLang and llm-d). Where prefill and decode
    workers are apart, a front end tells the `pairing` of a router what it `observes`; routers pass nothing on.
    """

    observes: ClassVar[frozenset[type]] = OnTheWay.observes
    __slots__ = ("_made", "_mixed", "_seen", "on_the_way")

    def __init__(self) -> None:
        self.on_the_way = OnTheWay()
        self._made: dict[tuple[int, int], Decision] = {}
        self._seen: tuple = (None, None)
        self._mixed = False

    def __call__(self, views: Views, prefill: int, now: float) -> Decision:
        seen = self._seen
        known = views.prefill is seen[0] and views.decode is seen[1]
        if (self._mixed if known else self._all_mixed(views)) or views[prefill].role == "mixed":
            pair = (prefill, prefill)
        else:
            pair = (prefill, self.decode_worker(views, now))
        made = self._made.get(pair)
        if made is None:
            made = self._made[pair] = Decision(*pair)
        return made

    def decode_worker(self, views: Views, now: float) -> int:
        """The decode worker with the fewest KV tokens, reported or on their way, the lowest id among equals."""
        if not views.decode:
            raise InputError("no live worker takes decodes; give the fleet a mixed or a decode worker")
        coming = self.on_the_way.to
        seen = [views[worker] for worker in views.decode]
        return min((view.kv_tokens + coming(view, now)[1], view.worker) for view in seen)[1]

    def observe(self, event: Event, now: float) -> None:
        """Take in what has become of a request or a worker."""
        self.on_the_way.observe(event, now)

    def _all_mixed(self, views: Views) -> bool:
        """Whether all live workers are known to be mixed: then no view has to be made to learn a role."""
        now = views.prefill, views.decode
        if not all(isinstance(workers, FIXED) for workers in now):
            return False  # What may change in place is not worth remembering.
        self._seen, self._mixed = now, now[0] == now[1]
        return self._mixed


class ByReports(Pairing):
    """A control, which hears nothing: the decode worker by reports alone. `bench splits` measures what that costs."""

    observes: ClassVar[frozenset[type]] = frozenset()
    __slots__ = ()


def by_reports(router: Router) -> Router:
    """The same router, that pairs by reports alone from now on; it must not have a rule of its own for decodes."""
    object.__setattr__(router, "pairing", ByReports())
    return router
