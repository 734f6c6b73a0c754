"""A function on many inputs: the same results in the same order, wherever they are made."""

import math
import os

import pytest

from helpers.errors import InputError
from helpers.serving.processes import cores, in_processes


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs):
    seen = []
    assert in_processes(math.sqrt, [16.0, 1.0, 9.0], jobs, seen.append) == [4.0, 1.0, 3.0]
    assert sorted(seen) == [1.0, 3.0, 4.0]


def test_more_than_one_job_leaves_this_process():
    tell = "__import__('os').getpid()"
    assert os.getpid() not in in_processes(eval, [tell, tell], 2)
    assert in_processes(eval, [tell, tell], 1) == [os.getpid()] * 2  # the control


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_task_is_raised_here(jobs):
    with pytest.raises(ValueError):
        in_processes(math.sqrt, [4.0, -1.0, 9.0], jobs)


def test_no_jobs_are_refused():
    with pytest.raises(InputError, match="0 jobs do nothing"):
        in_processes(math.sqrt, [4.0], 0)


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # the control: where nobody says which, all of them
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7
