"""Settling time, overshoot and oscillation of a time series after a step.

The initial value is the mean before the step, the final value the mean over the last part of the
series. The band is the final value ± `band` times the size of the step (5 % unless told), the
usual definition of control engineering. A step that ends where it began (a burst that passes) has
size 0; then the size is the largest departure from the final value, and there is no overshoot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


def settle(series: Series, step_s: float, band: float = 0.05, final_share: float = 0.2) -> Settling:
    """Settling time and overshoot after a step at `step_s`.

    `final_share` of the samples after the step, at the end, make the final value. Raises
    InputError when there is no sample before the step, fewer than five from it on, or a
    parameter is out of range.
    """
    before, after = _around(series, step_s)
    if not (band > 0 and 0 < final_share <= 1):
        raise InputError(f"band {band} and final share {final_share} must be above 0, and the share at most 1")
    initial = fmean(v for _, v in before)
    values = [v for _, v in after]
    last = max(1, round(final_share * len(values)))
    final = fmean(values[-last:])
    size = abs(final - initial)
    # A mean carries rounding: a step smaller than that is none.
    returns = size <= 1e-9 * max(abs(final), abs(initial), max(abs(v - final) for v in values))
    reach = max(abs(v - final) for v in values) if returns else size
    low, high = final - band * reach, final + band * reach
    inside_from = len(values)
    while inside_from and low <= values[inside_from - 1] <= high:
        inside_from -= 1
    settling_s = after[inside_from][0] - step_s if inside_from <= len(values) - last else None
    overshoot = None
    if not returns:
        past = max((v - final) if final > initial else (final - v) for v in values)
        overshoot = max(past, 0.0) / size
    return Settling(step_s, initial, final, low, high, settling_s, overshoot)


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
