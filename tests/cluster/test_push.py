"""The wire between two GPUs, with streams and events that a CPU can play: copies are made at once, seen when told."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from helpers.cluster import push
from helpers.cluster.page_copy import runs
from helpers.cluster.pieces import Piece, groups
from helpers.cluster.push import PushWire, Window
from helpers.errors import InputError
from helpers.scheduling.blocks import BlockPool
from helpers.workload.request import Request

SHAPE = (3, 2, 8, 4, 2, 16)  # layers, keys and values, pages, tokens, heads, dimensions


class Event:
    """Passed as soon as `reached` says so."""

    reached = True

    def __init__(self, **how):
        self.recorded = False

    def record(self):
        self.recorded = True

    def query(self):
        return self.recorded and Event.reached

    def elapsed_time(self, later):
        assert self.recorded and later.recorded
        return 2.0  # milliseconds


class Stream:
    """Remembers what it was told to wait for."""

    def __init__(self, device=None):
        self.waited = []

    def wait_event(self, event):
        assert event.recorded
        self.waited.append(event)


@pytest.fixture
def device(monkeypatch):
    """What a CPU plays of CUDA."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(Event, "reached", True)


@pytest.fixture
def sender(device):
    """A sender (worker 0) that knows the pool of worker 1, and both pools."""
    mine, theirs = torch.randn(SHAPE), torch.randn(SHAPE)
    window = Window(mine)
    window.known(1, theirs)
    marks = {layer: Event() for layer in range(3)}
    return PushWire(SimpleNamespace(tensor=mine, marks=marks), window), mine, theirs


def test_pages_arrive_where_they_belong_and_nowhere_else(sender):
    wire, mine, theirs = sender
    before = theirs.clone()
    assert wire.offer(Piece(7, 1, 3, 0, [5, 6, 2], there=[1, 2, 7]), 1)
    assert torch.equal(theirs[1:, :, [1, 2, 7]], mine[1:, :, [5, 6, 2]])
    assert torch.equal(theirs[0], before[0])
    assert torch.equal(theirs[:, :, [0, 3, 4, 5, 6]], before[:, :, [0, 3, 4, 5, 6]])


@pytest.mark.parametrize(("mine", "theirs"), [([8], [0]), ([-1], [0]), ([0], [8]), ([0, 1], [3, -1])])
def test_a_page_beside_a_pool_is_neither_read_nor_written(sender, mine, theirs):
    """A copy would do so without a word. Control: the last page of each is one of them."""
    wire, _, pool = sender
    wire.offer(Piece(7, 0, 3, 0, [7], there=[7]), 1)
    before = pool.clone()
    with pytest.raises(InputError, match="not all in a pool of 8"):
        wire.offer(Piece(7, 0, 3, 0, mine, there=theirs), 1)
    assert torch.equal(pool, before)


def test_nobody_is_told_before_the_bytes_are_there(sender, monkeypatch):
    wire, _, _ = sender
    piece = Piece(7, 0, 3, 0, [0], there=[0])
    wire.offer(piece, 1)
    assert wire.sent(piece)
    monkeypatch.setattr(Event, "reached", False)
    assert not wire.sent(piece)


def test_an_early_piece_waits_for_its_layer_and_a_late_one_for_nothing(sender):
    wire, _, _ = sender
    wire._pages.marks[0].record()
    wire.offer(Piece(7, 0, 1, 0, [0], there=[0], early=True), 1)
    assert wire._stream.waited == [wire._pages.marks[0]]
    wire.offer(Piece(7, 1, 3, 0, [0], there=[0]), 1)
    assert len(wire._stream.waited) == 1
    with pytest.raises(AssertionError):  # a layer that no step has stored cannot have gone early
        wire.offer(Piece(7, 2, 3, 0, [0], there=[0], early=True), 1)


def test_what_a_copy_takes_the_device_is_told(sender):
    wire, _, _ = sender
    piece = Piece(7, 0, 3, 0, [0], there=[0])
    wire.offer(piece, 1)
    assert wire.took_s(piece) == pytest.approx(2e-3)


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


@pytest.fixture
def pushing(pair, device, monkeypatch):
    """Two engines whose pages cross as between two GPUs."""
    windows = [Window(engine.pages.tensor) for engine in pair.engines]
    for index, (engine, window) in enumerate(zip(pair.engines, windows, strict=True)):
        window.known(1 - index, pair.engines[1 - index].pages.tensor)
        monkeypatch.setattr(engine.pages, "marks", {end - 1: Event() for end in groups(len(engine.pages.tensor))})
    wires = [PushWire(engine.pages, window) for engine, window in zip(pair.engines, windows, strict=True)]
    monkeypatch.setattr(pair, "_wire", lambda how, index: wires[index])
    return pair


@pytest.mark.parametrize("mover", ["layerwise", "slabs", "asynchronous"])
@pytest.mark.parametrize("wrong", ["", "theirs", "mine"])
def test_digests_notice_a_table_that_is_off_by_one(pushing, monkeypatch, mover, wrong):
    """Pages are read from, or written to, the page beside. Control: the table as it is."""

    def beside(source, target, mine, theirs):
        read = [(page + 1) % source.shape[1] for page in mine] if wrong == "mine" else mine
        written = [(page + 1) % target.shape[1] for page in theirs] if wrong == "theirs" else theirs
        copy(source, target, read, written)

    copy = push.copy_pages
    monkeypatch.setattr(push, "copy_pages", beside)
    pushing.begin(mover, verify=True)
    heard = pushing.run([Request(i, 0.0, n, 4) for i, n in enumerate((300, 65, 128))])
    assert [one.checked for one in heard.values()] == [4 * pages for pages in (5, 2, 2)]
    if wrong:
        assert all(one.wrong > 0 for one in heard.values())
    else:
        assert sum(one.wrong for one in heard.values()) == 0
