"""The feedback loop: its measurements and its weights by hand; still under constant load, awake to a slow worker."""

from itertools import count
from random import Random
from statistics import fmean

import pytest

from helpers.errors import InputError
from helpers.policies.feedback import Feedback, Measured, Pace
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, WorkerLost
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.disturbances import SlowWorker
from helpers.workload.generate import generate
from helpers.workload.request import Request

NUMBERS = count()


def serve(one, worker, sent_s, ttft_s, decode_s=1.0, prompt=100, output=11, decode=None):
    """A request from its dispatch to its end, on one worker unless `decode` names another."""
    asked = Request(next(NUMBERS), sent_s, prompt, output)
    decision = Decision(worker, worker if decode is None else decode)
    one.observe(Dispatched(asked, decision), sent_s)
    one.observe(FirstToken(asked, worker), sent_s + ttft_s)
    one.observe(Finished(asked, decision.decode), sent_s + ttft_s + decode_s)


def weights(one, workers=3):
    return [one.measured[w].weight if w in one.measured else 1.0 for w in range(workers)]


def test_a_pace_is_a_plain_quotient_at_first_and_then_forgets():
    """With smoothing 0.25 the first four weigh alike: (2 + 4 + 6 + 8) / (1 + 1 + 2 + 4) tokens = 2.5 s a token."""
    one = Pace()
    for seconds, tokens in ((2, 1), (4, 1), (6, 2), (8, 4)):
        one.add(seconds, tokens, 0.25)
    assert one.s_per_token == pytest.approx(20 / 8) and one.count == 4
    # The fifth weighs a quarter: seconds 5 + (9 - 5) / 4 = 6, tokens 2 + (6 - 2) / 4 = 3. A fifth would give 29 / 14.
    one.add(9, 6, 0.25)
    assert one.s_per_token == pytest.approx(6 / 3)


def test_slowness_by_hand():
    """Prefill 1, 1 and 4 ms a token, decode 20, 20 and 40 ms: worker 2 is 4 and 2 times the median, sqrt(8) in all."""
    one = Feedback()
    for _ in range(5):
        for worker, ttft_s, decode_s in ((0, 0.1, 0.2), (1, 0.1, 0.2), (2, 0.4, 0.4)):
            serve(one, worker, 0.0, ttft_s, decode_s)
    assert one.slowness() == pytest.approx({0: 1.0, 1: 1.0, 2: 8**0.5})


def test_long_prompts_and_long_outputs_are_not_slowness():
    one = Feedback()
    for _ in range(5):
        serve(one, 0, 0.0, 0.1, 0.2, prompt=100, output=11)
        serve(one, 1, 0.0, 0.9, 1.8, prompt=900, output=91)
    assert one.slowness() == pytest.approx({0: 1.0, 1: 1.0})


def test_fewer_than_five_measurements_are_compared_with_nobody():
    one = Feedback()
    for _ in range(4):
        serve(one, 0, 0.0, 0.1)
        serve(one, 1, 0.0, 9.9)
    assert one.slowness() == {}
    serve(one, 1, 0.0, 9.9)
    assert one.slowness() == {1: 1.0}  # the only one, and so the median


def test_one_token_is_no_decode_and_a_handed_on_decode_is_not_the_prefill_workers():
    one = Feedback()
    for _ in range(5):
        serve(one, 0, 0.0, 0.1, decode_s=0.0, output=1)
        serve(one, 1, 0.0, 0.1, decode_s=9.0, decode=2)
    assert [one.measured[w].decode.count for w in (0, 1)] == [0, 0]
    assert 2 not in one.measured


def looks(one, slow_s, times, start_s=0.0):
    """At each of `times` looks, 3.5 s apart, a request on each of three workers; worker 2 takes `slow_s` a look."""
    for look, seconds in zip(range(times), slow_s, strict=False):
        now = start_s + 3.5 * look
        for worker in range(3):
            serve(one, worker, now, seconds if worker == 2 else 0.1, 1.0)


def test_a_weight_moves_after_ten_looks_outside_the_margin_and_not_before():
    """TTFT 1.6 s against 0.1 s and the same decodes: slowness sqrt(16) = 4, so that the weight becomes 1 / 4 ** 0.5.

    Worker 0 answers first, so that a look sees the rounds before. From the sixth round on these are five, enough; the
    look of the fifteenth round is the tenth outside.
    """
    one = Feedback()
    looks(one, [1.6] * 30, 14)
    assert weights(one) == [1.0, 1.0, 1.0] and one.measured[2].streak == 9
    looks(one, [1.6] * 30, 1, start_s=49.0)
    assert weights(one)[:2] == [1.0, 1.0] and weights(one)[2] == pytest.approx(0.5, abs=0.02)
    assert one.measured[2].prefill.count == 0  # what was measured, or was under way then, is forgotten
    wide = Feedback(margin=3.5)
    looks(wide, [1.6] * 30, 30)
    assert weights(wide) == [1.0, 1.0, 1.0]
    still = Feedback(gain=0.0)
    looks(still, [1.6] * 30, 30)
    assert weights(still) == [1.0, 1.0, 1.0]


def test_one_look_inside_begins_anew():
    one = Feedback(smoothing=1.0)  # the last measurement alone
    pattern = [1.6] * 12 + [0.1] + [1.6] * 9
    looks(one, pattern, len(pattern))
    assert weights(one) == [1.0, 1.0, 1.0]
    unbroken = Feedback(smoothing=1.0)
    looks(unbroken, [1.6] * len(pattern), len(pattern))
    assert weights(unbroken)[2] < 1.0


