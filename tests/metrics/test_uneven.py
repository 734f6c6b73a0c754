"""Requests that wait on each worker, their imbalance and its swings, on runs worked by hand."""

import math
from random import Random

import pytest

from helpers.errors import InputError
from helpers.metrics.series import Series, Window
from helpers.metrics.timeline import EventLog, Timeline
from helpers.metrics.uneven import rms_imbalance, swing_period_s, waiting_on

STEP_S, END_S = 0.5, 40.0
TIMES = tuple(STEP_S * (i + 1) for i in range(round(END_S / STEP_S)))


def timeline(number, worker, sent_s, first_s, end_s=99.0):
    """Its arrival is long before: only the time from the dispatch to the first token counts."""
    return Timeline(
        number, 0.0, 10, 5, "finished", prefill_worker=worker, dispatched_s=sent_s, first_token_s=first_s,
        finished_s=end_s,
    )  # fmt: skip


def series(value):
    """value(t) at the end of each step."""
    return Series(TIMES, tuple(float(value(t)) for t in TIMES))


def test_who_waits_is_counted_from_the_dispatch_to_the_first_token():
    """Worker 0 has one request from 1 to 3 s and another from 2 to 2.5 s; worker 1 one from 0 to 4 s."""
    log = EventLog((timeline(0, 0, 1.0, 3.0), timeline(1, 0, 2.0, 2.5), timeline(2, 1, 0.0, 4.0)))
    first, second = waiting_on(log, [0, 1], Window(0.0, 4.0), 1.0)
    assert first.values == (0.0, 1.0, 1.5, 0.0)  # two for half of the third second
    assert second.values == (1.0, 1.0, 1.0, 1.0) and first.times_s == (1.0, 2.0, 3.0, 4.0)
    (only,) = waiting_on(log, [1], Window(0.0, 4.0), 1.0)
    assert only == second


def test_who_gets_no_token_waits_to_the_end_and_who_was_not_sent_does_not_wait():
    never = timeline(0, 0, 1.0, None, None)
    rejected = Timeline(1, 0.0, 10, 5, "rejected")
    (found,) = waiting_on(EventLog((never, rejected)), [0], Window(0.0, 3.0), 1.0)
    assert found.values == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("workers", [2, 4, 9])
def test_everything_on_one_of_n_workers_is_the_root_of_n_less_1(workers):
    """One has n, the others 0, the mean is 1: ((n - 1)^2 + (n - 1)) / n = n - 1."""
    ones = [series(lambda t, w=w: workers if w == 0 else 0) for w in range(workers)]
    assert rms_imbalance(ones) == pytest.approx(math.sqrt(workers - 1))


def test_even_workers_have_none_however_they_move_together():
    together = [series(lambda t: 5 + math.sin(t))] * 3
    assert rms_imbalance(together) == pytest.approx(0, abs=1e-12) and swing_period_s(together) is None
    assert rms_imbalance([series(lambda t: 0)] * 2) == 0  # nobody is there


def test_what_goes_back_and_forth_is_as_uneven_as_what_stays():
    """The mean load per worker over the whole time is the same; at each moment one has 2 and the other 0."""
    swaps = [series(lambda t, w=w: 2 * ((t // 2) % 2 == w)) for w in (0, 1)]
    stays = [series(lambda t: 2), series(lambda t: 0)]
    assert rms_imbalance(swaps) == rms_imbalance(stays) == pytest.approx(1.0)
    assert swing_period_s(swaps) == pytest.approx(4.0)  # 2 s on each
    assert swing_period_s(stays) is None  # a lasting unevenness is no swing


@pytest.mark.parametrize("period_s", [3.0, 5.0, 8.0])
def test_the_period_is_found_under_noise(period_s):
    rng = Random(1)
    noise = lambda: rng.gauss(0, 0.3)  # noqa: E731
    up = [5 + 2 * math.sin(2 * math.pi * t / period_s) + noise() for t in TIMES]
    down = [5 - 2 * math.sin(2 * math.pi * t / period_s) + noise() for t in TIMES]
    found = swing_period_s([Series(TIMES, tuple(up)), Series(TIMES, tuple(down))])
    assert found == pytest.approx(period_s, abs=STEP_S)


def test_noise_alone_and_swings_that_are_too_long_have_no_period():
    rng = Random(2)
    long = 4_000
    times = tuple(STEP_S * (i + 1) for i in range(long))
    noise = [Series(times, tuple(rng.gauss(5, 1) for _ in range(long))) for _ in range(2)]
    assert swing_period_s(noise) is None  # of 20 lags none is above 0.1: the standard error is 1/sqrt(4,000) = 0.016
    slow = [series(lambda t: 5 + math.sin(2 * math.pi * t / 16)), series(lambda t: 5)]
    assert swing_period_s(slow) is None and swing_period_s(slow, longest_s=18.0) == pytest.approx(16.0, abs=1.0)
    assert swing_period_s([Series(TIMES[:7], (1, 2) * 3 + (1,)), Series(TIMES[:7], (2, 1) * 3 + (2,))]) is None


def test_no_workers_are_refused():
    with pytest.raises(InputError, match="no workers"):
        rms_imbalance([])
