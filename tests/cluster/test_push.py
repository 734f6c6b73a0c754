"""The wire between two GPUs, with streams and events that a CPU can play: copies are made at once, seen when told."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from helpers.cluster.pieces import Piece
from helpers.cluster.push import PushWire, Window
from helpers.errors import InputError

SHAPE = (3, 2, 8, 4, 2, 16)  # layers, keys and values, pages, tokens, heads, dimensions
PAGE_BYTES = 2 * 4 * 2 * 16 * 4  # keys and values of a page of one layer: 2 * 4 * 2 * 16 float32


class Event:
    """Passed as soon as `Device.reached` says so."""

    reached = True

    def __init__(self, enable_timing=False):
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
def wires(monkeypatch):
    """A sender (worker 0) and a receiver (worker 1) with pools of their own, and a window of 64 KiB each."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(Event, "reached", True)
    pools = [SimpleNamespace(tensor=torch.randn(SHAPE)) for _ in range(2)]
    windows = [Window(i, 2, torch.device("cpu"), 0) for i in range(2)]
    for window in windows:
        window.memory = torch.zeros(2**16, dtype=torch.uint8)
    windows[0].known(1, windows[1].memory)
    return [PushWire(*both) for both in zip(pools, windows, strict=True)], [one.tensor for one in pools]


def test_pages_arrive_where_they_belong_and_nowhere_else(wires):
    (sender, receiver), (mine, theirs) = wires
    before = theirs.clone()
    piece = Piece(7, 1, 3, 0, [5, 2])
    assert sender.offer(piece, 1)
    assert sender.sent(piece)
    told = Piece(*piece.values())
    receiver.take(told, 0, [1, 6, 3])
    assert torch.equal(theirs[1:, :, [1, 6]], mine[1:, :, [5, 2]])
    assert torch.equal(theirs[0], before[0])
    assert torch.equal(theirs[:, :, [0, 2, 3, 4, 5, 7]], before[:, :, [0, 2, 3, 4, 5, 7]])
    assert receiver.settled(7)


def test_nobody_is_told_before_the_bytes_are_there(wires, monkeypatch):
    (sender, receiver), _ = wires
    piece = Piece(7, 0, 3, 0, [0])
    sender.offer(piece, 1)
    receiver.take(Piece(*piece.values()), 0, [0])
    monkeypatch.setattr(Event, "reached", False)
    assert not sender.sent(piece)
    other = Piece(8, 0, 3, 0, [1])
    sender.offer(other, 1)
    receiver.take(Piece(*other.values()), 0, [1])
    assert not receiver.settled(8)
    assert not receiver.settled()
    assert receiver.settled(9)  # of whom nothing was taken


def test_an_early_piece_waits_for_its_layer_and_a_late_one_for_nothing(wires):
    (sender, receiver), _ = wires
    sender.stored(0)
    sender.offer(Piece(7, 0, 1, 0, [0], early=True), 1)
    assert sender._stream.waited == [sender._marks[0]]
    sender.offer(Piece(7, 1, 3, 0, [0]), 1)
    assert len(sender._stream.waited) == 1
    with pytest.raises(KeyError):  # a layer that no step has stored cannot have gone early
        sender.offer(Piece(7, 2, 3, 0, [0], early=True), 1)
    receiver.reserved()
    receiver.take(Piece(7, 0, 1, 0, [0], at=0), 0, [0])
    assert receiver._stream.waited == [receiver._reserved]


def test_a_full_window_is_used_again_once_it_is_freed(wires):
    """Half of 64 KiB is the sender's: 10 pieces of 3 pages of one layer (3 KiB, which is 12 times 256 bytes)."""
    (sender, _), _ = wires
    assert 3 * PAGE_BYTES == 3072
    pieces = [Piece(i, 0, 1, 0, [0, 1, 2]) for i in range(11)]
    assert [sender.offer(piece, 1) for piece in pieces] == [True] * 10 + [False]
    sender.freed(pieces[4].at)
    assert sender.offer(pieces[10], 1)
    assert pieces[10].at == pieces[4].at
    with pytest.raises(InputError, match="window_mib"):
        sender.offer(Piece(0, 0, 3, 0, list(range(8)) * 2), 1)  # 48 KiB


def test_a_peer_without_a_window_is_refused(wires):
    (sender, _), _ = wires
    with pytest.raises(InputError, match="bounce or group"):
        sender.offer(Piece(0, 0, 1, 0, [0]), 5)
    assert Window(0, 2, torch.device("cpu"), 2**20).handle() == []  # a CPU opens none
