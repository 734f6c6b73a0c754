"""One experiment on the real engine: the same run that every metric and check takes, measured."""

from dataclasses import replace
from itertools import pairwise

import pytest

from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.summary import summarize
from helpers.serving.engine_admission import EngineViews
from helpers.serving.engine_backend import Client, EngineOptions, MeasuredRun, measure
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import read_pack, write_pack
from helpers.serving.run import MEASURED
from helpers.workload.request import Request, Workload

FLEET = Fleet(workers=1, chunk_tokens=128, max_batch=16, kv_gib=0.01)
OPTIONS = EngineOptions(model="tiny", device="cpu")


def workload(requests, name="test"):
    return Workload(name, tuple(requests), block_tokens=16)


def spaced(count=10, gap_s=0.02):
    return workload([Request(i, i * gap_s, 20 + 7 * i, 3 + i % 5, (1, 100 + i)) for i in range(count)])


@pytest.fixture(scope="module")
def run():
    return Experiment(spaced(), FLEET).run(on="engine", engine=OPTIONS)


def test_a_run_is_a_measured_one_and_sound(run):
    assert isinstance(run, MeasuredRun)
    assert audit(run.log) == []
    assert [t.status for t in run.timelines] == ["finished"] * 10
    assert [t.generated_tokens for t in run.timelines] == [3 + i % 5 for i in range(10)]
    assert all(t.arrival_s == pytest.approx(0.02 * t.id) for t in run.timelines)
    assert all(t.arrival_s <= t.dispatched_s <= t.prefill_start_s < t.first_token_s for t in run.timelines)
    summary = summarize(run.log, Experiment(spaced(), FLEET).slo)
    assert summary["completed"] == 10
    assert summary["ttft_s"]["n"] == 10


def test_it_says_what_was_served_and_on_what(run):
    made = run.provenance
    assert made.kind == MEASURED
    assert made.hardware_key.startswith("cpu_")
    assert made.fleet["model"] == "tiny"
    assert "served tiny in place of the fleet's llama-3.1-8b" in made.notes
    assert "after their scheduled arrival" in made.notes
    assert made.versions["torch"]
    assert made.repairs == ()


def test_a_pack_keeps_it(run, tmp_path):
    known = replace(run, provenance=replace(run.provenance, commit="c" * 40))
    again = read_pack(write_pack(known, tmp_path / "run.json.gz"))
    assert [t.generated_tokens for t in again.timelines] == [t.generated_tokens for t in run.timelines]
    assert again.provenance.kind == MEASURED


def test_prefixes_are_shared(run):
    assert run.timelines[0].cached_tokens == 0
    assert {t.cached_tokens for t in run.timelines[1:]} == {16}  # block 1 is the same for all


def test_samples_and_lateness_are_there(run):
    assert len(run.samples) == len(run.step_logs[0])
    assert sum(n for s in run.samples for n, _ in s.chunks) == sum(t.prefilled_tokens for t in run.timelines)
    assert len(run.lateness_s) == 10
    assert all(late >= 0 for late in run.lateness_s)
    assert [t.dispatched_s - t.arrival_s for t in run.timelines] == pytest.approx(list(run.lateness_s))


def test_knobs_are_written_down():
    experiment = Experiment(spaced(), FLEET)
    some = experiment.run(on="engine", engine=replace(OPTIONS, max_requests=4, time_scale=0.5))
    assert some.provenance.repairs == ("first 4 requests", "rate x2")
    assert [t.arrival_s for t in some.timelines] == pytest.approx([0.0, 0.01, 0.02, 0.03])
    assert some.provenance.workload_sha256 != experiment.workload.sha256
    whole = OPTIONS.workload(experiment.workload)
    assert whole is experiment.workload  # control: nothing asked, nothing changed


def test_what_does_not_fit_is_rejected_with_its_reason_and_so_are_its_followers():
    pool = FLEET.kv_gib * 2**30 / (4 * 2 * 2 * 64 * 4)  # tokens: 4 layers, keys and values, 2 heads of 64 floats
    asked = [Request(0, 0.0, 20, 2), Request(1, 0.0, int(pool) + 100, 2), Request(2, 0.0, 20, 2, parent=1)]
    asked += [Request(3, 0.0, 8190, 10), Request(4, 0.0, 20, 2)]
    run = Experiment(workload(asked), FLEET).run(on="engine", engine=OPTIONS)
    assert [t.status for t in run.timelines] == ["finished", "rejected", "rejected", "rejected", "finished"]
    assert "do not fit in the pool" in run.timelines[1].reason
    assert run.timelines[2].reason == "its parent 1 was rejected"
    assert "beyond the context" in run.timelines[3].reason


