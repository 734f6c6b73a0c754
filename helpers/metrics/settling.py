"""Settling time, overshoot and oscillation of a time series after a step.

The initial value is the mean before the step, the final value the mean over the last part of the
series. The band is the final value ± `band` times the size of the step (5 % unless told), the
usual definition of control engineering. A step that ends where it began (a burst that passes) has
size 0; then the size is the largest departure from the final value, and there is no overshoot.

Measured latencies are noisy: no series of them stays within 5 % of anything. For these, `floor` keeps the
band at least as wide as the noise, and `dwell` asks for so many samples in a row in it, and not for all
that follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

from helpers.errors import InputError
from helpers.metrics.series import Series


@dataclass(frozen=True, slots=True)
class Settling:
    """How a series came to rest after a step at `step_s`.

    `settling_s`: seconds from the step to the first sample from which on all samples stay in
    the band; None when one of those that make the final value is out of it, so that a series
    that still moves or swings has not settled by ending in the band. `overshoot`: how far the
    series went past the final value, as a share of the step; 0 when it never did, None when the
    step has no size. `low` and `high` bound the band.
    """

    step_s: float
    initial: float
    final: float
    low: float
    high: float
    settling_s: float | None
    overshoot: float | None


@dataclass(frozen=True, slots=True)
class Oscillation:
    """`swings` excursions out of a band, alternately above and below it.

    `amplitude`: their mean largest distance from the final value. `period_s`: twice the mean
    time between the peaks of consecutive swings; None with fewer than two swings: one is not an oscillation.
    """

    swings: int
    amplitude: float | None
    period_s: float | None


def settle(
    series: Series,
    step_s: float,
    band: float = 0.05,
    final_share: float = 0.2,
    floor: float = 0.0,
    dwell: int | None = None,
) -> Settling:
    """Settling time and overshoot after a step at `step_s`.

    `final_share` of the samples after the step, at the end, make the final value. The band reaches at
    least `floor` to either side. With `dwell`, the series has settled at the first sample that begins
    so many in a row within the band, whatever follows. Raises InputError when there is no sample before
    the step, fewer than five from it on, or a parameter is out of range.
    """
    before, after = _around(series, step_s)
    if not (band > 0 and 0 < final_share <= 1):
        raise InputError(f"band {band} and final share {final_share} must be above 0, and the share at most 1")
    if not 0 <= floor < inf or (dwell is not None and dwell < 1):
        raise InputError(f"a floor of {floor} and a dwell of {dwell} samples cannot be; give 0 or more, and 1 or more")
    initial = fmean(v for _, v in before)
    values = [v for _, v in after]
    last = max(1, round(final_share * len(values)))
    final = fmean(values[-last:])
    size = abs(final - initial)
    # A mean carries rounding: a step smaller than that is none.
    returns = size <= 1e-9 * max(abs(final), abs(initial), max(abs(v - final) for v in values))
    reach = max(abs(v - final) for v in values) if returns else size
    half = max(band * reach, floor)
    low, high = final - half, final + half
    inside = [low <= v <= high for v in values]
    found = _for_good(inside, last) if dwell is None else _for_a_while(inside, dwell)
    settling_s = None if found is None else after[found][0] - step_s
    overshoot = None
    if not returns:
        past = max((v - final) if final > initial else (final - v) for v in values)
        overshoot = max(past, 0.0) / size
    return Settling(step_s, initial, final, low, high, settling_s, overshoot)


def _for_good(inside: Sequence[bool], last: int) -> int | None:
    """The first sample from which on all are inside; None when one of the `last` ones is not."""
    start = len(inside)
    while start and inside[start - 1]:
        start -= 1
    return start if start <= len(inside) - last else None


def _for_a_while(inside: Sequence[bool], dwell: int) -> int | None:
    """The first sample of the first `dwell` in a row that are inside."""
    row = 0
    for index, one in enumerate(inside):
        row = row + 1 if one else 0
        if row == dwell:
            return index - dwell + 1
    return None


def oscillation(series: Series, step_s: float, band: float = 0.05, final_share: float = 0.2) -> Oscillation:
    """Count the swings above and below the band of `settle` after the step, with amplitude and period.

    Noise inside the band makes no swing, and two excursions to the same side are one. Raises
    InputError as `settle` does.
    """
    rest = settle(series, step_s, band, final_share)
    _, after = _around(series, step_s)
    peaks: list[tuple[float, float]] = []  # time and signed distance of the largest departure of each swing
    for time, value in after:
        if rest.low <= value <= rest.high:
            continue
        distance = value - rest.final
        if peaks and (peaks[-1][1] > 0) == (distance > 0):
            if abs(distance) > abs(peaks[-1][1]):
                peaks[-1] = (time, distance)
        else:
            peaks.append((time, distance))
    starts_outside = not rest.low <= rest.initial <= rest.high
    if peaks and starts_outside and (peaks[0][1] > 0) == (rest.initial > rest.final):
        peaks = peaks[1:]  # the way from the initial to the final value is the step itself, not a swing
    if not peaks:
        return Oscillation(0, None, None)
    amplitude = fmean(abs(d) for _, d in peaks)
    if len(peaks) < 2:
        return Oscillation(1, amplitude, None)
    return Oscillation(len(peaks), amplitude, 2 * (peaks[-1][0] - peaks[0][0]) / (len(peaks) - 1))


Points = Sequence[tuple[float, float]]


def _around(series: Series, step_s: float) -> tuple[Points, Points]:
    points = list(zip(series.times_s, series.values, strict=True))
    before, after = [p for p in points if p[0] < step_s], [p for p in points if p[0] >= step_s]
    if not before:
        raise InputError(
            f"no sample of the series lies before the step at {step_s:g} s, so nothing says where it began"
        )
    if len(after) < 5:
        raise InputError(
            f"only {len(after)} samples of the series lie after the step at {step_s:g} s; at least 5 are needed"
        )
    return before, after
