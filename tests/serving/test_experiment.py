"""One call for every backend: names, seeds, one's own router, and what is said of a run."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.timeline import token_times
from helpers.policies.admission.queue import QueueCap
from helpers.policies.routing import LeastRequests
from helpers.policies.view import ACCEPT, Decision, Verdict
from helpers.serving.experiment import Experiment, seeds_of
from helpers.serving.fleet import Fleet
from helpers.serving.packs import write_pack
from helpers.simulator.disturbances import LoseWorker
from helpers.workload.generate import generate


@pytest.fixture(scope="module")
def workload():
    return generate("poisson", requests=120, rate_per_s=20.0, blocks=True)


@pytest.fixture(scope="module")
def question(workload):
    return Experiment(workload, Fleet(workers=3), "random")


def outcome(run):
    return run.timelines, [token_times(t, run.step_logs) for t in run.timelines], run.end_s


def test_a_seed_makes_a_run_and_the_same_one_again(question):
    assert outcome(question.run()) == outcome(question.run())
    assert outcome(question.run()) != outcome(replace(question, seed=1).run())  # control: the seed matters
    calm = replace(question, router="round_robin")
    assert outcome(calm.run()) == outcome(replace(calm, seed=1).run())  # nothing else draws


def test_the_slow_reference_gives_the_same_run(question):
    fast, slow = question.run(), question.run(stepwise=True)
    assert [t.prefill_worker for t in fast.timelines] == [t.prefill_worker for t in slow.timelines]
    assert [t.finished_s for t in fast.timelines] == pytest.approx([t.finished_s for t in slow.timelines], abs=1e-9)


class Mine:
    """A learner's own router: everything to the last worker."""

    name, observes = "mine", frozenset()

    def __init__(self, workers):
        self.last = workers - 1

    def route(self, request, views, now, rng):
        return Decision(self.last, self.last)

    def observe(self, event, now):
        raise AssertionError("nothing was asked for")


def test_ones_own_router_is_a_class_or_any_function(workload):
    own = Experiment(workload, Fleet(workers=3), Mine)
    run = own.run()
    assert {t.prefill_worker for t in run.timelines} == {2}
    assert run.provenance.policy["router"] == "Mine"
    function = Experiment(workload, Fleet(workers=3), lambda workers: LeastRequests())
    assert {t.prefill_worker for t in function.run().timelines} == {0, 1, 2}


class Doorman:
    """A learner's own admission policy: told the facts, it lets in one request in four."""

    name = "doorman"

    def __init__(self, facts):
        self.facts, self.asked = facts, 0

    def admit(self, request, views, decision, now, rng):
        self.asked += 1
        return ACCEPT if self.asked % 4 == 1 else Verdict("reject", "not today")


def test_ones_own_admission_is_a_class_or_any_function(workload):
    own = Experiment(workload, Fleet(workers=3), admission=Doorman)
    run = own.run()
    assert sum(t.status == "finished" for t in run.timelines) == 120 / 4
    assert {t.reason for t in run.timelines if t.status == "rejected"} == {"not today"}
    assert run.provenance.policy["admission"] == "Doorman"
    (facts,) = [policy.facts for policy in own.make_admissions()]
    assert (facts.workers, facts.block_tokens, facts.slos) == (3, 512, own.slo) and facts.predictor is not None
    capped = replace(own, admission=lambda facts: QueueCap(facts.workers))
    assert capped.make_admissions() == [QueueCap(3)]


def test_each_front_end_has_an_admission_policy_of_its_own(workload):
    made = []

    def doorman(facts):
        made.append(Doorman(facts))
        return made[-1]

    own = Experiment(workload, Fleet(workers=3), admission=doorman, routers=3)
    made.clear()
    own.run()
    assert [one.asked for one in made] == [40, 40, 40]
    assert own.provenance().policy["admission"] == "doorman"


def test_accepting_everything_asks_nobody(workload):
    assert Experiment(workload, admission="none").make_admissions() == []


