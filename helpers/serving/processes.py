"""The same function on many inputs, in a few processes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

from helpers.errors import InputError

In, Out = TypeVar("In"), TypeVar("Out")


def cores() -> int:
    """How many processes are used unless told otherwise: as many as this one may use cores."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    function: Callable[[In], Out], tasks: Sequence[In], jobs: int = 1, done: Callable[[Out], None] | None = None
) -> list[Out]:
    """`function` of each task, in the order of the tasks; with `jobs` above 1 in so many fresh processes.

    `function` must be found by name in a module, and tasks and results must be such that they can be sent.
    `done(result)` is called for each as soon as it is there. Raises what a task raises, and `InputError` for no jobs.
    """
    if jobs < 1:
        raise InputError(f"{jobs} jobs do nothing; give 1 or more")
    if jobs == 1 or len(tasks) < 2:
        found = []
        for task in tasks:
            found.append(function(task))
            if done:
                done(found[-1])
        return found
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
        started = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(started):
                result = future.result()
                if done:
                    done(result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in started]
