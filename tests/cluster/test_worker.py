"""The loop of a worker: when it launches, and when it listens instead."""

from types import SimpleNamespace

import pytest

from helpers.cluster.worker import Worker


class Busy:
    """An engine whose device is busy for a while: a step that is put off so long costs nothing."""

    overlap = True

    def __init__(self, *slacks):
        self.slacks, self.launched_at = list(slacks), []
        self.looks = 0

    def slack_s(self):
        self.looks += 1
        return self.slacks.pop(0) if self.slacks else 0.0

    def advance(self):
        self.launched_at.append(self.looks)


@pytest.mark.parametrize(("slacks", "launched_at"), [((), [1, 2, 3]), ((0.004, 0.002), [3])])
def test_a_worker_listens_while_a_launch_can_wait(slacks, launched_at):
    worker = object.__new__(Worker)
    worker.engine, worker.exchange = Busy(*slacks), SimpleNamespace()
    worker._beat = lambda: None
    went_on = [worker._step() for _ in range(3)]
    assert worker.engine.launched_at == launched_at
    assert went_on == [True] * 3  # it hears the front end at once, and does not sleep over the end of the step
