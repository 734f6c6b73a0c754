"""Two roles on one device: as requests come, with the record of every backend; and on a device that works by itself."""

from contextlib import nullcontext
from itertools import count

import pytest
import torch

from helpers.cluster.duet import DECODE, PREFILL, duet
from helpers.cluster.movers import MOVERS
from helpers.cluster.one_device import OneDevice
from helpers.cluster.pieces import groups
from helpers.cluster.push import PushWire, Window
from helpers.engine.device_clock import HostClock
from helpers.engine.engine import Engine
from helpers.metrics.audit import audit
from helpers.scheduling.limits import Limits
from helpers.serving.engine_backend import warm_requests
from helpers.workload.request import Request

LIMITS = Limits(64, 64, 128, 8)
REQUESTS = [Request(10 + i, 0.01 * i, n, 5) for i, n in enumerate((40, 300, 128, 200))]
MOVES = [name for name, one in MOVERS.items() if one.wire == "pool"]


@pytest.fixture(scope="module")
def alone(decoder):
    """The tokens that one engine gives, a request at a time."""
    found = {}
    with Engine(decoder, LIMITS) as engine:
        for request in REQUESTS:
            engine.submit(request)
            found[request.id] = [t.token for t in engine.stream()]
    return found


def test_the_record_is_that_of_every_backend(pair, alone):
    pair.begin("layerwise", verify=True)
    one = OneDevice(pair, REQUESTS[::-1])  # in whatever order they are given
    log = one.run()
    assert audit(log) == []
    assert one.books.tokens == alone
    assert [t.id for t in log.timelines] == [10, 11, 12, 13]
    assert [w.role for w in log.workers] == ["prefill", "decode"]
    layers = len(pair.engines[PREFILL].pages.tensor)
    assert one.books.checked == layers * sum(-(-r.prompt_tokens // 64) for r in REQUESTS)
    assert one.books.wrong == 0 and one.books.hand_offs == len(REQUESTS)
    for t, request in zip(log.timelines, REQUESTS, strict=True):
        assert (t.arrival_s, t.status, t.generated_tokens) == (request.arrival_s, "finished", 5)
        assert t.arrival_s <= t.dispatched_s <= t.prefill_start_s < t.first_token_s < t.finished_s
        assert t.transfer_start_s < t.transfer_end_s and {s.worker for s in t.spans} == {DECODE}
    assert sum(log.step_logs[PREFILL].prefilled) == sum(r.prompt_tokens for r in REQUESTS)
    assert sum(log.step_logs[DECODE].decoding) == 4 * len(REQUESTS)  # the first of five comes from the prefill


def test_damage_on_the_way_is_seen(pair, alone):
    pair.begin("layerwise", verify=True, tamper="zero_cache")
    one = OneDevice(pair, REQUESTS)
    one.run()
    assert one.books.wrong > 0 and one.books.tokens != alone


def test_nobody_is_sent_before_it_comes_and_who_is_late_ends_unfinished(pair, monkeypatch):
    """A clock of 0.1 s a look: the request of 0 s is sent at once, that of 1 s later, that of 99 s never."""
    pair.begin("asynchronous")
    ticks = count()
    monkeypatch.setattr(pair, "start", lambda: None)
    monkeypatch.setattr(pair, "now", lambda: next(ticks) / 10)
    sent = []
    submit = pair.submit
    monkeypatch.setattr(pair, "submit", lambda order: sent.append(order.request.id) or submit(order))
    one = OneDevice(pair, [Request(0, 0.0, 64, 2), Request(1, 1.0, 64, 400), Request(2, 99.0, 64, 2)])
    log = one.run(limit_s=6.0)
    assert sent == [0, 1]
    assert [(t.id, t.status) for t in log.timelines] == [(0, "finished"), (1, "unfinished")]
    assert "after 6 s" in log.timelines[1].reason
    assert one.lateness_s[1] >= 0


class Busy(HostClock):
    """A device that works by itself: it passes a mark when asked so often; `waits` counts who stood still."""

    asynchronous = True

    def __init__(self, clock, asked):
        super().__init__(clock)
        self.asked, self.waits = asked, 0

    def mark(self):
        return [super().mark(), self.asked]

    def landed(self, mark):
        mark[1] -= 1
        return mark[1] <= 0

    def wait(self, mark):
        self.waits += mark[1] > 0

    def seconds(self, earlier, later):
        return later[0] - earlier[0]


@pytest.fixture
def busy(decoder):
    """A duet whose prefills take forty looks and whose decodes take two."""
    with duet(decoder, LIMITS, stage_bytes=2**21) as made:
        for engine, asked in zip(made.engines, (40, 2), strict=True):
            engine._device_clock = engine.runner.clock = Busy(engine._clock, asked)
        yield made


@pytest.mark.parametrize("name", MOVES)
def test_on_a_device_that_works_by_itself_the_answers_are_the_same(busy, alone, name):
    busy.begin(name, verify=True)
    one = OneDevice(busy, REQUESTS)
    log = one.run()
    assert audit(log) == [] and one.books.tokens == alone and one.books.wrong == 0
    assert [engine.runner.clock.waits for engine in busy.engines] == [0, 0]


def test_decodes_are_launched_while_a_prefill_is_under_way(busy, monkeypatch):
    """Five chunks of forty looks beside a long answer: some twenty decodes a chunk, as one takes two looks.

    Control: where a prefill is waited for, one decode goes with each chunk.
    """
    assert decodes_beside(busy) >= 20 and busy.engines[PREFILL].runner.clock.waits == 0
    monkeypatch.setattr(type(busy.engines[PREFILL]), "landed", True)
    assert decodes_beside(busy) <= 6
    assert busy.engines[PREFILL].runner.clock.waits >= 5


def decodes_beside(pair):
    """How many decodes were launched while a prefill step was under way, after the first answer had begun."""
    pair.begin("asynchronous")
    prefill, decode = pair.engines
    launch, seen = decode.runner.launch, []
    decode.runner.launch = lambda step: seen.append(bool(prefill._flight)) or launch(step)
    try:
        pair.run([Request(0, 0.0, 64, 60), Request(1, 0.0, 600, 2)])
    finally:
        decode.runner.launch = launch
    return sum(seen)


class Event:
    """Passed when it has been asked for three times."""

    def __init__(self, **how):
        self.left = None

    def record(self):
        self.left = 3

    def query(self):
        self.left -= 1
        return self.left <= 0

    def elapsed_time(self, later):
        return 0.0


class Stream:
    """Takes its turn at once."""

    def __init__(self, device=None):
        pass

    def wait_event(self, event):
        assert event.left is not None


@pytest.fixture
def pushed(busy, monkeypatch):
    """A duet as on a GPU: the prefill role writes into the pages of the other, and events say when that is done."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    pools = [engine.pages for engine in busy.engines]
    for pages in pools:
        pages.marks = {end - 1: Event() for end in groups(len(pages.tensor))}
    windows = [Window(pages.tensor) for pages in pools]
    windows[PREFILL].known(DECODE, pools[DECODE].tensor)
    busy._push = [PushWire(pages, window) for pages, window in zip(pools, windows, strict=True)]
    return busy


@pytest.mark.parametrize("name", MOVES)
def test_pages_are_written_where_they_belong_while_both_roles_go_on(pushed, alone, name):
    pushed.begin(name, warm_requests(pushed.engines[PREFILL]), verify=True)
    one = OneDevice(pushed, REQUESTS)
    log = one.run()
    assert audit(log) == [] and one.books.tokens == alone
    assert one.books.checked > 0 == one.books.wrong
    assert one.books.hand_offs == len(REQUESTS)  # those of the first use are not counted
    assert [engine.runner.clock.waits for engine in pushed.engines] == [0, 0]


def test_pages_that_are_written_elsewhere_are_seen(pushed, monkeypatch):
    """Control: every copy goes to the page before the right one."""
    offer, pages = PushWire.offer, pushed.engines[DECODE].pages.pages

    def elsewhere(wire, piece, target):
        piece.there = [(page - 1) % pages for page in piece.there]
        return offer(wire, piece, target)

    monkeypatch.setattr(PushWire, "offer", elsewhere)
    pushed.begin("asynchronous", verify=True)
    one = OneDevice(pushed, REQUESTS)
    one.run()
    assert one.books.wrong > 0
