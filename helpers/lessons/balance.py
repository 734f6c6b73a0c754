"""Balls into bins: how far the fullest worker is above the mean when each request looks at few workers, or at all."""

from collections.abc import Sequence
from math import log, sqrt
from random import Random
from statistics import fmean

from helpers.errors import InputError

ALL = 0


def thrown(workers: int, weights: Sequence[float], looked_at: int, rng: Random) -> list[float]:
    """The load of each worker when every request goes to the least loaded of `looked_at` workers drawn uniformly.

    `weights` are what the requests add, in order; nothing ever leaves. `ALL` looks at every worker (the lowest id
    among equals). Raises `InputError` for no workers or a negative number to look at.
    """
    if workers < 1 or looked_at < 0:
        raise InputError(f"{workers} workers, {looked_at} looked at; give at least one worker, and 0 (all) or more")
    loads, everybody = [0.0] * workers, range(workers)
    for weight in weights:
        seen = everybody if looked_at == ALL else rng.choices(everybody, k=looked_at)
        loads[min(seen, key=loads.__getitem__)] += weight
    return loads


def excess(workers: int, a_worker: int, looked_at: int, seeds: Sequence[int]) -> float:
    """By how many requests the fullest of `workers` is above the mean of `a_worker`, averaged over the seeds."""
    ones = [1.0] * (workers * a_worker)
    return fmean(max(thrown(workers, ones, looked_at, Random(seed))) - a_worker for seed in seeds)


def one_choice_excess(workers: int, a_worker: int) -> float:
    """sqrt(2 m ln n): the leading term for one random choice, with n workers and m = `a_worker` >> ln n requests each.

    The largest of n sums, each nearly normal with variance m, is about sqrt(2 ln n) standard deviations up.
    """
    return sqrt(2 * a_worker * log(workers))
