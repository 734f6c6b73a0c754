"""An open-loop run of a prefill and a decode role that share one device, with the record that every backend makes."""

from collections.abc import Iterable
from math import inf
from time import sleep

from helpers.cluster.books import Books, Ticket
from helpers.cluster.duet import DECODE, PREFILL, ROLES, Duet, Turn
from helpers.cluster.orders import Order
from helpers.metrics.timeline import EventLog, WorkerInfo
from helpers.scheduling.sequence import Sequence
from helpers.simulator.record import timeline_of
from helpers.workload.request import Request

REST_S = 1e-4  # between two looks, while neither role can do anything


class OneDevice:
    """One run of a duet that has begun: each request is sent at its scheduled arrival, whatever the roles do.

    Latencies count from there; `lateness_s` says how late each was sent. `books` has tokens and bytes that moved.
    """

    def __init__(self, duet: Duet, requests: Iterable[Request]) -> None:
        self.duet, self.books = duet, Books(len(ROLES))
        self.lateness_s: list[float] = []
        self._waiting = sorted(requests, key=lambda r: (r.arrival_s, r.id), reverse=True)  # the next one last
        self._live: dict[int, Ticket] = {}
        self._all: list[Ticket] = []
        self._tickets: dict[int, Ticket] = {}

    def run(self, limit_s: float = inf) -> EventLog:
        """Until everything was served or `limit_s` seconds have passed; who was not sent by then is left out."""
        self.duet.start()
        self.duet.meanwhile = self._send
        while (self._waiting or self._live) and self.duet.now() < limit_s:
            self._send()
            turn = self.duet.turn()
            self._enter(turn)
            if not turn.worked:
                sleep(REST_S)
        for ticket in self._live.values():
            ticket.sequence.reason = f"the run ended after {limit_s:g} s"
        return self._log()

    def _send(self) -> None:
        """Hand over what is due."""
        while self._waiting and self._waiting[-1].arrival_s <= (now := self.duet.now()):
            request, number = self._waiting.pop(), len(self._all)
            sequence = Sequence(request, number, request.arrival_s)
            sequence.dispatched_s, sequence.prefill_worker, sequence.decode_worker = now, PREFILL, DECODE
            ticket = Ticket(number, sequence, PREFILL, DECODE, joined=False)
            self._all.append(ticket)
            self._tickets[number] = self._live[number] = ticket
            self.lateness_s.append(now - request.arrival_s)
            self.duet.submit(Order(number, number, request, DECODE))

    def _enter(self, turn: Turn) -> None:
        """Enter what a turn has brought into the books."""
        for values in turn.joined:
            self.books.joined(values, self._live)
        for role, step in turn.steps:
            credited = self.books.step(role, step, self._tickets, self._live)
            for ticket, _, _, ended in credited.tokens:
                if ended:
                    sequence = ticket.sequence
                    sequence.finished_s, sequence.status = credited.end_s, "finished"
                    sequence.output = sequence.generated
                    del self._live[ticket.number]

    def _log(self) -> EventLog:
        limits = self.duet.engines[PREFILL].limits
        infos = tuple(WorkerInfo(role, kv_blocks=limits.kv_blocks, block_tokens=limits.block_tokens) for role in ROLES)
        timelines = sorted((timeline_of(ticket.sequence) for ticket in self._all), key=lambda t: t.id)
        return EventLog(tuple(timelines), self.books.logs, infos, self.duet.now())
