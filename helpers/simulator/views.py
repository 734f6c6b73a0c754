"""What the routers are shown: the live state of the workers, or the last telemetry that has arrived."""

from collections import deque
from dataclasses import dataclass
from math import inf
from random import Random

from helpers.errors import InputError
from helpers.policies.view import WorkerView


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How workers report. Every `period_s` all are sampled at once; a sample arrives `delay_s` later.

    A period of 0 with no delay means that a policy sees the state at the moment of its decision.
    `noise` is the relative standard deviation that is put on each figure of load. KV events are
    delayed by `delay_s` too. `by_step`, in place of a period: a worker reports between its steps,
    when it has heard who came, and nothing while one runs (`helpers.simulator.reporting`).
    """

    period_s: float = 0.0
    delay_s: float = 0.0
    noise: float = 0.0
    by_step: bool = False

    def __post_init__(self) -> None:
        for name in ("period_s", "delay_s", "noise"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"telemetry {name} is {getattr(self, name)}; give a finite number of 0 or more")
        if self.by_step and (self.period_s or self.delay_s or self.noise):
            raise InputError("telemetry by step has no period, delay or noise; leave them out, or by_step")
        if not self.period_s and (self.delay_s or self.noise):
            raise InputError("telemetry with a delay or noise needs a period_s above 0: say how often workers report")


class LiveViews:
    """Views made on demand from the workers as they are at `now`.

    `workers` are the workers themselves, which no policy looks at but the oracle that others are measured by.
    """

    def __init__(self, workers: list) -> None:
        self.workers = workers
        self.now = 0.0
        self.refresh([True] * len(workers))

    def refresh(self, takes: list[bool]) -> None:
        """Recompute which workers may take which part of a request, of those that take any."""
        roles = [(w.index, w.spec.role) for w in self.workers if takes[w.index]]
        self.prefill = tuple(w for w, role in roles if role != "decode")
        self.decode = tuple(w for w, role in roles if role != "prefill")

    def __getitem__(self, worker: int) -> WorkerView:
        w = self.workers[worker]
        w.advance(self.now)
        return observed(w, 0.0)


def observed(w, age_s: float) -> WorkerView:
    """The view of worker `w` as it stands."""
    w.settle()
    pool = w.pool
    return WorkerView(
        w.index, w.spec.role, age_s, w.running, len(w.waiting), w.waiting_tokens, w.kv_tokens, pool.used, pool.total
    )


class StaleViews(LiveViews):
    """The last samples that have arrived; before the first, every worker looks idle."""

    def __init__(self, workers: list, telemetry: Telemetry, rng: Random) -> None:
        super().__init__(workers)
        self._telemetry, self._rng = telemetry, rng
        self._shown = (0.0, [self._idle(w) for w in workers])
        self._coming: deque[tuple[float, list[WorkerView]]] = deque()

    def sample(self, now: float) -> None:
        """Take a sample of every worker at `now`."""
        views = []
        for w in self.workers:
            w.advance(now)
            views.append(self._noisy(observed(w, 0.0)))
        self._coming.append((now, views))

    def _noisy(self, view: WorkerView) -> WorkerView:
        noise = self._telemetry.noise
        if not noise:
            return view
        blur = lambda x: max(0, round(x * (1.0 + noise * self._rng.gauss(0.0, 1.0))))  # noqa: E731
        return view._replace(
            running=blur(view.running),
            waiting=blur(view.waiting),
            waiting_tokens=blur(view.waiting_tokens),
            kv_tokens=blur(view.kv_tokens),
            kv_used_blocks=min(view.kv_total_blocks, blur(view.kv_used_blocks)),
        )

    def __getitem__(self, worker: int) -> WorkerView:
        coming, now = self._coming, self.now
        while coming and coming[0][0] + self._telemetry.delay_s <= now:
            self._shown = coming.popleft()
        at, views = self._shown
        if worker >= len(views):  # it was started after the sample
            return self._idle(self.workers[worker])._replace(age_s=now - at)
        return views[worker]._replace(age_s=now - at)

    @staticmethod
    def _idle(w) -> WorkerView:
        return WorkerView(w.index, w.spec.role, 0.0, 0, 0, 0, 0, 0, w.pool.total)
