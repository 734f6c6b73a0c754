"""Admission policies at work in a simulated fleet: what each is for does happen."""

from dataclasses import replace
from statistics import fmean

import pytest

from helpers.metrics.latency import ttft_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO


def poisson(count, rate_per_s, prompt="2000", output="50", seed=0):
    return generate(
        "poisson", requests=count, rate_per_s=rate_per_s, seed=seed, prompt_tokens=prompt, output_tokens=output
    )


def run(workload, admission="none", fleet=None, slo=None, **parameters):
    fleet, slo = fleet or Fleet(workers=1), slo or SLO(ttft_s=2.0, tpot_s=0.05)
    return Experiment(workload, fleet, admission=admission, slo=slo, admission_parameters=parameters).run()


def mean_ttft_s(timelines):
    return fmean(ttft_s(t) for t in timelines if t.status == "finished")


# -- fair


@pytest.fixture(scope="module")
def two_tenants():
    """Ann sends ten times as much as Bob; together it is half as much again as one worker can do."""
    ann, bob = poisson(400, 20.0, seed=1), poisson(40, 2.0, seed=2)
    both = [replace(r, tenant="ann") for r in ann] + [replace(r, tenant="bob", id=r.id + 1000) for r in bob]
    return Workload("tenants", tuple(sorted(both, key=lambda r: r.arrival_s)))


def by_tenant(run):
    return {name: [t for t in run.timelines if t.tenant == name] for name in ("ann", "bob")}


def test_a_quiet_tenant_does_not_wait_behind_a_loud_one(two_tenants):
    first_come, fair = (by_tenant(run(two_tenants, name)) for name in ("none", "fair"))
    assert mean_ttft_s(fair["bob"]) < 0.2 * mean_ttft_s(first_come["bob"])
    assert mean_ttft_s(fair["ann"]) < 1.2 * mean_ttft_s(first_come["ann"])
    assert {t.status for found in fair.values() for t in found} == {"finished"}


def test_fairness_needs_a_short_queue_at_the_worker(two_tenants):
    """Control: what has been sent cannot be reordered, so that with a wide gate nothing is gained."""
    wide, first_come = (
        by_tenant(run(two_tenants, name, **parameters))
        for name, parameters in (("fair", {"prompt_steps": 1000.0}), ("none", {}))
    )
    assert wide["bob"] == first_come["bob"]


# -- router_queue


@pytest.fixture(scope="module")
def mixed_lengths():
    """Short and long prompts in a burst that one worker takes some time to get through."""
    return poisson(150, 30.0, prompt="lognormal:2000:1.0")


def test_shortest_first_is_kind_to_the_mean_and_last_first_to_nobody(mixed_lengths):
    found = {
        order: run(mixed_lengths, "router_queue", threshold=1.0, order=order).timelines
        for order in ("fcfs", "lcfs", "wspt")
    }
    means = {order: mean_ttft_s(timelines) for order, timelines in found.items()}
    worst = {order: max(ttft_s(t) for t in timelines) for order, timelines in found.items()}
    assert means["wspt"] < 0.75 * means["fcfs"]
    assert worst["fcfs"] < worst["wspt"] and worst["fcfs"] < worst["lcfs"]
    assert all(t.status == "finished" for timelines in found.values() for t in timelines)


def test_a_gate_that_is_never_closed_changes_nothing(mixed_lengths):
    assert run(mixed_lengths, "router_queue", threshold=1e6).timelines == run(mixed_lengths).timelines


# -- estimates


SLOS = {"patient": SLO(ttft_s=10.0), "quick": SLO(ttft_s=1.0)}


@pytest.fixture(scope="module")
def after_a_burst():
    """A burst of 40 patient prompts, then a quick one a second, each of which an idle worker answers in 0.06 s."""
    burst, quiet = poisson(40, 200.0), poisson(60, 1.0, seed=3)
    first = [replace(r, slo_class="patient") for r in burst]
    later = [replace(r, id=r.id + 1000, arrival_s=r.arrival_s + 10.0, slo_class="quick") for r in quiet]
    return Workload("after a burst", (*first, *later))


def late_share(run):
    """The share of the requests that came after the burst and were served."""
    return fmean(t.status == "finished" for t in run.timelines if t.id >= 1000)


