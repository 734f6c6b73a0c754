"""A worker that is slowed down on a device that works by itself: pauses on its stream, as long as its steps say."""

from time import perf_counter
from types import SimpleNamespace

import pytest

from helpers.cluster import hosted
from helpers.cluster.slowing import Pauses
from helpers.engine.device_clock import HostClock
from helpers.scheduling.limits import Limits
from helpers.workload.request import Request

DECODE, MIXED = ("decode", 8), ("mixed", 64)


class Twin(HostClock):
    """The host's clock as that of a device which works by itself and is through at once."""

    asynchronous = True

    def landed(self, mark):
        return True


def launched(graph, begin, end, landed=True):
    return SimpleNamespace(graph=graph, begin=begin, end=end, landed=landed)


def test_a_pause_is_as_long_as_the_last_such_step_less_one_times_over():
    stood_s = []
    pauses = Pauses(Twin(lambda: 0.0), stood_s.append)
    pauses.after(launched(DECODE, 0.0, 9.0))  # nobody has slowed it down yet
    pauses.slow_down(3.0)
    pauses.after(launched(DECODE, 0.0, 10.0))  # nothing is known of it
    under_way = launched(MIXED, 10.0, 60.0, landed=False)
    pauses.after(under_way)  # 2 x 10, of the only step that is known
    pauses.after(launched(DECODE, 60.0, 71.0))  # 2 x 10: the one before it is under way still
    assert stood_s == [20.0, 20.0]
    under_way.landed = True
    pauses.after(launched(MIXED, 80.0, 90.0))  # 2 x 50
    pauses.after(launched(DECODE, 90.0, 95.0))  # 2 x 11
    pauses.slow_down(1.0)
    pauses.after(launched(DECODE, 95.0, 99.0))
    assert stood_s == [20.0, 20.0, 100.0, 22.0]


@pytest.mark.parametrize("graphs", [True, False])
def test_captured_steps_of_an_engine_are_slowed_down_too(decoder, tmp_path, monkeypatch, graphs):
    stood_s = []
    monkeypatch.setattr(hosted, "standing_still", lambda: stood_s.append)
    how = {"graphs": graphs, "overlap": True, "device_clock": Twin(perf_counter)}
    with hosted.HostedEngine(decoder, Limits(64, 64, 128, 8), tmp_path / "kv", 2**21, **how) as engine:
        engine.submit(Request(0, 0.0, 40, 12))
        for _ in range(3):
            engine.step()
        assert stood_s == []  # the control
        engine.slow_down(4.0)
        while engine.busy:
            engine.step()
        assert engine.watched.factor == 1.0  # the host itself does not wait
        took_s = [s.seconds for s in engine.samples[-1 - len(stood_s) : -1]]
        assert len(stood_s) >= 5 and stood_s == pytest.approx([3 * seconds for seconds in took_s])
        stood_s.clear()
        engine.begin("mixed", lambda step: None)
        engine.submit(Request(0, 0.0, 40, 4))
        while engine.busy:
            engine.step()
        assert stood_s == []  # a new run begins at the usual pace


def test_where_the_host_does_the_work_the_host_waits(decoder, tmp_path):
    with hosted.HostedEngine(decoder, Limits(64, 64, 128, 8), tmp_path / "kv", 2**21) as engine:
        engine.slow_down(4.0)
        assert engine.watched.factor == 4.0
