"""The parts that serve on live workers, with a simulator of known cost in place of the workers."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.fidelity import gpus, plan
from helpers.bench.fidelity import recorder as fidelity_recorder
from helpers.bench.fidelity.calibrating import Learned
from helpers.bench.fidelity.checking import as_written
from helpers.bench.fidelity.plan import experiment
from helpers.bench.fidelity.setting import LENGTHS
from helpers.bench.fidelity.terms import MODE, Terms, times
from helpers.bench.record import fidelity, live, routing
from helpers.bench.record.files import PartReport, complete, read_record
from helpers.bench.record.parts import PARTS, Session
from helpers.bench.record.recorder import head_of, key_of, path_of
from helpers.checkout import TOLD
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.latency import distribution, ttft_s
from helpers.scheduling.limits import Limits
from helpers.serving.cluster_backend import ClusterRun
from helpers.serving.packs import read_pack

LIMITS = Limits(64, 64, 512, 16)
COST = AffineCost(3e-3, 1e-4, 0.0, 3e-4, 1e-6)
TERMS = Terms(COST, 3e-4, Link(1e-3, 5e10, MODE), {"steps": 1}, {"decode": 0.0})


def step_of(seconds, decodes, prefilled):
    """A sample for a row of a step log."""
    return StepSample(((prefilled, 0),) if prefilled else (), decodes, 100 * decodes, seconds)


class Workers:
    """What stands in for live workers: their pace, and every slice that they served."""

    def __init__(self):
        self.pace, self.noise, self.served, self.now_s, self.takes_s = 1.0, 0.0, [], 0.0, 0.0

    def live(self, bench, one, workload, terms=None):
        self.served.append(one)
        self.now_s += self.takes_s
        factor = self.pace * (1 + self.noise * (len(self.served) % 3 - 1))
        run = experiment(one, workload, LIMITS, replace(TERMS, cost=times(COST, factor))).run()
        samples = tuple(tuple(map(step_of, r.base_s, r.decoding, r.prefilled)) for r in run.log.step_logs)
        return ClusterRun(run.log, run.provenance, run.wall_s, worker_samples=samples, lateness_s=(0.0,))


@pytest.fixture
def workers(monkeypatch):
    found = Workers()
    monkeypatch.setattr(fidelity_recorder.Bench, "live", lambda *words: found.live(*words))
    monkeypatch.setattr(live, "workers_for", lambda *_: nullcontext(SimpleNamespace(limits=LIMITS, startup_s=1.5)))
    monkeypatch.setattr(live, "cores", lambda: 2)
    monkeypatch.setattr(routing, "terms_of", lambda runs, ahead: replace(TERMS, link=None))
    monkeypatch.setattr(fidelity, "learn", lambda rate, *_: Learned(rate, dict.fromkeys(("1", "2", "1P1D"), TERMS)))
    monkeypatch.setitem(routing.SIZES, "cpu", replace(routing.SIZES["cpu"], burst=40, training=30, requests=40))
    monkeypatch.setitem(fidelity.ASKED, "cpu", replace(fidelity.ASKED["cpu"], most=40))
    monkeypatch.setenv(TOLD, "a" * 40)
    return found


@pytest.fixture
def session(tmp_path):
    return Session("tiny", "cpu", (), tmp_path, "hybrid-serving record")


def report_of(session, part, **how):
    head = {**head_of("hybrid-serving record", "tiny", "cpu", ()), "part": part}
    return PartReport(path_of(session.folder, "tiny", part), 300.0, head, **how)


# -- routing


def test_routers_get_the_same_requests_in_an_order_of_their_own(workers, session):
    report = report_of(session, "routing")
    routing.routing(session, report)
    found = read_record(report.path)["parts"]
    assert tuple(found) == routing.sections(session)
    assert all(complete(section) for section in found.values()), found
    seeds = [found[routing.seed_section(seed)]["points"] for seed in routing.SEEDS]
    for points in seeds:
        assert {(p["load"], p["router"]) for p in points} == {(a, b) for a in routing.LOADS for b in routing.ROUTERS}
        by_load = [{p["sha256"] for p in points if p["load"] == load} for load in routing.LOADS]
        assert [len(one) for one in by_load] == [1, 1] and by_load[0] != by_load[1]
    assert len({p["sha256"] for points in seeds for p in points}) == len(routing.LOADS) * len(routing.SEEDS)
    assert len({tuple(p["name"] for p in points) for points in seeds}) == len(routing.SEEDS)


def test_live_runs_are_packs_without_steps_that_say_where_they_are_from(workers, session):
    report = report_of(session, "routing")
    report.head["hardware_key"] = "2x_some"
    routing.routing(session, report)
    point = report.parts["seed 40"]["points"][0]
    run = read_pack(session.folder / point["pack"])
    assert (run.provenance.hardware_key, run.provenance.command) == ("2x_some", "hybrid-serving record")
    assert run.provenance.workload_sha256 == point["sha256"] and run.provenance.policy["router"] == point["router"]
    assert len(run.timelines) == 40 and not run.step_logs
    assert len(list(session.folder.glob("route_tiny_*.json.gz"))) == 24


def test_a_simulator_that_is_right_has_no_error_and_ranks_alike(workers, session):
    report = report_of(session, "routing")
    routing.routing(session, report)
    points = {p["name"]: p for p in report.parts["routers"]["points"]}
    errors = {name: p["errors"]["served"] for name, p in points.items() if "errors" in p}
    assert len(errors) == len(routing.LOADS) * len(routing.ROUTERS) * len(routing.FIGURES)
    assert set(errors.values()) == {0.0}
    orders = [p for name, p in points.items() if name.startswith("order")]
    assert len(orders) == 2 * len(routing.RANKED) and {p["value"] for p in orders} == {1.0}
    cached = points["prefix_exact at 0.7: cached"]["value"]
    assert 1 > cached > points["round_robin at 0.7: cached"]["value"] > 0  # it does matter who is sent where


def test_control_workers_that_are_slower_than_was_said_have_an_error(workers, session):
    report = report_of(session, "routing")
    workers.pace = 1.3
    routing.routing(session, report)
    points = {p["name"]: p for p in report.parts["routers"]["points"]}
    tpot = [p["errors"]["served"] for name, p in points.items() if name.endswith("TPOT mean") and "errors" in p]
    assert len(tpot) == 8 and max(tpot) < -0.1


def test_only_the_seeds_that_are_missing_are_served_again(workers, session):
    report = report_of(session, "routing")
    routing.routing(session, report)
    earlier = read_record(report.path)["parts"]
    before = earlier["routers"]["points"]
    del earlier["seed 41"]["points"][3]
    workers.served.clear()
    workers.pace = 2.0
    again = report_of(session, "routing", earlier=earlier)
    routing.routing(session, again)
    served = [one.name for one in workers.served]
    assert {one.seed for one in workers.served if one.name != "first use"} == {41}, served
    assert len(served) == 1 + 8
    found = read_record(again.path)["parts"]
    assert found["routers"]["points"] != before  # it is of the new seed too
    assert all(complete(section) for section in found.values())


def test_a_run_that_lost_a_request_fails_its_seed(workers, session, monkeypatch):
    monkeypatch.setattr(routing, "breaches", lambda log, *_: ("1 requests never left, the first is 3",))
    report = report_of(session, "routing")
    routing.routing(session, report)
    assert report.parts["seed 40"]["points"][0]["failed"].startswith("1 requests never left")
    assert not complete(report.parts["seed 40"])


def test_what_is_compared_by_hand():
    """Live a: 1 and 3 s, mean 2; said 2 and 4, mean 3: 50 % too long, by seed 100 % and 33 %. b: 4 s, said 2.5."""
    live = {"a": [times_of(1.0, 0.5), times_of(3.0, 0.5)], "b": [times_of(4.0, 0.5)] * 2}
    said = {"a": [times_of(2.0, 0.75), times_of(4.0, 0.75)], "b": [times_of(2.0, 0.25), times_of(3.0, 0.25)]}
    ttft, cached = routing._over_seeds("a", live["a"], said["a"])
    assert (ttft["value"], ttft["predicted"], ttft["errors"]) == (2.0, {"served": 3.0}, {"served": 0.5})
    assert ttft["errors_by_seed"] == pytest.approx([1.0, 1 / 3])
    assert cached["errors"]["served"] == 0.25 and cached["unit"] == "share"  # a difference
    ranked = routing._ranked(
        "order", "TTFT mean", live, said
    )  # live a (2 s) before b (4), simulated b (2.5) before a (3)
    assert (ranked["value"], ranked["live"], ranked["simulated"]) == (0.0, ["a", "b"], ["b", "a"])
    assert routing._ranked("order", "TTFT mean", live, live)["value"] == 1.0


def times_of(ttft_s, cached):
    return {"TTFT mean": ttft_s, "cached": cached}


# -- fidelity


def test_every_fleet_is_held_against_itself_and_the_simulator(workers, session):
    report = report_of(session, "fidelity")
    workers.noise = 0.01
    fidelity.fidelity(session, report)
    found = read_record(report.path)["parts"]
    assert list(found) == ["sustained", "one worker", "two workers", "1P1D"]
    assert all(complete(section) for section in found.values())
    one = found["one worker"]
    assert one["repeats"] == fidelity.MOST and [h["name"] for h in one["held_out"]] == [
        "one worker at 0.3",
        "one worker at 0.55",
    ]
    ttft = next(p for p in one["points"] if p["name"] == "one worker at 0.3: TTFT mean")
    assert len(ttft["samples"]) == fidelity.MOST and ttft["live_error"] > 0 and abs(ttft["errors"]["served"]) < 0.05
    assert {p["met"] for p in one["points"] if "met" in p} == {True}
    assert {one.fleet for one in workers.served} == {"1", "2", "1P1D"}
    orders = [[s.name for s in workers.served if s.fleet == "2"][i : i + 4] for i in (2, 6, 10)]
    assert len({tuple(order) for order in orders}) > 1  # each repeat has an order of its own


def test_control_slower_workers_miss_the_goal(workers, session, monkeypatch):
    monkeypatch.setitem(fidelity.SECTIONS, "two workers", "2")
    report = report_of(session, "fidelity")
    workers.pace, workers.noise = 1.3, 0.001
    fidelity.fidelity(session, report)
    missed = [p["name"] for p in report.parts["one worker"]["points"] if p.get("met") is False]
    assert "one worker at 0.3: TPOT mean" in missed


@pytest.fixture
def taught(monkeypatch):
    """The steps of the burst that each fleet was taught with."""
    found = []

    def learn(rate, runs, slices, ahead, burst):
        found.append(list(burst))
        terms = dict.fromkeys(("1", "2", "1P1D"), TERMS)
        return Learned(rate, terms, {"1": replace(TERMS, cost=times(COST, 1.3))} if burst else {})

    monkeypatch.setattr(fidelity, "learn", learn)
    return found


def on_gpus(monkeypatch, count):
    for module in (live, fidelity):
        monkeypatch.setattr(module, "device_of", lambda _: "cuda")
    monkeypatch.setattr(live, "gpus", lambda: count)
    monkeypatch.setattr(fidelity, "MOST", 2)
    asked = fidelity.ASKED["cuda"]
    fewer = {"burst": replace(asked.burst, requests=60), "most": 40}
    fewer["learnt_from"] = tuple(replace(one, requests=30) for one in asked.learnt_from)
    monkeypatch.setitem(fidelity.ASKED, "cuda", replace(asked, **fewer))


def test_on_gpus_the_burst_is_learnt_from_now_or_from_the_record(workers, session, monkeypatch, taught):
    """What is in the record is what taught, also when the recording goes on. Control: on a CPU nothing of it is."""
    monkeypatch.setattr(live, "cores", lambda: 1)
    fidelity.fidelity(session, report_of(session, "fidelity"))
    assert taught == [[]]
    on_gpus(monkeypatch, 1)
    report = report_of(session, "fidelity")
    fidelity.fidelity(session, report)
    (burst,) = report.parts["sustained"]["samples"]
    now = taught[1]
    assert now == live.steps_kept([burst]) and len(now) > 20
    assert [s.decodes for s in now] == burst["decodes"] and max(burst["decodes"]) > 10
    report.write(whole=True)
    earlier = {"sustained": read_record(report.path)["parts"]["sustained"]}
    workers.served.clear()
    fidelity.fidelity(session, report_of(session, "fidelity", earlier=earlier))
    assert "burst" not in {one.name for one in workers.served} and taught[2] == now


def run_of(session, told):
    return read_pack(session.folder / told["pack"])


def test_what_is_learnt_from_and_first_runs_are_kept(workers, session, monkeypatch, taught):
    """Steps of every slice to learn from; a pack of it and of each first run; by how much steps are off by the cost.

    Decodes of 3 + 4 * 0.3 + 0.1 = 4.3 ms are off by nothing, and by 30 % by the cost without the burst (the control).
    """
    monkeypatch.setattr(fidelity, "steps_of", lambda runs: [StepSample((), 4, 100, 0.0043)])
    on_gpus(monkeypatch, 2)
    report = report_of(session, "fidelity")
    fidelity.fidelity(session, report)
    found = read_record(report.path)["parts"]["one worker"]
    (worker,) = found["samples"]["steps of one"]
    packs = {p["name"]: p for p in found["points"] if "pack" in p}
    assert next(iter(packs)) == "steps of one, learnt from" and len(packs) == 3
    for told in packs.values():
        run = run_of(session, told)
        assert run.provenance.workload_sha256 == told["sha256"] and run.provenance.command == "hybrid-serving record"
        assert run.step_logs and distribution(ttft_s, run.timelines).mean == pytest.approx(told["value"], rel=1e-6)
    assert worker["decodes"] == list(run_of(session, packs["steps of one, learnt from"]).step_logs[0].decoding)
    for biases in found["steps_by_the_cost"].values():
        assert biases["served"] == {"decode": pytest.approx(0.0)}
        assert biases["without burst"] == {"decode": pytest.approx(0.3)}
    assert found["terms_without_burst"]["1"]["cost"]["overhead_s"] == pytest.approx(1.3 * COST.overhead_s)
    lacking = read_record(report.path)["parts"]["1P1D"]
    assert (
        list(lacking["samples"]) == ["steps of a split", "hand-overs"] and not lacking["held_out"][0]["errors_without"]
    )
    errors = found["held_out"][0]["errors_without"]["steps as large as those served"]
    assert errors["TPOT mean"] > 0.25


@pytest.mark.parametrize(("budget_s", "repeats"), [(95.0, 3), (75.0, 2), (400.0, 5)])
def test_there_are_as_many_repeats_as_there_is_time(workers, session, monkeypatch, budget_s, repeats):
    """A run takes 10 s: first use, burst and the slice to learn from 30 s, then 20 s a repeat of two slices.

    Of 95 s 5 are kept back: 30 + 3 * 20 = 90 is just there. Of 75 s there are 70, which is two repeats.
    """
    for place in ("helpers.bench.record.fidelity", "helpers.bench.engine.report"):
        monkeypatch.setattr(f"{place}.perf_counter", lambda: workers.now_s)
    monkeypatch.setattr(live, "cores", lambda: 1)
    workers.takes_s, workers.noise = 10.0, 0.01
    report = report_of(session, "fidelity")
    report.started_s, report.budget_s = 0.0, budget_s
    fidelity.fidelity(session, report)
    assert list(report.parts) == ["sustained", "one worker"]
    assert report.parts["one worker"]["repeats"] == repeats
    assert complete(report.parts["one worker"])


# -- what a machine has places for


@pytest.mark.parametrize(("device", "places", "fleets"), [("cpu", 1, 1), ("cpu", 2, 3), ("cuda", 1, 1), ("cuda", 2, 3)])
def test_what_is_served_is_what_there_are_places_for(monkeypatch, session, device, places, fleets):
    for module in (live, fidelity, routing):
        monkeypatch.setattr(module, "device_of", lambda _: device)
    monkeypatch.setattr(live, "cores", lambda: places if device == "cpu" else 16)
    monkeypatch.setattr(live, "gpus", lambda: places if device == "cuda" else 0)
    assert len(fidelity.sections(session)) == 1 + fleets
    assert bool(routing.sections(session)) is (places > 1)


@pytest.mark.parametrize(("gpus_there", "key"), [(1, "h100"), (2, "2x_h100"), (8, "2x_h100")])
def test_the_key_counts_the_gpus_that_are_used(monkeypatch, gpus_there, key):
    monkeypatch.setattr("helpers.bench.record.recorder.gpus", lambda: gpus_there)
    assert key_of("h100", PARTS["fidelity"]) == key
    assert key_of("h100", PARTS["serve"]) == "h100"
    assert key_of("cpu_some_2c", PARTS["fidelity"]) == "cpu_some_2c"


# -- what is asked on GPUs


def test_the_slices_of_gpus_are_those_that_were_written_down():
    every = (gpus.BURST, *gpus.LEARNT_FROM, *gpus.HELD_OUT)
    assert as_written(every, gpus.FROZEN)["passed"]
    assert not as_written([replace(every[1], load=0.61)], gpus.FROZEN)["passed"]  # control
    assert not {one.seed for one in gpus.HELD_OUT} & {one.seed for one in (gpus.BURST, *gpus.LEARNT_FROM)}


def test_the_usual_lengths_go_without_saying():
    assert plan.ONE.record() == {
        "name": "steps of one", "fleet": "1", "load": 0.45, "requests": 450, "seed": 2, "router": "round_robin",
        "admission": "none", "admission_parameters": {}, "told": False,
    }  # fmt: skip
    assert gpus.BURST.record()["lengths"] == "gpu"


def test_other_lengths_are_other_requests_and_unknown_ones_are_refused():
    drawn = {name: plan.drawn(20, 1, name).sha256 for name in LENGTHS}
    assert len(set(drawn.values())) == len(LENGTHS)
    with pytest.raises(InputError, match="no lengths 'long'"):
        plan.drawn(20, 1, "long")
