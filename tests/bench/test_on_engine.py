"""`bench run --on engine`: every live arm beside the simulator, clear refusals, and what an interrupt leaves."""

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from helpers.bench.fidelity import recorder
from helpers.bench.fidelity.arms import ARMS, arms_of, run_live
from helpers.bench.fidelity.calibrating import Learned
from helpers.bench.fidelity.compared import MISSED
from helpers.bench.fidelity.terms import times
from helpers.bench.targets import commands, on_engine
from helpers.bench.targets.registry import PLACES, load
from helpers.errors import InputError
from tests.bench.conftest import TERMS

ROUTERS = tuple(name for name in PLACES if name.startswith("routers:"))
SMALL = ("--on", "engine", "--requests", "40", "--iterations", "2")


@pytest.fixture
def run():
    app = typer.Typer()
    app.command("run")(commands.run)
    app.command("other")(lambda: None)  # a single command would need no name
    return lambda *words: CliRunner().invoke(app, ["run", *words])


def test_every_target_of_the_routers_has_live_arms_on_the_same_requests_and_the_others_say_that_they_have_none():
    assert set(ARMS) == set(ROUTERS)
    for name in ROUTERS:
        arms = arms_of(load(PLACES[name]))
        assert len({one.frozen(20).sha256 for one in arms}) == 1 and {one.workers for one in arms} == {2}
    with pytest.raises(InputError, match="cannot be timed on live workers"):
        arms_of(replace(load(PLACES[ROUTERS[0]]), name="none"))


def test_every_arm_of_every_target_is_shown_live_beside_the_simulator(run, pretended, tmp_path):
    kept = tmp_path / "t.json"
    result = run("--targets", "routers", *SMALL, "--json", str(kept))
    assert result.exit_code == 0, result.output
    said = [text for text in result.output.splitlines() if text.startswith("# two live workers")]
    assert len(said) == len(ROUTERS) and all("the simulator has them" in text for text in said)
    line, whole = json.loads(result.output.splitlines()[-1]), json.loads(kept.read_text())
    assert line["complete"] and line["sound"] and line["kind"] == "measured beside simulated"
    assert [one["target"] for one in line["targets"]] == list(ROUTERS)
    for one, name in zip(whole["targets"], ROUTERS, strict=True):
        assert [row["name"] for row in one["held_out"]] == [arm.name for arm in ARMS[name]]
        assert (one["baseline"], one["repeats"]) == (ARMS[name][0].name, 2)
        figures = {figure["name"] for figure in one["held_out"][1]["figures"]}
        assert {"rejected", "attainment", "TTFT mean", "TPOT mean", "throughput"} <= figures
        assert one["hardware_key"] == whole["hardware_key"] and one["commit"] == whole["commit"]


def test_a_record_says_what_the_simulator_is_without_a_term(pretended):
    """`pretended` workers report between their steps: the simulator is right about the shortest queue, and without
    reports it is not. Control: taking turns, drawing lots and hashing look at no views, and steps are equal here."""
    found = run_live(load(PLACES["routers:routing_static"]), "here", repeats=2, most=300)
    told = {one["name"]: one for one in found["held_out"]}
    errors = {name: one["errors_without"] for name, one in told.items()}
    shortest = told["least_requests"]["figures"][0]
    (term, off) = errors.pop("least_requests").popitem()
    assert (term, shortest["name"]) == (recorder.REPORTS, "TTFT mean") and off["TTFT mean"] < shortest["error"] - 0.03
    assert errors == {"round_robin": {}, "random": {}, "static_shard": {}}


def test_a_record_says_what_comes_of_steps_learnt_at_less_load(pretended, monkeypatch):
    """The cost at less load is a tenth too high: left to it, TTFT past what is sustained is far too long."""
    high = replace(TERMS, cost=times(TERMS.cost, 1.1))
    learned = Learned(50.0, {"2": high, "2, full": TERMS})
    monkeypatch.setattr(recorder, "learn", lambda rate, runs: learned)
    found = run_live(load(PLACES["routers:early_rejection"]), "here", repeats=2, most=300)
    none = found["held_out"][0]
    assert abs(none["figures"][0]["error"]) < 0.05
    assert none["errors_without"][recorder.LARGE_STEPS]["TTFT mean"] > 0.1


