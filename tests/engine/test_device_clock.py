"""What a step took, by the device's own clock: on a device whose every step has a planned length."""

import pytest

from helpers.engine.flight import LEAD, SPARE_S
from helpers.workload.request import Request


class FakeDevice:
    """Runs steps one after the other while a host's clock goes on: each step has planned seconds of launch, which
    pass on the host, and of work. Steps beyond the plan take 0.1 and 1 s."""

    asynchronous = True

    def __init__(self, plan=()):
        self.now, self.free_s = 0.0, 0.0
        self.launches = 0
        self._plan, self._begun = list(plan), None

    def clock(self):
        return self.now

    def mark(self):
        if self._begun is None:
            self._begun = max(self.now, self.free_s)
            return self._begun
        launch_s, work_s = self._plan[self.launches] if self.launches < len(self._plan) else (0.1, 1.0)
        self.launches += 1
        self.now += launch_s
        self.free_s, self._begun = self._begun + work_s, None
        return self.free_s

    def landed(self, mark):
        return mark <= self.now

    def wait(self, mark):
        self.now = max(self.now, mark)

    def seconds(self, earlier, later):
        return later - earlier


class Unseen(FakeDevice):
    """Never says that a step has landed."""

    def landed(self, mark):
        return False


@pytest.fixture
def on(make_engine):
    return lambda device, **how: make_engine(overlap=True, clock=device.clock, device_clock=device, **how)


def test_a_late_landing_is_booked_to_its_own_step(on):
    """The third step is launched for 5 s and works for 5.5; the second, of 1 s, is read only after that launch."""
    device = FakeDevice([(0.1, 1.0), (0.1, 1.0), (5.0, 5.5), (0.1, 1.0)])
    engine = on(device)
    engine.submit(Request(0, 0.0, 20, 4))
    list(engine.stream())
    assert [s.seconds for s in engine.samples] == pytest.approx([1.0, 1.0, 5.5, 1.0])
    assert [s.launch_s for s in engine.samples] == pytest.approx([0.1, 0.1, 5.0, 0.1])
    assert [s.gap_s for s in engine.samples] == [0.0] * 4
    # control: between the times at which tokens came out lie other steps. The first one's token is read at 1.0; the
    # second's when the launch is through, at 1.0 + 5.0; the third's as it ends, at 2.0 + 5.5; the last's at 8.5.
    assert engine.log.column("base_s") == pytest.approx([1.0, 5.0, 1.5, 1.0])


def test_tokens_that_are_there_are_read_before_anything_is_launched(on):
    device, late = FakeDevice(), {}
    engine = on(device)
    engine.submit(Request(0, 0.0, 20, 4))
    assert engine.step() == [] and device.launches == 1
    device.now = 7.5  # the client was elsewhere, the step ended at 1.0
    assert len(engine.step()) == 1 and device.launches == 1
    assert engine.step() == [] and device.launches == 2
    list(engine.stream())
    # the second step begins at 7.5, 6.5 s after the first one ended
    assert [s.gap_s for s in engine.samples] == pytest.approx([0.0, 6.5, 0.0, 0.0])
    for kind in (FakeDevice, Unseen):  # control: on a device that is not asked, the token waits for the next launch
        device = kind([(0.1, 1.0), (3.0, 3.5)])
        engine = on(device)
        engine.submit(Request(0, 0.0, 20, 4))
        engine.step()
        device.now = 7.5
        engine.step()
        late[kind] = engine.last_s
    assert late == {FakeDevice: 7.5, Unseen: 10.5}


def test_a_worker_without_requests_has_no_gap(on):
    device = FakeDevice()
    engine = on(device)
    for _ in range(2):
        engine.submit(Request(0, 0.0, 20, 2))
        list(engine.stream())
        device.now += 100.0
    assert [s.gap_s for s in engine.samples] == [0.0] * 4
    engine.submit(Request(0, 0.0, 20, 9))
    engine.step()
    engine.cancel(next(iter(engine.live.values())))
    list(engine.stream())
    device.now += 100.0
    engine.submit(Request(0, 0.0, 20, 1))
    list(engine.stream())
    assert engine.samples[-1].gap_s == 0.0


@pytest.mark.parametrize(("waits", "token_s"), [(True, 5.0), (False, 6.0)])
def test_a_launch_waits_for_what_comes_while_the_device_is_busy(on, waits, token_s):
    device = FakeDevice()
    engine = on(device, graphs=True)
    engine.submit(Request(0, 0.0, 20, 30))
    slacks = []
    for _ in range(4):
        engine.step()
        slacks.append(engine.slack_s())
    # Nothing has been read after the first call, a step with a chunk after the second, one decode after the third: only
    # then is it known that the decode under way takes 1 s. A launch takes 0.1.
    assert slacks == pytest.approx([0.0, 0.0, *(1.0 - LEAD * 0.1 - SPARE_S,) * 2])
    if not waits:  # control
        engine.step()
    device.now = 3.0 + slacks[-1] if waits else 4.1
    if waits:
        assert engine.slack_s() == pytest.approx(0.0, abs=1e-9)
    second = engine.submit(Request(1, 0.0, 20, 2))
    while not second.out:
        engine.step()
    # It came during the fourth step, from 3 to 4, is in the fifth and has its token at 5; a step later where the fifth
    # had been launched as the fourth began.
    assert engine.last_s == pytest.approx(token_s)
    assert [s.gap_s for s in engine.samples] == [0.0] * len(engine.samples)


def test_the_plain_loop_waits_for_nobody(make_engine):
    device = FakeDevice()
    engine = make_engine(overlap=False, clock=device.clock, device_clock=device, graphs=True)
    engine.submit(Request(0, 0.0, 20, 9))
    for _ in range(5):
        engine.step()
        assert engine.slack_s() == 0.0


def test_on_a_cpu_a_launch_is_the_work(make_engine):
    ticks = iter(range(1000))
    engine = make_engine(clock=lambda: float(next(ticks)))
    engine.submit(Request(0, 0.0, 20, 4))
    list(engine.stream())
    assert {(s.seconds, s.launch_s) for s in engine.samples} == {(1.0, 0.0)}  # from one mark to the next
