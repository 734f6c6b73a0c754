"""A scaler in an experiment: by name or one's own, told the facts, with a start-up that is counted out."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.policies.catalogue import SCALERS
from helpers.policies.view import Plan
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate

WORKLOAD = generate("poisson", requests=400, rate_per_s=8.0, seed=1, block_tokens=64)
QUESTION = Experiment(WORKLOAD, Fleet(workers=2))


class Grow:
    """One's own: always one more."""

    name, observes, period_s = "grow", frozenset(), 10.0

    def __init__(self, facts):
        self.facts = facts

    def scale(self, views, now):
        return Plan({"mixed": len(views.prefill) + 1}, "more")

    def observe(self, event, now):
        """Nothing."""


def test_fixed_is_no_scaler_until_it_is_told_a_size():
    assert QUESTION.make_scaler() is None
    plain = QUESTION.run()
    assert plain.fleet_changes == () and plain.log.counts == {} and len(plain.workers) == 2
    assert plain.provenance.policy["scaler"] == "fixed" and "startup_s" not in plain.provenance.policy
    sized = replace(QUESTION, scaler_parameters={"mixed": 3}, startup_s=1.0)
    assert len(sized.run().workers) == 3


def test_a_scaler_of_ones_own_is_told_the_facts():
    run = replace(QUESTION, scaler=Grow, startup_s=1.0).run()
    assert len(run.workers) > 4 and run.provenance.policy["scaler"] == "Grow"
    assert [(c["action"], c["worker"], c["reason"]) for c in run.fleet_changes[:2]] == [
        ("start", 2, "more"),
        ("start", 3, "more"),
    ]
    made = replace(QUESTION, scaler=Grow).make_scaler()
    assert (made.facts.workers, made.facts.block_tokens) == (2, 64)


def test_the_start_up_is_the_engine_and_the_weights():
    """16.06 GB of Llama-3.1-8B over 7 GB/s and 58 s; the run says so, and so does a start-up of one's own."""
    assert Fleet().startup_s() == pytest.approx(58.0 + 16.06e9 / 7e9, abs=0.01)
    assert Fleet("llama-3.1-70b", "h100", tp=4).startup_s() == pytest.approx(58.0 + 141.1e9 / 7e9, abs=0.05)
    grow = replace(QUESTION, scaler=Grow)
    started = next(w for w in grow.run().workers if w.start_s)
    assert started.start_s == 10.0 and started.ready_s is None  # the requests come in 50 s: it is too late for them
    assert grow.provenance().policy["startup_s"] == pytest.approx(60.29, abs=0.01)
    assert replace(grow, startup_s=3.0).provenance().policy["startup_s"] == 3.0
    ready = next(w for w in replace(grow, startup_s=3.0).run().workers if w.start_s)
    assert ready.ready_s == 13.0


@pytest.mark.parametrize("split", [None, "2P2D"])
@pytest.mark.parametrize("name", SCALERS)
def test_every_scaler_runs_on_every_fleet(name, split):
    """Small bounds and short looks, so that something happens."""
    given = {
        "fixed": {"mixed": 3} if split is None else {"mixed": 0, "prefill": 2, "decode": 3},
        "thresholds": {"prefill_min": 1, "decode_min": 1, "cooldown_s": 5.0, "period_s": 2.0},
        "sla_planner": {"period_s": 2.0, "throughput_s": 10.0},
        "roles": {"period_s": 2.0, "dwell_s": 0.0, "hysteresis": 0.0, "itl_s": 0.008},
    }[name]
    question = Experiment(
        WORKLOAD, Fleet(workers=4, split=split), "prefix_exact", scaler=name, scaler_parameters=given, startup_s=2.0
    )
    fast, slow = question.run(), question.run(stepwise=True)
    assert audit(fast.log) == [] and all(t.status == "finished" for t in fast.timelines)
    assert fast.fleet_changes or (name == "roles" and split is None)
    assert [(c["action"], c["worker"]) for c in fast.fleet_changes] == [
        (c["action"], c["worker"]) for c in slow.fleet_changes
    ]
    assert [t.finished_s for t in fast.timelines] == pytest.approx([t.finished_s for t in slow.timelines], abs=1e-6)
    assert fast.provenance.policy["scaler"] == name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scaler": "planner"}, "scaler 'planner' is unknown; use one of fixed, thresholds, sla_planner, roles"),
        ({"scaler": "roles", "scaler_parameters": {"dwell": 1}}, "scaler roles: parameter 'dwell' is unknown"),
        ({"scaler_parameters": {"mixed": 0}}, "scaler fixed: no worker takes whole requests"),
    ],
)
def test_a_scaler_that_cannot_be_is_refused_at_once(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(QUESTION, **change)
