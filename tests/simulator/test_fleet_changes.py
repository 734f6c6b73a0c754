"""Whoever routes, a fleet that changes all the time loses nothing and keeps the contract of its event log."""

from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.metrics.audit import audit
from helpers.metrics.queueing import littles_law, littles_law_decoding
from helpers.policies.catalogue import ROUTERS
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.view import Plan
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.fleet_changes import FleetChanges
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry


class Restless:
    """Wants another size of some pool, or another role for a worker, each time it is asked."""

    name, observes, period_s = "restless", frozenset(), 0.35

    def __init__(self, seed):
        self._rng = Random(seed)

    def observe(self, event, now):
        """Nothing."""

    def scale(self, views, now):
        rng = self._rng
        if views[views.prefill[0]].role == "mixed":
            return Plan({"mixed": rng.randint(1, 4)})
        sizes = {"prefill": 0, "decode": 0}
        for w in (*views.prefill, *views.decode, *views.starting):
            sizes[views[w].role] += 1
        changes = ()
        if rng.random() < 0.5:
            old, new = rng.choice((("prefill", "decode"), ("decode", "prefill")))
            if sizes[old] > 1:
                changes = ((rng.choice(getattr(views, old)), new),)
                sizes[old] -= 1
                sizes[new] += 1
        return Plan({role: min(4, max(1, n + rng.choice((-1, 0, 1)))) for role, n in sizes.items()}, "", changes)


COST = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)
PREDICTOR = CostPredictor(COST, 512, Link(1e-3, 2e10), 131_072.0)
LIMITS = Limits(600, 16, 512, 32)


def restless(traffic, name, roles, seed=0, **options):
    facts = Facts(len(roles), 16, 512, 600, PREDICTOR)
    workers = tuple(WorkerSpec(LIMITS, COST, role) for role in roles)
    spec = ClusterSpec(workers, Link(1e-3, 2e10), 131_072.0, 32, Telemetry(), 2e-3, 0.4, 0.1)
    cluster = Cluster(spec, [make("router", name, facts)], seed=seed, scaler=Restless(seed), **options)
    requests = traffic(rate_per_s=40.0, seed=seed)
    return requests, cluster.run(requests), cluster


@pytest.mark.parametrize("roles", [("mixed",) * 2, ("prefill", "prefill", "decode")], ids=["mixed", "split"])
@pytest.mark.parametrize("name", ROUTERS)
def test_nothing_is_lost_whoever_routes(name, roles, traffic):
    requests, log, cluster = restless(traffic, name, roles)
    assert audit(log) == []
    assert [t.id for t in log.timelines] == [r.id for r in requests]
    assert all(t.status == "finished" and t.generated_tokens == t.output_tokens for t in log.timelines)
    assert all(t.requeues == 0 for t in log.timelines)  # a drain sends nobody back
    assert littles_law(log).holds and littles_law_decoding(log).holds
    assert log.counts["workers_start"] > 3 and log.counts["workers_stop"] + log.counts["workers_change"] > 3
    used = {w for t in log.timelines for w in (t.prefill_worker, t.decode_worker)}
    assert len(used) > len(roles) + 1  # the new ones too
    for t in log.timelines:
        for worker in (t.prefill_worker, t.decode_worker):
            stay = log.workers[worker]
            assert stay.ready_s <= t.dispatched_s
            assert stay.stop_s is None or worker == t.prefill_worker != t.decode_worker or t.finished_s <= stay.stop_s
    assert not any(cluster.changes.holds)


def test_a_worker_that_stops_before_it_is_done_loses_requests(traffic, monkeypatch):
    """A control: what the run checks itself, and what the test above would see."""

    def abrupt(self, worker, now, reason, successor):
        self._cluster.workers[worker].lose(now)
        right(self, worker, now, reason, successor)

    right = FleetChanges._drain
    monkeypatch.setattr(FleetChanges, "_drain", abrupt)
    with pytest.raises(RuntimeError, match="the simulator lost some"):
        restless(traffic, "round_robin", ("mixed",) * 2)


def test_a_drain_that_does_not_wait_is_caught(traffic, monkeypatch):
    """A control: workers that count as gone although they have requests stop before these finish."""
    monkeypatch.setattr(FleetChanges, "dispatched", lambda self, sequence: None)
    _, log, _ = restless(traffic, "round_robin", ("mixed",) * 2)
    assert any("but it stopped at" in sentence for sentence in audit(log))
    assert any(
        log.workers[t.decode_worker].stop_s is not None and t.finished_s > log.workers[t.decode_worker].stop_s
        for t in log.timelines
    )
