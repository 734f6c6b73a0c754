"""Both ends of the hand-offs of one worker in one run, and what its peers say to either."""

from collections.abc import Callable

from helpers.cluster.messages import Message
from helpers.cluster.movers import mover
from helpers.cluster.orders import Order, Part
from helpers.cluster.receiver import Receiver
from helpers.cluster.sender import Sender
from helpers.cluster.wires import Wire
from helpers.engine.generation import Generation


class Exchange:
    """The hand-offs of an engine.

    `tell(peer, message)` reaches another worker; `fail(ticket, reason, again)` says that a request cannot go on
    here, and whether it may elsewhere.
    """

    def __init__(
        self,
        engine,
        part: Part,
        wire: Wire,
        tell: Callable[[int, Message], None],
        fail: Callable[..., None],
    ) -> None:
        self._engine, self._fail = engine, fail
        self.sender = Sender(engine, part, mover(part.mover), wire, tell, self._failed)
        self.receiver = Receiver(engine, part, wire, tell, self._failed)
        self._sequences: dict[int, Generation] = {}  # by ticket
        self._tickets: dict[int, int] = {}  # number -> ticket

    # -- who is here

    def submit(self, order: Order, leaves: bool) -> None:
        """Queue a request for prefill; one that `leaves` decodes elsewhere. Raises `InputError` as the engine does."""
        g = self._engine.made(order)
        self._know(order.ticket, g)
        self._engine.take(g)
        if leaves:
            self.sender.add(order, g)

    def ticket_of(self, g: Generation) -> int:
        """The ticket of a sequence, -1 when nobody waits for it any more."""
        return self._tickets.get(g.number, -1)

    def forget(self, ticket: int) -> Generation | None:
        """A request is done here; returns its sequence."""
        g = self._sequences.pop(ticket, None)
        if g and self._tickets.get(g.number) == ticket:
            del self._tickets[g.number]
        return g

    def _know(self, ticket: int, g: Generation) -> None:
        self._sequences[ticket] = g
        self._tickets[g.number] = ticket

    def cancel(self, ticket: int) -> None:
        """Nobody waits for a request any more: stop it, and free what it holds."""
        self.sender.cancel(ticket)
        coming, g = self.receiver.cancel(ticket), self.forget(ticket)
        for one in (coming, g):
            if one and not one.ended and not self.receiver.holds(one):
                self._engine.cancel(one)

    def lose_all(self, reason: str) -> None:
        """A step failed, and every request in the engine with it."""
        for ticket in list(self._sequences):
            self.sender.cancel(ticket)
            self.receiver.cancel(ticket)
            self._failed(ticket, reason)

    def _failed(self, ticket: int, reason: str, again: bool = True) -> None:
        self.forget(ticket)
        self._fail(ticket, reason, again)

    # -- between steps

    def tend(self) -> list[list]:
        """Send and take in what is ready; returns who has joined, as `Receiver.tend` does."""
        joined = self.receiver.tend()
        self.sender.tend()
        return joined

    def hear(self, peer: int, message: Message) -> None:
        """Another worker has said something."""
        kind, ticket = message["kind"], message.get("ticket")
        if kind == "reserve":
            g = self.receiver.reserve(Order.of(message), peer)
            if g:
                self._know(ticket, g)
        elif kind == "pieces":
            self.receiver.pieces(message["list"], peer, message["went"])
        elif kind == "handed":
            self.receiver.handed(message)
        elif kind == "cancel":
            self.cancel(ticket)
        elif kind == "granted":
            self.sender.granted(ticket, message["pages"])
        elif kind == "freed":
            self.sender.freed(message["at"])
        elif kind == "received":
            self.sender.received(ticket)
            self.forget(ticket)

    def lost(self, peer: int) -> None:
        """Another worker is gone."""
        self.sender.lost(peer)
        self.receiver.lost(peer)
