"""Fast-forward, step by step, lazily or eagerly booked: the same run, to the last bit.

Dyadic coefficients and times (multiples of 2**-30 s) make every sum exact in floating point, so
the modes must agree exactly, ties included. On other floats they agree to 1e-9.
"""

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.metrics.steps import row_duration_s
from helpers.metrics.timeline import token_times
from helpers.policies.catalogue import ADMISSIONS as CATALOGUE
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.view import (
    ACCEPT,
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Plan,
    Verdict,
    WorkerLost,
)
from helpers.scheduling.limits import Limits
from helpers.simulator import gate
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.simulator.fleet_changes import ScalerViews
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.simulator.worker import FastWorker
from helpers.workload.request import Request
from helpers.workload.slo import SLO

TICK = 2.0**-30
DYADIC = AffineCost(4000000 * TICK, 30000 * TICK, 1 * TICK, 20000 * TICK, 47 * TICK)
COARSE = 2.0**-6  # steps and arrivals on one coarse grid: everything happens at the same time as something else
TIED = AffineCost(COARSE, 0.0, 0.0, COARSE, 0.0)
FLOAT = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)


class Nosy:
    """Looks at everything a router may look at, and lets it decide: any difference in state shows."""

    name = "nosy"

    def __init__(self, observes=frozenset({Dispatched, FirstToken, Finished, KVStored, KVEvicted})):
        self.observes = observes | {WorkerLost}
        self.seen = Counter()

    def route(self, request, views, now, rng):
        def cost(w):
            v = views[w]
            return (
                v.waiting_tokens + v.kv_tokens // 7 + 13 * v.running + 5 * v.waiting + v.kv_used_blocks + self.seen[w],
                w,
            )

        p = min(views.prefill, key=cost)
        if p in views.decode:
            source = (p + 1) % (max(views.prefill) + 1)
            fetch = source in views.prefill and request.id % 3 == 0
            return Decision(p, p, source if fetch else None, 64 if fetch else 0)
        return Decision(p, min(views.decode, key=cost))

    def observe(self, event, now):
        if isinstance(event, (KVStored, KVEvicted)):
            sign = 1 if isinstance(event, KVStored) else -1
            self.seen[event.worker] += sign * sum(b % 5 + 1 for b in event.blocks)
        elif isinstance(event, (FirstToken, Finished)):
            self.seen[event.worker] += 3 if isinstance(event, Finished) else 1


class Restless:
    """Changes the fleet all the time, by everything that a scaler may look at."""

    name = "restless"

    def __init__(self, roles, period_s: float, observes=frozenset({Dispatched, FirstToken, Finished})):
        self.roles, self.period_s, self.observes = sorted(set(roles)), period_s, observes | {WorkerLost}
        self.heard = 0

    def observe(self, event, now):
        self.heard += 5 if isinstance(event, WorkerLost) else 1

    def scale(self, views, now):
        taking = dict.fromkeys((*views.prefill, *views.decode))
        known = [views[w] for w in (*taking, *views.starting, *views.leaving)]
        load = sum(v.waiting_tokens + v.kv_tokens + 7 * v.running + v.kv_used_blocks for v in known)
        draw = Random(load + self.heard + sum(int(views.busy_s(v.worker) * 1024) for v in known))
        sizes = Counter(views[w].role for w in (*taking, *views.starting))
        split = [w for w in taking if views[w].role != "mixed" and sizes[views[w].role] > 1]
        changes = ()
        if split and draw.random() < 0.4:
            worker = draw.choice(split)
            old = views[worker].role
            new = "decode" if old == "prefill" else "prefill"
            changes = ((worker, new),)
            sizes[old] -= 1
            sizes[new] += 1
        moves = {role: min(5, max(1, sizes[role] + draw.choice((-2, -1, 0, 0, 1, 2)))) for role in self.roles}
        return Plan(moves, "restless", changes)


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


# Every policy of the catalogue, so tight that it says no, or wait, to some of the small cases below.
ADMISSIONS = (
    ("queue_cap", {"max_waiting": 1}),
    ("token_cap", {}),
    ("probabilistic", {"sheddable_above": -1}),
    ("predicted_slo", {}),
    ("predicted_slo", {"anywhere": True, "sheddable_above": 0}),
    ("predicted_load", {"mode": "late", "limit": 0.3}),
    ("predicted_load", {"mode": "current", "limit": 0.3}),
    ("predicted_load", {"mode": "predicted", "limit": 0.3, "guess_error": 0.5}),
    ("early_rejection", {"low_priority_threshold_ms": 50.0}),
    ("measured_slo", {}),
    ("self_exciting", {}),
    ("priority_tiers", {"reserve": 0.5, "capacity_tokens": 900}),
    ("priority_tiers", {"hold": True, "capacity_tokens": 900}),
    ("fair", {"prompt_steps": 0.5}),
    *(("router_queue", {"threshold": 0.5, "order": order}) for order in ("fcfs", "lcfs", "wspt")),
)


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
    scale_s: float  # how often the fleet is changed, 0: never
    startup_s: float
    role_change_s: float
    admission: tuple[str, dict] | None  # a policy of the catalogue and its parameters, instead of `Holding`
    slo: SLO


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
                tenant=f"tenant {i % 3}",
                deadline_s=(None, 0.25, 4.0)[i % 3],
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
        time(rng.choice((0.0, 0.125, 0.3))),
        time(rng.choice((0.0, 0.25, 1.0))),
        time(rng.choice((0.0, 0.1))),
        rng.choice(ADMISSIONS) if rng.random() < 0.4 else None,
        SLO(rng.choice((0.03125, 0.25, 1.0)), rng.choice((0.0078125, 0.0625))),
    )


