"""When a step began and ended on the device, which need not be when the host launched or read it.

A mark is a point in the device's work. On a GPU it is an event, which the device passes when it has come
so far; a CPU does its work while it is launched, so there a mark is the time at which it was made.
"""

from collections.abc import Callable
from typing import Protocol

import torch


class DeviceClock(Protocol):
    """Marks in a device's work. `asynchronous` says whether a launch returns before its work is done."""

    asynchronous: bool

    def mark(self) -> object:
        """A mark after all that has been launched so far."""
        ...

    def landed(self, mark: object) -> bool:
        """Whether the device has passed a mark, without waiting for it."""
        ...

    def wait(self, mark: object) -> None:
        """Wait until the device has passed a mark."""
        ...

    def seconds(self, earlier: object, later: object) -> float:
        """The device's time between two marks that it has passed."""
        ...


class CudaClock:
    """CUDA events on the current stream."""

    asynchronous = True

    def mark(self) -> "torch.cuda.Event":
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def landed(self, mark: "torch.cuda.Event") -> bool:
        return mark.query()

    def wait(self, mark: "torch.cuda.Event") -> None:
        mark.synchronize()

    def seconds(self, earlier: "torch.cuda.Event", later: "torch.cuda.Event") -> float:
        return earlier.elapsed_time(later) / 1e3


class HostClock:
    """The plain twin: marks are times of the host's clock.

    Nothing is said to have landed before it is waited for, so that the overlapped loop takes the same turns as
    on a GPU, where a step is still under way when the next one is launched.
    """

    asynchronous = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def mark(self) -> float:
        return self._clock()

    def landed(self, mark: float) -> bool:
        return False

    def wait(self, mark: float) -> None:
        pass

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier
