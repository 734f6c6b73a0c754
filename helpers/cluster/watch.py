"""Who of the workers is still there: one that has ended, or says nothing, is lost. And does anything still come?"""

import sys

from helpers.policies.view import WorkerLost

EVERY_S = 0.02


class Progress:
    """Does anything come of the requests that are there? A busy machine may take long for it, however long it was."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s, self._since_s = stall_s, 0.0

    def came(self, now: float) -> None:
        """A worker has made a step."""
        self._since_s = now

    def stalled(self, waiting: bool, now: float) -> bool:
        """Whether nothing has come for too long; while nobody is `waiting`, nothing has to."""
        if not waiting:
            self._since_s = now
        return now - self._since_s > self._stall_s


class Watch:
    """Over the workers of a `LiveCluster`. `stops_s` holds when each was lost."""

    def __init__(self, cluster, hang_s: float) -> None:
        self._cluster, self._hang_s = cluster, hang_s
        self._heard_s = [0.0] * len(cluster.workers)
        self._looked_s = 0.0
        self.stops_s: list[float | None] = [None] * len(cluster.workers)

    def heard(self, worker: int, now: float) -> None:
        """A worker has said something."""
        self._heard_s[worker] = now

    def look(self) -> None:
        """Is everybody there? Whoever is silent for too long hangs, and is ended."""
        cluster, now = self._cluster, self._cluster.now()
        if now < self._looked_s + EVERY_S:
            return
        if now - self._looked_s > self._hang_s / 2:  # it was this process that stood still
            self._heard_s = [now] * len(self._heard_s)
        self._looked_s = now
        for worker in cluster.crew.dead():
            if worker < len(cluster.alive) and cluster.alive[worker]:
                cluster.listen(0.0)  # what it had said is all there
                self.lose(worker)
        for worker, heard_s in enumerate(self._heard_s):
            if cluster.alive[worker] and now - heard_s > self._hang_s:
                cluster.crew.kill(worker)
                self.lose(worker)

    def lose(self, worker: int) -> None:
        """A worker is gone: its requests go back to their routers. One that could say why is quoted."""
        if worker in self._cluster.crew.broken:
            print(f"hybrid-serving: {self._cluster.crew.broken[worker]}", file=sys.stderr, flush=True)
        cluster, now = self._cluster, self._cluster.now()
        cluster.alive[worker] = cluster.open[worker] = False
        cluster.crew.gone[worker] = True
        self.stops_s[worker] = now
        cluster.counts["workers_lost"] += 1
        cluster.front.forget_targets()
        cluster.views.refresh(cluster.open)
        cluster.front.tell_all(WorkerLost(worker), now)
        for other, alive in enumerate(cluster.alive):
            if alive:
                cluster.crew.tell(other, {"kind": "lost", "worker": worker})
        cluster.reroute(worker, now)
        if cluster.front.held:
            cluster.front.retry_held(now)
