"""The oracle's forecast: what one request more costs, against arithmetic by hand and whole runs with and without it."""

from copy import deepcopy
from random import Random

import pytest

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.metrics.goodput import meets
from helpers.policies.view import Decision
from helpers.scheduling.limits import Limits
from helpers.scheduling.sequence import Sequence
from helpers.simulator import oracle as oracle_module
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import SlowWorker
from helpers.simulator.oracle import LAST, Marginal, Oracle, choices, endings
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.worker import FastWorker
from helpers.workload.request import Request
from helpers.workload.slo import SLO

# A step takes 1 s and 10 ms for each prompt token in it, however many decode beside.
PLAIN = AffineCost(1.0, 0.01, 0.0, 0.0, 0.0)
TIGHT = Limits(90, 16, 256, 16)
LOOSE = SLO(ttft_s=1e6)


class Spy(Oracle):
    """Notes the costs that the oracle sees at each decision, worked out afresh."""

    def __init__(self, slos, objective="e2e_s"):
        super().__init__(slos, objective)
        object.__setattr__(self, "seen", {})

    def route(self, request, views, now, rng):
        sequence = Sequence(request, LAST, now)
        self.seen[request.id] = choices(views.workers, views.prefill, sequence, now, self.slos)
        return super().route(request, views, now, rng)


def busy_worker():
    """A worker on which request 0 (100 prompt tokens, 5 tokens out) arrived at 0 s, and an idle one."""
    workers = [FastWorker(i, WorkerSpec(Limits(600, 16, 512, 32), PLAIN), []) for i in (0, 1)]
    workers[0].submit(Sequence(Request(0, 0.0, 100, 5), 0, 0.0), 0.0)
    return workers


def test_a_marginal_cost_by_hand():
    """Request 0 prefills 0 … 2 s (1 + 100 x 0.01) and puts out its tokens at 2, 3, 4, 5, 6 s.

    A request of 200 prompt tokens and 3 out comes at 2.5 s. On worker 0 the step in flight ends at 3 s; the next
    takes 1 + 2 = 3 s and ends at 6 s, with its first token; the others follow at 7 and 8 s. Request 0's third token
    comes at 6 s instead of 4 s, its last at 8 s instead of 6 s: own E2E 5.5 s + 2 s of delay, own TTFT 3.5 s, and
    request 0 alone misses an SLO of 7 s E2E. On worker 1 it prefills 2.5 … 5.5 s and ends at 7.5 s.
    """
    new = Sequence(Request(1, 2.5, 200, 3), 1, 2.5)
    found = choices(busy_worker(), (0, 1), new, 2.5, SLO(e2e_s=7.0))
    assert found == {0: Marginal(7.5, 3.5, 1), 1: Marginal(5.0, 3.0, 0)}


def test_a_request_goes_to_the_end_of_the_queue():
    """Two of 100 tokens and one out come at 0 s and share the first step of 200 tokens, 0 … 3 s; then one of 200.

    It prefills 3 … 6 s and delays nobody: 6 s. Put first (number -1, the control), it would prefill 0 … 3 s and the
    two 3 … 6 s: 3 s of its own and 3 s for each of them.
    """
    worker = FastWorker(0, WorkerSpec(Limits(600, 16, 200, 32), PLAIN), [])
    for number in (0, 1):
        worker.submit(Sequence(Request(number, 0.0, 100, 1), number, 0.0), 0.0)
    third = Request(2, 0.0, 200, 1)
    assert choices([worker], (0,), Sequence(third, LAST, 0.0), 0.0, LOOSE)[0] == Marginal(6.0, 6.0, 0)
    assert choices([worker], (0,), Sequence(third, -1, 0.0), 0.0, LOOSE)[0] == Marginal(9.0, 9.0, 0)


