"""The hand-off at the worker that decodes: admit, reserve pages, take pieces in, join the batch."""

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import count

from torch import Tensor

from helpers.cluster.messages import Message
from helpers.cluster.orders import Order, Part
from helpers.cluster.pairs import PairLost
from helpers.cluster.pieces import Piece, digests
from helpers.cluster.tamper import tamper
from helpers.cluster.wires import Wire
from helpers.engine.generation import Generation
from helpers.errors import InputError

HOLD_S = 1.0  # much longer than the copies of a step that is under way, and those that wait for it


@dataclass(slots=True)
class Legs:
    """The way of a hand-off, of which the last piece is the one that counts: when its copy was `offered`, how long a
    device `took` for it (None: none made it), when the sender had `told` all, and when that was `heard`; seconds."""

    offered_s: float | None = None
    took_s: float | None = None
    told_s: float | None = None
    heard_s: float | None = None

    def values(self) -> list:
        """As they are sent."""
        return [self.offered_s, self.took_s, self.told_s, self.heard_s]

    def heard(self, told_s: float, now: float) -> None:
        """Something more was said."""
        self.told_s, self.heard_s = max(self.told_s or 0.0, told_s), now


@dataclass(slots=True)
class Arriving:
    """A request whose KV comes from `source`: into `pages`, of which so many `pieces` have come."""

    order: Order
    source: int
    g: Generation
    pages: list[int] = field(default_factory=list)
    pieces: int = 0
    wanted: int | None = None  # pieces in all, known when everything was sent
    out: list[int] = field(default_factory=list)
    sums: dict[tuple[int, int], int] = field(default_factory=dict)  # (layer, page) -> digest at the sender
    before: Tensor | None = None  # what lay in the pages until then, kept only to tamper
    started_s: float | None = None
    nbytes: int = 0
    legs: Legs = field(default_factory=Legs)