def test_a_follow_up_comes_after_its_parent_and_a_thought():
    asked = [Request(0, 0.0, 20, 4), Request(1, 0.0, 20, 2, parent=0, think_time_s=0.03)]
    first, second = Experiment(workload(asked), FLEET).run(on="engine", engine=OPTIONS).timelines
    assert second.arrival_s == pytest.approx(first.finished_s + 0.03)
    assert second.first_token_s > second.arrival_s


def test_a_run_that_is_cut_short_leaves_the_rest_unfinished():
    asked = [Request(0, 0.0, 20, 2), Request(1, 0.0, 20, 900), Request(2, 60.0, 20, 2)]
    asked.append(Request(3, 0.0, 20, 2, parent=2))
    run = Experiment(workload(asked), FLEET).run(on="engine", engine=replace(OPTIONS, limit_s=0.15))
    assert [t.status for t in run.timelines] == ["finished", "unfinished"]
    assert 0 < run.timelines[1].generated_tokens < 900
    assert "2 requests are left out" in run.provenance.notes
    assert run.end_s < 30


def test_the_engine_is_idle_afterwards_and_serves_again(make_engine):
    engine = make_engine()
    experiment = Experiment(spaced(4), FLEET)
    first = measure(experiment, engine, experiment.workload, OPTIONS)
    again = measure(experiment, engine, experiment.workload, OPTIONS)
    assert not engine.busy
    assert engine.scheduler.pool.used == 0
    assert first.timelines[0].cached_tokens == 0
    assert again.timelines[0].cached_tokens > 0  # a warm cache is a warm cache: make a fresh engine


def test_nobody_is_sent_before_its_time(make_engine):
    """The client is open-loop: arrivals keep to the schedule while the engine is busy, and are never early."""
    engine = make_engine()
    client = Client(engine, spaced(12, gap_s=0.005))
    client.run()
    assert all(late >= 0 for late in client.lateness_s)
    due = [s.arrival_s for s in client.sequences]
    assert due == pytest.approx([0.005 * i for i in range(12)])
    sent = [s.dispatched_s for s in client.sequences]
    assert all(a <= b for a, b in pairwise(sent))


def test_admission_turns_away_at_the_door():
    together = workload([Request(i, 0.0, 60, 8) for i in range(12)] + [Request(12, 30.0, 20, 2, parent=11)])
    capped = Experiment(together, FLEET, admission="queue_cap", admission_parameters={"max_waiting": 3})
    run = capped.run(on="engine", engine=OPTIONS)
    # all are due before the first step, so that nobody has left the queue: three enter, and the rest find three waiting
    assert [t.status for t in run.timelines] == ["finished"] * 3 + ["rejected"] * 10
    assert run.timelines[3].reason == "worker 0 has 3 requests waiting, the cap is 3"
    assert run.timelines[12].reason == "its parent 11 was rejected"
    assert run.provenance.policy["admission"] == "queue_cap"
    assert run.provenance.policy["admission.max_waiting"] == 3
    roomy = replace(capped, admission_parameters={"max_waiting": 13}).run(
        on="engine", engine=replace(OPTIONS, limit_s=5)
    )
    assert {t.status for t in roomy.timelines} == {"finished"}  # control: a cap that nobody reaches


def test_a_policy_sees_the_engine_as_it_stands(make_engine):
    engine = make_engine()
    views = EngineViews(engine)
    total = engine.limits.kv_blocks
    assert views[0] == (0, "mixed", 0.0, 0, 0, 0, 0, 0, total)
    engine.submit(Request(0, 0.0, 40, 4))
    assert views[0] == (0, "mixed", 0.0, 0, 1, 40, 0, 0, total)  # one waits, with its 40 tokens
    engine.step()
    blocks = -(-40 // engine.limits.block_tokens)
    assert views[0] == (0, "mixed", 0.0, 1, 0, 0, 40, blocks, total)
    for _ in engine.stream():
        pass
    assert views[0][3:7] == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"admission": "router_queue"}, "needs a front end"),
        ({"admission": "queue_cap", "routers": 2}, "one front end"),
        ({"scaler": "fixed", "scaler_parameters": {"mixed": 2}}, "need a cluster"),
    ],
)
def test_what_one_engine_cannot_do_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(Experiment(spaced(), FLEET), **change).run(on="engine", engine=OPTIONS)


@pytest.mark.parametrize("wrong", [{"time_scale": 0}, {"max_requests": 0}, {"limit_s": 0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(InputError):
        EngineOptions(**wrong)
