"""Prefill and decode as two engines in one process: for one GPU, where two processes would take turns.

On a GPU each engine has a stream, and KV crosses on a third. What is timed this way is two roles that share one
device, not two devices: call it that. On a CPU the two take turns, which is exact and says nothing about time.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from helpers.cluster.exchange import Exchange
from helpers.cluster.hosted import HostedEngine, StepReport
from helpers.cluster.messages import Message
from helpers.cluster.movers import mover
from helpers.cluster.orders import Order, Part
from helpers.cluster.pages import PeerMemory
from helpers.cluster.streams import StreamWire
from helpers.cluster.wires import StageWire, Wire
from helpers.engine.engine import EngineError
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request

PREFILL, DECODE = 0, 1


@dataclass(slots=True)
class Heard:
    """What came of one request: its tokens and when each was out, and the span of its transfer; seconds."""

    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    transfer_s: tuple[float, float] | None = None
    checked: int = 0
    wrong: int = 0


class Duet:
    """A prefill and a decode engine on one decoder, with a mover of KV between them."""

    def __init__(self, decoder, limits: Limits, folder: Path, stage_bytes: int = 2**24, **how: object) -> None:
        self.engines = [
            HostedEngine(decoder, limits, folder / f"kv-{i}", stage_bytes, **how) for i in (PREFILL, DECODE)
        ]
        cuda = self.engines[0].device.type == "cuda"
        self._streams = [torch.cuda.Stream() for _ in self.engines] if cuda else []
        for engine in self.engines:
            engine.runner.warm_up()

    def begin(self, name: str, **told: object) -> None:
        """Forget everything, and hand over with the mover `name` from now on; `told` are further fields of `Part`."""
        self.wire = self._wire(name)
        self._inbox: list[deque[tuple[int, Message]]] = [deque(), deque()]
        origin_s = perf_counter()
        self.ends: list[Exchange] = []
        self.heard: dict[int, Heard] = {}
        for index, (engine, role) in enumerate(zip(self.engines, ("prefill", "decode"), strict=True)):
            engine.begin(role, lambda step, index=index: self.ends[index].sender.on_step(step))
            engine.set_origin(origin_s)
            part = Part(role, name, **told)
            self.ends.append(Exchange(engine, part, self.wire, self._tell_from(index), self._fail))

    def _wire(self, name: str) -> Wire:
        pools = [engine.pages for engine in self.engines]
        if mover(name).wire != "stage":
            return StreamWire(pools[PREFILL].tensor, pools[DECODE].tensor)
        return TwoEnded(*pools)

    def _tell_from(self, index: int):
        return lambda peer, message: self._inbox[peer].append((index, message))

    @staticmethod
    def _fail(ticket: int, reason: str, again: bool) -> None:
        raise EngineError(f"request {ticket}: {reason}")

    def run(self, requests: Iterable[Request]) -> dict[int, Heard]:
        """Serve requests that are all there from the beginning; what came of each, by id."""
        for number, request in enumerate(requests):
            self.ends[PREFILL].submit(Order(request.id, number, request, DECODE), leaves=True)
            self.heard[request.id] = Heard()
        while any(engine.busy or engine.live for engine in self.engines):
            self.turn()
        return self.heard

    def turn(self) -> None:
        """Let each role do what it can, the decodes first."""
        for index in (DECODE, PREFILL):
            with self._stream(index):
                end, engine = self.ends[index], self.engines[index]
                while self._inbox[index]:
                    peer, message = self._inbox[index].popleft()
                    if message["kind"] == "received":
                        self.wire.settle()
                    end.hear(peer, message)
                for ticket, start_s, end_s, _, checked, wrong in end.tend():
                    heard = self.heard[ticket]
                    heard.transfer_s, heard.checked, heard.wrong = (start_s, end_s), checked, wrong
                if engine.busy and not end.sender.waits:
                    self._note(end, engine.advance())

    def _stream(self, index: int):
        return torch.cuda.stream(self._streams[index]) if self._streams else nullcontext()

    def _note(self, end: Exchange, report: StepReport | None) -> None:
        if not report:
            return
        for g, token, _ in report.tokens:
            heard = self.heard[end.ticket_of(g)]
            heard.tokens.append(token)
            heard.times_s.append(report.start_s + report.seconds)
            if g.ended:
                end.forget(end.ticket_of(g))
        for g in report.prefilled:
            end.sender.prefilled(g)


class TwoEnded(Wire):
    """Two stage wires of one process as one: offered at the first, taken at the second."""

    def __init__(self, prefill, decode) -> None:
        memory = _Memory(prefill.tensor, prefill.stage)
        self._sender = StageWire(prefill, {})
        self._receiver = StageWire(decode, {PREFILL: memory})
        self.offer, self.freed = self._sender.offer, self._sender.freed
        self.take, self.skip, self.settled = self._receiver.take, self._receiver.skip, self._receiver.settled

    def settle(self) -> None:
        """What was offered was packed by then."""

    def lost(self, peer: int) -> None:
        """Both ends are in this process."""


class _Memory(PeerMemory):
    """Memory of this process, seen as that of a peer."""

    def __init__(self, pool, stage) -> None:
        self.pool, self.stage = pool, stage


@contextmanager
def duet(decoder, limits: Limits, **how: object) -> Iterator[Duet]:
    """A `Duet` that is closed again."""
    with TemporaryDirectory() as place:
        pair = Duet(decoder, limits, Path(place), **how)
        try:
            yield pair
        finally:
            for engine in pair.engines:
                engine.close()
