"""Targets: declared before the run, one change each, workloads that are the same everywhere, and every one runs."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.bench.cells import experiment_of, sample_of
from helpers.bench.order import BASELINE, SLOW, Cell
from helpers.bench.targets import registry
from helpers.bench.targets.registry import PLACES, is_name, load, places
from helpers.bench.targets.routing_static import front
from helpers.bench.targets.target import UNDRAWN, Scenario, Target, changes
from helpers.bench.targets.upset import Upset
from helpers.errors import InputError
from helpers.paths import ROOT
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.simulator.disturbances import LoseWorker, SlowWorker
from helpers.simulator.views import Telemetry
from helpers.workload.generate import generate
from helpers.workload.slo import SLO

EVERY = [load(place) for place in PLACES.values()]
TARGETS = [one for one in EVERY if not one.live]  # what is measured live is run in tests/bench/disagg
EACH = pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)


def draw(seed, requests):
    return generate("poisson", requests=requests, rate_per_s=10.0, seed=seed, exact_rate=True)


# -- what is declared


@EACH
def test_a_target_says_everything_before_it_is_run(target):
    assert target.question.endswith("?") and target.hypothesis.endswith(".")
    assert target.primary.name == "goodput_per_s" and target.primary.better == "higher"
    names = [one.name for one in target.statistics]
    assert len(names) == len(set(names)) and all(one.meaning for one in target.statistics)
    assert set(target.frozen) == {one.name for one in target.scenarios}
    assert any(one.predicted for one in target.scenarios)


def test_losses_are_among_the_predictions():
    """No target asks only where cleverness wins."""
    for target in TARGETS:
        said = {word for one in target.scenarios for word in one.predicted.values()}
        assert {"higher", "lower"} <= said, target.name
    dynamic = load(PLACES["routers:dynamic_routing"])
    assert dynamic.scenario("clever loses: old views").predicted["llm_d"] == "lower"
    assert set(dynamic.scenario("one worker").predicted.values()) == {"no effect"}


def test_two_changes_at_once_are_refused():
    asked = Experiment(UNDRAWN, Fleet(workers=2))
    one = replace(asked, router="random")
    old = replace(asked.fleet, telemetry=Telemetry(0.2))
    two = replace(one, fleet=old)
    assert changes(asked, one) == ["router"] and changes(asked, replace(asked, fleet=old)) == ["fleet.telemetry"]
    assert changes(asked, two) == ["router", "fleet.telemetry"]
    assert changes(asked, replace(asked, router="least_tokens", router_parameters={"kv_weight": 0.2})) == ["router"]
    with pytest.raises(InputError, match=r"variant both changes router and fleet\.telemetry; change one"):
        Scenario("s", "about", draw, asked, {"both": two}, "round_robin")
    with pytest.raises(InputError, match="variant same changes nothing"):
        Scenario("s", "about", draw, asked, {"same": replace(asked, seed=3)}, "round_robin")


def test_a_prediction_of_nothing_is_refused():
    asked = Experiment(UNDRAWN, Fleet(workers=2))
    arms = {"random": replace(asked, router="random")}
    for predicted in ({"randon": "lower"}, {"random": "worse"}):
        with pytest.raises(InputError, match="predict a variant: higher, lower, no effect"):
            Scenario("s", "about", draw, asked, arms, "round_robin", predicted=predicted)


def test_targets_that_cannot_be_run_are_refused():
    good = TARGETS[0]
    for more, says in (
        ({"group": "routing"}, "group 'routing'; use one of routers, disagg"),
        ({"control": "nowhere"}, "the control 'nowhere' among them"),
        ({"scenarios": (*good.scenarios, good.scenarios[0])}, "name each scenario once"),
    ):
        with pytest.raises(InputError, match=says):
            replace(good, **more)
    static = load(PLACES["routers:routing_static"])
    with pytest.raises(InputError, match="the control 'cost, 4 workers' runs no experiment"):
        replace(static, control="cost, 4 workers")
    assert isinstance(good, Target)


# -- names


def test_targets_are_found_by_group_full_name_and_bare_name_each_once():
    routers = [place for name, place in PLACES.items() if name.startswith("routers:")]
    assert places(["routers"]) == routers and len(places(["routers", "disagg"])) == len(PLACES)
    assert places(["early_rejection"]) == places(["routers:early_rejection"]) == [PLACES["routers:early_rejection"]]
    assert places(["early_rejection", "routers"])[0] == PLACES["routers:early_rejection"]
    assert len(places(["early_rejection", "routers"])) == len(routers)
    assert is_name("routers") and is_name("dynamic_routing") and not is_name("dynamic")


def test_names_that_are_none_are_one_sentence(monkeypatch):
    for words, says in (
        (["dynamic_routin"], "target 'dynamic_routin' is unknown; see `hybrid-serving bench list-targets`"),
        (["pipeline"], "group pipeline has no targets yet"),
        ([], "name targets with --targets"),
    ):
        with pytest.raises(InputError, match=says):
            places(words)
    monkeypatch.setitem(registry.PLACES, "moe:early_rejection", "elsewhere:TARGET")
    with pytest.raises(InputError, match="several groups; write one of routers:early_rejection, moe:early"):
        places(["early_rejection"])


# -- workloads


@pytest.mark.parametrize("target", EVERY, ids=lambda one: one.name)
def test_the_workloads_are_those_that_were_written_down(target):
    for scenario in target.scenarios:
        drawn = scenario.workload(0, target.requests)
        assert drawn.sha256.startswith(target.frozen[scenario.name]), scenario.name
        other = replace(drawn.requests[0], prompt_tokens=drawn.requests[0].prompt_tokens + 1)
        changed = replace(drawn, requests=(other, *drawn.requests[1:]))
        assert not changed.sha256.startswith(target.frozen[scenario.name])  # control: one token more is another draw


DIGESTS = """
import json
from helpers.bench.targets.registry import PLACES, load
found = [[one.workload(3, 50).sha256 for one in load(place).scenarios] for place in PLACES.values()]
print(json.dumps(found))
"""


def test_workloads_are_the_same_in_two_processes():
    told = [
        subprocess.run([sys.executable, "-c", DIGESTS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1]
    here = [[one.workload(3, 50).sha256 for one in target.scenarios] for target in EVERY]
    assert json.loads(told[0]) == here
    assert here != [[one.workload(4, 50).sha256 for one in target.scenarios] for target in EVERY]  # control


# -- upsets


def test_upsets_happen_at_their_moment():
    """100 requests at exactly 10 a second: the 41st, at 40 % of them, is where it happens."""
    drawn = draw(0, 100)
    at_s = drawn.requests[40].arrival_s
    step = Upset("step", factor=2.0)
    moved = step.load(drawn)
    assert step.at_s(drawn) == step.at_s(moved) == at_s
    assert moved.requests[40].arrival_s == at_s and moved.requests[20] == drawn.requests[20]
    # From then on each gap is halved: 10 s - at_s becomes half of it.
    assert moved.requests[-1].arrival_s == pytest.approx(at_s + (drawn.requests[-1].arrival_s - at_s) / 2)
    burst = Upset("burst", factor=2.0, lasts=0.1).load(drawn)
    # For 1.0 s twice the requests come, so that the rest is 1.0 s earlier.
    assert burst.requests[-1].arrival_s == pytest.approx(drawn.requests[-1].arrival_s * 0.9, rel=0.02)
    assert Upset("lost worker").load(drawn) is drawn
    assert Upset("lost worker").disturbances(drawn) == (LoseWorker(0, at_s),)
    (slow,) = Upset("slow worker", factor=3.0).disturbances(drawn)
    assert isinstance(slow, SlowWorker) and (slow.at_s, slow.factor) == (at_s, 3.0)
    assert Upset("lost worker").workers_left(4) == [1, 2, 3] and Upset("step").workers_left(2) == [0, 1]


def test_an_upset_that_is_none_is_refused():
    for bad in ({"kind": "earthquake"}, {"kind": "step", "at": 1.0}):
        with pytest.raises(InputError, match="an upset"):
            Upset(**bad)


# -- every target runs


@EACH
def test_every_arm_of_every_scenario_runs_small_and_sound(target):
    for scenario in target.scenarios:
        workload = scenario.workload(1, 40)
        for arm in (BASELINE, *scenario.variants):
            found = sample_of(target, Cell(arm, scenario.name, 1), workload)
            assert not found.breaches, (scenario.name, arm, found.breaches)
            assert found.workload_sha256 == workload.sha256 and len(found.wall_s) == 1
            known = {one.name for one in target.statistics}
            assert set(found.values) <= known
            assert found.values[scenario.primary or target.primary.name] is not None
            assert (found.values.get("oscillation") is not None) == (scenario.upset is not None)


def test_the_planted_slow_arm_is_the_baseline_on_slow_workers():
    scenario = TARGETS[0].scenario("knee")
    slow = experiment_of(scenario, SLOW)
    assert changes(scenario.baseline, slow) == ["disturbances"]
    assert [d.worker for d in slow.disturbances] == [0, 1, 2, 3]
    assert experiment_of(scenario, BASELINE) == scenario.baseline


def test_an_upset_is_felt():
    """Three workers instead of four have more to do each; the run without the loss does not have that."""
    target = load(PLACES["routers:dynamic_routing"])
    lost, calm = (target.scenario(name) for name in ("lost worker, live views", "step, live views"))
    experiment = replace(calm.baseline, slo=SLO(0.5, 0.05))
    drawn = lost.workload(0, 300)
    with_loss = lost.upset.applied(experiment, drawn).run().log
    without = replace(experiment, workload=drawn).run().log
    at_s = lost.upset.at_s(drawn)
    went = [{t.prefill_worker for t in log.timelines if t.dispatched_s > at_s} for log in (with_loss, without)]
    assert went == [{1, 2, 3}, {0, 1, 2, 3}]


# -- the front of costs and qualities


def scenario_record(name, statistic, means):
    arms = [
        {"arm": arm, "values": {statistic: {"mean": mean}}, "samples": {statistic: [mean, 9 * mean, mean, None]}}
        for arm, mean in means.items()
    ]
    return {"name": name, "arms": arms}


def test_the_front_has_whoever_nobody_beats_in_both():
    quality = scenario_record("quality", "goodput_per_s", {"a": 1.0, "b": 2.0, "c": 2.0, "d": 1.5, "e": 3.0})
    cost = scenario_record("cost, 64 workers", "decision_us", {"a": 1.0, "b": 5.0, "c": 6.0, "d": 5.5, "e": 50.0})
    found = front({"scenarios": [quality, cost]})["front"]
    # c is as good as b and dearer; d is dearer than b and worse. One slow seed of three moves no median.
    assert [one["decision_us"] for one in found] == [1.0, 5.0, 5.5, 6.0, 50.0]
    assert [(one["router"], one["on_front"]) for one in found] == [
        ("a", True), ("b", True), ("d", False), ("c", False), ("e", True),
    ]  # fmt: skip
    assert front({"scenarios": [quality]})["front"] == []  # without prices there is none