def play(case: Case, cost, observes=None, **mode):
    workers = tuple(WorkerSpec(case.limits, cost, role) for role in case.roles)
    link = Link(2.0**-12, 2.0**30, case.mode)
    times = case.hop_s, case.startup_s, case.role_change_s
    spec = ClusterSpec(workers, link, 2.0**10, 4, case.telemetry, *times)
    heard = () if observes is None else (observes,)
    routers = [Nosy(*heard) for _ in range(case.routers)]
    admission = Holding() if case.hold else None
    if case.admission:
        name, parameters = case.admission
        limits, predictor = case.limits, CostPredictor(cost, case.limits.token_budget, link, 2.0**10)
        facts = Facts(len(workers), limits.block_tokens, limits.token_budget, limits.kv_blocks, predictor, case.slo)
        admission = [make("admission", name, facts, **parameters) for _ in range(case.routers)]
    scaler = Restless(case.roles, case.scale_s, *heard) if case.scale_s else None
    cluster = Cluster(spec, routers, admission, 7, case.disturbances, case.closed, scaler=scaler, **mode)
    return cluster.run(case.requests), [r.seen for r in routers]


def record(log):
    """Everything of a run except how the step log was cut into rows."""
    return (
        log.workers,
        log.counts,
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
    changes = Counter()
    for seed in range(120):
        log, _ = play(make_case(seed, TICK), DYADIC)
        changes.update(log.counts)
        changes["late"] += sum(
            t.prefill_worker is not None and log.workers[t.prefill_worker].start_s > 0 for t in log.timelines
        )
        for t in log.timelines:
            count["preempted"] += t.preemptions > 0
            count["requeued"] += t.requeues > 0
            count["handed"] += t.transfer_end_s is not None
            count["cached"] += t.cached_tokens > 0
            count["fetched"] += t.fetched_tokens > 0
            count["rejected"] += t.status == "rejected"
    assert min(count.values()) >= 20, count
    assert min(changes[name] for name in ("workers_start", "workers_stop", "workers_change", "late")) >= 50, changes


def test_every_admission_policy_says_something_in_the_cases():
    """A control of the generator: each policy is drawn, and turns away or holds some of the requests."""
    said = Counter()
    for seed in range(900):
        case = make_case(seed, TICK)
        if case.admission:
            name = case.admission[0]
            note = lambda sequence, decision, verdict, now, name=name: said.update([(name, verdict.action)])  # noqa: E731
            log, _ = play(case, DYADIC, on_decision=note)
            said[name, "late"] += sum("after the prefill" in t.reason for t in log.timelines)
    holding = {"fair", "router_queue", "priority_tiers"}
    for name in CATALOGUE.keys() - {"none"}:
        assert said[name, "accept"] > 50
        assert said[name, "queue" if name in holding else "reject"] > 20, (name, said)
    assert said["priority_tiers", "reject"] > 20 and said["predicted_load", "late"] > 20


def test_a_line_in_the_wrong_order_is_caught(monkeypatch):
    """A control: when one of the modes lets the last of the line go first, the runs differ."""
    differs = 0
    for seed in range(300):
        case = make_case(seed, TICK)
        if case.admission in [("fair", {"prompt_steps": 0.5}), ("router_queue", {"threshold": 0.5, "order": "wspt"})]:
            slow, _ = play(case, DYADIC, stepwise=True)
            with monkeypatch.context() as patch:
                patch.setattr(gate, "heappop", lambda line: line.pop())
                fast, _ = play(case, DYADIC)
            differs += record(fast) != record(slow)
    assert differs > 5


@pytest.mark.parametrize("wrong", ["one step too many", "growth forgotten", "block late", "busy as last booked"])
def test_a_wrong_fast_forward_is_caught(monkeypatch, wrong):
    if wrong == "one step too many":
        right = FastWorker._run
        monkeypatch.setattr(FastWorker, "_run", lambda self, n, until: right(self, n, until + 0.02))
    elif wrong == "growth forgotten":
        pace = FastWorker._pace
        monkeypatch.setattr(FastWorker, "_pace", lambda self: (pace(self)[0], 0.0))
    elif wrong == "busy as last booked":  # what a scaler reads must not depend on when a worker was last looked at

        def as_booked(self, worker):
            log = self._cluster.workers[worker].log
            return sum(row_duration_s(log, row) for row in range(len(log)))

        monkeypatch.setattr(ScalerViews, "busy_s", as_booked)
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
