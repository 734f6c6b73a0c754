"""A worker: one process with one engine, which the front end tells what to do.

It reads its setup from standard input, as `helpers.cluster.workers` writes it. The end of that input is the end of its
parent, however that came about: the worker then leaves at once, whatever it is doing.
"""

import json
import os
import sys
import threading
from math import inf
from pathlib import Path

from helpers.cluster import folder
from helpers.cluster.hosted import HostedEngine, StepReport
from helpers.cluster.messages import Message
from helpers.cluster.movers import mover
from helpers.cluster.orders import Order, Part, WorkerSetup
from helpers.cluster.pages import Layout, PeerMemory
from helpers.cluster.pairs import Pairs
from helpers.cluster.receiver import Receiver
from helpers.cluster.sender import Sender
from helpers.cluster.sockets import WorkerSockets
from helpers.cluster.wires import wire_of
from helpers.engine.engine import EngineError, limits_for
from helpers.engine.generation import Generation
from helpers.engine.load import load, use_threads
from helpers.errors import InputError
from helpers.workload.request import Request

STUCK_S = 1e-3  # how long to wait for news when requests are there and none of them can run


class Worker:
    """The engine of this process, its hand-offs, and what it owes to the front end."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self._folder = Path(setup.folder)
        self.sockets = WorkerSockets(self._folder, setup.index, setup.workers)
        decoder = load(setup.model, setup.device, setup.dtype)
        use_threads(decoder)
        limits = limits_for(decoder, setup.block_tokens, setup.token_budget, setup.max_batch, setup.kv_gib)
        self.engine = HostedEngine(decoder, limits, self._folder / f"kv-{setup.index}", setup.stage_bytes)
        self.engine.runner.warm_up()
        self._warm_up()
        self._peers: dict[int, PeerMemory] = {}
        self._pairs: Pairs | None = None
        self._tickets: dict[int, Generation] = {}
        self._numbers: dict[int, int] = {}  # number -> ticket
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self._shown_s = -inf  # when the front end was last shown a view
        self._said_s = 0.0
        self._news: Message = {}  # what goes with the next report
        self._changed = False
        self._stopped = False

    def _warm_up(self) -> None:
        engine = self.engine
        most = min(engine.limits.token_budget, engine.limits.kv_blocks * engine.limits.block_tokens, engine.max_context)
        engine.submit(Request(0, 0.0, max(1, min(64, most - 4)), 4))
        for _ in engine.stream():
            pass

    # -- the loop

    def serve(self) -> None:
        """Until told to stop."""
        limits, pages = self.engine.limits, self.engine.pages
        hello = {"kv_blocks": limits.kv_blocks, "max_context": self.engine.max_context, "dtype": pages.layout.dtype}
        hello |= {"shape": list(pages.layout.shape), "shared": pages.layout.shared, "page_tokens": pages.page_tokens}
        self.sockets.tell_front({"kind": "ready", "pid": os.getpid(), **hello})
        while not self._stopped:
            self._hear()
            stuck = True
            if self.sender:
                self._tend()
                stuck = self.sender.waits or not self.engine.busy or not self._step()
            if stuck:
                self.sockets.wait(self._patience_s())
            self._beat()

    def _hear(self) -> None:
        for message in self.sockets.from_front():
            self._on_front(message)
        for peer, message in self.sockets.from_peers():
            if self.sender:
                self._on_peer(peer, message)

    def _patience_s(self) -> float:
        if self.receiver and (due_s := self.receiver.next_s()) is not None:
            return max(0.0, min(due_s - self.engine.now(), STUCK_S))
        return STUCK_S if self.engine.busy else self.setup.beat_s

    def _tend(self) -> None:
        for one in self.receiver.tend():
            self._news.setdefault("joined", []).append(one)
            self._changed = True
        self.sender.tend()

    def _step(self) -> bool:
        self._beat()
        try:
            report = self.engine.advance()
        except EngineError as error:
            self._lose_all(str(error))
            return True
        if report is None:
            return bool(self.engine.overlap)
        self._report(report)
        if report.prefilled:
            for g in report.prefilled:
                self.sender.prefilled(g)
            self.sender.tend()
        return True

    # -- what the front end says

    def _on_front(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "submit":
            self._submit(Order.of(message))
        elif kind == "cancel":
            self._cancel(message["ticket"])
        elif kind == "begin":
            self._begin(Part.of(message))
        elif kind == "peers":
            for peer, layout in message["peers"].items():
                self._peers[peer] = PeerMemory(self._folder / f"kv-{peer}", Layout(tuple(layout[0]), *layout[1:]))
            self.sockets.tell_front({"kind": "met"})
        elif kind == "lost":
            self.sender.lost(message["worker"])
            self.receiver.lost(message["worker"])
        elif kind == "clock":
            self.engine.set_origin(message["origin_s"])
        elif kind == "pace":
            self.engine.watched.factor = message["factor"]
        elif kind == "link":
            self.receiver.set_link(message["bytes_per_s"], message["latency_s"])
        elif kind == "stop":
            self._stopped = True

    def _begin(self, part: Part) -> None:
        self._part, chosen = part, mover(part.mover)
        if self._pairs:
            self._pairs.close()
        place = Path(part.meeting_place)
        self._pairs = Pairs(self.setup.index, part.pairs, place, self.engine.device.type == "cuda")
        wire = wire_of(chosen.wire, self.engine.pages, self._peers, self._pairs)
        self.engine.pages.watch = None
        self.engine.begin(part.role, lambda step: self.sender.on_step(step), part.keep_logits)
        self.sender = Sender(self.engine, part, chosen, wire, self.sockets.tell, self._fail)
        self.receiver = Receiver(self.engine, part, wire, self.sockets.tell, self._fail)
        self._tickets, self._numbers, self._news = {}, {}, {}
        self._shown_s = self._said_s = -inf
        self.sockets.tell_front({"kind": "begun"})

    def _submit(self, order: Order) -> None:
        try:
            g = self.engine.made(order)
        except InputError as error:
            self._fail(order.ticket, str(error), False)
            return
        self._know(order.ticket, g)
        self.engine.take(g)
        if self.engine.hands_off and order.decode != self.setup.index:
            self.sender.add(order, g)
        self._changed = True

    def _know(self, ticket: int, g: Generation) -> None:
        self._tickets[ticket] = g
        self._numbers[g.number] = ticket

    def _forget(self, ticket: int) -> Generation | None:
        g = self._tickets.pop(ticket, None)
        if g and self._numbers.get(g.number) == ticket:
            del self._numbers[g.number]
        return g

    def _cancel(self, ticket: int) -> None:
        self.sender.cancel(ticket)
        coming, g = self.receiver.cancel(ticket), self._forget(ticket)
        for one in (coming, g):
            if one and not one.ended:
                self.engine.cancel(one)
        self._changed = True

    def _fail(self, ticket: int, reason: str, again: bool = True) -> None:
        """A request cannot go on here; `again` says whether it may elsewhere."""
        self._forget(ticket)
        self.sockets.tell_front({"kind": "failed", "ticket": ticket, "reason": reason, "again": again})

    def _lose_all(self, reason: str) -> None:
        """A step failed, and every request in the engine with it."""
        for ticket in list(self._tickets):
            self.sender.cancel(ticket)
            self.receiver.cancel(ticket)
            self._fail(ticket, reason)

    # -- what other workers say

    def _on_peer(self, peer: int, message: Message) -> None:
        kind, ticket = message["kind"], message.get("ticket")
        if kind == "reserve":
            g = self.receiver.reserve(Order.of(message), peer)
            if g:
                self._know(ticket, g)
        elif kind == "pieces":
            self.receiver.pieces(message["list"], peer)
        elif kind == "handed":
            self.receiver.handed(message)
        elif kind == "cancel":
            self._cancel(ticket)
        elif kind == "granted":
            self.sender.granted(ticket)
        elif kind == "freed":
            self.sender.freed(message["at"])
        elif kind == "received":
            self.sender.received(ticket)
            self._forget(ticket)

    # -- what the front end is told

    def _report(self, report: StepReport) -> None:
        ticket_of, scheduler = self._numbers.get, self.engine.scheduler
        message = {
            "kind": "step",
            "row": [report.start_s, report.seconds, report.decodes, report.kv_tokens],
            "chunks": [
                [ticket_of(g.number, -1), n, before, g.cached_tokens, g.prefill_start_s]
                for g, n, before in report.chunks
            ],
            "tokens": [
                [ticket_of(g.number, -1), token, first, g.ended, g.preemptions] for g, token, first in report.tokens
            ],
            **self._news,
        }
        if scheduler.stored or scheduler.evicted:
            message["evicted"], message["stored"] = scheduler.evicted, scheduler.stored
            scheduler.evicted, scheduler.stored = [], []
        if self._part.keep_logits:
            message["logits"] = self._logits(report)
        for g, _, _ in report.tokens:
            if g.ended:
                self._forget(ticket_of(g.number, -1))
        self._news, self._changed = {}, False
        self._send(message)

    def _logits(self, report: StepReport) -> list[bytes]:
        """Those of each token of a step; without overlap they are the rows of the last one, decodes first."""
        rows = list(range(report.decodes))
        completing = [i for i, (g, n, before) in enumerate(report.chunks) if before + n >= g.goal]
        rows += [report.decodes + i for i in completing]
        return [self.engine.watched.logits[row].numpy().tobytes() for row in rows]

    def _beat(self) -> None:
        """Say that the worker is there, and show how it stands, when it is time or there is something to say."""
        period_s = self._part.telemetry_s if self.sender else 0.0
        due_s = min(self._said_s + self.setup.beat_s, self._shown_s + (period_s or inf))
        if self._news or (self._changed and not period_s) or self.engine.now() >= due_s:
            message, self._news, self._changed = {"kind": "beat", **self._news}, {}, False
            self._send(message)

    def _send(self, message: Message) -> None:
        now = self.engine.now()
        if self.sender and now >= self._shown_s + self._part.telemetry_s:
            message["view"], message["at_s"] = self.engine.view(), now
            self._shown_s = now
        self._said_s = now
        self.sockets.tell_front(message)


def leave_with_parent(place: Path) -> None:
    """End this process when its standard input ends; nothing that the cluster has made is left."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        folder.remove(place)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve until told to stop, or until the parent is gone."""
    setup = WorkerSetup(**json.loads(_first_line()))
    leave_with_parent(Path(setup.folder))
    worker = None
    try:
        worker = Worker(setup)
        worker.serve()
    except InputError as error:
        sockets = worker.sockets if worker else WorkerSockets(Path(setup.folder), setup.index, setup.workers)
        sockets.tell_front({"kind": "refused", "reason": str(error)})
        sockets.wait(5.0)  # the front end stops everybody then
    finally:
        if worker:
            worker.sockets.close()


def _first_line() -> str:
    """One line of standard input, read byte by byte: what follows is for the watch."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            sys.exit(1)
        line += byte
    return line.decode()