def test_parameters_reach_the_policies(workload):
    capped = Experiment(
        workload, Fleet(workers=1, kv_gib=0.2), admission="queue_cap", admission_parameters={"max_waiting": 1}
    )
    assert any(t.status == "rejected" for t in capped.run().timelines)
    assert not any(
        t.status == "rejected" for t in replace(capped, admission="none", admission_parameters={}).run().timelines
    )
    made = replace(capped, router="least_tokens", router_parameters={"kv_weight": 0.5})
    assert made.make_routers()[0].kv_weight == 0.5
    policy = made.provenance().policy
    assert (policy["router.kv_weight"], policy["admission.max_waiting"]) == (0.5, 1)


def test_several_front_ends_share_the_arrivals(workload):
    one = Experiment(workload, Fleet(workers=3), "round_robin")
    two = replace(one, routers=2)
    assert len(two.make_routers()) == 2
    assert [t.prefill_worker for t in two.run().timelines][:6] == [0, 0, 1, 1, 2, 2]
    assert [t.prefill_worker for t in one.run().timelines][:6] == [0, 1, 2, 0, 1, 2]  # control


def test_a_run_says_where_it_came_from(question, workload):
    made = question.run().provenance
    assert (made.kind, made.cost, made.hardware_key, made.seeds) == ("simulated", "predicted", "sim_3x1_h100", (0,))
    assert made.workload_sha256 == workload.sha256
    assert made.fleet["workers"] == 3 and made.versions["python"]
    assert replace(question, disturbances=(LoseWorker(0, 1.0),)).provenance().policy["disturbances"] == [
        "LoseWorker(worker=0, at_s=1.0)"
    ]


def test_explain_keeps_one_decision_a_request(question):
    run = question.run(explain=True)
    assert [d["request"] for d in run.decisions] == [t.id for t in run.timelines]
    assert [d["prefill"] for d in run.decisions] == [t.prefill_worker for t in run.timelines]
    assert {d["action"] for d in run.decisions} == {"accept"}
    assert question.run().decisions == ()


def test_tick_is_called(question):
    seen = []
    question.run(tick=seen.append)
    assert seen[-1] == 120


# -- backends


def test_a_recording_is_read_from_its_pack(question, tmp_path):
    run = question.run()
    path = write_pack(replace(run, provenance=replace(run.provenance, commit="c" * 40)), tmp_path / "a.json.gz")
    again = question.run(on="recording", pack=path)
    assert [t.prefill_worker for t in again.timelines] == [t.prefill_worker for t in run.timelines]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"on": "recording"}, r"a recording needs the file of a pack: run\(on='recording', pack=FILE\)"),
        ({"on": "recording", "pack": "nowhere.json"}, "nowhere.json: there is no such pack"),
        ({"on": "gpu"}, "backend 'gpu' is unknown; use one of simulator, recording, engine"),
    ],
)
def test_a_backend_that_is_not_there_gets_one_sentence(question, arguments, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        question.run(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"router": "fastest"}, "router 'fastest' is unknown; use one of random, round_robin"),
        ({"router": "round_robin", "router_parameters": {"speed": 1}}, "parameter 'speed' is unknown"),
        ({"router": "least_tokens", "router_parameters": {"kv_weight": "much"}}, "kv_weight is 'much'"),
        ({"admission": "polite"}, "admission 'polite' is unknown"),
        ({"admission_parameters": {"max_waiting": 3}}, "admission none: parameter 'max_waiting' is unknown"),
        ({"routers": 0}, "0 routers route nothing; give at least one"),
    ],
)
def test_policies_that_do_not_exist_are_refused_before_anything_runs(question, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(question, **changes)


def test_seeds():
    assert list(seeds_of(5, 3)) == [5, 6, 7]
    for count in (0, -1):
        with pytest.raises(InputError, match=f"{count} seeds make no run; give 1 or more"):
            seeds_of(0, count)
