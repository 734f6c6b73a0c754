"""Every kind of run keeps the contract of its event log, loses nothing and obeys Little's law."""

from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import MODES, Link
from helpers.metrics.audit import audit
from helpers.metrics.queueing import littles_law, littles_law_decoding
from helpers.policies.admission.queue import QueueCap
from helpers.policies.catalogue import ADMISSIONS, ROUTERS
from helpers.policies.facts import Facts
from helpers.policies.registry import make
from helpers.policies.view import ACCEPT, Decision, Verdict
from helpers.scheduling.limits import Limits
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator import cluster as cluster_module
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.slo import SLO
from helpers.workload.traces import load

MIXED, SPLIT = ("mixed",) * 3, ("prefill", "prefill", "decode", "decode")
TIGHT = Limits(90, 16, 256, 16)
STALE = Telemetry(0.25, 0.05, 0.2)


class Door:
    """Holds every third request once, and rejects every tenth."""

    name, queues = "door", True

    def __init__(self):
        self.held = set()

    def admit(self, request, views, decision, now, rng):
        if request.id % 10 == 9:
            return Verdict("reject", "tenth")
        if request.id % 3 == 2 and request.id not in self.held:
            self.held.add(request.id)
            return Verdict("queue")
        return ACCEPT


def neighbour(request, views):
    """Fetches what it can from the next worker."""
    worker = request.id % 3
    return Decision(worker, worker, (worker + 1) % 3, 96)


ZOO = {
    "mixed": {},
    "one worker": {"roles": ("mixed",)},
    **{f"split, {mode}": {"roles": SPLIT, "link": Link(1e-3, 2e9, mode)} for mode in MODES},
    "split and mixed": {"roles": ("prefill", "decode", "mixed"), "policy": "least_requests"},
    "tight": {"limits": TIGHT},
    "tight split": {"roles": SPLIT, "limits": TIGHT},
    "loss": {"disturbances": (LoseWorker(1, 3.0),)},
    "loss of both halves": {"roles": SPLIT, "disturbances": (LoseWorker(0, 2.0), LoseWorker(3, 3.0))},
    "slow": {"disturbances": (SlowWorker(0, 1.0, 4.0, 3.0),)},
    "stale": {"telemetry": STALE, "policy": "least_tokens"},
    "stale and lost": {"telemetry": STALE, "policy": "power_of_two", "disturbances": (LoseWorker(2, 2.5),)},
    "front ends": {"routers": 3, "policy": "least_requests", "hop_s": 2e-3},
    "closed loop": {"parents": 0.6},
    "closed loop, split": {"parents": 0.6, "roles": SPLIT},
    "fetch": {"policy": neighbour},
    "priorities": {"limits": TIGHT, "priorities": (0, 1, 2)},
    "capped": {"limits": TIGHT, "admission": QueueCap(2), "rate_per_s": 60.0},
    "door": {"admission": Door()},
    **{f"router {name}": {"policy": name} for name in ROUTERS},
    **{
        f"router {name}, split and lost": {
            "policy": name,
            "roles": SPLIT,
            "disturbances": (LoseWorker(0, 2.0), LoseWorker(3, 3.0)),
        }
        for name in ROUTERS
    },
}
SHAPE = ("parents", "priorities", "rate_per_s")


def run(name, serve, traffic):
    options = dict(ZOO[name])
    requests = traffic(**{k: options.pop(k) for k in SHAPE if k in options})
    return requests, serve(requests, **{"roles": MIXED, **options})


def check_sound(requests, log):
    assert audit(log) == []
    assert [t.id for t in log.timelines] == sorted(r.id for r in requests)
    for t, r in zip(log.timelines, sorted(requests, key=lambda r: r.id), strict=True):
        assert t.status in ("finished", "rejected")
        assert t.status == "rejected" or t.generated_tokens == r.output_tokens
        assert t.status == "finished" or t.reason
    whole, decoding = littles_law(log), littles_law_decoding(log)
    assert whole.missing == 0 and whole.holds, whole
    assert decoding.holds and decoding.in_system > 0, decoding


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_run_is_sound(name, serve, traffic):
    requests, log = run(name, serve, traffic)
    check_sound(requests, log)
    if ZOO[name].get("admission") is None:
        assert all(t.status == "finished" for t in log.timelines)


