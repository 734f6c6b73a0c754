"""A worker: one process with one engine, which the front end tells what to do.

It reads its setup from standard input, as `helpers.cluster.workers` writes it. The end of that input is the end of its
parent, however that came about: the worker then leaves at once, whatever it is doing.
"""

import gc
import json
import os
import sys
import threading
from math import inf
from pathlib import Path
from time import perf_counter

import torch

from helpers.cluster import crash, folder
from helpers.cluster.exchange import Exchange
from helpers.cluster.hosted import HostedEngine, StepReport
from helpers.cluster.launch import LOOPBACK
from helpers.cluster.messages import Message
from helpers.cluster.movers import mover
from helpers.cluster.orders import Order, Part, WorkerSetup
from helpers.cluster.pages import Layout, PeerMemory
from helpers.cluster.pairs import Pairs
from helpers.cluster.push import Window
from helpers.cluster.sockets import HELLO, WorkerSockets
from helpers.cluster.wires import wire_of
from helpers.engine.engine import EngineError, limits_for
from helpers.engine.load import load, use_threads
from helpers.errors import InputError
from helpers.workload.request import Request

LAST_WORDS_MS = 1000  # what the sentence of a worker that ends gets to reach the front end
STUCK_S = 1e-3  # how long to wait for news when requests are there and none of them can run


