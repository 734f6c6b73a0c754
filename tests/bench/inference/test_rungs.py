"""Every rung is what it says, and one that is not is refused; what is expected of it, and where its time went."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.inference import rungs
from helpers.bench.inference.foreseen import Host, RungCost, foreseen, recorded
from helpers.bench.inference.rungs import (
    AHEAD,
    CONTINUOUS,
    GRAPHS,
    PREFIX,
    RUNGS,
    STATIC,
    EngineExperiment,
    Load,
    close_engines,
    disbelieved,
    engine_for,
    put_at,
    rungs_on,
    served,
)
from helpers.bench.inference.where import agreement, figures, spent
from helpers.bench.targets.target import UNDRAWN
from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.scheduling.plain import StaticBatches
from helpers.scheduling.scheduler import Scheduler
from helpers.scheduling.sequence import Sequence
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

FLEET = Fleet(workers=1, chunk_tokens=128, max_batch=4, kv_gib=0.125)
BASE = EngineExperiment(UNDRAWN, FLEET)
BURST = Load(2000.0, 5, 64, "lognormal:100:0.2", "6").draw(0)  # all there before the first is done


@pytest.fixture(scope="module", autouse=True)
def engines():
    yield
    close_engines()


@pytest.fixture(scope="module")
def found():
    return {rung: served(replace(BASE, rung=rung), BURST) for rung in rungs_on("cpu")}


# -- what runs


def test_a_cpu_has_no_captured_rung_and_says_so():
    assert rungs_on("cuda") == RUNGS and set(RUNGS) - set(rungs_on("cpu")) == {GRAPHS}
    with pytest.raises(InputError, match="'CUDA graphs' does not exist on cpu; use one of static, "):
        served(replace(BASE, rung=GRAPHS), BURST)


def test_rungs_answer_alike_and_differ_in_what_they_add(found):
    answers = {rung: one.tokens for rung, one in found.items()}
    assert all(one == answers[STATIC] for one in answers.values()) and len(answers[STATIC]) == 5
    told = {rung: spent(one) for rung, one in found.items()}
    assert [told[rung]["cached_tokens"] > 0 for rung in found] == [False, False, True, True]
    assert [told[rung]["steps_ahead"] > 0 for rung in found] == [False, False, False, True]
    assert [told[rung]["steps_joined"] > 0 for rung in found] == [False, True, True, True]
    assert {one["captured_steps"] for one in told.values()} == {0}
    prompts = sum(r.prompt_tokens for r in BURST)
    for one in told.values():
        assert one["computed_tokens"] + one["cached_tokens"] == prompts
        assert one["in_steps"] + one["between_steps"] + one["nothing_to_do"] == pytest.approx(1.0)
    assert all(figures(one)["e2e_mean_s"] > 0 for one in found.values())


def test_an_engine_is_made_once_and_left_as_it_was(found):
    engine = engine_for("tiny", "cpu", FLEET)
    assert engine is engine_for("tiny", "cpu", FLEET)
    for owner in (engine, engine.runner, engine.scheduler, engine._device_clock):
        assert not {"step", "restart_clock", "launch", "schedule", "wait", "submit"} & set(vars(owner))


@pytest.mark.parametrize(
    ("rung", "instead", "said"),
    [
        (STATIC, CONTINUOUS, "somebody came into a batch that was under way"),
        (CONTINUOUS, PREFIX, "prompt tokens were taken from a cache"),
        (AHEAD, PREFIX, "0 of .* steps were launched before the one before was read"),
        (PREFIX, AHEAD, "steps were launched before the one before was read"),
    ],
)
def test_a_rung_that_is_another_one_is_refused(monkeypatch, rung, instead, said):
    monkeypatch.setattr(rungs, "put_at", lambda engine, asked, slower: put_at(engine, instead, slower))
    with pytest.raises(InputError, match=f"rung '{rung}' is not what it says: .*{said}"):
        served(replace(BASE, rung=rung), BURST)


def test_steps_that_are_captured_at_the_wrong_rung_are_told(monkeypatch):
    def captured(engine, rung, slower):
        put_at(engine, rung, slower)
        engine.runner.graphs = True  # on a CPU the same buckets, replayed by a plain call

    monkeypatch.setattr(rungs, "put_at", captured)
    with pytest.raises(InputError, match="steps were captured ones"):
        served(replace(BASE, rung=PREFIX), BURST)


@pytest.mark.parametrize(("rung", "device", "captured", "wrong"), [
    (GRAPHS, "cuda", 0, True), (GRAPHS, "cuda", 9, False), (PREFIX, "cuda", 9, True), (PREFIX, "cuda", 0, False),
])  # fmt: skip
def test_a_rung_of_captured_steps_has_some(rung, device, captured, wrong):
    host = SimpleNamespace(captured=captured, steps=9, ahead=0, joined=0)
    run = SimpleNamespace(timelines=())
    assert bool(disbelieved(rung, device, SimpleNamespace(host=host, run=run))) is wrong


def test_static_batches_take_everybody_who_waits_beyond_the_budget_of_a_step():
    """Three prompts of 100 tokens and 128 a step: all three come in at once. A step has 100 + 28, then 1 decode with
    72 + 55, then 2 decodes with 45.

    Control: continuous batching takes the third one when there is budget for it, and computes the same.
    """
    for kind, running in ((StaticBatches, [3, 3, 3]), (Scheduler, [2, 3, 3])):
        scheduler, seen, tokens = kind(Limits(64, 64, 128, 4)), [], []
        for number in range(3):
            scheduler.add(Sequence(Request(number, 0.0, 100, 9), number, 0.0))
        for _ in range(3):
            step = scheduler.schedule()
            seen.append(len(scheduler.running))
            tokens.append(len(step.decode) + sum(n for _, n in step.chunks))
            scheduler.commit(step)
        assert (seen, tokens) == (running, [128, 128, 47]), kind


# -- what is expected


COST = AffineCost(0.010, 1e-4, 0.0, 0.0, 0.0)
HOST = Host(decode_s=0.030, chunk_s=0.050, between_s=0.001)


@pytest.mark.parametrize(("rung", "chunk_s", "decode_s"), [
    (PREFIX, 0.051, 0.031),  # the host's 50 and 30 ms, and 1 ms between steps
    (GRAPHS, 0.021, 0.011),  # 10 ms and 100 tokens of 0.1 ms; 10 ms
    (AHEAD, 0.020, 0.010),
])  # fmt: skip
def test_a_step_by_the_formula(rung, chunk_s, decode_s):
    cost = RungCost(COST, HOST, rung)
    assert cost.step([(100, 0)], 0, 0) == pytest.approx(chunk_s)
    assert cost.step([], 3, 300) == pytest.approx(decode_s)
    assert RungCost(COST, HOST, PREFIX).step([(900, 0)], 0, 0) == pytest.approx(0.101)  # longer than the launches


def test_a_load_by_the_formula():
    """Two requests of 100 tokens in, 3 out, the second 5 ms after the first, scheduled ahead: 20 ms, then 10 ms a step.

    Static: the second waits for 20 + 10 + 10 ms. Continuous: for the first step alone, and its chunk comes beside the
    decode of the first.
    """
    two = Workload("two", (Request(0, 0.0, 100, 3), Request(1, 0.005, 100, 3)), 64)
    limits, quick = Limits(64, 64, 256, 4), Host(0.0, 0.0, 0.0)
    static = foreseen(STATIC, two, limits, COST, quick)
    assert static["ttft_mean_s"] == pytest.approx((0.020 + 0.055) / 2)  # 40 ms of the first, 20 ms, less 5 ms
    assert static["e2e_mean_s"] == pytest.approx((0.040 + 0.075) / 2)
    after = foreseen(CONTINUOUS, two, limits, COST, quick)
    assert after["ttft_mean_s"] == pytest.approx((0.020 + 0.035) / 2)
    assert after["e2e_mean_s"] == pytest.approx((0.050 + 0.055) / 2)


def test_machines_without_records_are_not_foretold():
    assert recorded("no_such_machine", "llama-8b") is None
    cost, host = recorded("h100_80gb_hbm3", "llama-8b")
    # A chunk has more to launch than decodes, but how fast a host launches swings by more than that within a record.
    assert cost.overhead_s > 0 and min(host.chunk_s, host.decode_s) > host.between_s > 0


# -- what came of it


def test_answers_part_where_the_first_token_is_another_one():
    theirs = {0: [1, 2, 3], 1: [4, 5], 2: [6], 3: [7, 7]}
    mine = {0: [1, 2, 9], 1: [4, 5], 2: [8], 3: [7]}
    assert agreement(mine, theirs) == {"answers": 4, "equal": 1, "first_other_token": [0, 1, 2]}
    assert agreement({0: [1]}, {1: [1]}) == {"answers": 2, "equal": 0, "first_other_token": [0, 0]}
    assert agreement(theirs, theirs)["first_other_token"] == []
