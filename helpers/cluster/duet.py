"""Prefill and decode as two engines in one process: two roles that share one device.

On a GPU each role has a stream and KV crosses on a third, and this process launches for both: two processes would take
turns of milliseconds there. On a CPU the roles take turns on one core, a step each. What is timed this way is one
device that plays two roles, not two devices: say so beside every number.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from helpers.cluster.exchange import Exchange
from helpers.cluster.hosted import HostedEngine, StepReport
from helpers.cluster.messages import Message
from helpers.cluster.movers import Mover, mover
from helpers.cluster.orders import Order, Part
from helpers.cluster.pages import PeerMemory
from helpers.cluster.push import PushWire, Window
from helpers.cluster.wires import Wire, wire_of
from helpers.engine.engine import EngineError
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Step
from helpers.workload.request import Request

ROLES = ("prefill", "decode")
PREFILL, DECODE = 0, 1


@dataclass(slots=True)
class Heard:
    """What came of one request: its tokens and when each was out, and the span of its transfer; seconds."""

    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    transfer_s: tuple[float, float] | None = None
    checked: int = 0
    wrong: int = 0


@dataclass(slots=True)
class Turn:
    """What a turn brought: who has joined the decodes (as `Receiver.tend` says), and (role, step) of what was read.

    `worked` is False when neither role could do anything: whoever drives the duet may rest.
    """

    joined: list[list] = field(default_factory=list)
    steps: list[tuple[int, Message]] = field(default_factory=list)
    worked: bool = False


class Duet:
    """A prefill and a decode engine on one decoder, with a mover of KV between them."""

    def __init__(self, decoder, limits: Limits, folder: Path, stage_bytes: int = 2**24, **how: object) -> None:
        self.engines = [
            HostedEngine(decoder.twin(), limits, folder / f"kv-{role}", stage_bytes, **how) for role in ROLES
        ]
        on_gpu = self.engines[PREFILL].device.type == "cuda"
        self._streams = [torch.cuda.Stream() for _ in ROLES] if on_gpu else []
        windows = [Window(engine.pages.tensor) for engine in self.engines]
        for index, window in enumerate(windows):
            window.known(1 - index, self.engines[1 - index].pages.tensor)
        # made once: streams are few, and one that is handed out again may be that of a role
        self._push = [PushWire(e.pages, w) for e, w in zip(self.engines, windows, strict=True)] if on_gpu else []
        for engine in self.engines:
            engine.runner.warm_up()

    def begin(self, name: str, warm: Iterable[Request] = (), **told: object) -> None:
        """Forget everything, and hand over with the mover `name` from now on; `told` are further fields of `Part`.

        The requests of `warm` are served before the clock starts: after that nothing is done for the first time.
        Raises `InputError` for a mover that needs two processes.
        """
        how = mover(name)
        if how.wire == "group":
            raise InputError(f"the mover {name} is a group of two processes, and this is one; use another mover")
        self.engines[PREFILL].begin(ROLES[PREFILL], self._on_prefill_step, how=how)
        self.engines[DECODE].begin(ROLES[DECODE], lambda step: None)
        self.engines[DECODE].meanwhile = self._beside_decodes
        self.meanwhile: Callable[[], None] = lambda: None  # called while this process waits for decodes
        for engine in self.engines:
            engine.overlap = engine.asynchronous  # who waits for a hand-off is held back in `_advance`
        if self._streams:
            torch.cuda.synchronize()  # what was cleared for this run was cleared on another stream
        self._meet(how, told)
        if self.run(warm):
            self._meet(how, told)
        self.start()

    def _meet(self, how: Mover, told: dict) -> None:
        """Both ends of a mover, as new."""
        self._inbox: list[deque[tuple[int, Message]]] = [deque(), deque()]
        self._turn, self._numbers = Turn(), count()
        self.ends = [
            Exchange(engine, Part(role, how.name, **told), self._wire(how, index), self._tell_from(index), self._fail)
            for index, (engine, role) in enumerate(zip(self.engines, ROLES, strict=True))
        ]

    def _wire(self, how: Mover, index: int) -> Wire:
        if how.wire == "pool" and self._push:
            return self._push[index]
        other = self.engines[1 - index].pages
        return wire_of(how.wire, self.engines[index].pages, {1 - index: _Memory(other.tensor, other.stage)}, None)

    def start(self) -> None:
        """Times of both roles count from now."""
        origin_s = perf_counter()
        for engine in self.engines:
            engine.set_origin(origin_s)

    def now(self) -> float:
        """Seconds since the start."""
        return self.engines[PREFILL].now()

    def submit(self, order: Order) -> None:
        """A request has come: it is prefilled, and leaves for the decodes. Raises `InputError` as an engine does."""
        self.ends[PREFILL].submit(order, leaves=True)

    @property
    def busy(self) -> bool:
        """Whether anybody waits for anything."""
        return any(engine.busy or engine.live for engine in self.engines)

    def run(self, requests: Iterable[Request]) -> dict[int, Heard]:
        """Serve requests that are all there from the beginning; what came of each, by id."""
        asked = {next(self._numbers): request for request in requests}
        heard = {number: Heard() for number in asked}
        for number, request in asked.items():
            self.submit(Order(number, number, request, DECODE))
        while self.busy:
            turn = self.turn()
            for number, start_s, end_s, _, checked, wrong, _ in turn.joined:
                heard[number].transfer_s, heard[number].checked, heard[number].wrong = (start_s, end_s), checked, wrong
            for _, step in turn.steps:
                for number, token, *_ in step["tokens"]:
                    heard[number].tokens.append(token)
                    heard[number].times_s.append(step["row"][0] + step["row"][1])
        return {asked[number].id: one for number, one in heard.items()}

    # -- turns

    def turn(self) -> Turn:
        """Let each role do what it can, the decodes first."""
        for index in (DECODE, PREFILL):
            self._advance(index)
        done, self._turn = self._turn, Turn()
        return done

    def _beside_decodes(self) -> None:
        """While the device works on decodes that this process waits for."""
        self.meanwhile()
        self._advance(PREFILL)
        self._hear(DECODE)

    def _advance(self, index: int) -> None:
        """Hear and run a step. Prefills are never waited for: meanwhile nobody would launch decodes."""
        self._hear(index)
        engine, end = self.engines[index], self.ends[index]
        if not engine.busy or end.sender.waits or (index == PREFILL and not engine.landed):
            return
        begun = engine.begun
        with self._stream(index):
            report = engine.advance()
            self._turn.worked |= report is not None or engine.begun > begun
            if report:
                self._note(index, report)

    def _note(self, index: int, report: StepReport) -> None:
        end = self.ends[index]
        self._turn.steps.append((index, report.message(end.ticket_of)))
        for g, _, _ in report.tokens:
            if g.ended:
                end.forget(end.ticket_of(g))
        for g in report.prefilled:
            end.sender.prefilled(g)
        if report.prefilled:
            end.sender.tend()

    def _stream(self, index: int):
        return torch.cuda.stream(self._streams[index]) if self._streams else nullcontext()

    # -- what one role says to the other

    def _hear(self, index: int) -> None:
        """Take in what the other role has said, and do what is due between steps."""
        with self._stream(index):
            end, inbox = self.ends[index], self._inbox[index]
            while inbox:
                end.hear(*inbox.popleft())
            self._turn.joined += end.tend()

    def _tell_from(self, index: int):
        def tell(peer: int, message: Message) -> None:
            if message["kind"] == "pieces":  # the link carries them from now on, whoever's turn it is
                self.ends[peer].hear(index, message)
            else:
                self._inbox[peer].append((index, message))

        return tell

    def _on_prefill_step(self, step: Step) -> None:
        """Before a prefill runs the decodes are asked for room, so that layers can leave while others compute."""
        self.ends[PREFILL].sender.on_step(step)
        self._hear(DECODE)
        self._hear(PREFILL)

    @staticmethod
    def _fail(ticket: int, reason: str, again: bool) -> None:
        raise EngineError(f"request {ticket}: {reason}")


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
