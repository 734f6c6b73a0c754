"""The hand-off at the worker that prefills: ask for room, send pieces, let go when all has arrived."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from helpers.cluster.movers import Mover
from helpers.cluster.orders import Order, Part
from helpers.cluster.pairs import PairLost
from helpers.cluster.pieces import Piece, digests, groups
from helpers.cluster.wires import Wire
from helpers.engine.generation import Generation
from helpers.errors import InputError
from helpers.scheduling.scheduler import Step


@dataclass(slots=True)
class Leaving:
    """A request that is to decode elsewhere. `sent[i]` of its pages of layer i are on their way."""

    order: Order
    g: Generation
    sent: list[int] = field(default_factory=list)
    asked: bool = False  # the other side was asked for room
    granted: bool = False  # and has it
    there: list[int] | None = None  # the pages that it has reserved
    prefilled: bool = False
    pieces: int = 0
    finished: bool = False  # everything was sent
    started_s: float | None = None


class Sender:
    """The hand-offs that leave one worker in one run. `tell(target, message)` reaches another worker."""

    def __init__(self, engine, part: Part, mover: Mover, wire: Wire, tell, fail) -> None:
        self._engine, self._part, self._mover, self._wire = engine, part, mover, wire
        self._tell, self._fail = tell, fail
        self._layers = len(engine.pages.tensor)
        self._page_bytes = engine.pages.tensor[0, :, 0].nbytes  # of a layer
        self._groups = groups(self._layers)
        after = part.send_after or range(1, self._layers + 1)
        self._release = {end: max(after[first:end]) for end, first in self._groups.items()}  # when so many are stored
        self._leaving: dict[int, Leaving] = {}  # by ticket
        self._of: dict[int, Leaving] = {}  # by number
        self._plan: list[tuple[Leaving, int]] = []  # of the last step: who, how many pages are complete after it
        self._launched = 0  # layers of that step that are stored, or will be before anything that is launched later
        self._queue: deque[tuple[int, list[Piece]]] = deque()  # what waits for room in the stage
        self._broken: dict[int, str] = {}  # whom nothing can be sent, and why; nobody is cancelled within a step
        self._outbox: deque[tuple[int, list[Piece]]] = (
            deque()
        )  # what is on its way; its receiver is told when it is there
        self.look_up: Callable[[], None] | None = None  # hears `granted` between two layers of a step
        if mover.early:
            engine.pages.watch = self._on_layer

    # -- the life of a hand-off

    def add(self, order: Order, g: Generation) -> None:
        """A request that will leave after its prefill has come."""
        leaving = Leaving(order, g, [0] * self._layers)
        self._leaving[order.ticket] = self._of[g.number] = leaving

    def on_step(self, step: Step) -> None:
        """A step is about to run: ask for room, and plan what its layers will complete."""
        self._plan, self._launched = [], 0
        for g, n in step.chunks:
            leaving = self._of.get(g.number)
            if leaving:
                self._ask(leaving)
                if self._mover.early:
                    self._plan.append((leaving, self._complete(g, g.computed + n)))

    def _complete(self, g: Generation, computed: int) -> int:
        """Pages that hold all their tokens once `computed` are there; the last one when the prefill has ended."""
        size = self._engine.pages.page_tokens
        return -(-computed // size) if computed >= g.goal else computed // size

    def _on_layer(self, layer: int) -> None:
        before, self._launched = self._launched, max(self._launched, layer + 1)
        if before == self._launched or not self._plan:
            return
        if self.look_up:
            self.look_up()
        for end, at in self._release.items():
            if before < at <= self._launched:
                self._send_layers(end, [one for one in self._plan if one[0].granted])

    def _send_layers(self, end: int, plan: list[tuple[Leaving, int]]) -> None:
        """Send what some layers have completed: by request, or what goes to one worker together."""
        by_target: dict[int, list[Piece]] = {}
        for leaving, complete in plan:
            pieces = self._pieces(leaving, range(self._groups[end], end), complete, early=True)
            if self._mover.together:
                by_target.setdefault(leaving.order.decode, []).extend(pieces)
            else:
                self._send(leaving.order.decode, pieces)
        for target, pieces in by_target.items():
            self._send(target, pieces)

    def prefilled(self, g: Generation) -> None:
        """The prefill of a sequence has ended."""
        leaving = self._of[g.number]
        leaving.prefilled = True
        self._ask(leaving)

    def granted(self, ticket: int, pages: list[int]) -> None:
        """The other side has reserved these pages."""
        leaving = self._leaving.get(ticket)
        if leaving:
            leaving.granted, leaving.there = True, pages
            leaving.started_s = leaving.started_s or self._engine.now()
            for end, at in self._release.items():  # the layers that would have gone by now
                if at <= self._launched:
                    self._send_layers(end, [one for one in self._plan if one[0] is leaving])

    def _ask(self, leaving: Leaving) -> None:
        if not leaving.asked:
            leaving.asked = True
            self._tell(leaving.order.decode, leaving.order.message("reserve"))

    def tend(self) -> None:
        """Between steps: send what is ready as a whole, and give up what takes too long."""
        ready: dict[int, list[Leaving]] = {}
        now = self._engine.now()
        for leaving in list(self._leaving.values()):
            if leaving.prefilled and leaving.granted and not leaving.finished:
                if self._mover.one_by_one and (ready or self.waits):
                    continue
                leaving.started_s = now
                ready.setdefault(leaving.order.decode, []).append(leaving)
            elif leaving.finished and now - leaving.started_s > self._part.transfer_limit_s:
                self._give_up(leaving, f"its KV did not arrive within {self._part.transfer_limit_s:g} s")
        for target, group in ready.items():
            self._finish(target, group)
        self._resend()
        while self._broken:
            self._fail_all(*self._broken.popitem())

    def _finish(self, target: int, group: list[Leaving]) -> None:
        """Send all that is still missing of some requests, and their tokens."""
        pieces = []
        for leaving in group:
            total = len(self._engine.pages_of(leaving.g, leaving.g.computed))
            for end, first in (self._groups if self._mover.per_layer else {self._layers: 0}).items():
                pieces += self._pieces(leaving, range(first, end), total)
            leaving.finished = True
        for together in [pieces] if self._mover.together else [[p] for p in pieces]:
            self._send(target, together)
        for leaving in group:
            out = {"out": leaving.g.out, "pieces": leaving.pieces, "at_s": self._engine.now()}
            self._tell(target, {"kind": "handed", "ticket": leaving.order.ticket, **out})

    def _pieces(self, leaving: Leaving, layers: range, complete: int, early: bool = False) -> list[Piece]:
        """The pages of some layers that are complete and have not been sent; all of these layers have sent as many."""
        first = leaving.sent[layers.start]
        if complete <= first:
            return []
        pages = self._engine.pages_of(leaving.g, complete * self._engine.pages.page_tokens)[first:complete]
        there = leaving.there[first:complete] if leaving.there else None
        most = int(min(len(pages), max(1.0, self._wire.most_bytes / (len(layers) * self._page_bytes))))
        pieces = [
            Piece(
                leaving.order.ticket, layers.start, layers.stop, first + at, pages[at : at + most],
                there=there[at : at + most] if there else None, early=early,
            )
            for at in range(0, len(pages), most)
        ]  # fmt: skip
        for layer in layers:
            leaving.sent[layer] = complete
        leaving.pieces += len(pieces)
        return pieces

    # -- pieces on their way

    def _send(self, target: int, pieces: list[Piece]) -> None:
        if not pieces:
            return
        if self._queue or not self._offer(target, pieces):
            self._queue.append((target, pieces))

    def _offer(self, target: int, pieces: list[Piece]) -> bool:
        """Make pieces ready and tell of them; False when the stage has no room for all of those that are left."""
        done = []
        try:
            for piece in pieces:
                if self._part.verify:
                    layers = range(piece.first_layer, piece.end_layer)
                    piece.sums = digests(self._engine.pages.tensor, layers, piece.pages)
                if not self._wire.offer(piece, target):
                    break
                piece.offered_s = self._engine.now()
                done.append(piece)
        except (InputError, PairLost) as error:
            self._broken.setdefault(target, str(error))
            return True
        if done:
            self._outbox.append((target, done))
            del pieces[: len(done)]
            self.flush()
        return not pieces

    def flush(self) -> None:
        """Tell of the pieces that have crossed, in the order in which they were sent."""
        while self._outbox and all(self._wire.sent(piece) for piece in self._outbox[0][1]):
            target, pieces = self._outbox.popleft()
            went = [pieces[-1].offered_s, self._wire.took_s(pieces[-1]), self._engine.now()]
            self._tell(target, {"kind": "pieces", "list": [piece.values() for piece in pieces], "went": went})
            try:
                for piece in pieces:
                    self._wire.told(piece, target)
            except PairLost as error:
                self._broken.setdefault(target, str(error))

    def _resend(self) -> None:
        while self._queue and self._offer(*self._queue[0]):
            self._queue.popleft()
        self.flush()

    def freed(self, at: int) -> None:
        """What lay in the stage was taken."""
        self._wire.freed(at)
        self._resend()

    # -- the end

    @property
    def packs(self) -> bool:
        """Whether to send takes this host a while."""
        return self._wire.packs

    @property
    def crossing(self) -> bool:
        """Whether pieces are on their way that nobody was told of yet."""
        return bool(self._outbox)

    @property
    def waits(self) -> bool:
        """Whether the worker may not compute now: a blocking hand-off is under way."""
        return self._mover.waits and any(one.finished for one in self._leaving.values())

    def received(self, ticket: int) -> None:
        """Everything of a request has arrived: its blocks are free."""
        leaving = self._drop(ticket)
        if leaving:
            self._engine.cancel(leaving.g)

    def cancel(self, ticket: int) -> None:
        """Nobody waits for a request any more; its sequence is cancelled by the caller.

        The other side may hear of its end before it hears that it was to make room for it, so it is told again.
        """
        leaving = self._drop(ticket)
        if leaving and leaving.asked:
            self._tell(leaving.order.decode, {"kind": "cancel", "ticket": ticket})

    def _drop(self, ticket: int) -> Leaving | None:
        leaving = self._leaving.pop(ticket, None)
        if leaving:
            self._of.pop(leaving.g.number, None)
            self._plan = [(one, complete) for one, complete in self._plan if one is not leaving]
        return leaving

    def _give_up(self, leaving: Leaving, reason: str) -> None:
        ticket = leaving.order.ticket
        self._tell(leaving.order.decode, {"kind": "cancel", "ticket": ticket})
        self.received(ticket)
        self._fail(ticket, reason)

    def _fail_all(self, target: int, reason: str) -> None:
        for leaving in list(self._leaving.values()):
            if leaving.order.decode == target and leaving.pieces:
                self._give_up(leaving, reason)

    def lost(self, peer: int) -> None:
        """A peer is gone; who sent the orders knows it too, and cancels what was to go there."""
        self._wire.lost(peer)
        self._queue = deque((target, pieces) for target, pieces in self._queue if target != peer)
        self._outbox = deque((target, pieces) for target, pieces in self._outbox if target != peer)
