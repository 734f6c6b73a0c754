"""Random cases for the exactness of the simulator: small, tight, eventful runs, and what there is to compare of them.

Dyadic coefficients and times (multiples of 2**-30 s) make every sum exact in floating point.
"""

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.metrics.timeline import token_times
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
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
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
    """Changes the fleet again and again, by everything that a scaler may look at, and rests after 40 looks."""

    name = "restless"

    def __init__(self, roles, period_s: float, observes=frozenset({Dispatched, FirstToken, Finished})):
        self.roles, self.period_s, self.observes = sorted(set(roles)), period_s, observes | {WorkerLost}
        self.heard = self.looks = 0

    def observe(self, event, now):
        self.heard += 5 if isinstance(event, WorkerLost) else 1

    def scale(self, views, now):
        self.looks += 1
        if self.looks > 40:  # a run of minutes would have thousands of workers
            return Plan({})
        taking = dict.fromkeys((*views.prefill, *views.decode))
        known = [views[w] for w in (*taking, *views.starting, *views.leaving)]
        load = sum(v.waiting_tokens + v.kv_tokens + 7 * v.running + v.kv_used_blocks for v in known)
        busy = sum(int(views.busy_s(v.worker) * 1000 + 0.37) for v in known)  # a worker may be busy for whole periods
        draw = Random(load + self.heard + busy)
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


def telemetry_of(drawn: float, time) -> Telemetry:
    """Now and then samples that are late and noisy, now and then reports between steps."""
    if drawn < 0.3:
        return Telemetry(time(0.125), time(0.03), 0.2)
    return Telemetry(by_step=drawn < 0.55)


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
        telemetry_of(rng.random(), time),
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
