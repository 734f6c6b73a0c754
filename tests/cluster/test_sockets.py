"""Ways between workers: open before the names by which they are reached are removed."""

import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from helpers.cluster import folder, sockets
from helpers.cluster.sockets import HELLO, WorkerSockets, address
from helpers.cluster.worker import Worker


def heard(ours: WorkerSockets, kind: str, limit_s: float) -> bool:
    """Whether a peer says something of a kind within so long."""
    until_s = time.perf_counter() + limit_s
    while time.perf_counter() < until_s:
        ours.wait(0.01)
        if any(message["kind"] == kind for _, message in ours.from_peers()):
            return True
    return False


def early_and_late(place):
    """Worker 0 looks for the door of worker 1 before that is there."""
    front = address(place, "front")
    early = WorkerSockets(0, 2, front, place)
    time.sleep(0.05)
    return closing(early), closing(WorkerSockets(1, 2, front, place))


def test_who_was_greeted_is_reached_after_the_names_are_gone():
    early, late = early_and_late(place := folder.make())
    with early, late:
        early.thing.greet()
        assert heard(late.thing, HELLO, 10.0)
        folder.remove(place)
        early.thing.tell(1, {"kind": "reserve"})
        assert heard(late.thing, "reserve", 10.0)


def test_without_that_nothing_arrives_at_a_door_that_opened_late(monkeypatch):
    """The control: names that are removed before the door was tried again."""
    monkeypatch.setattr(sockets, "RECONNECT_MS", 20_000)
    early, late = early_and_late(place := folder.make())
    with early, late:
        folder.remove(place)
        early.thing.tell(1, {"kind": "reserve"})
        assert not heard(late.thing, "reserve", 0.3)


class Doors:
    """The sockets of worker 1 of three: what peers say is laid in, what the front end hears is kept."""

    def __init__(self):
        self.waiting, self.front, self.greetings = [], [], 0

    def meet(self, doors):
        pass

    def greet(self):
        self.greetings += 1

    def from_peers(self):
        said, self.waiting = self.waiting, []
        return said

    def tell_front(self, message):
        self.front.append(message["kind"])


@pytest.mark.parametrize("order", ["before it meets them", "after it has met them"])
def test_a_worker_has_met_its_peers_when_it_has_heard_from_each(order):
    worker = object.__new__(Worker)
    worker.sockets, worker.setup = Doors(), SimpleNamespace(workers=3, index=1)
    worker.exchange, worker._later, worker._strangers, worker._greeted = None, [], None, set()
    meets = [lambda: worker._meet({"doors": {}, "peers": {}})]
    first, last = (meets, []) if order.startswith("after") else ([], meets)
    for one in first:
        one()
    for peer in (0, 2):
        assert worker.sockets.front == []
        worker.sockets.waiting.append((peer, {"kind": HELLO}))
        worker._hear_peers()
    for one in last:
        assert worker.sockets.front == []
        one()
    worker._hear_peers()
    assert worker.sockets.front == ["met"] and worker.sockets.greetings == 1
