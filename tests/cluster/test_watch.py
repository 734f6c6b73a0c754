"""Who is lost: whose process has ended, who is silent, and not who was not listened to."""

from types import SimpleNamespace

from helpers.cluster.watch import Progress, Watch
from helpers.policies.view import WorkerLost


class Cluster:
    """Three workers, of which those in `ended` have ended; what is done with them is noted."""

    def __init__(self):
        self.time_s, self.ended, self.killed, self.told, self.rerouted = 0.0, [], [], [], []
        self.workers, self.alive, self.open = [0, 1, 2], [True] * 3, [True] * 3
        self.counts = {"workers_lost": 0}
        self.listened = 0
        self.events = []
        self.crew = SimpleNamespace(
            dead=lambda: self.ended, kill=self.killed.append, gone=[False] * 3, broken={},
            tell=lambda worker, message: self.told.append((worker, message)),
        )  # fmt: skip
        self.views = SimpleNamespace(refresh=lambda takes: None)
        self.front = SimpleNamespace(
            held=0, forget_targets=lambda: None, tell_all=lambda event, now: self.events.append(event)
        )

    def now(self):
        return self.time_s

    def listen(self, seconds):
        self.listened += 1

    def reroute(self, worker, now):
        self.rerouted.append(worker)


def at(watch, cluster, time_s, heard=()):
    cluster.time_s = time_s
    for worker in heard:
        watch.heard(worker, time_s)
    watch.look()


def test_an_ended_process_is_lost_once_and_the_others_are_told():
    cluster = Cluster()
    watch = Watch(cluster, hang_s=10.0)
    cluster.ended = [1]
    at(watch, cluster, 1.0, heard=(0, 2))
    at(watch, cluster, 2.0, heard=(0, 2))
    assert cluster.alive == cluster.open == [True, False, True]
    assert cluster.rerouted == [1]
    assert cluster.told == [(0, {"kind": "lost", "worker": 1}), (2, {"kind": "lost", "worker": 1})]
    assert cluster.events == [WorkerLost(1)]
    assert cluster.listened == 1  # before, for what it had said
    assert (watch.stops_s, cluster.counts["workers_lost"], cluster.killed) == ([None, 1.0, None], 1, [])


def test_a_silent_worker_is_ended():
    cluster = Cluster()
    watch = Watch(cluster, hang_s=10.0)
    for second in range(1, 12):
        at(watch, cluster, float(second), heard=(0, 2))
    assert cluster.killed == [1]
    assert cluster.alive == [True, False, True]


def test_when_nobody_listened_nobody_was_silent():
    """The front end stood still for a minute: that says nothing of its workers. Control: the test before this one."""
    cluster = Cluster()
    watch = Watch(cluster, hang_s=10.0)
    at(watch, cluster, 1.0, heard=(0, 1, 2))
    at(watch, cluster, 61.0)
    assert cluster.killed == []
    at(watch, cluster, 62.0, heard=(0, 1, 2))
    assert cluster.alive == [True] * 3


def test_a_run_stalls_when_nothing_comes_and_not_because_it_takes_long():
    """A step every 9 s is progress for ever; 10 s without one are not, but where nobody waits nothing has to come."""
    progress = Progress(stall_s=10.0)
    for at_s in range(9, 900, 9):
        progress.came(float(at_s))
        assert not progress.stalled(True, at_s + 8.9)
    assert not progress.stalled(True, 891.0 + 10.0) and progress.stalled(True, 891.0 + 10.1)
    assert not progress.stalled(False, 950.0)
    assert not progress.stalled(True, 960.0) and progress.stalled(True, 960.1)
