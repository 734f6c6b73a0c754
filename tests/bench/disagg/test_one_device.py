"""Two roles on one device beside one engine, run small on the CPU: answers, pages, and what must not be there."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.cells import sample_of, unnoticed_faults
from helpers.bench.disagg import arms, sharing
from helpers.bench.disagg.arms import close_crews
from helpers.bench.disagg.child import PROCESSES, ROLES, sections
from helpers.bench.disagg.live import RUNGS, SETUPS, TOGETHER, held_against
from helpers.bench.disagg.one_device import OneDeviceCrew, Size, noted
from helpers.bench.disagg.sharing import Sharing, arms_of, shared
from helpers.bench.order import BASELINE, Cell
from helpers.bench.record.disagg import about, summed_up
from helpers.bench.targets import sizes
from helpers.bench.targets.disagg import LADDER
from helpers.bench.targets.sizes import sized
from helpers.engine.engine import Engine
from helpers.errors import InputError
from helpers.workload.request import Request, Workload

OF_TWO = {"exposed_mean_s", "exposed_p90_s", "hidden_mean_s", "exposed_of_ttft", "moved_mb"}
QUICK = replace(SETUPS["cpu"], chunk_tokens=128, most_prompt=300, prompt_tokens="lognormal:150:0.5", output_tokens="5")
MOVERS = ("synced", "layerwise")
FOREVER_S = 1e9


@pytest.fixture(scope="module", autouse=True)
def crews():
    yield
    close_crews()


@pytest.fixture(scope="module")
def target():
    return sized(LADDER, 1)


@pytest.fixture(scope="module")
def samples(target):
    (scenario,) = target.scenarios
    workload = scenario.workload(0, 4)
    every = (BASELINE, *scenario.variants)
    return {arm: sample_of(target, Cell(arm, scenario.name, 0), workload) for arm in every}


def test_every_arm_serves_every_request_with_the_same_answers(target, samples):
    assert set(samples) == {BASELINE, *RUNGS[1:], TOGETHER}
    for arm, one in samples.items():
        assert not one.breaches, (arm, one.breaches)
        assert one.values[target.primary.name] > 0
        assert one.series["answers"] == samples[BASELINE].series["answers"]


def test_an_engine_alone_has_nothing_to_expose_or_to_move(samples):
    """Absent and not 0; control: every hand-off has all of it, and only the early ones hide something."""
    alone = samples[TOGETHER].values
    assert {name for name in OF_TWO if alone[name] is not None} == set()
    for arm in (BASELINE, *RUNGS[1:]):
        values = samples[arm].values
        assert values["moved_mb"] > 0 and values["exposed_mean_s"] > 0
        assert (values["hidden_mean_s"] > 0) == (arm in ("layerwise", "slabs"))


def test_a_slow_link_is_slow_on_one_device_too(target):
    """5 MB/s for 4 KiB of KV a token: nothing can be there sooner, however quick the machine."""
    (scenario,) = target.scenarios
    workload = scenario.workload(0, 4)
    run = arms.run_live(scenario.planted, workload)
    prompts = {r.id: r.prompt_tokens for r in workload}
    for t in run.log.timelines:
        pages = -(-prompts[t.id] // 64)
        assert t.transfer_end_s - t.first_token_s >= pages * 64 * 4096 / 5e6


def test_damage_is_noticed_and_a_check_that_looks_away_is_not_passed(target, monkeypatch):
    (scenario,) = target.scenarios
    cell, workload = Cell(BASELINE, scenario.name, 0, "corrupt"), scenario.workload(0, 2)
    assert unnoticed_faults(target, cell, workload) == []
    from helpers.cluster import tamper

    monkeypatch.setattr(tamper, "KINDS", ("", "corrupt_page"))  # control: no damage, which no check can notice
    assert unnoticed_faults(target, cell, workload) == [""]


def test_the_engine_alone_has_the_memory_of_both_roles():
    crew = OneDeviceCrew(Size("tiny", "cpu", 64, 128, 8, 0.03125))
    try:
        roles, alone = crew._engine("duet").engines, crew._engine(TOGETHER, 128)
        assert alone.limits.kv_blocks == sum(one.limits.kv_blocks for one in roles)
        decoders = [*(role.watched._decoder for role in roles), alone.decoder]
        assert len({id(one.weights) for one in decoders}) == 1
        # what a kernel keeps between launches belongs to a stream: steps of two engines run at once
        assert len({one.counters.data_ptr() for one in decoders}) == 3
        assert crew._engine(TOGETHER, 32) is not alone and crew._engine(TOGETHER, 128) is alone
    finally:
        crew.close()


def test_tokens_are_noted_only_meanwhile(target):
    (scenario,) = target.scenarios
    request = scenario.workload(0, 1).requests[0]
    crew = OneDeviceCrew(Size("tiny", "cpu", 64, 128, 8, 0.03125))
    engine = crew._engine(TOGETHER, 128)
    with noted(engine) as tokens:
        g = engine.submit(request)
        list(engine.stream())
    assert tokens == {request.id: g.out} and len(g.out) == request.output_tokens
    assert engine.submit.__func__ is Engine.submit
    crew.close()


@pytest.fixture
def few(monkeypatch):
    """Two movers, and two requests that are held against one engine, are enough."""
    monkeypatch.setattr(sharing, "RUNGS", MOVERS)
    asked = Workload("one by one", (Request(0, 0.0, 130, 12), Request(1, 0.1, 300, 12)), 64)
    monkeypatch.setattr(sharing, "one_by_one", lambda setup: asked)


def test_a_recording_has_every_arm_at_every_rate_and_judges_pages_first(few):
    found = list(shared(QUICK, 1, FOREVER_S, Sharing((8.0, 16.0), 0.3, 0.03)))
    names = [one["name"] for one in found]
    arms = list(arms_of(QUICK))
    assert names[: len(arms) + 1] == [*(f"{arm}: first use" for arm in arms), "engines made"]
    runs = [one for one in found if "seed" in one["name"]]
    assert {one["arm"] for one in runs} == {f"{arm} at {rate}/s" for arm in arms for rate in (8, 16)}
    assert len(runs) == 2 * len(arms) == 8 and not any("failed" in one for one in found)
    pages = {one["name"]: one for one in found if "pages that differ" in one["name"]}
    assert [one["met"] for one in pages.values()] == [True] * 3
    assert pages["layerwise: pages that differ"]["value"] == 0 < pages["layerwise: pages that differ"]["checked"]
    assert pages["layerwise, corrupt_page: pages that differ"]["value"] > 0
    answers = {one["name"]: one.get("met") for one in found if "equal answers" in one["name"]}
    assert list(answers.values()) == [True, True, None]
    for rate in (8, 16):  # all arms of a rate had the same requests
        assert len({one["sha256"] for one in runs if one["arm"].endswith(f"at {rate}/s")}) == 1
    for one in runs:
        assert ("moved_gb" in one["run"]) == ("exposed_mean_s" in one["run"]) == (TOGETHER not in one["arm"])
    sums = {one["name"] for one in summed_up(found, "cpu")}
    assert "layerwise at 8/s: ttft_mean_s" in sums and f"{TOGETHER} at 8/s: exposed_mean_s" not in sums


def test_damage_that_nobody_sees_fails_its_point(monkeypatch, few):
    """Control of the pages: a hand-off that checks nothing meets no target."""
    split = OneDeviceCrew.split
    blind = lambda self, arm, load, limit_s, **told: split(self, arm, load, limit_s, **{**told, "verify": False})  # noqa: E731
    monkeypatch.setattr(OneDeviceCrew, "split", blind)
    crew = OneDeviceCrew(Size("tiny", "cpu", 64, 128, 8, 0.03125))
    found = list(sharing.exact(QUICK, crew))
    crew.close()
    assert [one["met"] for one in found if "pages" in one["name"]] == [False] * 3


@pytest.mark.parametrize(("wrong", "met"), [(0, True), (1, True), (2, False), (4, False)])
def test_right_pages_do_not_make_up_for_other_answers(wrong, met):
    """One near tie of four may turn; a hand-off of which all pages are right and two answers are not has failed."""
    alone = {i: [i, i] for i in range(4)}
    tokens = {i: [i, i + (i < wrong)] for i in range(4)}
    split = lambda arm, **told: SimpleNamespace(tokens=tokens, checked=8, wrong=0)  # noqa: E731
    found = {one["name"]: one.get("met") for one in held_against(alone, split)}
    assert found["layerwise: pages that differ"] and found["layerwise: equal answers"] is met


def test_an_arm_that_fails_costs_itself(monkeypatch, few):
    def split(self, arm, *_, **__):
        raise InputError(f"{arm} is planted")

    monkeypatch.setattr(OneDeviceCrew, "split", split)
    monkeypatch.setattr(sharing, "exact", lambda *_: iter(()))
    found = list(shared(QUICK, 1, FOREVER_S, Sharing((16.0,), 0.2, 0.03)))
    failed = {one["arm"] for one in found if "failed" in one}
    assert failed == {*MOVERS, *(f"{arm} at 16/s" for arm in MOVERS)}
    assert sum(TOGETHER in one["name"] and "failed" not in one for one in found) == 4
    without_time = [one["name"] for one in shared(QUICK, 1, 0.0, Sharing((16.0,), 0.2, 0.03))]
    assert without_time == [*(f"{arm}: first use" for arm in arms_of(QUICK)), "engines made"]


def test_what_is_recorded_where():
    one_gpu = sections("cuda", 1)
    assert one_gpu == (PROCESSES, ROLES)
    assert not set(one_gpu) & set(sections("cuda", 2))
    assert ROLES in sections("cpu", 0) and PROCESSES not in sections("cpu", 0)
    assert "sharing one device" in about("cuda", 1) and "not timed" in about("cuda", 1)
    assert "one GPU each" in about("cuda", 2) and "sharing" not in about("cuda", 2)
    assert "one core each" in about("cpu", 0) and "take turns" in about("cpu", 0)
    assert sizes.WHERE["cpu"] != sizes.WHERE["cuda"]
