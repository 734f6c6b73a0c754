"""When things go wrong in a step: a clear error, nothing leaked, and the engine serves on."""

import gc
import tracemalloc
import weakref
from functools import partial

import pytest
import torch

from helpers.engine.engine import EngineError
from helpers.engine.loop_checks import ROOMY, TIGHT, requests, serve
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request


class Failing:
    """A decoder that works, but for the one call that it is told to fail."""

    def __init__(self, decoder, how):
        self.config, self.device, self.dtype = decoder.config, decoder.device, decoder.dtype
        self._decoder, self._how = decoder, how
        self.fail_at = -1

    def forward(self, inputs, batch, pages):
        self.fail_at -= 1
        logits = self._decoder.forward(inputs, batch, pages)
        return self._how(logits) if self.fail_at == 0 else logits


def out_of_memory(logits):
    raise torch.OutOfMemoryError("planted")


def interrupted(logits):
    raise KeyboardInterrupt


def not_a_number(logits):
    logits[0, 3] = float("nan")
    return logits


FAULTS = [
    (out_of_memory, EngineError, "lower token_budget"),
    (interrupted, KeyboardInterrupt, None),
    (not_a_number, EngineError, r"the logits of requests \[\d+\] are not finite"),
]


def assert_empty(engine):
    """Nothing is held: no block, no seat, no request."""
    assert engine.scheduler.pool.used == 0
    assert engine.runner.seats.free == engine.limits.max_batch
    assert (engine.scheduler.running, engine.scheduler.waiting, engine.live) == ([], [], {})
    assert not engine.busy


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("limits", [ROOMY, TIGHT])
@pytest.mark.parametrize(("how", "error", "words"), FAULTS)
def test_a_failed_step_loses_its_requests_and_nothing_else(decoder, make_engine, how, error, words, limits, overlap):
    expected = serve(make_engine(limits), requests(6))
    failing = Failing(decoder, how)
    engine = make_engine(limits, failing, overlap=overlap)
    for fail_at in (1, 2, 5):
        failing.fail_at = fail_at
        lost = [engine.submit(r) for r in requests(6)]
        with pytest.raises(error, match=words):
            list(engine.stream())
        assert_empty(engine)
        assert any(g.status == "unfinished" and g.reason for g in lost)
        assert all(g.ended for g in lost)
        assert not engine.pages.tensor.any()
    assert serve(engine, requests(6)) == expected  # and on it goes
    assert_empty(engine)


def test_a_damaged_cache_does_not_reach_later_requests(decoder, make_engine):
    """Blocks that a failed step has published are not found again; a control keeps them, and is wrong."""
    shared = requests(1, shared_blocks=4)
    expected = serve(make_engine(), shared)
    outcomes = {}
    for forget in (True, False):
        failing = Failing(decoder, not_a_number)
        engine = make_engine(on=failing)
        if not forget:
            engine.scheduler.drain = list
            engine.pages.clear = partial(engine.pages.tensor.fill_, 9.0)
        failing.fail_at = 1
        g = engine.submit(shared[0])
        with pytest.raises(EngineError):
            engine.step()
        engine.cancel(g)
        again = engine.submit(shared[0])
        list(engine.stream())
        outcomes[forget] = again.cached_tokens, [again.out]
    assert outcomes[True] == (0, expected)
    assert outcomes[False][0] > 0
    assert outcomes[False][1] != expected


def test_fifty_failures_leave_nothing_behind(decoder, make_engine):
    """Blocks, seats and Python memory after 50 rounds of failing and serving; a leak of one list a round shows."""
    failing = Failing(decoder, out_of_memory)
    engine = make_engine(Limits(64, 16, 256, 32), failing, record=False)
    kept = []

    def grown(rounds, leak):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for i in range(rounds):
            failing.fail_at = 1 + i % 3
            for r in requests(3):
                engine.submit(r)
            with pytest.raises(EngineError):
                list(engine.stream())
            engine.generate([1, 2, 3], 4)
            assert_empty(engine)
            engine.restart_clock()
            if leak:
                kept.append([float(i)] * 2000)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after - before

    grown(3, leak=False)  # caches of the first rounds
    assert grown(50, leak=False) < 100_000
    assert grown(50, leak=True) > 500_000  # control: 50 lists of 16,000 bytes each


def test_a_closed_engine_says_so(make_engine):
    engine = make_engine()
    engine.submit(Request(0, 0.0, 20, 4))
    engine.step()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.step()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(Request(1, 0.0, 20, 4))
    engine.close()  # once more is no error


def test_closing_frees_the_pages(decoder, make_engine):
    with make_engine(graphs=True) as engine:
        list(engine.generate([1, 2, 3], 5))
        pages = weakref.ref(engine.pages.tensor)
        assert pages() is not None
    assert pages() is None


def test_the_clock_is_not_restarted_in_the_middle(make_engine):
    engine = make_engine(overlap=True)
    engine.submit(Request(0, 0.0, 20, 4))
    engine.step()
    with pytest.raises(EngineError, match="under way"):
        engine.restart_clock()
    list(engine.stream())
    engine.restart_clock()
    assert len(engine.log) == 0


def test_pages_that_do_not_fit_are_refused(decoder, make_engine, monkeypatch):
    def none_left(*_, **__):
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(torch, "zeros", none_left)
    with pytest.raises(InputError, match="fewer kv_blocks"):
        make_engine()
