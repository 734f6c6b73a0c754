"""Requests on workers over time, worked by hand and held against a plain count."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.occupancy import requests_on_workers, stays
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate


def request(number, dispatched_s, first_s, finished_s, worker, decode=None, handed_s=None):
    return Timeline(
        number,
        0.0,
        10,
        10,
        "finished",
        prefill_worker=worker,
        decode_worker=worker if decode is None else decode,
        dispatched_s=dispatched_s,
        first_token_s=first_s,
        finished_s=finished_s,
        transfer_end_s=handed_s,
    )


def log_of(*timelines, workers=2, end_s=10.0):
    return EventLog(timelines, workers=(WorkerInfo(),) * workers, end_s=end_s)


def test_two_requests_by_hand():
    """Windows of 2 s. Request 0 on worker 0 from 1 to 7: 1/2, 1, 1, 1/2, 0. Request 1 on worker 1 from 4.5 to 5.5: 1/2
    of the third window."""
    found = requests_on_workers(log_of(request(0, 1.0, 2.0, 7.0, 0), request(1, 4.5, 5.0, 5.5, 1)), 5)
    assert found[0].times_s == (2.0, 4.0, 6.0, 8.0, 10.0)
    assert found[0].values == pytest.approx((0.5, 1.0, 1.0, 0.5, 0.0))
    assert found[1].values == pytest.approx((0.0, 0.0, 0.5, 0.0, 0.0))


def test_a_handed_over_request_moves_from_its_prefill_to_its_decode_worker():
    moved = request(0, 1.0, 3.0, 8.0, 0, decode=1, handed_s=4.0)
    assert list(stays(moved, 10.0)) == [(0, 1.0, 3.0), (1, 4.0, 8.0)]
    stuck = replace(moved, finished_s=None, status="unfinished", transfer_end_s=None, first_token_s=None)
    assert list(stays(stuck, 10.0)) == [(0, 1.0, 10.0)]


@pytest.mark.parametrize("change", [{"status": "rejected"}, {"dispatched_s": None}])
def test_who_was_never_on_a_worker_does_not_count(change):
    log = log_of(replace(request(0, 1.0, 2.0, 7.0, 0), **change))
    assert requests_on_workers(log, 5)[0].values == (0.0,) * 5
    assert requests_on_workers(log_of(request(0, 1.0, 2.0, 7.0, 0)), 5)[0].values != (0.0,) * 5


@pytest.mark.parametrize("split", [None, "2P2D"])
def test_over_a_run_the_sum_is_the_time_spent_on_workers(split):
    made = generate("documents", rate_per_s=12.0, requests=200, seed=3)
    log = Experiment(made, Fleet(split=split), "least_requests").cluster().run(made.requests)
    found = requests_on_workers(log, 37)
    spent_s = [0.0] * 4
    for timeline in log.timelines:
        for worker, start_s, stop_s in stays(timeline, log.end_s):
            spent_s[worker] += stop_s - start_s
    assert [sum(one.values) * log.end_s / 37 for one in found] == pytest.approx(spent_s)
    assert min(spent_s) > 1.0


@pytest.mark.parametrize(("windows", "end_s"), [(0, 10.0), (5, 0.0)])
def test_no_window_is_refused(windows, end_s):
    with pytest.raises(InputError, match="hold nothing"):
        requests_on_workers(log_of(end_s=end_s), windows)