def test_control_workers_that_are_slower_than_was_said_are_missed(pretended):
    pretended(1.3)
    found = run_live(load(PLACES["routers:routing_static"]), "here", repeats=2, most=40)
    tpot = [figure for one in found["held_out"] for figure in one["figures"] if figure["name"] == "TPOT mean"]
    assert {figure["verdict"] for figure in tpot} == {MISSED} and max(figure["error"] for figure in tpot) < -0.1


def test_ticks_count_every_run_and_the_order_has_a_seed(pretended):
    """One burst; then twice: four arms, and the slice that is learnt from."""
    ticks, target = [], load(PLACES["routers:routing_static"])
    first = run_live(target, "here", repeats=2, most=40, tick=ticks.append)
    other = run_live(target, "here", repeats=2, most=40, order_seed=1)
    assert ticks[-1] == 1 + 2 * (4 + 1)
    assert sorted(first["order"]) == sorted(other["order"]) and first["order"] != other["order"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--on", "gpu"), "no backend 'gpu'"),
        (("--on", "engine", "--trace"), "no --trace"),
        (("--on", "engine", "--seeds", "0", "--jobs", "2"), "no --jobs, --seeds"),
        (("--on", "engine", "--nproc", "2"), "no --nproc"),
        (("inference_full", "--on", "engine"), "is measured live anyway"),
        (("--on", "engine", "--json", "no/such/folder/file.json"), "nothing can be written there"),
    ],
)
def test_what_has_no_meaning_live_is_refused_before_anything_is_served(run, pretended, monkeypatch, words, said):
    monkeypatch.setattr(recorder, "workers_for", None)
    error = run("--targets", "routing_static", *words).exception
    assert isinstance(error, InputError) and said in str(error)


def test_a_machine_with_one_core_is_told_so_before_anything_is_served(run, monkeypatch):
    monkeypatch.setattr("helpers.bench.fidelity.plan.cores", lambda: 1)
    error = run("--targets", "routers", *SMALL).exception
    assert isinstance(error, InputError) and "cannot be timed on 1 cores" in str(error)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_runs_are_refused_and_not_replaced(run, count):
    error = run("--targets", "routing_static", "--on", "engine", "--iterations", str(count)).exception
    assert isinstance(error, InputError) and "no spread" in str(error)
    assert [on_engine.Asked(given, 0, None, None).repeats for given in (None, 2, 7)] == [on_engine.REPEATS, 2, 7]


def test_an_unsound_run_exits_with_1(run, pretended, monkeypatch):
    monkeypatch.setattr(recorder, "breaches", lambda *_: ("a request never left",))
    assert run("--targets", "routing_static", *SMALL).exit_code == 1


def test_an_interrupt_leaves_the_targets_that_came_to_their_end(run, pretended, monkeypatch, tmp_path):
    kept, real = tmp_path / "t.json", on_engine.run_live

    def interrupted(target, *more):
        if target.name == "early_rejection":
            raise KeyboardInterrupt
        return real(target, *more)

    monkeypatch.setattr(on_engine, "run_live", interrupted)
    assert run("--targets", "routers", *SMALL, "--json", str(kept)).exit_code != 0
    left = json.loads(kept.read_text())
    assert not left["complete"] and [one["target"] for one in left["targets"]] == ["routers:dynamic_routing"]


def test_few_requests_shorten_the_arms_and_never_what_is_learnt_from(pretended, monkeypatch):
    served, live = {}, recorder.Bench.live

    def counted(bench, one, workload, terms=None):
        served[one.name] = len(workload)
        return live(bench, one, workload, terms)

    monkeypatch.setattr(recorder.Bench, "live", counted)
    run_live(load(PLACES["routers:routing_static"]), "here", repeats=2, most=40)
    assert served == {"burst": 240, "steps of two": 900} | {one.name: 40 for one in ARMS["routers:routing_static"]}
