"""What each worker did when: worked by hand on a small log, and over runs held against the step logs."""

from dataclasses import replace
from itertools import pairwise

import pytest

from helpers.metrics.activity import DECODE, IDLE, MIXED, PREFILL, QUEUE, TRANSFER, Stretch, activity, stages, transfers
from helpers.metrics.series import Window
from helpers.metrics.steps import row_duration_s
from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline, WorkerInfo
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate

FIRST = Timeline(0, 1.0, 100, 5, "finished", "", 0, 0, 1.0, 1.0, 2.0, 6.0, spans=(Span(0, 1, 3),), prefilled_tokens=100)
SECOND = Timeline(1, 2.5, 80, 2, "finished", "", 0, 0, 2.5, 4.0, 5.0, 6.0, spans=(Span(0, 3, 3),), prefilled_tokens=80)


def log_by_hand():
    """One worker. 1 to 2 s prefills request 0; 2 to 4 s two decode steps of it; 4 to 5 s decodes it and prefills
    request 1; 5 to 6 s decodes both; 9 to 10 s another decode after a pause."""
    steps = StepLog()
    steps.append(1.0, 1, 1.0, 0.0, 0, 100)
    steps.append(2.0, 2, 1.0, 0.0, 1, 0)
    steps.append(4.0, 1, 1.0, 0.0, 1, 80)
    steps.append(5.0, 1, 1.0, 0.0, 2, 0)
    steps.append(9.0, 1, 1.0, 0.0, 1, 0)
    return EventLog((FIRST, SECOND), (steps,), (WorkerInfo(),), 10.0)


def test_a_log_by_hand():
    assert activity(log_by_hand(), Window(0.0, 11.0)) == [
        Stretch(0, IDLE, 0.0, 1.0),
        Stretch(0, PREFILL, 1.0, 2.0, (0,), (), 100),
        Stretch(0, DECODE, 2.0, 4.0, (), (0,)),
        Stretch(0, MIXED, 4.0, 5.0, (1,), (0,), 80),
        Stretch(0, DECODE, 5.0, 6.0, (), (0, 1)),
        Stretch(0, IDLE, 6.0, 9.0),
        Stretch(0, DECODE, 9.0, 10.0),
        Stretch(0, IDLE, 10.0, 11.0),
    ]


def test_a_window_cuts_what_reaches_over_its_ends():
    assert activity(log_by_hand(), Window(3.5, 4.5)) == [
        Stretch(0, DECODE, 3.5, 4.0, (), (0,)),
        Stretch(0, MIXED, 4.0, 4.5, (1,), (0,), 80),
    ]
    assert activity(log_by_hand(), Window(7.0, 8.0)) == [Stretch(0, IDLE, 7.0, 8.0)]
    assert activity(log_by_hand(), Window(20.0, 21.0)) == [Stretch(0, IDLE, 20.0, 21.0)]


def test_steps_without_a_pause_are_one_stretch_and_a_pause_parts_them():
    steps = StepLog()
    for start_s in (0.0, 1.0, 2.0, 4.0):
        steps.append(start_s, 1, 1.0, 0.0, 1, 0)
    found = activity(EventLog((), (steps,), (WorkerInfo(),), 5.0), Window(0.0, 5.0))
    assert [(one.kind, one.start_s, one.end_s) for one in found] == [
        (DECODE, 0.0, 3.0),
        (IDLE, 3.0, 4.0),
        (DECODE, 4.0, 5.0),
    ]


def test_a_hand_off_is_on_the_sender():
    sent = replace(FIRST, decode_worker=1, transfer_start_s=2.0, transfer_end_s=2.5)
    assert transfers([sent, SECOND], Window(0.0, 2.25)) == [Stretch(0, TRANSFER, 2.0, 2.25, (0,))]
    assert transfers([sent], Window(2.5, 3.0)) == []


def test_the_stages_of_a_request():
    handed = replace(FIRST, arrival_s=0.5, transfer_start_s=2.0, transfer_end_s=2.5)
    whole = [(QUEUE, 0.5, 1.0), (PREFILL, 1.0, 2.0), (TRANSFER, 2.0, 2.5), (DECODE, 2.5, 6.0)]
    assert stages(handed, Window(0.0, 10.0)) == whole
    assert stages(handed, Window(0.75, 1.5)) == [(QUEUE, 0.75, 1.0), (PREFILL, 1.0, 1.5)]
    assert stages(FIRST, Window(0.0, 10.0)) == [(PREFILL, 1.0, 2.0), (DECODE, 2.0, 6.0)]
    assert stages(handed, Window(7.0, 8.0)) == []
    waiting = replace(handed, prefill_start_s=None, first_token_s=None, transfer_end_s=None, finished_s=None)
    assert stages(waiting, Window(0.0, 10.0)) == [(QUEUE, 0.5, 10.0)]
    assert stages(replace(waiting, status="rejected"), Window(0.0, 10.0)) == []


@pytest.mark.parametrize("split", [None, "2P2D"])
def test_over_a_run_every_second_is_told_once_and_every_token_is_there(split):
    made = generate("documents", rate_per_s=10.0, requests=150, seed=4)
    log = Experiment(made, Fleet(split=split), "least_requests").cluster().run(made.requests)
    found = activity(log, Window(0.0, log.end_s))
    for worker, steps in enumerate(log.step_logs):
        mine = [one for one in found if one.worker == worker and one.kind != TRANSFER]
        assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(mine))
        assert (mine[0].start_s, mine[-1].end_s) == (0.0, pytest.approx(log.end_s))
        busy_s = sum(one.end_s - one.start_s for one in mine if one.kind != IDLE)
        assert busy_s == pytest.approx(sum(row_duration_s(steps, row) for row in range(len(steps))))
        assert sum(one.tokens for one in mine) == sum(steps.prefilled)
    assert sum(one.kind == TRANSFER for one in found) == (len(log.timelines) if split else 0)
    prefilling = {one for stretch in found if stretch.tokens for one in stretch.prefilling}
    assert prefilling == {t.id for t in log.timelines}
    assert all(one.prefilling for one in found if one.tokens)
    decoding = {(stretch.worker, one) for stretch in found for one in stretch.decoding}
    assert decoding == {(t.decode_worker, t.id) for t in log.timelines if t.output_tokens > 1}