def test_the_self_exciting_estimate_turns_everybody_away_from_an_idle_fleet(after_a_burst):
    assert late_share(run(after_a_burst, "self_exciting", slo=SLOS)) == 0.0
    for name in ("measured_slo", "predicted_slo", "token_cap"):
        assert late_share(run(after_a_burst, name, slo=SLOS)) == 1.0


def test_it_is_the_queue_that_excites_it(after_a_burst):
    """Control: the same 40 prompts, one a second."""
    calm = [replace(r, arrival_s=r.arrival_s * 200.0) for r in after_a_burst if r.id < 1000]
    later = [replace(r, arrival_s=r.arrival_s + 60.0) for r in after_a_burst if r.id >= 1000]
    assert late_share(run(Workload("calm", (*calm, *later)), "self_exciting", slo=SLOS)) == 1.0


def test_measured_service_is_that_of_the_fleet(after_a_burst):
    """What is measured without knowing the cost agrees with the cost to a tenth, queue or no queue."""
    experiment = Experiment(after_a_burst, Fleet(workers=1), admission="measured_slo", slo=SLOS)
    cluster = experiment.cluster()
    cluster.run(after_a_burst.requests)
    measured = cluster.front._gates[0].admission.estimate.per_token_s
    predicted = Fleet(workers=1).predictor().prefill_s(2000) / 2000
    assert measured == pytest.approx(predicted, rel=0.1)


# -- tiers


def test_the_upper_tiers_get_in_when_the_lower_do_not():
    drawn = poisson(300, 40.0, output="200")
    tiers = replace(drawn, requests=tuple(replace(r, priority=r.id % 3) for r in drawn))
    found = run(tiers, "priority_tiers", reserve=0.3, capacity_tokens=60_000).timelines
    served = [fmean(t.status == "finished" for t in found if t.priority == p) for p in range(3)]
    assert served[0] > served[1] > served[2]
    alike = run(tiers, "priority_tiers", reserve=0.0, capacity_tokens=60_000).timelines
    spread = [fmean(t.status == "finished" for t in alike if t.priority == p) for p in range(3)]
    assert max(spread) - min(spread) < 0.1 < served[0] - served[2]


def test_no_tier_ever_fills_more_than_its_share():
    """Tokens in flight just after each dispatch, from the log: at most 24,000 for the lowest of three tiers."""
    drawn = poisson(300, 40.0, output="200")
    tiers = replace(drawn, requests=tuple(replace(r, priority=r.id % 3) for r in drawn))
    found = [t for t in run(tiers, "priority_tiers", reserve=0.3, capacity_tokens=60_000).timelines if t.finished_s]
    most = [0, 0, 0]
    for t in found:
        inside = sum(o.dispatched_s <= t.dispatched_s < o.finished_s for o in found)
        most[t.priority] = max(most[t.priority], inside * 2200)
    assert most[0] <= 60_000 and most[1] <= 42_000 and most[2] <= 24_000
    assert most[0] > 42_000 and most[1] > 24_000  # and the reserve is used


def test_a_deadline_is_met_or_refused():
    """On a split fleet, where no prefill slows a decode down; others that come later do, by a few hundredths."""
    drawn, fleet = poisson(400, 30.0, output="100"), Fleet(workers=2, split="1P1D")
    hurried = replace(drawn, requests=tuple(replace(r, deadline_s=3.0) for r in drawn))
    kept, let_go = (
        [t.finished_s - t.arrival_s for t in run(hurried, name, fleet).timelines if t.status == "finished"]
        for name in ("priority_tiers", "none")
    )
    assert sum(e2e_s > 3.0 for e2e_s in let_go) > 100
    assert max(kept) < 1.05 * 3.0 and len(kept) > 200


# -- prediction


def test_what_predicted_slo_lets_in_meets_its_ttft():
    late = SLO(ttft_s=1.0)
    drawn = poisson(300, 25.0)
    accepted = [t for t in run(drawn, "predicted_slo", slo=late).timelines if t.status == "finished"]
    everybody = run(drawn, slo=late).timelines
    assert sum(ttft_s(t) > 1.0 for t in everybody) > 150
    assert sum(ttft_s(t) > 1.0 for t in accepted) < 0.02 * len(accepted) and len(accepted) > 100
