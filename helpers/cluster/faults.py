"""What goes wrong in a live cluster on purpose: what the simulator knows too (a slow worker, a lost one), and more."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

from helpers.errors import InputError
from helpers.simulator.disturbances import Disturbance, LoseWorker, SlowWorker
from helpers.simulator.ranks import DISTURBANCE, NEVER


@dataclass(frozen=True, slots=True)
class Hang:
    """The process of `worker` stands still from `at_s` on: it is there, and says nothing."""

    worker: int
    at_s: float

    def __post_init__(self) -> None:
        _check_time(self.at_s)


@dataclass(frozen=True, slots=True)
class SlowLink:
    """KV that comes to `worker` crosses at `bytes_per_s` from `at_s` on, each message `latency_s` later."""

    worker: int
    at_s: float
    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _check_time(self.at_s)
        if not (0 < self.bytes_per_s < inf and 0 <= self.latency_s < inf):
            raise InputError(
                f"a link of {self.bytes_per_s} bytes/s and {self.latency_s} s; give finite, positive values"
            )


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client of a request leaves at `at_s`; nothing happens when it has its answer by then."""

    request: int
    at_s: float

    def __post_init__(self) -> None:
        _check_time(self.at_s)


Fault = Hang | SlowLink | Disconnect


def _check_time(at_s: float) -> None:
    if not 0 <= at_s < inf:
        raise InputError(f"a fault at {at_s} s; give a finite time of 0 or later")


class Faults:
    """The faults of one run, acted out on the workers of a `LiveCluster` when their time comes."""

    def __init__(self, cluster, faults: Sequence[Disturbance | Fault]) -> None:
        self._cluster = cluster
        self._slowed: dict[int, list[float]] = {}  # the factors at work on each worker
        workers = len(cluster.workers)
        for one in faults:
            if not isinstance(one, Disconnect) and not 0 <= one.worker < workers:
                raise InputError(f"a fault names worker {one.worker}; the fleet has 0 to {workers - 1}")
            cluster.at(one.at_s, DISTURBANCE, self._begin, one)

    def _begin(self, one: Disturbance | Fault, now: float) -> None:
        cluster = self._cluster
        if isinstance(one, SlowWorker):
            self._slowed.setdefault(one.worker, []).append(one.factor)
            self._pace(one.worker)
            if one.until_s < NEVER:
                cluster.at(one.until_s, DISTURBANCE, self._end_slow, one)
        elif isinstance(one, LoseWorker):
            cluster.crew.kill(one.worker)
        elif isinstance(one, Hang):
            cluster.crew.pause(one.worker)
        elif isinstance(one, SlowLink):
            rate = {"bytes_per_s": one.bytes_per_s, "latency_s": one.latency_s}
            cluster.crew.tell(one.worker, {"kind": "link", **rate})
        else:
            cluster.disconnect(one.request)

    def _end_slow(self, one: SlowWorker, now: float) -> None:
        self._slowed[one.worker].remove(one.factor)
        self._pace(one.worker)

    def _pace(self, worker: int) -> None:
        self._cluster.crew.tell(worker, {"kind": "pace", "factor": prod(self._slowed[worker])})
