"""vLLM's data-parallel balancer: the score by hand, what is added between two reports, and what a report erases."""

from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, WorkerLost
from helpers.policies.zoo.vllm_dp import SinceReport, VllmDP, VllmDPInFlight
from helpers.workload.request import Request

LOADED = Snapshot([view(0, waiting=1, running=10), view(1, waiting=4, running=1), view(2, waiting=0, running=14)])


def request(number):
    return Request(number, 0.0, 100, 10)


def idle(age_s=0.0, workers=3):
    """Workers that are reported idle, by a report of `age_s` ago."""
    return Snapshot(view(w, age_s=age_s) for w in range(workers))


def send(one, number, views, now, told=True):
    """Route a request and, unless not `told`, let the router know that it was sent."""
    decision = one.route(request(number), views, now, Random(0))
    if told:
        one.observe(Dispatched(request(number), decision), now)
    return decision.prefill


def test_the_score_by_hand():
    """4 x 1 + 10 = 14, 4 x 4 + 1 = 17, 14: equal for workers 0 and 2, and the lower id wins."""
    one = VllmDP(explain=True)
    decision = one.route(request(0), LOADED, 0.0, Random(0))
    assert decision.prefill == 0
    assert [value for _, term, value in decision.scores if term == "score"] == [14, 17, 14]
    assert decision._replace(scores=()) == VllmDP().route(request(0), LOADED, 0.0, Random(0))
    # 11, 5, 14 and 10, 1, 14
    assert send(VllmDP(waiting_weight=1.0), 0, LOADED, 0.0) == send(VllmDP(waiting_weight=0.0), 0, LOADED, 0.0) == 1


def test_between_two_reports_own_dispatches_wait():
    """A report of 20 ms ago says that all are idle: each dispatch adds 4 to its worker, so that they take turns."""
    one = VllmDP()
    assert [send(one, n, idle(0.02 + n / 1000), 1.0 + n / 1000) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    deaf = VllmDP()
    assert [send(deaf, n, idle(0.02 + n / 1000), 1.0 + n / 1000, told=False) for n in range(7)] == [0] * 7


def test_the_next_report_erases_what_was_added():
    one = VllmDP()
    assert [send(one, n, idle(0.05), 1.0) for n in range(4)] == [0, 1, 2, 0]
    # 10 ms later a report of 5 ms ago comes, which shows none of the four: everything begins again.
    assert [send(one, n, idle(0.005), 1.01) for n in range(4, 6)] == [0, 1]
    # 40 ms later the report is the same one, 45 ms old.
    assert send(one, 6, idle(0.045), 1.05) == 2


def test_rounding_of_the_age_is_no_new_report():
    one, made_s = SinceReport(), 0.1
    times = [0.11 + k * 0.0137 for k in range(20)]
    assert len({now - (now - made_s) for now in times}) > 1  # the times of one report differ in the last bit
    for now in times:
        one.waiting(view(0, age_s=now - made_s), now)
        one.add(0, 1)
    assert one.waiting(view(0, age_s=0.9 - made_s), 0.9) == 20


def test_several_clients_are_believed_to_do_the_same():
    """Worker 0 has two waiting: 8. With three clients a dispatch counts 3 x 4 = 12, with one 4."""
    views = Snapshot([view(0, waiting=2, age_s=0.02), view(1, age_s=0.02)])
    one, three = VllmDP(), VllmDP(clients=3)
    assert [send(one, n, views, 1.0) for n in range(4)] == [1, 1, 0, 1]  # 8:0, 8:4, 8:8 (the lower id), 12:8
    assert [send(three, n, views, 1.0) for n in range(4)] == [1, 0, 1, 0]  # 8:0, 8:12, 20:12, 20:24


def test_a_report_of_this_moment_shows_the_dispatches_already():
    one = VllmDP()
    send(one, 0, Snapshot([view(0, waiting=0), view(1, running=1)]), 1.0)
    # The same instant, now with the request in the report: 4 against 5. Counted twice it would be 8.
    assert send(one, 1, Snapshot([view(0, waiting=1), view(1, running=5)]), 1.0) == 0


def test_a_lost_worker_is_forgotten():
    one = VllmDP()
    send(one, 0, idle(0.05), 1.0)
    one.observe(WorkerLost(0), 1.0)
    one.observe(Dispatched(request(5), Decision(0, 0)), 1.0)  # news that crossed with the loss
    assert one.since.waiting(view(0, age_s=0.05), 1.0) == 0


def test_requests_under_way_are_a_floor_that_no_report_erases():
    one = VllmDPInFlight()
    assert [send(one, n, idle(0.05), 1.0) for n in range(4)] == [0, 1, 2, 0]
    # The next report again shows none of them. Worker 0 has two, the others one: the scan begins at worker 1.
    assert [send(one, n, idle(0.005), 1.01) for n in range(4, 6)] == [1, 2]
    for number in (0, 3):
        one.observe(Finished(request(number), 0), 1.2)
    assert send(one, 6, idle(0.001), 1.2) == 0
    assert min(one.own.load) >= 0


def test_a_floor_alone_decides_under_a_report_that_shows_nothing():
    one = VllmDPInFlight()
    for number in range(2):
        one.observe(Dispatched(request(number), Decision(0, 0)), 1.0)
    assert send(one, 2, idle(0.005), 2.0) == 1  # the scan begins at worker 0, which is reported as idle as the others
    # Reported load counts where it is more: 3 running against 2 of its own.
    views = Snapshot([view(0, running=1), view(1, running=3), view(2, running=4)])
    assert send(one, 3, views, 3.0) == 0


def test_equals_take_turns():
    one = VllmDPInFlight()
    assert [send(one, n, idle(), 0.0, told=False) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [send(VllmDP(), n, idle(), 0.0, told=False) for n in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("used", "pressure", "scores", "best"),
    [
        # 2 waiting + 3 running = 5, against 6 running: no pressure up to one half
        (500, 6.0, [5.0, 6.0], 0),
        # + 2 x 6 x (0.9 - 0.5) = 4.8
        (900, 6.0, [9.8, 6.0], 1),
        (900, 0.0, [5.0, 6.0], 0),
        # + 2 x 6 x 0.5 = 6 at 100 %: three times the waiting ones
        (1000, 6.0, [11.0, 6.0], 1),
    ],
)
def test_waiting_requests_are_dearer_as_memory_fills(used, pressure, scores, best):
    views = Snapshot([view(0, waiting=2, running=3, kv_used_blocks=used), view(1, running=6, kv_used_blocks=1000)])
    one = VllmDPInFlight(pressure=pressure, explain=True)
    decision = one.route(request(0), views, 0.0, Random(0))
    assert [value for _, term, value in decision.scores if term == "score"] == pytest.approx(scores)
    assert decision.prefill == best


@pytest.mark.parametrize("kind", [VllmDP, VllmDPInFlight])
def test_bad_parameters_are_one_sentence(kind):
    with pytest.raises(InputError, match="clients is 0; give 1 or more"):
        kind(clients=0)
    with pytest.raises(InputError, match=r"is -1\.0; give a number of 0 or more"):
        kind(-1.0)