class Worker:
    """The engine of this process, its hand-offs, and what it owes to the front end."""

    def __init__(self, setup: WorkerSetup, sockets: WorkerSockets) -> None:
        self.setup, self.sockets = setup, sockets
        if setup.device.startswith("cuda:"):
            torch.cuda.set_device(setup.device)
        decoder = load(setup.model, setup.device, setup.dtype)
        use_threads(decoder)
        limits = limits_for(decoder, setup.block_tokens, setup.token_budget, setup.max_batch, setup.kv_gib)
        self._memory = Path(setup.folder) / f"kv-{setup.index}"
        self.engine = HostedEngine(decoder, limits, self._memory, setup.stage_bytes)
        self.engine.runner.warm_up()
        self._warm_up()
        self.engine.meanwhile = self._meanwhile
        self._window = Window(self.engine.pages.tensor, shared=setup.workers > 1)
        gc.collect()
        gc.freeze()  # what is there now stays, so nobody needs to look through it again
        self._peers: dict[int, PeerMemory] = {}
        self._pairs: Pairs | None = None
        self.exchange: Exchange | None = None
        self._shown_s = -inf  # when the front end was last shown a view
        self._said_s = 0.0
        self._news: Message = {}  # what goes with the next report
        self._later: list[tuple[int, Message]] = []  # heard in the middle of a step
        self._changed = False
        self._strangers: set[int] | None = None  # who is to say hello before the front end hears "met"; None: not now
        self._greeted: set[int] = set()  # peers that have
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
        hello["vocab"] = self.engine.config.vocab
        hello |= {"shape": list(pages.layout.shape), "shared": pages.layout.shared, "page_tokens": pages.page_tokens}
        hello |= {"window": self._window.handle(), "memory": str(self._memory), "door": self.sockets.door}
        self.sockets.tell_front({"kind": "ready", "pid": os.getpid(), **hello})
        while not self._stopped:
            self._hear()
            stuck = True
            if self.exchange:
                self._tend()
                stuck = self.exchange.sender.waits or not self.engine.busy or not self._step()
            if stuck:
                self.sockets.wait(self._patience_s())
            self._beat()

    def _meanwhile(self) -> None:
        """While the device works: hand-offs go on, but nothing begins or ends here."""
        if self.exchange:
            self._hear_peers()
            self._tend()

    def _hear(self) -> None:
        for message in self.sockets.from_front():
            self._on_front(message)
        self._hear_peers()

    def _between_layers(self) -> None:
        """In the middle of a step on a CPU: who has room is heard at once, all else when the step is over."""
        for peer, message in self.sockets.from_peers():
            if message["kind"] == "granted" and message["run"] == self._part.run:
                self.exchange.hear(peer, message)
            else:
                self._later.append((peer, message))

    def _hear_peers(self) -> None:
        later, self._later = self._later, []
        for peer, message in (*later, *self.sockets.from_peers()):
            if message["kind"] == HELLO:
                self._greeted.add(peer)
                self._say_met()
            elif self.exchange and message["run"] == self._part.run:
                self.exchange.hear(peer, message)
                self._changed = True

    def _patience_s(self) -> float:
        if self.exchange and (self.exchange.receiver.unsettled or self.exchange.sender.crossing):
            return 0.0
        if self.exchange and (due_s := self.exchange.receiver.next_s()) is not None:
            return max(0.0, min(due_s - self.engine.now(), STUCK_S))
        return STUCK_S if self.engine.busy else self.setup.beat_s

    def _tend(self) -> None:
        joined = self.exchange.tend()
        if joined:
            self._news.setdefault("joined", []).extend(joined)

    def _step(self) -> bool:
        self._beat()
        if self.engine.slack_s() > 0.0:
            return True  # the device is busy for a while, and who comes until then is in the next step
        try:
            report = self.engine.advance()
        except EngineError as error:
            self.exchange.lose_all(str(error))
            return True
        if report is None:
            return bool(self.engine.overlap)
        sender = self.exchange.sender
        for tell in (self._report, self._hand_on) if sender.packs else (self._hand_on, self._report):
            tell(report)
        return True

    def _hand_on(self, report: StepReport) -> None:
        """Let go whose prefill has ended: before the front end is told, where that takes no longer than a message."""
        for g in report.prefilled:
            self.exchange.sender.prefilled(g)
        if report.prefilled:
            self.exchange.sender.tend()

    # -- what the front end says

    def _on_front(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "submit":
            self._submit(Order.of(message))
        elif kind == "cancel":
            self.exchange.cancel(message["ticket"])
            self._changed = True
        elif kind == "begin":
            self._begin(Part.of(message))
        elif kind == "peers":
            self._meet(message)
        elif kind == "ping":
            self.sockets.tell_front({"kind": "pong", "at_s": perf_counter()})
        elif kind == "lost":
            self.exchange.lost(message["worker"])
        elif kind == "clock":
            self.engine.set_origin(message["origin_s"])
        elif kind == "pace":
            self.engine.slow_down(message["factor"])
        elif kind == "link":
            self.exchange.receiver.set_link(message["bytes_per_s"], message["latency_s"])
        elif kind == "stop":
            self._stopped = True

    def _meet(self, message: Message) -> None:
        """Know the doors of all peers, and the memory of those on this machine; the front end hears of it once every
        peer has been heard."""
        self.sockets.meet(message["doors"])
        for peer, (memory, layout, window) in message["peers"].items():
            self._peers[peer] = PeerMemory(Path(memory), Layout(tuple(layout[0]), *layout[1:]))
            self._window.open(peer, window, layout[0])
        self._strangers = set(range(self.setup.workers)) - {self.setup.index}
        self.sockets.greet()
        self._say_met()

    def _say_met(self) -> None:
        if self._strangers is not None and self._strangers <= self._greeted:
            self._strangers = None
            self.sockets.tell_front({"kind": "met"})

    def _begin(self, part: Part) -> None:
        self._part = part
        if self._pairs:
            self._pairs.close()
        cuda = self.engine.device.type == "cuda"
        where = {"run": part.run, "host": self.setup.host or LOOPBACK}
        self._pairs = Pairs(self.setup.index, part.pairs, part.meeting_place, cuda, **where)
        how = mover(part.mover)
        wire = wire_of(how.wire, self.engine.pages, self._peers, self._pairs, self._window)
        on_step = lambda step: self.exchange.sender.on_step(step)  # noqa: E731
        self.engine.begin(part.role, on_step, part.keep_logits, how if part.role == "prefill" else None)
        self.exchange = Exchange(self.engine, part, wire, self._tell_peer, self._fail)
        if self.engine.device.type == "cpu":
            self.exchange.sender.look_up = self._between_layers
        self._news = {}
        self._shown_s = self._said_s = -inf
        self.sockets.tell_front({"kind": "begun"})

    def _tell_peer(self, peer: int, message: Message) -> None:
        self.sockets.tell(peer, {**message, "run": self._part.run})

    def _submit(self, order: Order) -> None:
        try:
            self.exchange.submit(order, self.engine.hands_off and order.decode != self.setup.index)
        except InputError as error:
            self._fail(order.ticket, str(error), False)
        self._changed = True

    def _fail(self, ticket: int, reason: str, again: bool = True) -> None:
        self.sockets.tell_front({"kind": "failed", "ticket": ticket, "reason": reason, "again": again})

    # -- what the front end is told

    def _report(self, report: StepReport) -> None:
        ticket_of, scheduler = self.exchange.ticket_of, self.engine.scheduler
        message = {**report.message(ticket_of), **self._news}
        if scheduler.stored or scheduler.evicted:
            message["evicted"], message["stored"] = scheduler.evicted, scheduler.stored
            scheduler.evicted, scheduler.stored = [], []
        if self._part.keep_logits:
            message["logits"] = self._logits(report)
        for g, _, _ in report.tokens:
            if g.ended:
                self.exchange.forget(ticket_of(g))
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
        period_s = self._part.telemetry_s if self.exchange else 0.0
        due_s = min(self._said_s + self.setup.beat_s, self._shown_s + (period_s or inf))
        if self._news or (self._changed and not period_s) or self.engine.now() >= due_s:
            message, self._news, self._changed = {"kind": "beat", **self._news}, {}, False
            self._send(message)

    def _send(self, message: Message) -> None:
        now = self.engine.now()
        if self.exchange and now >= self._shown_s + self._part.telemetry_s:
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
    """Serve until told to stop, or until the parent is gone. What ends it otherwise is told in one sentence."""
    setup = WorkerSetup(**json.loads(_first_line()))
    leave_with_parent(Path(setup.folder))
    sockets = WorkerSockets(setup.index, setup.workers, setup.front, Path(setup.folder), setup.host)
    worker = None
    try:
        worker = Worker(setup, sockets)
        worker.serve()
    except InputError as error:
        sockets.tell_front({"kind": "refused", "reason": str(error)})
        sockets.wait(5.0)  # the front end stops everybody then
    except Exception as error:
        sockets.tell_front({"kind": "broken", "reason": crash.sentence(error, setup, worker is not None)})
        sockets.close(linger_ms=LAST_WORDS_MS)
        sys.exit(1)
    finally:
        sockets.close()


def _first_line() -> str:
    """One line of standard input, read byte by byte: what follows is for the watch."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            sys.exit(1)
        line += byte
    return line.decode()