class Receiver:
    """The hand-offs that come to one worker in one run."""

    def __init__(self, engine, part: Part, wire: Wire, tell, fail) -> None:
        self._engine, self._part, self._wire = engine, part, wire
        self._tell, self._fail = tell, fail
        self._backlog: deque[Arriving] = deque()  # who waits for room, the first come first
        self._arriving: dict[int, Arriving] = {}  # by ticket, with pages
        self._due: list[tuple[float, int, int, list[Piece]]] = []  # when pieces are here, by the pace of the link
        self._gone: set[int] = set()  # peers that are lost; what they had said may come after that
        self._count = count()
        self._link_free_s = self._last_due_s = 0.0
        self._granting: deque[tuple[Arriving, object]] = deque()  # with what must be over before a sender may write
        self._held: deque[tuple[float, Generation]] = deque()  # (until when, who) of cancelled ones
        self._taken: list[tuple[int, int]] = []  # (source, at) of packed pieces that were taken
        self.unsettled = False  # all pieces of somebody were taken, but are still on their way into the pool

    # -- room

    def reserve(self, order: Order, source: int) -> Generation | None:
        """A request will come from `source`, when there is room for it; returns its sequence, if it can be served."""
        if source in self._gone:
            return None
        try:
            g = self._engine.made(order)
        except InputError as error:
            self._fail(order.ticket, str(error), False)
            return None
        self._backlog.append(Arriving(order, source, g))
        return g

    def _admit(self) -> None:
        while self._backlog and self._engine.reserve(self._backlog[0].g):
            arriving = self._backlog.popleft()
            arriving.pages = self._engine.pages_of(arriving.g, arriving.g.goal)
            if self._part.tamper:
                arriving.before = self._engine.pages.tensor[:, :, arriving.pages].clone()
            self._arriving[arriving.order.ticket] = arriving
            self._granting.append((arriving, self._wire.reserved()))
        while self._granting and (not (event := self._granting[0][1]) or event.query()):
            arriving, _ = self._granting.popleft()
            ticket = arriving.order.ticket
            if ticket in self._arriving:
                self._tell(arriving.source, {"kind": "granted", "ticket": ticket, "pages": arriving.pages})

    # -- pieces

    def pieces(self, values: list[list], source: int, went: list | None = None) -> None:
        """Pieces were sent: they are here when the link has carried them. Of the last one `went` says when it was
        offered, how long it took, and when this was told."""
        pieces, now = [Piece(*one) for one in values], self._engine.now()
        size = sum(piece.nbytes(self._engine.pages.tensor) for piece in pieces)
        rate = self._part.link_bytes_per_s
        self._link_free_s = max(now, self._link_free_s) + (size / rate if rate else 0.0)
        due_s = max(self._link_free_s + self._part.link_latency_s, self._last_due_s)  # a link keeps the order
        self._last_due_s = due_s
        for piece in pieces:
            arriving = self._arriving.get(piece.ticket)
            if arriving and arriving.started_s is None:
                arriving.started_s = now
            if arriving and went:
                arriving.legs.offered_s, arriving.legs.took_s, told_s = went
                arriving.legs.heard(told_s, now)
        heappush(self._due, (due_s, next(self._count), source, pieces))

    def set_link(self, bytes_per_s: float, latency_s: float) -> None:
        """From now on the link is as slow as this; 0 bytes a second: as fast as memory is copied."""
        self._part = replace(self._part, link_bytes_per_s=bytes_per_s, link_latency_s=latency_s)

    def next_s(self) -> float | None:
        """When the next pieces are due."""
        return self._due[0][0] if self._due else None

    def tend(self) -> list[list]:
        """Between steps: make room for who waits, take in what is due, and say who has joined (see `_join`)."""
        self._let_go()
        self._admit()
        now = self._engine.now()
        while self._due and self._due[0][0] <= now:
            _, _, source, pieces = heappop(self._due)
            for piece in pieces:
                self._take(piece, source)
        complete = [one for one in self._arriving.values() if one.pieces == one.wanted]
        settled = [one for one in complete if self._wire.settled(one.order.ticket)]
        if self._taken and self._wire.settled():
            for source, at in self._taken:
                self._tell(source, {"kind": "freed", "at": at})
            self._taken.clear()
        self.unsettled = bool(self._taken or self._granting) or len(settled) < len(complete)
        return [self._join(one) for one in settled]

    def _take(self, piece: Piece, source: int) -> None:
        arriving = self._arriving.get(piece.ticket)
        if arriving and arriving.source == source:
            try:
                self._wire.take(piece, source, arriving.pages)
            except PairLost as error:
                self._fail_all(source, str(error))
                return
            arriving.pieces += 1
            arriving.nbytes += piece.nbytes(self._engine.pages.tensor)
            self._note_sums(arriving, piece)
        else:
            self._wire.skip(piece, source)
        if piece.at >= 0:
            self._taken.append((source, piece.at))

    def _fail_all(self, source: int, reason: str) -> None:
        """Nothing from `source` can arrive through its group of two any more, not even what was taken already."""
        for arriving in [one for one in self._arriving.values() if one.source == source]:
            self.cancel(arriving.order.ticket)
            self._engine.cancel(arriving.g)
            self._fail(arriving.order.ticket, reason, True)

    @staticmethod
    def _note_sums(arriving: Arriving, piece: Piece) -> None:
        sums = iter(piece.sums or ())
        for layer in range(piece.first_layer, piece.end_layer):
            for page in range(piece.first, piece.first + len(piece.pages)):
                if piece.sums:
                    arriving.sums[layer, page] = next(sums)

    def handed(self, message: Message) -> None:
        """The sender has sent all of a request; `out` are its tokens so far."""
        arriving = self._arriving.get(message["ticket"])
        if arriving:
            arriving.wanted, arriving.out = message["pieces"], message["out"]
            arriving.legs.heard(message["at_s"], self._engine.now())

    def _join(self, arriving: Arriving) -> list:
        """All is here: [ticket, transfer start, transfer end, bytes, pages checked, pages wrong, legs]."""
        ticket = arriving.order.ticket
        del self._arriving[ticket]
        checked, wrong = self._verify(arriving)
        self._engine.join(arriving.g, arriving.out)
        self._tell(arriving.source, {"kind": "received", "ticket": ticket})
        legs = arriving.legs.values()
        return [ticket, arriving.started_s, self._engine.now(), arriving.nbytes, checked, wrong, legs]

    def _verify(self, arriving: Arriving) -> tuple[int, int]:
        """How many (layer, page)s were compared with what the sender had, and how many differ."""
        pool = self._engine.pages.tensor
        if self._part.tamper:
            tamper(self._part.tamper, pool, arriving.pages, arriving.before)
        if not self._part.verify:
            return 0, 0
        layers = range(len(pool))
        found = iter(digests(pool, layers, arriving.pages))
        mine = {(layer, page): next(found) for layer in layers for page in range(len(arriving.pages))}
        return len(mine), sum(arriving.sums.get(key) != value for key, value in mine.items())

    # -- the end

    def cancel(self, ticket: int) -> Generation | None:
        """Forget a request that has not joined; returns its sequence, which the caller cancels."""
        for arriving in self._backlog:
            if arriving.order.ticket == ticket:
                self._backlog.remove(arriving)
                return None
        arriving = self._arriving.pop(ticket, None)
        if arriving and self._wire.writes:
            self._held.append((self._engine.now() + HOLD_S, arriving.g))
        return arriving.g if arriving else None

    def holds(self, g: Generation) -> bool:
        """Whether the pages of a cancelled sequence are kept, as its sender may write into them for a while."""
        return any(one is g for _, one in self._held)

    def _let_go(self) -> None:
        while self._held and self._held[0][0] <= self._engine.now():
            self._engine.cancel(self._held.popleft()[1])

    def lost(self, peer: int) -> None:
        """A peer is gone: what had not wholly come from it never will."""
        for arriving in [*self._backlog, *self._arriving.values()]:
            if arriving.source == peer:
                g = self.cancel(arriving.order.ticket)
                if g and not self.holds(g):
                    self._engine.cancel(g)
        self._gone.add(peer)
        self._due = [due for due in self._due if due[2] != peer]
        self._taken = [one for one in self._taken if one[0] != peer]
        heapify(self._due)
        self._wire.lost(peer)
