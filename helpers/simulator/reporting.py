"""Workers that remember how they stood when the step in flight began: all that a report between steps can tell.

A live worker on a CPU hears nobody while it computes. Between two steps it hears who has come, reports, and begins the
next one. Until that is over the report is what is known of it: whom the step admits still waits there, whom it ends
still runs, and who comes meanwhile is not in it.
"""

from math import inf
from random import Random

from helpers.policies.view import WorkerView
from helpers.simulator.decoding import steps_before
from helpers.simulator.stepwise import StepWorker
from helpers.simulator.views import LiveViews, StaleViews, Telemetry, observed
from helpers.simulator.worker import FastWorker


class ReportingFastWorker(FastWorker):
    """A `FastWorker` whose last report is `told`, of the time `told_s`, while a step is in flight."""

    __slots__ = ("told", "told_s")

    def _report(self) -> None:
        self.told, self.told_s = observed(self, 0.0), self.t

    def _step(self) -> None:
        self._report()
        super()._step()

    def _run(self, n: int, until: float) -> None:
        first, growth = self._pace()
        if self.t + (n * first + growth * (n * (n - 1) // 2)) > until:  # the last one will be in flight
            n, _ = steps_before(until, self.t, first, growth, n)
            if n > 1:
                super()._run(n - 1, inf)
            self._report()
            n = 1
        super()._run(n, inf)

    def stall(self, until: float) -> None:
        if until > self.t:
            self._report()
        super().stall(until)


class ReportingStepWorker(StepWorker):
    """The same of the slow reference."""

    def _report(self) -> None:
        self.told, self.told_s = observed(self, 0.0), self.t

    def _step(self) -> None:
        self._report()
        super()._step()

    def stall(self, until: float) -> None:
        if until > self.t:
            self._report()
        super().stall(until)


class StepViews(LiveViews):
    """What workers said between their steps; one without a step in flight is seen as it is."""

    def __getitem__(self, worker: int) -> WorkerView:
        w = self.workers[worker]
        w.advance(self.now)
        if w.t > self.now:
            return w.told._replace(age_s=self.now - w.told_s)
        return observed(w, 0.0)


def worker_kind(stepwise: bool, by_step: bool) -> type:
    """The class of simulated workers: the slow reference or not, with reports between steps or not."""
    if by_step:
        return ReportingStepWorker if stepwise else ReportingFastWorker
    return StepWorker if stepwise else FastWorker


def views_of(workers: list, telemetry: Telemetry, noise: Random) -> LiveViews:
    """What policies are shown of workers that report in this way."""
    if telemetry.by_step:
        return StepViews(workers)
    return StaleViews(workers, telemetry, noise) if telemetry.period_s else LiveViews(workers)
