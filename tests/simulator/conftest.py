"""What the tests of this room share: small clusters, by hand."""

from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.policies.registry import router
from helpers.policies.view import Decision
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request

COST = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)
LIMITS = Limits(600, 16, 512, 32)
KV_BYTES = 131_072.0
LAYERS = 32


class Told:
    """A router that does what a function of (request, views) says."""

    name, observes = "told", frozenset()

    def __init__(self, decide):
        self._decide = decide

    def route(self, request, views, now, rng):
        decision = self._decide(request, views)
        return decision if isinstance(decision, Decision) else Decision(decision, decision)

    def observe(self, event, now):
        raise AssertionError("nothing was asked for")


def serve(
    requests,
    roles=("mixed",),
    policy="round_robin",
    limits=LIMITS,
    cost=COST,
    link=None,
    telemetry=None,
    hop_s=0.0,
    routers=1,
    seed=0,
    **options,
):
    """Serve requests on a small cluster; `policy` is the name of a router, or a function for `Told`."""
    workers = tuple(WorkerSpec(limits, cost, role) for role in roles)
    link = link or Link(1e-3, 2e10)
    spec = ClusterSpec(workers, link, KV_BYTES, LAYERS, telemetry or Telemetry(), hop_s)
    predictor = CostPredictor(cost, limits.token_budget, link, KV_BYTES)
    named = isinstance(policy, str)
    make = (lambda: router(policy, len(roles), limits.block_tokens, predictor)) if named else lambda: Told(policy)
    closed = any(r.parent is not None for r in requests)
    cluster = Cluster(spec, [make() for _ in range(routers)], seed=seed, closed_loop=closed, **options)
    return cluster.run(requests)


def traffic(count=150, rate_per_s=20.0, seed=0, prompt=300, output=60, block=16, parents=0.0, priorities=(0,)):
    """Poisson arrivals with exponential lengths, three shared roots, and some requests that follow others."""
    rng, now, made = Random(seed), 0.0, []
    for i in range(count):
        now += rng.expovariate(rate_per_s)
        tokens = 1 + min(int(rng.expovariate(1 / prompt)), 4 * prompt)
        root = rng.randrange(4)
        blocks = -(-tokens // block)
        shared = min(blocks, 6)
        names = [1000 * root + k for k in range(shared)] + [10**6 * (i + 1) + k for k in range(blocks - shared)]
        parent = rng.randrange(i) if i and rng.random() < parents else None
        out = 1 + min(int(rng.expovariate(1 / output)), 4 * output)
        hashes = tuple(names) if root else ()
        made.append(Request(i, now, tokens, out, hashes, i % 5, parent, rng.random(), priority=rng.choice(priorities)))
    return made


@pytest.fixture(scope="session", name="serve")
def serve_fixture():
    """The function, as a fixture: test modules cannot import each other."""
    return serve


@pytest.fixture(scope="session", name="traffic")
def traffic_fixture():
    """The function, as a fixture: test modules cannot import each other."""
    return traffic
