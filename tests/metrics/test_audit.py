"""The audit passes sound event logs and names each breach of a damaged one."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.metrics.audit import audit
from helpers.metrics.timeline import Span

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(data=st.data())
def test_sound_logs_pass(event_logs, data):
    assert audit(data.draw(event_logs(dyadic=False))) == []


def test_the_log_measured_by_hand_passes(small_log):
    assert audit(small_log) == []


@pytest.mark.parametrize(
    ("request_id", "change", "words"),
    [
        (0, {"spans": (Span(0, 1, 2),)}, "3 tokens in its spans"),
        (0, {"output_tokens": 7}, "6 tokens in its spans, the first included, but 7"),
        (0, {"finished_s": 4.9}, "finished at 4.9 s, but its last token was out at 5 s"),
        (1, {"first_token_s": 2.5}, "a span starts before the token"),
        (1, {"first_token_s": None}, "without a first token"),
        (1, {"spans": (Span(0, 2, 3),), "output_tokens": 5}, "row 2: 1 requests decoding, but 2 spans"),
        (2, {"arrival_s": 3.0}, "not in order"),
        (2, {"finished_s": 5.5}, "after the end of the run"),
        (2, {"cached_tokens": 31}, "31 cached"),
        (2, {"prefilled_tokens": 21}, "count 191 prefilled tokens, but the step logs 190"),
        (3, {"status": "gone"}, "unknown status 'gone'"),
        (4, {"id": 0}, "not sorted by id"),
    ],
)
def test_a_damaged_timeline_is_named(small_log, request_id, change, words):
    timelines = list(small_log.timelines)
    timelines[request_id] = replace(timelines[request_id], **change)
    assert any(words in sentence for sentence in audit(replace(small_log, timelines=tuple(timelines))))


def test_overlapping_rows_are_named(small_log):
    small_log.step_logs[1].start_s[1] -= 0.25
    assert "worker 1, row 1 starts at 3.75 s, before the row above it ended" in audit(small_log)


@pytest.mark.parametrize(
    ("stay", "words"),
    [
        ({"ready_s": 2.0, "stop_s": 5.0}, None),
        ({"ready_s": 2.5}, "worker 1: a step starts at 2 s, but it was ready at 2.5 s"),
        ({"ready_s": None}, "worker 1: a step starts at 2 s, but it was ready at None s"),
        ({"stop_s": 4.5}, "worker 1: a step ends at 5 s, but it stopped at 4.5 s"),
    ],
)
def test_steps_outside_the_time_of_a_worker_are_named(small_log, stay, words):
    """Worker 1 computes from 2 to 5 s."""
    log = replace(small_log, workers=(small_log.workers[0], replace(small_log.workers[1], **stay)))
    assert audit(log) == ([words] if words else [])
