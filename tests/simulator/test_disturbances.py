"""What goes wrong: lost workers lose nothing, slow ones slow nobody else, a changed rate keeps its requests."""

from dataclasses import replace
from itertools import pairwise

import pytest

from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.steps import row_end_s
from helpers.metrics.timeline import token_times
from helpers.policies.registry import router
from helpers.policies.view import WorkerLost
from helpers.simulator.disturbances import LoseWorker, SlowWorker, step_rate
from helpers.workload.generate import generate
from helpers.workload.request import Request

MIXED, SPLIT = ("mixed",) * 3, ("prefill", "prefill", "decode", "decode")


def by_parity(request, views):
    return request.id % 2


def ends(log, worker):
    steps = log.step_logs[worker]
    return [row_end_s(steps, row) for row in range(len(steps))]


# -- worker loss


@pytest.mark.parametrize("policy", ["round_robin", "least_requests", "prefix_exact"])
def test_nothing_is_lost_with_a_worker(policy, serve, traffic):
    requests = traffic(rate_per_s=40.0)
    log = serve(requests, MIXED, policy, disturbances=[LoseWorker(1, 2.0)])
    assert audit(log) == []
    assert all(t.status == "finished" and t.generated_tokens == t.output_tokens for t in log.timelines)
    moved = [t for t in log.timelines if t.requeues]
    assert len(moved) >= 5 and all(t.decode_worker != 1 for t in moved)
    assert any(len({s.worker for s in t.spans}) == 2 for t in moved)  # what was generated before was kept
    assert all(t.prefill_worker != 1 for t in log.timelines if t.arrival_s > 2.0)
    assert sum(t.prefilled_tokens for t in moved) > sum(t.prompt_tokens - t.cached_tokens for t in moved)  # wasted


def test_a_lost_worker_starts_no_further_step(serve, traffic):
    calm = serve(traffic(rate_per_s=40.0), MIXED)
    log = serve(traffic(rate_per_s=40.0), MIXED, disturbances=[LoseWorker(1, 2.0)])
    assert max(log.step_logs[1].start_s) < 2.0 < max(calm.step_logs[1].start_s)
    last = ends(log, 1)[-1]
    for t in log.timelines:
        if t.requeues:  # nobody computes elsewhere what is still being computed here
            assert all(log.step_logs[s.worker].start_s[s.first] >= min(last, 2.0) for s in t.spans if s.worker != 1)


@pytest.mark.parametrize("lost", range(4))
def test_each_half_of_a_split_can_be_lost(lost, serve, traffic):
    log = serve(traffic(rate_per_s=40.0), SPLIT, disturbances=[LoseWorker(lost, 2.0)])
    assert audit(log) == []
    assert all(t.status == "finished" for t in log.timelines)
    assert sum(t.requeues > 0 for t in log.timelines) >= (1 if lost < 2 else 3)
    late = [t for t in log.timelines if t.dispatched_s > 2.0]
    assert late and all(lost not in (t.prefill_worker, t.decode_worker) for t in late)


def test_without_workers_the_rest_is_rejected_with_a_reason(serve, traffic):
    log = serve(traffic(), ("mixed",) * 2, disturbances=[LoseWorker(0, 1.0), LoseWorker(1, 2.0)])
    assert {t.status for t in log.timelines if t.arrival_s > 2.0} == {"rejected"}
    assert {t.reason for t in log.timelines if t.status == "rejected"} == {"no worker is left that could serve it"}
    assert any(t.status == "finished" for t in log.timelines)


def test_a_worker_is_lost_once(serve, traffic):
    once = serve(traffic(), MIXED, disturbances=[LoseWorker(1, 2.0)])
    twice = serve(traffic(), MIXED, disturbances=[LoseWorker(1, 2.0), LoseWorker(1, 2.5)])
    assert [replace(t, spans=()) for t in once.timelines] == [replace(t, spans=()) for t in twice.timelines]


def test_the_router_hears_of_the_loss():
    exact = router("prefix_exact", 3, 16)
    assert WorkerLost in exact.observes  # else its index would go on naming the lost worker


# -- slow workers


def test_a_slow_worker_slows_only_itself(serve, traffic):
    requests = traffic(rate_per_s=15.0)
    calm = serve(requests, ("mixed",) * 2, by_parity)
    slow = serve(requests, ("mixed",) * 2, by_parity, disturbances=[SlowWorker(0, 1.0, 5.0, 4.0)])
    late_s = []
    for a, b in zip(calm.timelines, slow.timelines, strict=True):
        if a.id % 2:
            assert (a.first_token_s, a.finished_s) == (b.first_token_s, b.finished_s)
        else:
            late_s.append(b.finished_s - a.finished_s)
            assert a.finished_s >= 1.0 or b.finished_s == a.finished_s
    assert sum(late_s) / len(late_s) > 0.1 and sum(s > 0.1 for s in late_s) > 20
    assert audit(slow) == []


