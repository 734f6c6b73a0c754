"""Little's law, and single-server queues against their closed forms."""

from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.metrics.queueing import (
    littles_law,
    littles_law_decoding,
    md1_wait_s,
    mm1_wait_s,
    pollaczek_khinchine_wait_s,
)
from helpers.metrics.timeline import EventLog, Span, StepLog

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("seed", range(5))
def test_littles_law_holds_when_everyone_leaves(queue_log, seed):
    found = littles_law(queue_log(Random(seed), 0.8, 3000))
    assert found.missing == 0
    assert found.relative_error <= 1e-9
    assert found.holds
    assert found.in_system > 0.5


def test_littles_law_of_a_log_measured_by_hand(small_log):
    """Without the request that stays: 5 + 4.5 + 3 request-seconds, and the rejected one none, over 5 s."""
    left = replace(small_log, timelines=small_log.timelines[:4])
    found = littles_law(left)
    assert (found.in_system, found.rate_per_s, found.mean_s, found.missing) == (2.5, 0.8, 3.125, 0)
    assert found.holds
    assert littles_law(small_log).missing == 1


def test_a_lost_departure_breaks_littles_law(queue_log):
    log = queue_log(Random(1), 0.8, 3000)
    lost = replace(log, timelines=(replace(log.timelines[0], finished_s=None), *log.timelines[1:]))
    assert not littles_law(lost).holds
    assert littles_law(lost).missing == 1


def test_a_run_that_ends_too_early_breaks_littles_law(queue_log):
    log = queue_log(Random(1), 0.8, 3000)
    assert not littles_law(replace(log, end_s=log.end_s * 0.99)).holds


@RELAXED
@given(data=st.data())
def test_decoding_obeys_littles_law(event_logs, data):
    log = data.draw(event_logs(dyadic=False))
    assert littles_law_decoding(log).holds
    spans = [s for t in log.timelines for s in t.spans]
    if spans:  # control: one request too few in one row
        log.step_logs[spans[0].worker].decoding[spans[0].first] -= 1
        assert not littles_law_decoding(log).holds


def test_a_span_that_is_too_long_breaks_it(small_log):
    assert littles_law_decoding(small_log).holds
    longer = replace(small_log.timelines[1], spans=(Span(0, 2, 3),))
    wrong = replace(small_log, timelines=(small_log.timelines[0], longer, *small_log.timelines[2:]))
    assert not littles_law_decoding(wrong).holds


@pytest.mark.parametrize(("constant", "formula"), [(False, mm1_wait_s), (True, md1_wait_s)])
def test_queues_meet_their_closed_form(lindley, constant, formula):
    """30 runs of 4,000 customers at rho = 0.6: within 3 % of the mean wait, and not of the other queue's."""
    runs = [lindley(Random(seed), 0.6, 4000, constant, stationary=not constant) for seed in range(30)]
    mean_s = fmean(wait for run in runs for _, wait, _ in run[100:])
    assert mean_s == pytest.approx(formula(0.6, 1.0), rel=0.03)
    other = md1_wait_s if formula is mm1_wait_s else mm1_wait_s
    assert mean_s != pytest.approx(other(0.6, 1.0), rel=0.3)


def test_closed_forms_by_hand():
    """M/M/1 with service 2 s at rho 0.5 waits 2 s; M/D/1 half of that; no variation and no load, no wait."""
    assert mm1_wait_s(0.25, 2.0) == pytest.approx(2.0)
    assert md1_wait_s(0.25, 2.0) == pytest.approx(1.0)
    assert pollaczek_khinchine_wait_s(0.25, 2.0, 3.0) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mm1_wait_s(1.0, 1.0), "grows without end"),
        (lambda: md1_wait_s(-1.0, 1.0), "not defined"),
        (lambda: littles_law(EventLog(())), "some duration"),
        (lambda: littles_law_decoding(EventLog((), (StepLog(),))), "some duration"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
