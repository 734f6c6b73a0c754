"""Each latency against its definition on a log measured by hand, and ITL against token-by-token expansion."""

import math
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.metrics import steps
from helpers.metrics.latency import defined, distribution, e2e_s, itl, queue_s, tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.series import Window
from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline, token_times

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def expanded(log, timelines=None):
    """Every gap of every request, token by token, sorted: what `itl` must equal."""
    chosen = log.timelines if timelines is None else timelines
    return sorted(b - a for t in chosen for a, b in pairwise(token_times(t, log.step_logs)))


def unfolded(pooled):
    """The weighted gaps as a sorted list."""
    return sorted(v for weight, values in pooled.by_weight.items() for v in values for _ in range(weight))


def test_latencies_measured_by_hand(small_log):
    ts = small_log.timelines
    assert [ttft_s(t) for t in ts] == [1.0, 1.0, 3.0, None, None]
    assert [queue_s(t) for t in ts] == [0.0, 0.5, 1.0, None, 1.0]
    assert [e2e_s(t) for t in ts] == [5.0, 4.5, 3.0, None, None]
    # 4 s for 5 further tokens, 3.5 s for 3; one token has no pace, and the others never finished
    assert [tpot_s(t) for t in ts] == [pytest.approx(0.8), pytest.approx(3.5 / 3), None, None, None]


def test_ttft_counts_from_the_scheduled_arrival_and_not_from_the_dispatch(small_log):
    late = Timeline(9, 1.0, 5, 2, "finished", dispatched_s=4.0, prefill_start_s=4.0, first_token_s=5.0, finished_s=6.0)
    assert ttft_s(late) == 4.0 != late.first_token_s - late.dispatched_s


def test_itl_by_hand(small_log):
    """Request 0: two gaps of 0.5 s and three of 1 s. Request 1 waited 0.5 s more before its first: 1.5, 1, 1."""
    assert unfolded(steps.gaps(small_log.timelines, small_log.step_logs)) == [0.5] * 2 + [1.0] * 5 + [1.5]
    pooled = itl(small_log)
    assert (pooled.n, pooled.requests, pooled.mean) == (8, 2, pytest.approx(7.5 / 8))


@RELAXED
@given(data=st.data())
def test_itl_equals_expansion_exactly_on_dyadic_times(event_logs, data):
    log = data.draw(event_logs(dyadic=True))
    assert unfolded(steps.gaps(log.timelines, log.step_logs)) == expanded(log)


@RELAXED
@given(data=st.data())
def test_itl_equals_expansion_on_any_times(event_logs, data):
    log = data.draw(event_logs(dyadic=False))
    gaps = expanded(log)
    assert unfolded(steps.gaps(log.timelines, log.step_logs)) == pytest.approx(gaps, abs=1e-9)
    found = itl(log)
    assert found.n == len(gaps)
    if gaps:
        assert found.mean == pytest.approx(math.fsum(gaps) / len(gaps), abs=1e-9)
        assert [p.value for p in found.percentiles] == pytest.approx(
            [percentile(gaps, p.q).value for p in found.percentiles], abs=1e-9
        )


@RELAXED
@given(data=st.data())
def test_itl_of_some_requests_only(event_logs, data):
    """A class or a window has its own weights: the column `decoding` would be wrong for it."""
    log = data.draw(event_logs(dyadic=True))
    some = log.timelines[::2]
    assert unfolded(steps.gaps(some, log.step_logs)) == expanded(log, some)


def test_without_the_correction_itl_is_wrong(small_log, monkeypatch):
    """Control: the same property fails when waits before a span are dropped."""
    monkeypatch.setattr(steps, "_same_time", lambda a_s, b_s: True)
    assert unfolded(steps.gaps(small_log.timelines, small_log.step_logs)) != expanded(small_log)


def test_a_pause_within_a_span_is_seen():
    log = StepLog()
    log.append(0.0, 2, 1.0, 0.5, 2, 0)  # 1 and 1.5 s, then nothing for 4 s
    log.append(6.5, 1, 1.0, 0.0, 2, 0)
    both = tuple(Timeline(i, 0.0, 1, 4, "finished", first_token_s=0.0, spans=(Span(0, 0, 1),)) for i in range(2))
    assert unfolded(steps.gaps(both, (log,))) == [1.0, 1.0, 1.5, 1.5, 5.0, 5.0]


def test_an_hour_is_not_expanded_gap_by_gap():
    """1,000 requests over 500 rows of 20 steps: ten million gaps, but no more values than steps and spans."""
    log = StepLog()
    for row in range(500):
        log.append(row * 2.0, 20, 0.1, 0.0 if row % 2 else 1e-6, 1000, 0)
    many = tuple(
        Timeline(i, 0.0, 1, 10001, "unfinished", first_token_s=0.0, spans=(Span(0, 0, 499),)) for i in range(1000)
    )
    pooled = steps.gaps(many, (log,))
    assert sum(weight * len(values) for weight, values in pooled.by_weight.items()) == 10_000_000
    assert sum(map(len, pooled.by_weight.values())) <= 500 * 20 + 1000


def test_rounding_between_rows_is_not_a_wait():
    """A backend may add up a row's end in another order; the sum differs in the last bit only."""
    log = StepLog()
    log.append(0.1, 3, 0.1, 0.0, 1, 0)
    log.append(math.nextafter(steps.row_end_s(log, 0), 9), 1, 0.1, 0.0, 1, 0)
    one = Timeline(0, 0.0, 1, 5, "finished", first_token_s=0.1, spans=(Span(0, 0, 1),))
    assert set(unfolded(steps.gaps((one,), (log,)))) == {0.1}


def test_a_span_outside_the_log_is_refused(small_log):
    broken = Timeline(7, 0.0, 1, 2, "finished", first_token_s=0.0, spans=(Span(0, 2, 4),))
    with pytest.raises(InputError, match=r"request 7.*not in the step logs"):
        itl(EventLog((broken,), small_log.step_logs))


def test_distribution_states_n_and_estimator(small_log):
    found = distribution(ttft_s, small_log.timelines, "linear")
    means = {"mean": pytest.approx(5 / 3), "p50": 1.0, "p90": pytest.approx(2.6)}
    assert found.as_dict() == {**means, "n": 3, "requests": 3, "estimator": "linear"}
    assert found.tail.q == 90
    assert distribution(ttft_s, ()).as_dict() == {"mean": None, "n": 0, "requests": 0, "estimator": "nearest_rank"}


def test_the_tail_of_gaps_is_ruled_by_requests_and_not_by_gaps():
    """4,000 gaps of two requests do not make a p99; 3,000 requests do."""
    log = StepLog()
    log.append(0.0, 2000, 0.01, 0.0, 2, 0)
    two = tuple(Timeline(i, 0.0, 1, 2001, "finished", first_token_s=0.0, spans=(Span(0, 0, 0),)) for i in range(2))
    assert itl(EventLog(two, (log,))).tail.q == 90
    many = tuple(Timeline(i, 0.0, 1, 2, "finished", first_token_s=float(i), finished_s=i + 1.0) for i in range(3000))
    assert distribution(ttft_s, many).tail.q == 99


def test_a_window_takes_arrivals_from_its_start_up_to_its_end(small_log):
    window = Window(0.5, 2.0)
    assert [t.id for t in small_log.timelines if t.arrival_s in window] == [1, 2]
    assert defined(ttft_s, [t for t in small_log.timelines if t.arrival_s in window]) == [1.0, 3.0]
