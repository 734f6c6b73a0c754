"""The parts that measure: ceilings, designed steps, served slices. On `tiny`, seconds; nothing here is timed."""

from dataclasses import replace

import pytest
import torch

from helpers.bench.record import calibrating, serving
from helpers.bench.record.ceilings import ceilings
from helpers.bench.record.files import PartReport, complete, read_record
from helpers.bench.record.parts import Session
from helpers.bench.record.recorder import head_of, path_of
from helpers.bench.record.serving import RUNS, Planned, Traffic, compared, figures
from helpers.checkout import TOLD
from helpers.cost.calibration import COEFFICIENTS, read_cost
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.engine.calibrate import Shape
from helpers.metrics.latency import ttft_s
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack
from helpers.workload.request import Request, Workload

COST = AffineCost(0.005, 1e-5, 1e-9, 1e-4, 1e-7)
FLEET = Fleet(workers=1, chunk_tokens=64, max_batch=4, cost=COST)


@pytest.fixture
def session(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv(TOLD, "a" * 40)
    monkeypatch.setitem(calibrating.LIMITS, "cpu", (4, 64, 0.02, 512))
    monkeypatch.setattr("helpers.engine.calibrate.shapes", lambda engine: [Shape((), 2, 32), Shape(((16, 0),), 1, 32)])
    monkeypatch.setattr(calibrating, "LEAST_STEPS", 40)
    monkeypatch.setattr(calibrating, "ROUNDS", 30)
    monkeypatch.setitem(serving.TRAFFIC, "cpu", Traffic("lognormal:80:0.1", "4", 64, 1))
    monkeypatch.setattr(serving, "RUNS", (Planned("none", 0.9), Planned("queue_cap", 3.0)))
    monkeypatch.setattr(serving, "LEAST_REQUESTS", 12)
    monkeypatch.setattr(serving, "SPAN_S", (0.01, 0.02))
    return Session("tiny", "cpu", (), tmp_path, "hybrid-serving record")


def report_of(session, part, **how):
    head = {**head_of("hybrid-serving record", "tiny", "cpu", ()), "part": part}
    return PartReport(path_of(session.folder, "tiny", part), 300.0, head, **how)


def test_ceilings_hold_copy_triad_and_a_product_in_each_format(session, monkeypatch):
    monkeypatch.setattr("helpers.bench.record.ceilings.CPU_FORMATS", ("fp32", "fp8"))
    report = report_of(session, "ceilings")
    ceilings(session, report)
    found = read_record(report.path)["parts"]
    assert set(found) == {"ceilings", "triad", "matmul by dtype"}
    assert found["triad"]["points"][0]["n"] == 20
    products = {one["name"]: one for one in found["matmul by dtype"]["points"]}
    assert products["matmul fp32"]["value"] > 0 and products["matmul fp32"]["size"] == 1024
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_format_that_a_device_lacks_says_why(session, monkeypatch):
    monkeypatch.setattr("helpers.bench.record.ceilings.CPU_FORMATS", ("none such", "fp32"))
    monkeypatch.setattr(
        "helpers.bench.record.ceilings._product",
        lambda name, device: (4, lambda: 0) if name == "fp32" else (_ for _ in ()).throw(RuntimeError("planted")),
    )
    report = report_of(session, "ceilings")
    ceilings(session, report)
    points = {one["name"]: one for one in report.parts["matmul by dtype"]["points"]}
    assert points["matmul none such"]["absent"] == "RuntimeError: planted"
    assert "absent" not in points["matmul fp32"]


def test_calibration_is_stored_with_intervals_residuals_and_the_steps(session):
    report = report_of(session, "calibrate")
    calibrating.calibrate(session, report)
    record = read_record(report.path)
    assert complete(record["parts"]["calibrate"])
    assert read_cost(report.path) == AffineCost(**record["coefficients"])
    assert set(record["intervals"]) == set(COEFFICIENTS)
    steps = calibrating.samples_of(record["samples"])
    assert len(steps) == record["steps"] + record["held_out"] >= 40
    assert {(s.chunks, s.decodes, s.kv_tokens) for s in steps} == {((), 2, 66), (((16, 0),), 1, 33)}


def test_steps_in_columns_come_back():
    steps = [StepSample(((5, 0), (7, 3)), 2, 40, 0.25), StepSample((), 1, 9, 0.125, 0.5, 0.0625)]
    steps.append(StepSample(((1, 1),), 0, 0, 0.5))
    stored = calibrating.columns(steps)
    assert stored["new_and_context_tokens"] == [5, 0, 7, 3, 1, 1]
    assert calibrating.samples_of(stored) == steps
    stored["chunks"] = [1, 1, 1]  # control: chunks at the wrong steps
    assert calibrating.samples_of(stored) != steps


def test_slices_are_served_stored_and_predicted(session):
    session.cost = {name: getattr(COST, name) for name in COEFFICIENTS}
    report = report_of(session, "serve")
    serving.serve(session, report)
    record = read_record(report.path)
    found = record["parts"]
    assert list(found) == ["saturated", "training", "none at 0.9", "queue_cap at 3"]
    assert all(complete(section) for section in found.values()), found
    rate = found["saturated"]["points"][0]["value"]
    assert len({found[name]["sha256"] for name in list(found)[1:]}) == 3  # nothing is fitted to what is predicted
    for name, admission, load in (("none at 0.9", "none", 0.9), ("queue_cap at 3", "queue_cap", 3.0)):
        section = found[name]
        assert section["offered_per_s"] == pytest.approx(rate * load)
        run = read_pack(session.folder / section["pack"])
        assert run.provenance.policy["admission"] == admission
        assert run.provenance.command == "hybrid-serving record" and run.provenance.commit == "a" * 40
        assert run.provenance.workload_sha256 == section["sha256"]
        assert sum(section["outcomes"].values()) == len(run.timelines) == 12
        points = {one["name"]: one for one in section["points"]}
        assert set(points["TTFT mean"]["errors"]) == {"designed", "served"}
        shared = [t.cached_tokens for t in run.timelines if t.status == "finished"]
        assert shared[0] == 0  # an empty cache before each run
    # at three times the sustained rate of a batch of 4, a queue of one does not hold 12 requests
    assert found["queue_cap at 3"]["outcomes"]["rejected"] > 0
    assert found["none at 0.9"]["outcomes"]["rejected"] == 0

    again = report_of(session, "serve", earlier={k: v for k, v in found.items() if k != "none at 0.9"})
    serving.serve(session, again)
    assert again.parts["saturated"] is again.earlier["saturated"]  # measured before
    assert complete(again.parts["none at 0.9"])


def test_the_simulated_worker_has_the_limits_of_the_engine(session):
    with calibrating.engine_for("tiny", "cpu") as engine:
        planned = object.__new__(serving._Serving)
        planned.engine = engine
        fleet = planned._fleet(COST)
    (worker,) = fleet.cluster(64).workers
    limits = worker.limits
    # 0.02 GiB in blocks of 64 tokens; a token is 4 layers, keys and values, 2 heads of 64 floats of 4 bytes
    assert limits.kv_blocks == int(0.02 * 2**30 // (64 * 4 * 2 * 2 * 64 * 4))
    assert (limits.token_budget, limits.max_batch, limits.block_tokens) == (64, 4, 64)


def test_every_planned_run_is_there():
    assert {(r.admission, r.load) for r in RUNS} == {
        (a, load) for a in ("none", "queue_cap") for load in (0.7, 0.95, 1.2)
    }


def simulated(cost=COST, **how):
    requests = tuple(Request(i, 0.01 * i, 50 + i, 5) for i in range(20))
    return Experiment(Workload("test", requests, block_tokens=16), replace(FLEET, cost=cost), **how).run()


def test_a_prediction_of_itself_has_no_error_and_another_one_has():
    run = simulated()
    slower = simulated(replace(COST, overhead_s=0.01))
    points = {one["name"]: one for one in compared(run, {"same": run, "slower": slower})}
    assert {one["errors"]["same"] for one in points.values()} == {0.0}
    assert points["TTFT mean"]["errors"]["slower"] > 0.1 > -0.1 > points["throughput"]["errors"]["slower"]
    mean = sum(ttft_s(t) for t in run.timelines) / 20
    assert points["TTFT mean"]["value"] == pytest.approx(mean)
    assert points["TTFT mean"]["n"] == 20


def test_rejections_are_a_share_and_their_error_a_difference():
    slow = replace(COST, overhead_s=0.05)  # a batch of 4 takes 5 steps of 50 ms, while 25 requests would arrive
    few = simulated(slow, admission="queue_cap", admission_parameters={"max_waiting": 1})
    rejected = sum(t.status == "rejected" for t in few.timelines)
    assert 0 < rejected < 20
    points = {one["name"]: one for one in compared(few, {"all": simulated(slow)})}
    assert points["rejected"]["value"] == rejected / 20
    assert points["rejected"]["errors"]["all"] == -rejected / 20
    assert points["TTFT mean"]["n"] == 20 - rejected == figures(few)["TTFT mean"][2]
