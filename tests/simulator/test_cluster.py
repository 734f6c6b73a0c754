"""The cluster's front: what routers see and when, what they may not do, and fleets that cannot serve."""

from collections import Counter
from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.policies.view import Decision, Verdict
from helpers.scheduling.limits import Limits
from helpers.simulator.disturbances import LoseWorker
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request

COST = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)
LIMITS = Limits(600, 16, 512, 32)
SPLIT = ("prefill", "prefill", "decode", "decode")

# -- old news


def herding(serve, traffic, period_s):
    """Mean over windows of one second of the most loaded worker's arrivals over the mean, 8 workers."""
    requests = traffic(count=2400, rate_per_s=120.0, prompt=100, output=40)
    log = serve(requests, ("mixed",) * 8, "least_requests", telemetry=Telemetry(period_s))
    shares = []
    for second in range(1, 19):
        sent = Counter(t.prefill_worker for t in log.timelines if second <= t.arrival_s < second + 1)
        shares.append(max(sent.values()) * 8 / sum(sent.values()))
    return sum(shares) / len(shares)


def test_the_older_the_news_the_more_least_requests_herds(serve, traffic):
    live, tenth, half, two = (herding(serve, traffic, period_s) for period_s in (0.0, 0.1, 0.5, 2.0))
    assert 1.0 <= live < tenth < half < two <= 8.0
    assert half > 1.5 * live  # and with news of up to 2 s ago nearly everything goes to one worker
    assert two > 4.0


def seen(serve, requests, telemetry, roles=("mixed",) * 2, **options):
    """(time, views of all workers) at every decision."""
    told = []

    def note(request, views):
        told.append((views.now, [views[w] for w in range(len(roles))]))
        return request.id % len(roles)

    serve(requests, roles, note, telemetry=telemetry, **options)
    return told


def test_news_is_as_old_as_its_period_and_delay_say(serve, traffic):
    told = seen(serve, traffic(), Telemetry(0.25, 0.06))
    for now, views in told:
        assert len({v.age_s for v in views}) == 1
        if now > 0.06:
            assert 0.06 - 1e-9 <= views[0].age_s <= 0.25 + 0.06 + 1e-9
            sampled = now - views[0].age_s
            assert sampled / 0.25 == pytest.approx(round(sampled / 0.25), abs=1e-6)
    assert max(views[0].age_s for _, views in told) > 0.28
    live = seen(serve, traffic(), Telemetry())
    assert all(v.age_s == 0 for _, views in live for v in views)  # control


def test_old_views_show_what_was(serve):
    """Ten requests at 0.1 s; the sample of 0 s shows none of them, the sample of 0.2 s all."""
    requests = [Request(i, 0.1, 400, 200) for i in range(10)] + [Request(10, 0.15, 8, 1), Request(11, 0.25, 8, 1)]
    told = seen(serve, requests, Telemetry(0.2), roles=("mixed",))
    counts = [views[0].requests for _, views in told]
    assert counts[:11] == [0] * 11 and counts[11] == 11
    live = [views[0].requests for _, views in seen(serve, requests, Telemetry(), roles=("mixed",))]
    assert live[:10] == list(range(10))


def test_news_goes_on_while_users_think(serve):
    """A closed loop in which nothing runs for seconds: the samples must not stop coming."""
    requests = [Request(0, 0.0, 10, 10)]
    requests += [Request(i, 0.0, 10, 10, parent=i - 1, think_time_s=2.0) for i in range(1, 5)]
    told = seen(serve, requests, Telemetry(0.1), roles=("mixed",))
    assert len(told) == 5 and told[-1][0] > 8.0
    assert all(views[0].age_s <= 0.1 + 1e-9 for _, views in told)


def test_noise_is_drawn_from_the_seed(serve, traffic):
    views = {
        (noise, seed, run): [v for _, v in seen(serve, traffic(count=60), Telemetry(0.1, noise=noise), seed=seed)]
        for noise, seed, run in ((0.0, 0, 0), (0.5, 0, 0), (0.5, 0, 1), (0.5, 1, 0))
    }
    assert views[0.5, 0, 0] == views[0.5, 0, 1]
    assert views[0.5, 0, 0] != views[0.0, 0, 0] and views[0.5, 0, 0] != views[0.5, 1, 0]
    assert all(v.kv_used_blocks <= v.kv_total_blocks and v.running >= 0 for vs in views[0.5, 0, 0] for v in vs)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["period_s", "delay_s", "noise"])
def test_telemetry_that_cannot_be_is_refused(name, value):
    with pytest.raises(InputError, match=f"telemetry {name} is {value}; give a finite number of 0 or more"):
        Telemetry(**{"period_s": 1.0, name: value})


def test_a_delay_needs_a_period():
    with pytest.raises(InputError, match="say how often workers report"):
        Telemetry(0.0, 0.1)


# -- routers that do what they may not

SOME = [Request(i, 0.01 * i, 20, 5) for i in range(6)]


