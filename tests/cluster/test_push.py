"""The wire between two GPUs, with streams and events that a CPU can play: copies are made at once, seen when told."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from helpers.cluster.pieces import Piece
from helpers.cluster.push import PushWire, Window, flat, runs
from helpers.errors import InputError
from helpers.scheduling.blocks import BlockPool

SHAPE = (3, 2, 8, 4, 2, 16)  # layers, keys and values, pages, tokens, heads, dimensions


class Event:
    """Passed as soon as `reached` says so."""

    reached = True

    def __init__(self):
        self.recorded = False

    def record(self):
        self.recorded = True

    def query(self):
        return self.recorded and Event.reached


class Stream:
    """Remembers what it was told to wait for."""

    def __init__(self, device=None):
        self.waited = []

    def wait_event(self, event):
        assert event.recorded
        self.waited.append(event)


@pytest.fixture
def sender(monkeypatch):
    """A sender (worker 0) that knows the pool of worker 1, and both pools."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(Event, "reached", True)
    mine, theirs = torch.randn(SHAPE), torch.randn(SHAPE)
    window = Window(mine)
    window.known(1, theirs)
    return PushWire(SimpleNamespace(tensor=mine), window), mine, theirs


def test_pages_arrive_where_they_belong_and_nowhere_else(sender):
    wire, mine, theirs = sender
    before = theirs.clone()
    assert wire.offer(Piece(7, 1, 3, 0, [5, 6, 2], there=[1, 2, 7]), 1)
    assert torch.equal(theirs[1:, :, [1, 2, 7]], mine[1:, :, [5, 6, 2]])
    assert torch.equal(theirs[0], before[0])
    assert torch.equal(theirs[:, :, [0, 3, 4, 5, 6]], before[:, :, [0, 3, 4, 5, 6]])


def test_nobody_is_told_before_the_bytes_are_there(sender, monkeypatch):
    wire, _, _ = sender
    piece = Piece(7, 0, 3, 0, [0], there=[0])
    wire.offer(piece, 1)
    assert wire.sent(piece)
    monkeypatch.setattr(Event, "reached", False)
    assert not wire.sent(piece)


def test_an_early_piece_waits_for_its_layer_and_a_late_one_for_nothing(sender):
    wire, _, _ = sender
    wire.stored(0)
    wire.offer(Piece(7, 0, 1, 0, [0], there=[0], early=True), 1)
    assert wire._stream.waited == [wire._marks[0]]
    wire.offer(Piece(7, 1, 3, 0, [0], there=[0]), 1)
    assert len(wire._stream.waited) == 1
    with pytest.raises(KeyError):  # a layer that no step has stored cannot have gone early
        wire.offer(Piece(7, 2, 3, 0, [0], there=[0], early=True), 1)


def test_runs_go_on_only_where_both_sides_do():
    """Here 3 4 5 | 9, there 0 1 | 5 6: the third page leaps there, the fourth here."""
    assert list(runs([3, 4, 5, 9], [0, 1, 5, 6])) == [(3, 0, 2), (5, 5, 1), (9, 6, 1)]
    assert list(runs([3, 4, 5], [7, 8, 9])) == [(3, 7, 3)]
    assert list(runs([5, 4, 3], [9, 8, 7])) == [(3, 7, 3)]  # backwards on both sides is one run all the same
    assert list(runs([5, 4], [1, 2])) == [(4, 2, 1), (5, 1, 1)]
    assert list(runs([], [])) == []


def test_a_peer_without_a_pool_is_refused(sender):
    wire, mine, _ = sender
    with pytest.raises(InputError, match="bounce or group"):
        wire.offer(Piece(0, 0, 1, 0, [0], there=[0]), 5)
    assert Window(mine).handle() == []  # a CPU opens none


@pytest.mark.parametrize(("turned", "most"), [(False, 1), (True, 4)])
def test_pages_of_pools_that_were_used_before_still_go_as_one_run(turned, most):
    """A sender whose prompts stay cached, a receiver whose blocks go from one request to the next.

    Control: a receiver that has the blocks of every other request the other way round.
    """
    mine, theirs = BlockPool(64), BlockPool(64)
    for number in range(6):
        here, there = mine.take(4), theirs.take(4)
        shown = there[::-1] if turned and number % 2 else there
        assert len(list(runs(here, shown))) == (most if number % 2 else 1)
        theirs.release(there)


def test_what_is_written_into_is_the_pool_itself():
    """A copy of the pool would take the pages and forget them, so what has no flat view is refused."""
    pool = torch.zeros(SHAPE)
    flat(pool)[1] = 1.0
    assert pool[0, 1].eq(1.0).all() and pool.sum() == pool[0, 1].numel()
    with pytest.raises(RuntimeError):
        flat(pool.transpose(0, 1))