def test_a_worker_that_is_faster_gains_and_bounds_hold():
    one, free = Feedback(most=1.5, half_life_s=1e9), Feedback(half_life_s=1e9)
    for router in (one, free):
        looks(router, [0.1 / 64] * 30, 15)  # slowness 1 / 8: a weight of 8 ** 0.5 = 2.83
    assert weights(one)[2] == 1.5 and weights(free)[2] == pytest.approx(8**0.5, rel=0.01)


def test_what_was_under_way_when_a_weight_changed_is_not_counted():
    one = Feedback()
    one.measured[0] = Measured()
    one.measured[0].restart(10.0)
    serve(one, 0, 9.9, 5.0)
    assert one.measured[0].prefill.count == one.measured[0].decode.count == 0
    serve(one, 0, 10.0, 5.0)
    assert one.measured[0].prefill.count == one.measured[0].decode.count == 1


def test_half_of_the_way_back_is_gone_in_a_half_life():
    """From 1/16, half of the logarithm: 1/4, and then 1/2."""
    one = Feedback(half_life_s=120.0)
    one.measured[0] = Measured()
    one.measured[0].weight = 1 / 16
    one._look(120.0)
    assert one.measured[0].weight == pytest.approx(1 / 4)
    one._look(240.0)
    assert one.measured[0].weight == pytest.approx(1 / 2)


def test_the_choice_is_the_least_count_over_weight():
    """Counts 1, 1, 0 and weights 1, 1, 1/4: 2, 2 and 4. With equal weights worker 2 would be the least loaded."""
    one = Feedback(explain=True)
    for worker in (0, 1):
        one.observe(Dispatched(Request(next(NUMBERS), 0.0, 100, 10), Decision(worker, worker)), 0.0)
    views, asked = Snapshot(view(w) for w in range(3)), Request(next(NUMBERS), 0.0, 100, 10)
    assert one.route(asked, views, 0.0, Random(0)).prefill == 2
    one.measured[2] = Measured()
    one.measured[2].weight = 0.25
    decision = one.route(asked, views, 0.0, Random(0))
    assert decision.prefill == 0
    assert [value for _, term, value in decision.scores if term == "score"] == [2.0, 2.0, 4.0]


def test_a_lost_worker_is_forgotten_and_a_request_that_comes_back_is_measured_anew():
    one = Feedback()
    asked = Request(next(NUMBERS), 0.0, 100, 11)
    serve(one, 0, 0.0, 0.1)
    one.observe(Dispatched(asked, Decision(0, 0)), 0.0)
    one.observe(WorkerLost(0), 5.0)
    assert not one.measured and not one._sent
    one.observe(Dispatched(asked, Decision(1, 1)), 5.0)
    one.observe(FirstToken(asked, 1), 5.5)
    assert one.measured[1].prefill.s_per_token == pytest.approx(0.005)  # from the second dispatch on
    one.observe(Finished(asked, 1), 6.0)
    assert not one._sent
    one.observe(FirstToken(Request(next(NUMBERS), 0.0, 100, 11), 1), 7.0)  # never heard of
    assert one.measured[1].prefill.count == 1


def simulate(disturbances=(), router="feedback", rate_per_s=4.0, **parameters):
    """Ten minutes of conversations on four workers; the feedback routers that served it, and the timelines."""
    workload = generate("conversation", requests=2400, rate_per_s=rate_per_s, seed=5)
    made = []

    def make(_):
        made.append(Feedback(**parameters))
        return made[-1]

    choice = make if router == "feedback" else router
    run = Experiment(workload, Fleet(), choice, disturbances=disturbances).run()
    return made[-1] if made else None, run.timelines


def moves(one):
    """How often weights have moved: each time the measurements begin anew at a later time."""
    return sum(known.since_s > 0 for known in one.measured.values())


def test_under_constant_load_nothing_moves():
    """Poisson arrivals and lengths between ten and many thousand tokens are noise, and no reason to act."""
    one, _ = simulate()
    assert len(one.measured) == 4 and moves(one) == 0
    nervous, _ = simulate(margin=0.05, dwell_s=5.0)
    assert moves(nervous) == 4


def share(timelines, start_s, end_s):
    """Worker 1's share of the requests that arrive in a span."""
    workers = [t.prefill_worker for t in timelines if start_s < t.arrival_s < end_s]
    return workers.count(1) / len(workers)


def mean_ttft_s(timelines):
    return fmean(t.first_token_s - t.arrival_s for t in timelines if 100.0 < t.arrival_s < 400.0)


def test_a_slow_worker_is_noticed_relieved_and_taken_back():
    """Four times as slow from 100 to 400 s. Counts alone (gain 0) take most of its load off it, the weights more."""
    slow = (SlowWorker(1, 100.0, 400.0, 4.0),)
    one, timelines = simulate(slow, rate_per_s=2.0)
    counted, in_turn = simulate(slow, rate_per_s=2.0, gain=0.0)[1], simulate(slow, "round_robin", 2.0)[1]
    assert one.measured[1].since_s > 100.0
    assert share(timelines, 200, 400) < 0.8 * share(counted, 200, 400) < 0.8 * 0.5 * share(in_turn, 200, 400)
    assert mean_ttft_s(timelines) < mean_ttft_s(counted) < mean_ttft_s(in_turn) / 2
    assert share(timelines, 520, 1200) > 0.15  # two minutes after its recovery it is on the way back to a quarter


@pytest.mark.parametrize(
    "parameters",
    [{"smoothing": 0.0}, {"smoothing": 1.5}, {"margin": -0.1}, {"most": 0.5}, {"half_life_s": 0.0}, {"dwell_s": -1.0}],
)
def test_bad_parameters_are_one_sentence(parameters):
    with pytest.raises(InputError, match=f"router feedback: {next(iter(parameters))} is"):
        Feedback(**parameters)
