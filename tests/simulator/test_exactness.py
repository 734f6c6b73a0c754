"""Fast-forward, step by step, lazily or eagerly booked: the same run, to the last bit.

Dyadic coefficients and times (multiples of 2**-30 s) make every sum exact in floating point, so
the modes must agree exactly, ties included. On other floats they agree to 1e-9.
"""

from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.metrics.timeline import token_times
from helpers.policies.view import (
    ACCEPT,
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Verdict,
    WorkerLost,
)
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.simulator.worker import FastWorker
from helpers.workload.request import Request

TICK = 2.0**-30
DYADIC = AffineCost(4000000 * TICK, 30000 * TICK, 1 * TICK, 20000 * TICK, 47 * TICK)
COARSE = 2.0**-6  # steps and arrivals on one coarse grid: everything happens at the same time as something else
TIED = AffineCost(COARSE, 0.0, 0.0, COARSE, 0.0)
FLOAT = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)


class Nosy:
    """Looks at everything a router may look at, and lets it decide: any difference in state shows."""

    name = "nosy"

    def __init__(self, workers: int, observes=frozenset({Dispatched, FirstToken, Finished, KVStored, KVEvicted})):
        self.observes = observes | {WorkerLost}
        self.seen = [0] * workers

    def route(self, request, views, now, rng):
        def cost(w):
            v = views[w]
            return (
                v.waiting_tokens + v.kv_tokens // 7 + 13 * v.running + 5 * v.waiting + v.kv_used_blocks + self.seen[w],
                w,
            )

        p = min(views.prefill, key=cost)
        if p in views.decode:
            source = (p + 1) % len(self.seen)
            fetch = source in views.prefill and request.id % 3 == 0
            return Decision(p, p, source if fetch else None, 64 if fetch else 0)
        return Decision(p, min(views.decode, key=cost))

    def observe(self, event, now):
        if isinstance(event, (KVStored, KVEvicted)):
            sign = 1 if isinstance(event, KVStored) else -1
            self.seen[event.worker] += sign * sum(b % 5 + 1 for b in event.blocks)
        elif isinstance(event, (FirstToken, Finished)):
            self.seen[event.worker] += 3 if isinstance(event, Finished) else 1


class Holding:
    """Holds every fifth request once, rejects every eleventh."""

    name, queues = "holding", True

    def __init__(self):
        self.held = set()

    def admit(self, request, views, decision, now, rng):
        if request.id % 11 == 10:
            return Verdict("reject", "eleventh")
        if request.id % 5 == 4 and request.id not in self.held:
            self.held.add(request.id)
            return Verdict("queue")
        return ACCEPT


@dataclass
class Case:
    requests: list
    roles: tuple
    limits: Limits
    mode: str
    telemetry: Telemetry
    disturbances: tuple
    closed: bool
    hold: bool
    hop_s: float
    routers: int