@pytest.mark.parametrize(
    ("roles", "decision", "sentence"),
    [
        (("mixed",) * 2, (2, 2), "router told chose workers 2 and 2; the fleet has 0 to 1"),
        (("mixed",) * 2, (-1, -1), "router told chose workers -1 and -1"),
        (("mixed",) * 2, (0, 7), "router told chose workers 0 and 7"),
        (("mixed",) * 2, (0, 1), "one worker for both unless the first only prefills"),
        (SPLIT, (0, 0), "choose live workers of the right role"),
        (SPLIT, (0, 1), "choose live workers of the right role"),
        (SPLIT, (2, 3), "choose live workers of the right role"),
        (SPLIT, (2, 0), "choose live workers of the right role"),
    ],
)
def test_a_router_that_chooses_what_cannot_be_gets_one_sentence(roles, decision, sentence, serve):
    with pytest.raises(InputError, match=sentence) as error:
        serve(SOME, roles, lambda request, views: Decision(*decision))
    assert "\n" not in str(error.value)


def test_a_router_that_chooses_the_dead_gets_one_sentence(serve):
    with pytest.raises(
        InputError, match="router told chose worker 0 for prefill and 0 for decode; choose live workers"
    ):
        serve(SOME, ("mixed",) * 2, lambda request, views: 0, disturbances=[LoseWorker(0, 0.025)])
    log = serve(SOME, ("mixed",) * 2, lambda request, views: views.prefill[0], disturbances=[LoseWorker(0, 0.025)])
    assert all(t.status == "finished" for t in log.timelines)  # control


def test_decisions_that_can_be_are_carried_out(serve):
    """Control of the two above: the right roles pass."""
    for roles, decision in ((("mixed",) * 2, (1, 1)), (SPLIT, (1, 2)), (("prefill", "mixed"), (0, 1))):
        log = serve(SOME, roles, lambda request, views, decision=decision: Decision(*decision))
        assert {(t.prefill_worker, t.decode_worker) for t in log.timelines} == {decision}


class Says:
    name = "says"

    def __init__(self, action):
        self.action = action

    def admit(self, request, views, decision, now, rng):
        return Verdict(self.action, "because")


def test_an_admission_says_one_of_three_things(serve):
    with pytest.raises(InputError, match="admission says said 'maybe'; use accept, queue or reject"):
        serve(SOME, admission=Says("maybe"))
    assert {t.reason for t in serve(SOME, admission=Says("reject")).timelines} == {"because"}


def test_held_until_the_end_is_a_rejection(serve):
    held = Says("queue")
    held.queues = True
    log = serve(SOME, admission=held)
    assert {(t.status, t.reason) for t in log.timelines} == {("rejected", "held by admission until the end of the run")}


def test_what_can_never_fit_is_rejected_with_its_size(serve):
    room = LIMITS.kv_blocks * LIMITS.block_tokens
    log = serve([Request(0, 0.0, room - 9, 10), Request(1, 0.0, room - 9, 11)])
    assert [t.status for t in log.timelines] == ["finished", "rejected"]
    assert log.timelines[1].reason == f"its {room + 1} tokens of KV do not fit in a worker, which holds {room}"


# -- arrivals


def test_arrivals_must_be_in_order(serve):
    with pytest.raises(InputError, match=r"request 5 arrives at 0\.0 s, after one of 0\.04 s; sort by arrival_s"):
        serve([*SOME[:5], replace(SOME[5], arrival_s=0.0)])


def test_a_request_with_a_parent_comes_after_it(serve):
    requests = [Request(0, 0.0, 20, 5), Request(1, 0.0, 20, 5, parent=0, think_time_s=1.5)]
    first, second = serve(requests).timelines
    assert second.arrival_s == pytest.approx(first.finished_s + 1.5)
    assert serve([requests[0], replace(requests[1], arrival_s=9.0)]).timelines[1].arrival_s == 9.0


def test_who_follows_a_rejected_request_is_rejected(serve):
    requests = [Request(0, 0.0, 10**6, 5), Request(1, 0.0, 20, 5, parent=0), Request(2, 0.0, 20, 5, parent=1)]
    assert [t.reason for t in serve(requests).timelines[1:]] == [
        "its parent 0 was rejected",
        "its parent 1 was rejected",
    ]


def test_a_hop_delays_the_first_token(serve):
    near, far = (serve([Request(0, 0.0, 20, 5)], hop_s=hop).timelines[0] for hop in (0.0, 0.25))
    assert far.first_token_s == pytest.approx(near.first_token_s + 0.25)


def test_finished_requests_can_be_taken_out_as_they_come(serve, traffic):
    kept = serve(traffic()).timelines
    taken = []
    assert serve(traffic(), sink=taken.append).timelines == ()
    assert sorted(taken, key=lambda t: t.id) == list(kept)


# -- fleets


def worker(role="mixed", block_tokens=16):
    return WorkerSpec(Limits(100, block_tokens), COST, role)


@pytest.mark.parametrize(
    ("workers", "link", "sentence"),
    [
        ((), None, "a fleet of 0 workers serves nothing; give at least one"),
        ((worker("decode"),), None, "a fleet of decode workers only cannot finish a request; add the other role"),
        ((worker("prefill"),), Link(0.0, 1e9), "a fleet of prefill workers only cannot finish a request"),
        ((worker("prefill"), worker("decode")), None, "give it a link"),
        ((worker(), worker(block_tokens=32)), None, "workers with different block_tokens cannot share prefix hashes"),
    ],
)
def test_a_fleet_that_cannot_serve_is_refused(workers, link, sentence):
    with pytest.raises(InputError, match=sentence):
        ClusterSpec(workers, link)


def test_a_role_is_one_of_three():
    with pytest.raises(InputError, match="worker role 'both'; use one of mixed, prefill, decode"):
        worker("both")
