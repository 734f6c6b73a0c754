"""Time windows, and time series made from timelines: requests in the system, windowed TTFT."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from helpers.errors import InputError
from helpers.metrics.percentiles import percentile
from helpers.metrics.timeline import EventLog, Timeline


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open time window [start_s, end_s), in seconds from the start of the run."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and self.start_s < self.end_s):
            raise InputError(f"the window [{self.start_s}, {self.end_s}) s is empty or endless; end it after it starts")

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s

    def __contains__(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s


@dataclass(frozen=True)
class Series:
    """Values at increasing times (seconds); what settling, overshoot and oscillation are read from."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.values):
            raise InputError(f"a series has {len(self.times_s)} times but {len(self.values)} values; give as many")
        if any(b <= a for a, b in zip(self.times_s, self.times_s[1:], strict=False)):
            raise InputError("the times of a series do not increase; sort them and merge equal ones")

    def __len__(self) -> int:
        return len(self.times_s)


def arrived(timelines: Iterable[Timeline], window: Window | None) -> list[Timeline]:
    """The timelines whose scheduled arrival lies in the window; all of them without one."""
    return list(timelines) if window is None else [t for t in timelines if t.arrival_s in window]


def until_last_arrival(timelines: Iterable[Timeline]) -> Window:
    """From 0 to the last arrival, which still counts: the drain after it dilutes no rate.

    Raises InputError when nothing arrived.
    """
    last_s = max((t.arrival_s for t in timelines), default=None)
    if last_s is None:
        raise InputError("no request arrived, so there is no last arrival; give at least one")
    return Window(0.0, math.nextafter(last_s, math.inf))


def departure_s(timeline: Timeline) -> float | None:
    """When a request left the system: its last token, its arrival when rejected, None when it never left."""
    if timeline.finished_s is not None:
        return timeline.finished_s
    return timeline.arrival_s if timeline.status == "rejected" else None


class InSystem:
    """The number of requests in the system as a step function of time, with exact time averages.

    A request is in the system from its scheduled arrival to its departure; one that never left
    stays. At equal times arrivals and departures are applied together.
    """

    __slots__ = ("_areas", "_counts", "_times")

    def __init__(self, timelines: Iterable[Timeline]) -> None:
        changes: dict[float, int] = {}
        for t in timelines:
            changes[t.arrival_s] = changes.get(t.arrival_s, 0) + 1
            left = departure_s(t)
            if left is not None:
                changes[left] = changes.get(left, 0) - 1
        self._times = sorted(changes)
        self._counts: list[int] = []
        self._areas: list[float] = []
        count, area, before = 0, 0.0, 0.0
        lost = 0.0  # Neumaier's compensation: a long run adds many small areas to a large one
        for time in self._times:
            term = count * (time - before)
            total = area + term
            lost += (area - total) + term if abs(area) >= abs(term) else (term - total) + area
            area, before = total, time
            count += changes[time]
            self._counts.append(count)
            self._areas.append(area + lost)

    def at(self, time_s: float) -> int:
        """Requests in the system at (and just after) `time_s`."""
        index = bisect_right(self._times, time_s) - 1
        return self._counts[index] if index >= 0 else 0

    def area(self, time_s: float) -> float:
        """The integral of the count from the first arrival to `time_s`, in request-seconds."""
        index = bisect_right(self._times, time_s) - 1
        return self._areas[index] + self._counts[index] * (time_s - self._times[index]) if index >= 0 else 0.0

    def average(self, window: Window) -> float:
        """The time-average number of requests in the system over the window."""
        return (self.area(window.end_s) - self.area(window.start_s)) / window.duration_s

    def sampled(self, start_s: float, end_s: float, step_s: float) -> Series:
        """The average over consecutive windows of `step_s` seconds, each at its end."""
        cuts = edges(start_s, end_s, step_s)
        areas = [self.area(c) for c in cuts]
        values = ((b - a) / step_s for a, b in pairwise(areas))
        return Series(tuple(cuts[1:]), tuple(values))


def edges(start_s: float, end_s: float, step_s: float) -> list[float]:
    """start, start + step, … up to the last that is not past `end_s`. Raises InputError when fewer than two."""
    if not step_s > 0:
        raise InputError(f"the step of a time series is {step_s} s; give a number above 0")
    count = math.floor((end_s - start_s) / step_s + 1e-9)
    if count < 1:
        raise InputError(f"no window of {step_s:g} s fits between {start_s:g} s and {end_s:g} s; use a shorter one")
    return [start_s + i * step_s for i in range(count + 1)]


def in_system(log: EventLog, step_s: float) -> Series:
    """The number of requests in the system, averaged over windows of `step_s` seconds, from 0 to the end of the run."""
    return InSystem(log.timelines).sampled(0.0, log.end_s, step_s)


def windowed_ttft(timelines: Sequence[Timeline], q: float, window_s: float, end_s: float) -> Series:
    """Percentile `q` (nearest rank) of TTFT of what arrived in each window of `window_s` seconds, at its end.

    Requests without a first token are left out, and so is a window in which none has one.
    """
    cuts = edges(0.0, end_s, window_s)
    buckets: list[list[float]] = [[] for _ in cuts[1:]]
    for t in timelines:
        index = bisect_right(cuts, t.arrival_s) - 1
        if t.first_token_s is not None and 0 <= index < len(buckets):
            buckets[index].append(t.first_token_s - t.arrival_s)
    points = [(time, percentile(b, q).value) for time, b in zip(cuts[1:], buckets, strict=True) if b]
    return Series(tuple(p[0] for p in points), tuple(p[1] for p in points))
