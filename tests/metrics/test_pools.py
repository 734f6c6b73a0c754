"""Loads of pools over time, on a log measured by hand."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.pools import busy_share, decoding, swing, workers_of
from helpers.metrics.series import Series
from helpers.metrics.timeline import EventLog, StepLog, WorkerInfo


def test_the_share_of_the_time_in_steps_by_hand(small_log):
    """Worker 0 is busy from 0 to 5 s, worker 1 from 2 to 5 s; windows of 2 s: both halves of a cut step count."""
    assert busy_share(small_log, [0, 1], 2.0, 5.0).values == pytest.approx((1 / 2, 2 / 2))
    assert busy_share(small_log, [1], 1.0, 5.0).values == (0, 0, 1, 1, 1)
    assert busy_share(small_log, [1], 1.0, 5.0).times_s == (1, 2, 3, 4, 5)


def test_decoding_requests_by_hand(small_log):
    """Worker 0 decodes nobody until 1 s, one request until 2 s and two until 5 s; worker 1 nobody."""
    assert decoding(small_log, [0], 1.0, 5.0).values == pytest.approx((0, 1, 2, 2, 2))
    assert decoding(small_log, [0], 2.5, 5.0).values == pytest.approx(((1 * 1 + 0.5 * 2) / 2.5, 2))
    assert decoding(small_log, [0, 1], 1.0, 5.0).values == pytest.approx((0, 0.5, 1, 1, 1))


def test_steps_that_grow_fill_the_time_to_their_end():
    """Three steps of 1, 2 and 3 s from 1 s on: 6 s, to 7 s."""
    steps = StepLog()
    steps.append(1.0, 3, 1.0, 1.0, 4, 0)
    log = EventLog((), (steps,), (WorkerInfo(),), 8.0)
    assert busy_share(log, [0], 1.0, 8.0).values == pytest.approx((0, 1, 1, 1, 1, 1, 1, 0))
    assert decoding(log, [0], 4.0, 8.0).values == pytest.approx((4 * 3 / 4, 4 * 3 / 4))


def test_what_runs_past_the_end_is_cut(small_log):
    assert busy_share(small_log, [0], 1.0, 3.5).values == (1, 1, 1)


def test_workers_by_role(small_log):
    roles = ("prefill", "decode", "prefill")
    log = replace(small_log, workers=tuple(WorkerInfo(role) for role in roles))
    assert (workers_of(log, "prefill"), workers_of(log, "decode"), workers_of(log, "mixed")) == ([0, 2], [1], [])


def test_the_swing_is_relative_and_leaves_out_the_beginning():
    """1 and 3 around 2: a deviation of 1, half the mean."""
    series = Series((1.0, 2.0, 3.0, 4.0, 5.0), (99.0, 1.0, 3.0, 1.0, 3.0))
    assert swing(series, after_s=1.0) == pytest.approx(0.5)
    assert swing(series) > 0.5
    assert swing(Series((1.0, 2.0), (4.0, 4.0))) == 0.0
    assert swing(Series((1.0, 2.0), (0.0, 0.0))) == 0.0 and swing(series, after_s=9.0) == 0.0


def test_a_window_that_does_not_fit_is_refused(small_log):
    with pytest.raises(InputError, match="no window of 9 s fits"):
        busy_share(small_log, [0], 9.0, 5.0)
