"""The rules of a step, each shown by hand on a few requests, and the limits that a worker may have."""

import pytest

from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.scheduling.scheduler import Scheduler
from helpers.scheduling.sequence import Sequence
from helpers.workload.request import Request


def sequence(number, prompt, output, hashes=(), priority=0):
    return Sequence(Request(number, 0.0, prompt, output, hashes, priority=priority), number, 0.0)


def steps(scheduler, count):
    """Run so many steps; returns what was scheduled as ({number: new tokens}, decoding numbers, preempted numbers)."""
    seen = []
    for _ in range(count):
        step = scheduler.schedule()
        seen.append(
            ({s.number: n for s, n in step.chunks}, [s.number for s in step.decode], [s.number for s in step.preempted])
        )
        scheduler.commit(step)
    return seen


def test_decodes_come_first_and_chunks_take_what_is_left():
    scheduler = Scheduler(Limits(64, 4, token_budget=8, max_batch=4))
    scheduler.add(sequence(0, 4, 6))
    scheduler.add(sequence(1, 10, 1))
    assert steps(scheduler, 3) == [({0: 4, 1: 4}, [], []), ({1: 6}, [0], []), ({}, [0], [])]


def test_an_urgent_request_goes_before_a_waiting_one_but_stops_nobody():
    scheduler = Scheduler(Limits(64, 4, token_budget=8, max_batch=1))
    for s in (sequence(0, 4, 2), sequence(1, 4, 1, priority=1), sequence(2, 4, 1, priority=0)):
        scheduler.add(s)
    assert [chunks for chunks, _, _ in steps(scheduler, 4)] == [{0: 4}, {}, {2: 4}, {1: 4}]


def test_the_head_of_the_queue_is_not_overtaken_by_one_that_fits():
    scheduler = Scheduler(Limits(4, 4, token_budget=32, max_batch=4))
    for s in (sequence(0, 8, 3), sequence(1, 12, 1), sequence(2, 4, 1)):
        scheduler.add(s)
    assert [chunks for chunks, _, _ in steps(scheduler, 4)] == [{0: 8}, {}, {}, {1: 12, 2: 4}]


@pytest.mark.parametrize(("priorities", "victim"), [((0, 0, 0), 2), ((0, 1, 0), 1), ((1, 0, 0), 0)])
def test_the_least_urgent_goes_first_among_equals_the_last_admitted(priorities, victim):
    scheduler = Scheduler(Limits(6, 2, token_budget=32, max_batch=4, watermark=0.0))
    for number, priority in enumerate(priorities):
        scheduler.add(sequence(number, 4, 5, priority=priority))
    assert steps(scheduler, 2)[1][2] == [victim]


def test_a_preempted_sequence_computes_again_what_it_had_put_out():
    scheduler = Scheduler(Limits(4, 2, token_budget=32, max_batch=4, watermark=0.0))
    first, second = sequence(0, 2, 4), sequence(1, 3, 4)
    scheduler.add(first)
    scheduler.add(second)
    seen = steps(scheduler, 3)
    assert seen[2][2] == [1] and second.generated == 2
    assert second.goal == 3 + 2 and second.computed == 0
    resumed = steps(scheduler, 10)
    assert [chunks for chunks, _, _ in resumed if chunks] == [{1: 5}]
    assert (second.generated, second.preemptions, second.prefilled_tokens) == (4, 1, 8)


def test_a_prompt_that_is_cached_up_to_its_last_block_computes_that_block():
    scheduler = Scheduler(Limits(16, 4, token_budget=64, max_batch=4))
    for number, (prompt, hashes) in enumerate([(8, (1, 2)), (8, (1, 2)), (9, (1, 2, 3)), (12, (1, 5, 6))]):
        s = sequence(number, prompt, 1, hashes)
        scheduler.add(s)
        steps(scheduler, 1)
        assert s.cached_tokens == {0: 0, 1: 4, 2: 8, 3: 4}[number]
        assert s.prefilled_tokens == prompt - s.cached_tokens


def test_what_can_never_fit_is_known_before():
    scheduler = Scheduler(Limits(4, 4))
    assert scheduler.fits(sequence(0, 10, 7)) and not scheduler.fits(sequence(0, 10, 8))


def test_a_drained_scheduler_gives_back_everybody_in_order_of_arrival():
    scheduler = Scheduler(Limits(8, 4, token_budget=8, max_batch=2))
    for number in (2, 0, 1, 3):
        scheduler.add(sequence(number, 4, 5))
    steps(scheduler, 2)
    assert [s.number for s in scheduler.drain()] == [0, 1, 2, 3]
    assert (scheduler.running, scheduler.waiting, scheduler.pool.used) == ([], [], 0)


# -- limits


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kv_blocks": 0}, "kv_blocks is 0; give 1 or more"),
        ({"block_tokens": 0}, "block_tokens is 0; give 1 or more"),
        ({"token_budget": 0}, "token_budget is 0; give 1 or more"),
        ({"max_batch": -1}, "max_batch is -1; give 1 or more"),
        ({"token_budget": 8, "max_batch": 9}, "every running sequence needs a token in each step"),
        ({"watermark": 1.0}, "watermark is 1.0; give a share from 0 up to 1"),
        ({"watermark": float("nan")}, "watermark is nan; give a share from 0 up to 1"),
    ],
)
def test_limits_that_cannot_work_are_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        Limits(**{"kv_blocks": 8, "block_tokens": 4, **wrong})
    assert Limits(8, 4, 9, 9, 0.5).reserve_blocks == 4
