"""Little's law on a run, and the closed forms of single-server queues that a simulator must meet."""

import math
from dataclasses import dataclass
from itertools import accumulate

from helpers.errors import InputError
from helpers.metrics.series import InSystem, departure_s
from helpers.metrics.steps import checked_spans, row_duration_s
from helpers.metrics.timeline import EventLog

LITTLE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class LittlesLaw:
    """L = lambda W on a run: `in_system` is L, the time average; `rate_per_s` times `mean_s` is lambda W.

    `missing` requests never left, so the law need not hold with them.
    """

    in_system: float
    rate_per_s: float
    mean_s: float
    missing: int

    @property
    def relative_error(self) -> float:
        """|L - lambda W| / max(L, lambda W); 0 when both are 0."""
        product = self.rate_per_s * self.mean_s
        scale = max(abs(self.in_system), abs(product))
        return abs(self.in_system - product) / scale if scale else 0.0

    @property
    def holds(self) -> bool:
        """True when both sides agree to 1e-9, relative."""
        return self.relative_error <= LITTLE_TOLERANCE


def littles_law(log: EventLog) -> LittlesLaw:
    """Little's law for the whole system, over [0, end_s].

    L comes from sweeping arrivals and departures in time order, W from averaging the times in
    the system of the requests that left; both must agree when every request has left by
    `end_s`. Rejected requests leave as they arrive. Source: Little, Operations Research 9(3), 1961.
    Raises InputError on a run of no duration.
    """
    if not log.end_s > 0:
        raise InputError(f"Little's law needs a run of some duration, and this one ends at {log.end_s} s")
    swept = InSystem(log.timelines).area(log.end_s) / log.end_s
    times = [left - t.arrival_s for t in log.timelines if (left := departure_s(t)) is not None]
    mean_s = math.fsum(times) / len(times) if times else 0.0
    return LittlesLaw(swept, len(log.timelines) / log.end_s, mean_s, len(log.timelines) - len(times))


def littles_law_decoding(log: EventLog) -> LittlesLaw:
    """Little's law for decoding: L from the column `decoding` of the step logs, W from the spans of the requests.

    W adds up the rows of each request's spans, so pauses between them count on neither side. A
    wrong `decoding` count, a missing span or one that is too long breaks it. Raises InputError on a
    run of no duration or a span out of range.
    """
    if not log.end_s > 0:
        raise InputError(f"Little's law needs a run of some duration, and this one ends at {log.end_s} s")
    lasts = [[row_duration_s(steps, row) for row in range(len(steps))] for steps in log.step_logs]
    busy = math.fsum(
        n * last_s
        for steps, column in zip(log.step_logs, lasts, strict=True)
        for n, last_s in zip(steps.decoding, column, strict=True)
    )
    sums = [list(accumulate(column, initial=0.0)) for column in lasts]
    decoded = [t for t in log.timelines if t.spans]
    inside = math.fsum(
        sums[s.worker][s.last + 1] - sums[s.worker][s.first] for t in decoded for s in checked_spans(t, log.step_logs)
    )
    mean_s = inside / len(decoded) if decoded else 0.0
    return LittlesLaw(busy / log.end_s, len(decoded) / log.end_s, mean_s, 0)


def pollaczek_khinchine_wait_s(rate_per_s: float, service_s: float, service_cv2: float) -> float:
    """The mean wait before service in M/G/1, in seconds: rate E[S^2] / (2 (1 - rho)), E[S^2] = (1 + cv2) E[S]^2.

    `service_cv2` is the squared coefficient of variation of the service time. Raises InputError
    unless rate and service time are above 0 and rho = rate * service is below 1.
    """
    if not (rate_per_s > 0 and service_s > 0 and service_cv2 >= 0):
        raise InputError(
            f"a queue with rate {rate_per_s:g}/s, service {service_s:g} s and squared variation {service_cv2:g} "
            "is not defined; give a rate and a service time above 0 and a variation of 0 or more"
        )
    load = rate_per_s * service_s
    if load >= 1:
        raise InputError(f"the load is {load:.4g}, so the queue grows without end; it must be below 1")
    return rate_per_s * service_s**2 * (1 + service_cv2) / (2 * (1 - load))


def mm1_wait_s(rate_per_s: float, service_s: float) -> float:
    """The mean wait before service in M/M/1 (exponential service), in seconds: rho S / (1 - rho)."""
    return pollaczek_khinchine_wait_s(rate_per_s, service_s, 1.0)


def md1_wait_s(rate_per_s: float, service_s: float) -> float:
    """The mean wait before service in M/D/1 (constant service), in seconds: half of that of M/M/1."""
    return pollaczek_khinchine_wait_s(rate_per_s, service_s, 0.0)
