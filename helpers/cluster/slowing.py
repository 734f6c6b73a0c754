"""A worker that is slowed down on purpose where the device works by itself: after each step its stream stands still.

A captured step runs no line of Python that could wait, and one that is launched kernel by kernel has left the host
long before it ends. So what waits is the device: a kernel that does nothing follows each step, as long as the last such
step for each time that it is to take longer. The tokens of a step come before the pause that follows it.
"""

from collections import deque
from collections.abc import Callable

from helpers.engine.device_clock import DeviceClock
from helpers.engine.runner import Launched

PROBE_CYCLES = 20_000_000  # some 10 ms, by which the clock of a GPU is known


class Pauses:
    """The pauses of one engine; `stand_still` lets its stream do nothing for so many seconds. `factor` 1: none."""

    def __init__(self, clock: DeviceClock, stand_still: Callable[[float], None]) -> None:
        self._clock, self._stand_still = clock, stand_still
        self._factor = 1.0
        self._flying: deque[Launched] = deque()
        self._steps_s: dict[tuple[str, int] | None, float] = {}  # the last one of each graph
        self._last_s = 0.0

    def slow_down(self, factor: float) -> None:
        """From now on a step takes `factor` times as long with its pause."""
        self._factor = factor
        if factor <= 1.0:
            self._flying.clear()

    def after(self, launched: Launched) -> None:
        """A step was launched: its pause follows. The very first one has none, for nobody knows yet how long it is."""
        if self._factor <= 1.0:
            return
        while self._flying and self._flying[0].landed:
            one = self._flying.popleft()
            self._last_s = self._steps_s[one.graph] = self._clock.seconds(one.begin, one.end)
        self._flying.append(launched)
        seconds = (self._factor - 1.0) * self._steps_s.get(launched.graph, self._last_s)
        if seconds > 0.0:
            self._stand_still(seconds)


def standing_still() -> Callable[[float], None]:
    """Lets the current CUDA stream do nothing for so many seconds; waits once for the device, to learn its clock."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(1)  # loaded before it is timed
    begin.record()
    torch.cuda._sleep(PROBE_CYCLES)
    end.record()
    end.synchronize()
    cycles_per_s = PROBE_CYCLES / (begin.elapsed_time(end) / 1e3)
    return lambda seconds: torch.cuda._sleep(round(seconds * cycles_per_s))
