"""Both ends of a hand-off: who is cancelled lets go at both, and who is lost is not waited for."""

from types import SimpleNamespace

import pytest

from helpers.cluster import receiver
from helpers.cluster.orders import Order
from helpers.cluster.pairs import PairLost
from helpers.cluster.pieces import Piece
from helpers.cluster.wires import GroupWire
from helpers.workload.request import Request

LONG = Request(0, 0.0, 300, 30)


def begun(pair, mover="layerwise", out=()):
    pair.begin(mover)
    pair.submit(Order(0, 0, LONG, 1, out=list(out)))


def tokens_to_the_end(pair):
    found = []
    while pair.busy:
        found += [token for _, step in pair.turn().steps for _, token, *_ in step["tokens"]]
    return found


def idle(pair):
    return [(engine.scheduler.pool.used, len(engine.live), engine.busy) for engine in pair.engines]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("mover", ["layerwise", "bounce"])
def test_a_cancelled_request_is_forgotten_wherever_it_was(pair, mover, turns):
    begun(pair, mover)
    for _ in range(turns):
        pair.turn()
    for end in pair.ends:
        end.cancel(0)
    for _ in range(4):
        pair.turn()
    assert idle(pair) == [(0, 0, False)] * 2
    heard = pair.run([Request(1, 0.0, 100, 5)])  # and others are served
    assert len(heard[1].tokens) == 5


def test_without_a_cancel_it_is_served(pair):
    begun(pair)
    assert len(tokens_to_the_end(pair)) == 30


def test_what_came_from_a_lost_sender_is_dropped(pair):
    begun(pair)
    while not pair.ends[1].receiver._arriving:
        pair.turn()
    assert pair.engines[1].scheduler.pool.used > 0
    pair.ends[1].lost(0)
    assert idle(pair)[1] == (0, 0, False)
    order = Order(5, 5, Request(5, 0.0, 64, 2), 1)
    assert pair.ends[1].receiver.reserve(order, 0) is None  # said before it was lost, heard after
    begun(pair)
    while not pair.ends[1].receiver._arriving:
        pair.turn()
    pair.ends[1].lost(7)  # control: somebody else
    assert pair.engines[1].scheduler.pool.used > 0


def test_tokens_that_are_out_are_not_generated_again(pair):
    """A second try brings the tokens of the first: the rest is the same."""
    pair.begin("layerwise")
    whole = pair.run([LONG])[0].tokens
    begun(pair, out=whole[:12])
    assert tokens_to_the_end(pair) == whole[12:]


@pytest.mark.parametrize("writes", [True, False])
def test_pages_that_a_sender_may_still_write_into_are_kept_for_a_while(pair, monkeypatch, writes):
    """A cancelled request keeps its pages until nothing can write there any more; control: a wire that is read."""
    begun(pair)
    monkeypatch.setattr(type(pair.ends[1].receiver._wire), "writes", writes)
    now = [pair.engines[1].now()]
    monkeypatch.setattr(pair.engines[1], "now", lambda: now[0])
    while not pair.ends[1].receiver._arriving:
        pair.turn()
    pair.ends[1].cancel(0)
    pair.ends[1].tend()
    assert (pair.engines[1].scheduler.pool.used > 0) is writes
    now[0] += receiver.HOLD_S
    pair.ends[1].tend()
    assert idle(pair)[1] == (0, 0, False)
    pair.ends[0].cancel(0)


@pytest.mark.parametrize("gone", [True, False])
def test_a_peer_that_is_lost_in_the_middle_of_a_step_costs_its_requests_and_not_the_worker(pair, monkeypatch, gone):
    """The first piece is sent while its step is computed. Control: with a peer that is there it is served."""
    pair.begin("layerwise")
    failed = []
    monkeypatch.setattr(pair.ends[0].sender, "_fail", lambda *told: failed.append(told))
    offer = pair.ends[0].sender._wire.offer

    def lost(piece, target):
        if gone and piece.early:
            raise PairLost("worker 1 does not answer")
        return offer(piece, target)

    monkeypatch.setattr(pair.ends[0].sender._wire, "offer", lost)
    pair.submit(Order(0, 0, Request(0, 0.0, 100, 5), 1))  # one step, which ends it at the sender
    for _ in range(50):
        pair.turn()
    assert [(ticket, reason) for ticket, reason, *_ in failed] == ([(0, "worker 1 does not answer")] if gone else [])
    assert idle(pair) == [(0, 0, False)] * 2


def test_a_receiver_is_told_of_a_piece_right_before_it_is_sent(pair, monkeypatch):
    """Between the two lies nothing: what a host may wait for there would wait for a receiver that knows of nothing.

    Control: while a piece is not packed (`sent` says so) it is neither told of nor sent.
    """
    pair.begin("layerwise")
    sender, tell, noted, ready = pair.ends[0].sender, pair.ends[0].sender._tell, [], []

    def telling(target, message):
        noted.append(message["kind"])
        tell(target, message)

    pairs = SimpleNamespace(send=lambda packed, target: noted.append(("sent", target)))
    monkeypatch.setattr(sender, "_wire", GroupWire(pair.engines[0].pages, pairs))
    monkeypatch.setattr(sender._wire, "sent", lambda piece: bool(ready))
    monkeypatch.setattr(sender, "_tell", telling)
    pair.submit(Order(0, 0, Request(0, 0.0, 100, 5), 1))
    for _ in range(5):
        pair.turn()
    assert noted == ["reserve", "handed"] and sender.crossing
    ready.append(True)
    pair.turn()
    assert noted[2:] == ["pieces", ("sent", 1)] * 4  # a piece of each layer
    for end in pair.ends:
        end.cancel(0)


def test_a_link_keeps_the_order_when_it_gets_quicker(pair):
    """What was said first is taken first, as its sender sends in that order."""
    pair.begin("layerwise")
    receiver = pair.ends[1].receiver
    for ticket, latency_s in ((1, 100.0), (2, 0.0)):
        receiver.set_link(0.0, latency_s)
        receiver.pieces([Piece(ticket, 0, 1, 0, [0]).values()], 0)
    assert [due[3][0].ticket for due in sorted(receiver._due, key=lambda due: due[:2])] == [1, 2]
    assert receiver.next_s() > 50.0  # control: the link was slow for the first one


def test_who_loses_a_pair_loses_all_that_was_to_come_through_it(pair, monkeypatch):
    """Two requests are on their way when a receive fails; control: what comes from somebody else stays."""
    pair.begin("layerwise")
    receiver, failed = pair.ends[1].receiver, []
    monkeypatch.setattr(receiver, "_fail", lambda ticket, *_: failed.append(ticket))
    monkeypatch.setattr(receiver, "_tell", lambda *_: None)

    def lost(*_):
        raise PairLost("worker 0 does not answer")

    monkeypatch.setattr(receiver._wire, "take", lost)
    for ticket, source in ((5, 0), (6, 0), (7, 3)):
        receiver.reserve(Order(ticket, ticket, Request(ticket, 0.0, 64, 2), 1), source)
    receiver.tend()
    receiver.pieces([Piece(5, 0, 1, 0, [0]).values()], 0)
    receiver.tend()
    assert failed == [5, 6]
    assert list(receiver._arriving) == [7]
    pair.engines[1].cancel(receiver.cancel(7))
    assert idle(pair)[1] == (0, 0, False)