COST = AffineCost(5.1e-3, 3.03e-5, 3.3e-10, 2.01e-5, 4.4e-8)
TOLD = Facts(3, 16, 256, 90, CostPredictor(COST, 256, Link(1e-3, 2e10), 131_072.0), SLO(ttft_s=0.3, tpot_s=0.02))
# So tight that each turns away or holds some of the requests.
STRICT = {"queue_cap": {"max_waiting": 1}, "probabilistic": {"sheddable_above": -1}, "router_queue": {"threshold": 0.5}}


@pytest.mark.parametrize("roles", [MIXED, SPLIT], ids=["mixed", "split"])
@pytest.mark.parametrize("name", [name for name in ADMISSIONS if name != "none"])
def test_a_run_with_any_admission_is_sound(name, roles, serve, traffic):
    requests = traffic(rate_per_s=60.0)
    said = []
    note = lambda sequence, decision, verdict, now: said.append(verdict.action)  # noqa: E731
    policy = make("admission", name, TOLD, **STRICT.get(name, {}))
    log = serve(requests, roles, limits=TIGHT, cost=COST, admission=policy, on_decision=note)
    check_sound(requests, log)
    late = any("after the prefill" in t.reason for t in log.timelines)
    assert {"reject", "queue"} & set(said) or late, "the case asks nothing of the policy"


def test_the_zoo_has_every_feature(serve, traffic):
    """A control of the zoo: what a case is named for does happen in it."""
    logs = {name: run(name, serve, traffic)[1].timelines for name in ZOO if not name.startswith("router")}
    assert sum(t.preemptions for t in logs["tight"]) > 5 and sum(t.preemptions for t in logs["tight split"]) > 5
    assert sum(t.requeues for t in logs["loss"]) > 0 and sum(t.requeues for t in logs["loss of both halves"]) > 0
    assert sum(t.fetched_tokens for t in logs["fetch"]) > 0 == sum(t.fetched_tokens for t in logs["mixed"])
    assert all(t.transfer_end_s for t in logs["split, batched"] if t.output_tokens > 1)
    for name in ("capped", "door"):
        assert 0 < sum(t.status == "rejected" for t in logs[name]) < 100
    assert sum(t.cached_tokens for t in logs["mixed"]) > 0


def lose_a_span(sequence):
    made = right(sequence)
    return replace(made, spans=made.spans[:-1]) if made.id == 7 else made


def finish_early(sequence):
    made = right(sequence)
    return replace(made, finished_s=made.finished_s - 1e-4) if made.id == 7 else made


def drop_a_token(sequence):
    made = right(sequence)
    return replace(made, prefilled_tokens=made.prefilled_tokens - 1) if made.id == 7 else made


right = cluster_module.timeline_of


@pytest.mark.parametrize("wrong", [lose_a_span, finish_early, drop_a_token])
def test_a_wrong_record_is_caught(wrong, serve, traffic, monkeypatch):
    monkeypatch.setattr(cluster_module, "timeline_of", wrong)
    requests, log = run("mixed", serve, traffic)
    with pytest.raises(AssertionError):
        check_sound(requests, log)


def test_littles_law_notices_a_span_too_few(serve, traffic, monkeypatch):
    monkeypatch.setattr(cluster_module, "timeline_of", lose_a_span)
    assert not littles_law_decoding(run("mixed", serve, traffic)[1]).holds


@pytest.mark.parametrize(
    "fleet", [Fleet(), Fleet(split="2P2D"), Fleet(kv_gib=6.0), Fleet("llama-3.1-70b", "h200", tp=4)]
)
def test_predicted_step_times_give_sound_runs_too(fleet):
    workload = generate("conversation", requests=300, rate_per_s=6.0, seed=2)
    for router in ("round_robin", "prefix_exact"):
        log = Experiment(workload, fleet, router).run().log
        check_sound(workload.requests, log)


@pytest.mark.parametrize("router", ["round_robin", "prefix_exact"])
def test_the_real_hour_is_served_whole(router, traces_dir):
    workload, _ = load(traces_dir / "mooncake_conversation.jsonl.gz")
    log = Experiment(workload, Fleet(workers=4), router).run().log
    check_sound(workload.requests, log)
    assert sum(t.status == "finished" for t in log.timelines) == 12_031
    assert sum(t.generated_tokens for t in log.timelines) == sum(r.output_tokens for r in workload)
