"""What may be said of a variant beside its baseline, from one number a seed each."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isclose

from helpers.metrics.stats import Interval, compare, mean_interval

HIGHER, LOWER, NO_EFFECT, NOT_SHOWN = "higher", "lower", "no effect", "not shown"
# Runs that differ less are the same: who looks at a worker moves where its steps are cut, and with it the last digits.
SAME = 1e-9

Values = Mapping[int, float]  # by seed


def spread(values: Values) -> dict | None:
    """The mean over seeds with its 95 % interval; None with fewer than two seeds."""
    return _plain(mean_interval(list(values.values()))) if len(values) > 1 else None


def difference(variant: Values, baseline: Values) -> dict | None:
    """The paired difference variant - baseline over the seeds that both have; None when these are fewer than two."""
    both = sorted(variant.keys() & baseline.keys())
    if len(both) < 2:
        return None
    first = {
        seed: baseline[seed] if isclose(variant[seed], baseline[seed], rel_tol=SAME) else variant[seed] for seed in both
    }
    return _plain(compare(first, {seed: baseline[seed] for seed in both}).difference)


def verdict(found: dict | None, margin: float) -> str:
    """In words, where `margin` is the smallest difference of any account.

    `higher` or `lower`: the interval excludes 0 and reaches beyond the margin. `no effect`: the whole interval lies
    within the margin, on whichever side of 0. `not shown`: it holds 0 and more than the margin, so that more seeds
    are needed to tell.
    """
    if found is None:
        return NOT_SHOWN
    low, high = found["low"], found["high"]
    if -margin <= low and high <= margin:
        return NO_EFFECT
    return HIGHER if low > 0 else LOWER if high < 0 else NOT_SHOWN


def _plain(interval: Interval) -> dict:
    return {key: value for key, value in asdict(interval).items() if key in ("mean", "low", "high", "n")}
