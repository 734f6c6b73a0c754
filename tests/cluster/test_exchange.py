"""Both ends of a hand-off: who is cancelled lets go at both, and who is lost is not waited for."""

import pytest

from helpers.cluster import receiver
from helpers.cluster.orders import Order
from helpers.cluster.pairs import PairLost
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
