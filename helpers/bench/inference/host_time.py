"""What the host did while an engine served: seconds by what they went into, and how its steps were launched."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter

PHASES = ("schedule", "launch", "wait", "rest")


@contextmanager
def watched(owner: object, name: str, instead: Callable) -> Iterator[None]:
    """Let `instead(usual, ...)` be called in place of a method of one object; watches can lie over each other."""
    usual, before = getattr(owner, name), vars(owner).get(name)
    setattr(owner, name, lambda *asked: instead(usual, *asked))
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)  # the method of the class is there again
        else:
            setattr(owner, name, before)


class HostWatch:
    """Watches an engine for the length of a `with`; counts again from nothing when the engine's clock is restarted.

    `seconds` by phase: scheduling, launching (on a CPU that is the step itself), waiting for the device, and the rest
    of the loop (tokens read, requests booked). `captured` steps ran as graphs, `ahead` ones were launched before the
    step before them was read, and in `joined` ones somebody was admitted while others ran.
    """

    def __init__(self, engine) -> None:
        self.engine, self._watches = engine, ExitStack()
        self._forget()

    def _forget(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.steps = self.captured = self.ahead = self.joined = 0

    def __enter__(self) -> "HostWatch":
        engine = self.engine
        for owner, name, instead in (
            (engine, "restart_clock", self._restarted),
            (engine, "step", self._stepped),
            (engine.scheduler, "schedule", self._scheduled),
            (engine.runner, "launch", self._launched),
            (engine._device_clock, "wait", self._waited),
        ):
            self._watches.enter_context(watched(owner, name, instead))
        return self

    def __exit__(self, *error: object) -> None:
        self._watches.close()

    def _restarted(self, usual: Callable) -> None:
        usual()
        self._forget()

    def _stepped(self, usual: Callable) -> object:
        before_s, start_s = sum(self.seconds.values()), perf_counter()
        found = usual()
        self.seconds["rest"] += perf_counter() - start_s - (sum(self.seconds.values()) - before_s)
        return found

    def _scheduled(self, usual: Callable) -> object:
        running = self.engine.scheduler.running
        last = running[-1].order if running else None
        step = self._timed("schedule", usual)
        self.joined += last is not None and bool(running) and running[-1].order > last
        return step

    def _launched(self, usual: Callable, step: object) -> object:
        self.steps += 1
        self.ahead += self.engine._flight is not None
        launched = self._timed("launch", usual, step)
        self.captured += launched.graph is not None
        return launched

    def _waited(self, usual: Callable, mark: object) -> None:
        self._timed("wait", usual, mark)

    def _timed(self, phase: str, usual: Callable, *asked: object) -> object:
        start_s = perf_counter()
        try:
            return usual(*asked)
        finally:
            self.seconds[phase] += perf_counter() - start_s

    def per_step_s(self) -> dict[str, float]:
        """Seconds of each phase over the steps that were launched."""
        return {phase: seconds / max(1, self.steps) for phase, seconds in self.seconds.items()}
