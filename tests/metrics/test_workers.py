"""Worker loads, Jain's index, imbalance, MFU and MBU."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.metrics.series import Window
from helpers.metrics.timeline import EventLog, StepLog, WorkerInfo
from helpers.metrics.workers import balance_by_role, gpu_s, imbalance, jain, mbu, mfu, worker_loads


def test_loads_by_hand(small_log):
    first, second = worker_loads(small_log)
    assert (first.prefilled_tokens, first.decoded_tokens, first.tokens, first.busy_s) == (140, 8, 148, 5.0)
    assert (second.prefilled_tokens, second.decoded_tokens, second.busy_s) == (50, 0, 3.0)


def test_loads_in_a_window_count_whole_steps_by_their_end(small_log):
    first, second = worker_loads(small_log, Window(1.5, 4.0))
    assert (first.prefilled_tokens, first.decoded_tokens, first.busy_s) == (40, 1 + 1 + 2, 2.0)
    assert (second.prefilled_tokens, second.busy_s) == (0, 0)


def test_jain_and_imbalance_by_hand():
    assert jain([1, 2, 3]) == pytest.approx(36 / (3 * 14))
    assert imbalance([1, 2, 3]) == 1.5
    assert (jain([5, 5, 5, 5]), imbalance([5, 5, 5, 5])) == (1, 1)
    assert (jain([0, 0, 7, 0]), imbalance([0, 0, 7, 0])) == (0.25, 4)
    assert (jain([0, 0]), imbalance([0, 0])) == (None, None)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any), st.integers(1, 50))
def test_bounds_and_scale(loads, factor):
    n = len(loads)
    assert 1 / n - 1e-12 <= jain(loads) <= 1 + 1e-12
    assert 1 <= imbalance(loads) <= n
    assert jain([factor * x for x in loads]) == pytest.approx(jain(loads))


def test_an_idle_worker_counts():
    """Leaving out a worker that got nothing would call the worst router even."""
    busy, idle = StepLog(), StepLog()
    busy.append(0.0, 1, 1.0, 0.0, 0, 100)
    log = EventLog((), (busy, idle), (WorkerInfo(), WorkerInfo()), 1.0)
    assert balance_by_role(worker_loads(log))["mixed"].imbalance == 2


def test_roles_are_not_compared_with_each_other():
    logs = [StepLog() for _ in range(4)]
    for log, (decoding, prefilled) in zip(logs, [(0, 900), (0, 900), (8, 0), (24, 0)], strict=True):
        log.append(0.0, 1, 1.0, 0.0, decoding, prefilled)
    roles = ("prefill", "prefill", "decode", "decode")
    found = balance_by_role(worker_loads(EventLog((), tuple(logs), tuple(WorkerInfo(r) for r in roles), 1.0)))
    assert (found["prefill"].imbalance, found["decode"].imbalance, found["decode"].workers) == (1, 1.5, 2)


def test_utilisation_by_hand():
    assert mfu(3e14, 0.5, 1e15) == pytest.approx(0.6)
    assert mbu(1.6e9, 1e-3, 3.2e12) == pytest.approx(0.5)
    assert mfu(0, 1, 1e15) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mfu(3e15, 1.0, 1e15), "MFU comes out as 3, above 1"),
        (lambda: mbu(1.0, 0.0, 1e12), "MBU .* not defined"),
        (lambda: jain([]), "no workers"),
        (lambda: imbalance([1, -1]), "worker load is -1"),
        (lambda: worker_loads(EventLog((), (StepLog(),), (WorkerInfo(),) * 2)), "2 workers but 1 step logs"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def come_and_gone():
    """100 tokens a second each: worker 0 for 10 s, worker 1 from 4 s to 8 s, worker 2 never, on two GPUs each.

    Worker 3 was lost at 5 s and did 50 tokens a second until then.
    """
    logs = [StepLog() for _ in range(4)]
    logs[0].append(0.0, 1, 10.0, 0.0, 0, 1000)
    logs[1].append(4.0, 1, 4.0, 0.0, 0, 400)
    logs[3].append(0.0, 1, 5.0, 0.0, 0, 250)
    stays = [(0.0, 0.0, None), (2.0, 4.0, 8.0), (9.0, None, 9.5), (0.0, 0.0, 5.0)]
    infos = tuple(WorkerInfo(tp=2, start_s=a, ready_s=b, stop_s=c) for a, b, c in stays)
    return EventLog((), tuple(logs), infos, 10.0)


def test_who_was_there_for_a_part_is_judged_by_that_part():
    """Rates 100, 100 and 50 for 10, 4 and 5 s: the mean is 1650 / 19, the mean square (14 x 100^2 + 5 x 50^2) / 19."""
    loads = worker_loads(come_and_gone())
    assert [load.there_s for load in loads] == [10.0, 4.0, 0.0, 5.0]
    found = balance_by_role(loads)["mixed"]
    assert found.workers == 3
    assert found.imbalance == pytest.approx(100 / (1650 / 19))
    assert found.jain == pytest.approx((1650 / 19) ** 2 / ((14 * 100**2 + 5 * 50**2) / 19))
    alike = balance_by_role(loads[:3])["mixed"]
    assert (alike.imbalance, alike.jain) == (pytest.approx(1), pytest.approx(1))
    assert imbalance([load.tokens for load in loads[:2]]) == pytest.approx(1000 / 700)  # a control: by tokens alone


def test_in_a_window_only_what_was_there_in_it_counts():
    loads = worker_loads(come_and_gone(), Window(4.5, 6.0))
    assert [load.there_s for load in loads] == [1.5, 1.5, 0.0, 0.5]


def test_gpu_seconds_by_hand():
    """Two GPUs each: 10 s, 2 to 8 s (start-up included), 9 to 9.5 s (called off), 0 to 5 s: 2 x 21.5 s."""
    assert gpu_s(come_and_gone()) == 2 * (10 + 6 + 0.5 + 5)
    assert gpu_s(come_and_gone(), Window(1.0, 3.0)) == 2 * (2 + 1 + 0 + 2)
    assert gpu_s(EventLog((), (), (), 5.0)) == 0