@pytest.mark.parametrize("limits", [Limits(600, 16, 512, 32), TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("last", range(20, 60, 8))
def test_a_marginal_cost_is_the_difference_of_two_whole_runs(limits, last, serve, traffic):
    """Nothing comes after request `last`; on one worker, runs with and without it differ by its cost."""
    requests = traffic(rate_per_s=60.0)[: last + 1]
    slo = SLO(ttft_s=1.0, tpot_s=0.05)
    spy = Spy(slo)
    spec = ClusterSpec((WorkerSpec(limits, _cost()),))
    Cluster(spec, [spy]).run(requests)
    with_it = {t.id: t for t in serve(requests, limits=limits, policy=lambda r, v: 0).timelines}
    without = {t.id: t for t in serve(requests[:-1], limits=limits, policy=lambda r, v: 0).timelines}
    mine = with_it.pop(last)
    e2e_s = mine.finished_s - mine.arrival_s + sum(t.finished_s - without[i].finished_s for i, t in with_it.items())
    ttft_s = mine.first_token_s - mine.arrival_s
    ttft_s += sum(t.first_token_s - without[i].first_token_s for i, t in with_it.items())
    missed = sum(not meets(t, slo) for t in (*with_it.values(), mine)) - sum(
        not meets(t, slo) for t in without.values()
    )
    found = spy.seen[last][0]
    assert found == pytest.approx((e2e_s, ttft_s, missed), abs=1e-9)
    assert found.e2e_s != pytest.approx(mine.finished_s - mine.arrival_s, abs=1e-4)  # the control: others change too


def test_preemption_and_caches_were_at_work(serve, traffic):
    """The control of the test above: without them it says little of the copy of a worker."""
    timelines = serve(traffic(rate_per_s=60.0)[:53], limits=TIGHT, policy=lambda r, v: 0).timelines
    assert sum(t.preemptions for t in timelines) > 5 and sum(t.cached_tokens for t in timelines) > 100


def _cost():
    return AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)


def looked_at(requests, look):
    """The timelines of two tight workers in turns, with somebody looking at every decision."""
    spec = ClusterSpec((WorkerSpec(TIGHT, _cost()),) * 2)

    def on_decision(sequence, decision, verdict, now):
        if look:
            look(cluster.workers, sequence, now)

    routers = [Told()]
    cluster = Cluster(spec, routers, on_decision=on_decision)
    return cluster.run(requests).timelines


class Told:
    """Takes workers in turns without looking at them."""

    name, observes = "told", frozenset()

    def route(self, request, views, now, rng):
        return Decision(request.id % 2, request.id % 2)

    def observe(self, event, now):
        raise AssertionError("nothing was asked for")


def test_looking_changes_nothing(traffic):
    requests = traffic(rate_per_s=60.0)
    plain = looked_at(requests, None)
    assert looked_at(requests, lambda workers, s, now: choices(workers, (0, 1), s, now, LOOSE)) == plain
    touched = looked_at(requests, lambda workers, s, now: workers[0].advance(now + 1.0))  # the control
    assert touched != plain


def test_a_fork_ends_as_a_deep_copy_does(traffic):
    """`deepcopy` knows nothing of the fields of a worker, so it forgets none."""
    checked = []

    def look(workers, sequence, now):
        for worker in workers:
            worker.advance(now)
            twin = deepcopy(worker)
            twin.done.clear()
            twin.tell = False
            twin.advance(float("inf"))
            wanted = {s.request.id: (s.first_token_s, s.finished_s, s.preemptions, s.spans) for s in twin.done}
            fork = worker.fork()
            fork.advance(float("inf"))
            assert {s.request.id: (s.first_token_s, s.finished_s, s.preemptions, s.spans) for s in fork.done} == wanted
            checked.append(len(wanted))

    looked_at(traffic(60, rate_per_s=60.0), look)
    assert len(checked) == 120 and max(checked) > 5


@pytest.mark.parametrize("objective", ["e2e_s", "ttft_s", "missed"])
def test_the_oracle_takes_the_least(objective, traffic):
    spy = Spy(SLO(ttft_s=0.5), objective)
    spec = ClusterSpec((WorkerSpec(TIGHT, _cost()),) * 3)
    timelines = Cluster(spec, [spy]).run(traffic(rate_per_s=60.0)).timelines
    column = Marginal._fields.index(objective)
    costs = [[cost[column] for cost in spy.seen[t.id].values()] for t in timelines]
    chosen = [row[t.prefill_worker] for row, t in zip(costs, timelines, strict=True)]
    assert all(cost <= min(row) + 1e-9 for cost, row in zip(chosen, costs, strict=True))
    shuffled = Random(0).sample([t.prefill_worker for t in timelines], len(timelines))  # the control
    assert any(row[w] > min(row) + 1e-9 for row, w in zip(costs, shuffled, strict=True))


@pytest.mark.parametrize("routers", [1, 2])
def test_what_it_remembers_is_what_it_would_find(routers, traffic, monkeypatch):
    """Also when another front end, or a slow phase of a worker, changes what was foreseen."""
    spec = ClusterSpec((WorkerSpec(TIGHT, _cost()),) * 3)
    requests, slow = traffic(100, rate_per_s=60.0), (SlowWorker(1, 0.5, 1.5, 2.0),)

    def placed():
        fleet = [Oracle(SLO(ttft_s=0.5)) for _ in range(routers)]
        return [t.prefill_worker for t in Cluster(spec, fleet, disturbances=slow).run(requests).timelines]

    remembered = placed()
    monkeypatch.setattr(Oracle, "_before", lambda self, worker: endings(worker, self.slos))
    assert placed() == remembered


def test_stale_memory_would_show(traffic, monkeypatch):
    """The control of the test above: an oracle that trusts its memory blindly decides otherwise, or fails."""
    monkeypatch.setattr(FastWorker, "sequences", property(lambda self: []))
    spec = ClusterSpec((WorkerSpec(TIGHT, _cost()),) * 3)
    with pytest.raises(KeyError):
        Cluster(spec, [Oracle(SLO(ttft_s=0.5)) for _ in range(2)]).run(traffic(100, rate_per_s=60.0))


def test_a_request_that_fits_nowhere_costs_without_end():
    worker = busy_worker()[1]
    huge = Sequence(Request(9, 0.0, 20_000, 5), 9, 0.0)
    assert choices([worker], (0,), huge, 0.0, LOOSE)[0] == oracle_module.NOWHERE


def test_a_split_fleet_is_refused():
    worker = FastWorker(0, WorkerSpec(TIGHT, _cost(), "prefill"), [])
    with pytest.raises(InputError, match="fleet of mixed workers"):
        choices([worker], (0,), Sequence(Request(0, 0.0, 10, 2), 0, 0.0), 0.0, LOOSE)


def test_an_unknown_objective_is_refused():
    with pytest.raises(InputError, match="objective is 'luck'"):
        Oracle(LOOSE, "luck")