def test_the_steps_in_the_window_take_the_factor_longer(serve):
    """One request alone: its decode step of 5.1 ms and some doubles from 0.5 s to 1 s."""
    alone = [Request(0, 0.0, 16, 250)]
    calm, slow = serve(alone), serve(alone, disturbances=[SlowWorker(0, 0.5, 1.0, 2.0)])

    def pace(log, start, end):
        times = token_times(log.timelines[0], log.step_logs)
        gaps = [(b - a, a) for a, b in pairwise(times) if start < a < end]
        return sum(gap for gap, _ in gaps) / len(gaps)

    assert pace(slow, 0.51, 0.99) == pytest.approx(2 * pace(calm, 0.51, 0.99), rel=0.001)
    assert pace(slow, 0.1, 0.49) == pytest.approx(pace(calm, 0.1, 0.49), rel=0.001)
    assert pace(slow, 1.02, 1.2) == pytest.approx(pace(calm, 1.02, 1.2), rel=0.01)


def test_slow_without_end(serve):
    alone = [Request(0, 0.0, 16, 200)]
    calm, slow = serve(alone), serve(alone, disturbances=[SlowWorker(0, 0.0, float("inf"), 2.0)])
    assert slow.timelines[0].finished_s == pytest.approx(2 * calm.timelines[0].finished_s)


# -- the rate


def rate(workload, start_s, end_s):
    return sum(start_s <= r.arrival_s < end_s for r in workload) / (end_s - start_s)


def test_a_step_of_the_rate_keeps_the_requests_and_the_declared_rate():
    plain = generate("poisson", requests=4000, rate_per_s=10.0, seed=1)
    stepped = step_rate(plain, 100.0, 3.0)
    assert [r.id for r in stepped] == [r.id for r in plain]
    assert [replace(r, arrival_s=0.0) for r in stepped] == [replace(r, arrival_s=0.0) for r in plain]
    assert rate(stepped, 0, 100) == rate(plain, 0, 100)
    assert rate(stepped, 100, 200) == pytest.approx(3 * 10.0, rel=0.1)
    assert rate(stepped, 100, 200) == 3 * rate(plain, 100, 400)
    assert stepped.repairs == ("rate x3 from 100 s",) and stepped.sha256 != plain.sha256
    assert rate(plain, 100, 200) == pytest.approx(10.0, rel=0.1)  # control


def test_a_burst_ends():
    plain = generate("poisson", requests=4000, rate_per_s=10.0, seed=1)
    burst = step_rate(plain, 100.0, 4.0, 120.0)
    times = [r.arrival_s for r in burst]
    assert times == sorted(times) and len(burst) == 4000
    assert rate(burst, 100, 120) == 4 * rate(plain, 100, 180)
    assert rate(burst, 120, 200) == rate(plain, 180, 260)  # afterwards the gaps are the old ones
    assert burst.span_s == pytest.approx(plain.span_s - 60.0)
    assert burst.repairs == ("rate x4 from 100 s to 120 s",)


def test_a_lull_is_a_burst_with_a_factor_below_one():
    plain = generate("poisson", requests=2000, rate_per_s=10.0, seed=1)
    lull = step_rate(plain, 50.0, 0.5, 90.0)
    assert rate(lull, 50, 90) == 0.5 * rate(plain, 50, 70)
    assert lull.span_s == pytest.approx(plain.span_s + 20.0)


def test_a_burst_is_felt(serve):
    plain = generate("poisson", requests=400, rate_per_s=10.0, seed=1, prompt_tokens="300", output_tokens="40")
    burst = step_rate(plain, 10.0, 10.0, 12.0)
    calm, pressed = (serve(w.requests) for w in (plain, burst))
    worst = [max(t.first_token_s - t.arrival_s for t in log.timelines) for log in (calm, pressed)]
    assert worst[1] > 3 * worst[0]
    assert all(t.status == "finished" for t in pressed.timelines)


# -- refused

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SlowWorker(0, 0.0, 1.0, 0.0), "give a positive factor"),
        (lambda: SlowWorker(0, 0.0, 1.0, -2.0), "give a positive factor"),
        (lambda: SlowWorker(0, 0.0, 1.0, NAN), "give a positive factor"),
        (lambda: SlowWorker(0, 2.0, 1.0, 2.0), "an end after the start"),
        (lambda: SlowWorker(0, -1.0, 1.0, 2.0), "from -1.0 to 1.0 s"),
        (lambda: LoseWorker(0, -1.0), "give a finite time of 0 or later"),
        (lambda: LoseWorker(0, NAN), "give a finite time of 0 or later"),
        (lambda: step_rate(generate("poisson", requests=3), 1.0, 0.0), "rate step x0.0"),
        (lambda: step_rate(generate("poisson", requests=3), 1.0, NAN), "rate step xnan"),
        (lambda: step_rate(generate("poisson", requests=3), 1.0, INF), "rate step xinf"),
        (lambda: step_rate(generate("poisson", requests=3), 1.0, 2.0, 0.5), "an end after it"),
    ],
)
def test_a_disturbance_that_cannot_be_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", [LoseWorker(3, 1.0), LoseWorker(-1, 1.0), SlowWorker(7, 0.0, 1.0, 2.0)])
def test_a_disturbance_of_a_worker_that_is_not_there_is_refused(what, serve):
    with pytest.raises(InputError, match=f"a disturbance names worker {what.worker}; the fleet has 0 to 2"):
        serve([Request(0, 0.0, 10, 2)], MIXED, disturbances=[what])
