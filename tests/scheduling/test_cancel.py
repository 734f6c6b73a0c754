"""A sequence that nobody waits for leaves at once, wherever it is, and its blocks with it."""

import pytest

from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Scheduler
from helpers.scheduling.sequence import Sequence
from helpers.workload.request import Request


def sequence(number, prompt=8, output=4, hashes=()):
    return Sequence(Request(number, 0.0, prompt, output, hashes), number, 0.0)


@pytest.fixture
def scheduler():
    return Scheduler(Limits(kv_blocks=8, block_tokens=4, token_budget=16, max_batch=2, watermark=0.0))


def run(scheduler):
    step = scheduler.schedule()
    return step, scheduler.commit(step)


def test_a_running_sequence_gives_its_blocks_back(scheduler):
    one, two = sequence(0), sequence(1)
    scheduler.add(one)
    scheduler.add(two)
    run(scheduler)
    assert scheduler.pool.used == 4
    scheduler.cancel(one)
    assert (scheduler.running, scheduler.pool.used, one.blocks) == ([two], 2, [])
    step, _ = run(scheduler)
    assert step.decode == [two]


def test_a_waiting_sequence_lets_the_next_one_through(scheduler):
    first, second, third = (sequence(i) for i in range(3))
    for s in (first, second, third):
        scheduler.add(s)
    run(scheduler)
    assert scheduler.waiting == [third]  # the batch is full
    scheduler.cancel(third)
    assert scheduler.waiting == []
    assert scheduler.pool.used == 4


def test_a_reserved_sequence_gives_its_blocks_back(scheduler):
    s = sequence(0)
    s.computed = 8
    scheduler.reserve(s)
    assert scheduler.pool.used == 2
    scheduler.cancel(s)
    assert (scheduler.reserved, scheduler.pool.used) == ([], 0)


def test_one_that_has_left_or_never_came_changes_nothing(scheduler):
    kept, done = sequence(0, output=9), sequence(1, output=1)
    scheduler.add(kept)
    scheduler.add(done)
    assert run(scheduler)[1].finished == [done]
    before = (list(scheduler.running), scheduler.pool.used)
    scheduler.cancel(done)
    scheduler.cancel(done)
    scheduler.cancel(sequence(7))
    assert (scheduler.running, scheduler.pool.used) == before


def test_what_it_computed_stays_in_the_prefix_cache(scheduler):
    s = sequence(0, hashes=(11, 12))
    scheduler.add(s)
    run(scheduler)
    scheduler.cancel(s)
    assert scheduler.pool.used == 0
    again = sequence(1, hashes=(11, 13))
    scheduler.add(again)
    run(scheduler)
    assert again.cached_tokens == 4
    other = sequence(2, hashes=(14, 13))  # control: another prompt finds nothing
    scheduler.add(other)
    run(scheduler)
    assert other.cached_tokens == 0