def make_case(seed: int, grid: float) -> Case:
    """A small, tight, eventful case; `grid` is the spacing of all times (0: any float)."""
    rng = Random(seed)
    time = (lambda x: round(x / grid) * grid) if grid else (lambda x: x)
    block = rng.choice((4, 16, 64))
    roles = rng.choice((("mixed",), ("mixed",) * 3, ("prefill", "decode"), ("prefill", "prefill", "decode", "mixed")))
    blocks = rng.choice((40, 80, 400))
    closed = rng.random() < 0.3
    requests, now = [], 0.0
    for i in range(rng.randint(5, 60)):
        now += rng.choice((0.0, rng.expovariate(rng.choice((5.0, 30.0)))))
        prompt = rng.randint(1, blocks * block // 2)
        output = rng.randint(1, rng.choice((3, 40, blocks * block // 4)))
        root = rng.randint(0, 3)
        hashes = tuple(root * 1000 + k for k in range(-(-prompt // block))) if rng.random() < 0.7 else ()
        parent = rng.randrange(i) if closed and i and rng.random() < 0.4 else None
        requests.append(
            Request(
                i,
                time(now),
                prompt,
                output,
                hashes,
                i % 4,
                parent,
                time(rng.random() / 4),
                priority=rng.choice((0, 0, 1)),
            )
        )
    disturbances = []
    if rng.random() < 0.4:
        at = rng.random()
        disturbances.append(SlowWorker(rng.randrange(len(roles)), time(at), time(at + 0.1 + rng.random()), 2.0))
    if len(roles) > 2 and rng.random() < 0.4:
        disturbances.append(LoseWorker(rng.randrange(len(roles)), time(rng.random() * 2)))
    return Case(
        requests,
        roles,
        Limits(blocks, block, rng.choice((64, 128, 2048)), rng.choice((4, 8, 64)), rng.choice((0.0, 0.05))),
        rng.choice(("blocking", "layerwise", "batched")),
        Telemetry(time(0.125), time(0.03), 0.2) if rng.random() < 0.3 else Telemetry(),
        tuple(disturbances),
        closed,
        rng.random() < 0.3,
        time(0.002) if rng.random() < 0.3 else 0.0,
        rng.choice((1, 1, 2)),
    )


def play(case: Case, cost, observes=None, **mode):
    workers = tuple(WorkerSpec(case.limits, cost, role) for role in case.roles)
    link = Link(2.0**-12, 2.0**30, case.mode)
    spec = ClusterSpec(workers, link, 2.0**10, 4, case.telemetry, case.hop_s)
    routers = [Nosy(len(workers)) if observes is None else Nosy(len(workers), observes) for _ in range(case.routers)]
    admission = Holding() if case.hold else None
    cluster = Cluster(spec, routers, admission, 7, case.disturbances, case.closed, **mode)
    return cluster.run(case.requests), [r.seen for r in routers]


def record(log):
    """Everything of a run except how the step log was cut into rows."""
    return (
        [(replace(t, spans=()), token_times(t, log.step_logs)) for t in log.timelines],
        [sum(row * n for row, n in zip(w.steps, w.decoding, strict=True)) for w in log.step_logs],
        log.end_s,
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_fast_forward_equals_stepping_exactly_on_dyadic_times(seed):
    case = make_case(seed, TICK)
    fast, seen = play(case, DYADIC)
    slow, seen_slow = play(case, DYADIC, stepwise=True)
    assert record(fast) == record(slow)
    assert seen == seen_slow


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_ties_are_resolved_alike(seed):
    case = make_case(seed, COARSE)
    fast, seen = play(case, TIED)
    slow, seen_slow = play(case, TIED, stepwise=True)
    assert record(fast) == record(slow)
    assert seen == seen_slow


def test_the_coarse_grid_has_ties():
    """A control: arrivals do meet the ends of steps there, and on the fine grid they do not."""

    def met(grid, cost):
        count = 0
        for seed in range(40):
            case = make_case(seed, grid)
            log, _ = play(case, cost, stepwise=True)
            ends = {t + s for w in log.step_logs for t, s in zip(w.start_s, w.base_s, strict=True)}
            count += len(ends & {r.arrival_s for r in case.requests})
        return count

    assert met(COARSE, TIED) > 100
    assert met(TICK, DYADIC) < 5


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_lazy_booking_equals_eager_booking(seed):
    grid, cost = (COARSE, TIED) if seed % 2 else (TICK, DYADIC)
    case = make_case(seed, grid)
    lazy, _ = play(case, cost, observes=frozenset())
    eager, _ = play(case, cost, observes=frozenset(), eager=True)
    slow, _ = play(case, cost, observes=frozenset(), stepwise=True)
    assert record(lazy) == record(eager) == record(slow)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_fast_forward_equals_stepping_to_1e_9_on_any_floats(seed):
    case = make_case(seed, 0.0)
    (fast, _), (slow, _) = play(case, FLOAT), play(case, FLOAT, stepwise=True)
    for a, b in zip(fast.timelines, slow.timelines, strict=True):
        assert (a.status, a.prefill_worker, a.decode_worker, a.preemptions) == (
            b.status,
            b.prefill_worker,
            b.decode_worker,
            b.preemptions,
        )
        assert token_times(a, fast.step_logs) == pytest.approx(token_times(b, slow.step_logs), abs=1e-9)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_nothing_is_lost_and_every_token_comes_once(seed):
    case = make_case(seed, TICK)
    log, _ = play(case, DYADIC)
    assert [t.id for t in log.timelines] == sorted(r.id for r in case.requests)
    for t in log.timelines:
        if t.status == "finished":
            times = token_times(t, log.step_logs)
            assert len(times) == t.output_tokens
            assert times == sorted(times)
            assert times[-1] == t.finished_s


def test_the_cases_have_every_feature():
    """A control of the generator: without preemptions, losses, transfers … the tests above prove little."""
    count = dict.fromkeys(("preempted", "requeued", "handed", "cached", "fetched", "rejected"), 0)
    for seed in range(120):
        for t in play(make_case(seed, TICK), DYADIC)[0].timelines:
            count["preempted"] += t.preemptions > 0
            count["requeued"] += t.requeues > 0
            count["handed"] += t.transfer_end_s is not None
            count["cached"] += t.cached_tokens > 0
            count["fetched"] += t.fetched_tokens > 0
            count["rejected"] += t.status == "rejected"
    assert min(count.values()) >= 20, count


@pytest.mark.parametrize("wrong", ["one step too many", "growth forgotten", "block late"])
def test_a_wrong_fast_forward_is_caught(monkeypatch, wrong):
    if wrong == "one step too many":
        right = FastWorker._run
        monkeypatch.setattr(FastWorker, "_run", lambda self, n, until: right(self, n, until + 0.02))
    elif wrong == "growth forgotten":
        pace = FastWorker._pace
        monkeypatch.setattr(FastWorker, "_pace", lambda self: (pace(self)[0], 0.0))
    else:
        start = FastWorker._start_decode

        def late(self, sequence):
            start(self, sequence)
            self._grow = [(at + 1, order, s) if s is sequence else (at, order, s) for at, order, s in self._grow]

        monkeypatch.setattr(FastWorker, "_start_decode", late)
    differs = 0
    for seed in range(40):
        case = make_case(seed, TICK)
        try:
            differs += record(play(case, DYADIC)[0]) != record(play(case, DYADIC, stepwise=True)[0])
        except Exception:
            differs += 1
    assert differs > 0
