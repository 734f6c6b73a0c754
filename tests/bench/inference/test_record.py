"""The part `inference` of a recording, on `tiny`: sections, pairs, resumption, and a summary of planted runs."""

from dataclasses import replace

import pytest
import torch

from helpers.bench.inference import setting
from helpers.bench.inference.rungs import CONTINUOUS, GRAPHS, PREFIX, STATIC, rungs_on
from helpers.bench.record import inference as part
from helpers.bench.record.files import PartReport, complete, read_record
from helpers.bench.record.inference import ALONE, FIGURES, FORESEEN, LADDER, SUSTAINED, against, agreements, ladder
from helpers.bench.record.parts import PARTS, Session
from helpers.bench.record.recorder import head_of, key_of, path_of
from helpers.checkout import TOLD
from helpers.errors import InputError

CPU = setting.SETTINGS["cpu"]
SMALL = replace(
    CPU, load=replace(CPU.load, rate_per_s=200.0, requests=3, output_tokens="lognormal:5:0.7"), seeds=(0,),
    window_from_s=0.0, window=2, first=2, static_burst=8, burst=8, alone=2, alone_tokens=2,
)  # fmt: skip


@pytest.fixture
def session(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv(TOLD, "a" * 40)
    monkeypatch.setitem(setting.SETTINGS, "cpu", SMALL)
    return Session("tiny", "cpu", (), tmp_path, "hybrid-serving record")


def report_of(session, budget_s=300.0, **how):
    head = {**head_of("hybrid-serving record", "tiny", "cpu", ()), "part": "inference"}
    return PartReport(path_of(session.folder, "tiny", "inference"), budget_s, head, **how)


def test_a_machine_is_recorded_rung_by_rung_and_goes_on_where_it_was(session, monkeypatch):
    report = report_of(session)
    part.inference(session, report)
    record = read_record(report.path)
    found, rungs = record["parts"], rungs_on("cpu")
    assert tuple(found) == part.sections(session) and all(complete(one) for one in found.values()), found
    assert record["startup_s"] > 0 and record["load"]["rate_per_s"] == 200.0
    points = [one for one in found["draw 0"]["points"] if "rung" in one]
    assert {one["rung"] for one in points} == set(rungs) and len({one["sha256"] for one in points}) == 1
    assert all(one["n"] == 3 and "failed" not in one for one in points)
    # float32 on a CPU: the answers of all rungs are the same, token by token
    alike = [one for name in ("draw 0", ALONE) for one in found[name]["points"] if "equal" in one]
    assert len(alike) == 6 and {one["value"] for one in alike} == {1.0}
    assert {p["name"] for p in found[SUSTAINED]["points"]} == {rungs[0], rungs[-1]}
    for rung in rungs:
        names = {p["name"]: p["value"] for p in found[part.profile_section(rung)]["points"]}
        assert names["launches"] == 0 < names["kernels"] and 0 < names["kernels running"] <= 1
    summed = {p["name"]: p for p in found[LADDER]["points"]}
    assert summed[f"{PREFIX}: cached_tokens"]["value"] > 0 == summed[f"{CONTINUOUS}: cached_tokens"]["value"]
    assert all(f"{rung}: {name}" in summed for rung in rungs for name in FIGURES)

    again = report_of(session, earlier={k: v for k, v in found.items() if k != ALONE})
    served, usual = [], part.served

    def noted(asked, load, *more):
        served.append(load.sha256)
        return usual(asked, load, *more)

    monkeypatch.setattr(part, "served", noted)
    part.inference(session, again)
    assert again.parts["draw 0"] is again.earlier["draw 0"] and complete(again.parts[ALONE])
    assert served.count(part.one_at_a_time(SMALL).sha256) == len(rungs)
    assert not served.count(SMALL.load.draw(0).sha256) and complete(again.parts[LADDER])


def test_what_does_not_fit_into_the_time_is_left_out_and_the_ladder_is_summed_up(session, monkeypatch):
    report = report_of(session)
    climb = part._Climb(SMALL, part.sections(session), report)
    monkeypatch.setattr(part, "engine_for", lambda *asked: None)
    monkeypatch.setattr(part._Climb, "_use_first", lambda self: None)
    monkeypatch.setattr(part._Climb, "_draws", lambda self: [draw(1.0), draw(2.0)])
    report.budget_s = 0.0
    climb.everything()
    assert all("skipped" in one for name, one in report.parts.items() if name != LADDER)
    assert complete(report.parts[LADDER]) and len(report.parts) == len(part.sections(session))


def draw(e2e_s, factors=(1.0, 0.5, 0.4, 0.4)):
    """A draw of four rungs with these shares of `e2e_s`, every figure alike."""
    spent = dict.fromkeys(part.SPENT, 1.0)
    return {
        rung: {"run": dict.fromkeys(FIGURES, e2e_s * factor), "spent": spent}
        for rung, factor in zip(rungs_on("cpu"), factors, strict=True)
    }


def test_rungs_are_paired_with_the_one_before():
    """1 and 2 s for the first rung, half of it for the second: -0.5 and -1.0, -0.75 on average. The interval of two
    pairs is 12.7 standard errors (of 0.25) wide on either side, so that nothing is shown by two."""
    points = {p["name"]: p for p in ladder(rungs_on("cpu"), [draw(1.0), draw(2.0)], ())}
    second = points[f"{CONTINUOUS}: e2e_mean_s"]
    assert second["value"] == pytest.approx(0.75) and second["before"]["each"] == pytest.approx([-0.5, -1.0])
    apart = second["before"]["difference"]
    assert (apart["mean"], apart["low"]) == (pytest.approx(-0.75), pytest.approx(-0.75 - 12.706 * 0.25, rel=1e-3))
    assert second["before"]["said"] == "not shown"
    assert "before" not in points[f"{STATIC}: e2e_mean_s"] and "predicted" not in second


def test_a_planted_slower_rung_is_noticed_and_none_where_there_is_none():
    """Three draws in which the last rung takes 1.5 times as long as the one before; control: the very same."""
    slow = [draw(s, (1.0, 0.5, 0.4, 0.6)) for s in (1.0, 1.1, 1.2)]
    points = {p["name"]: p for p in ladder(rungs_on("cpu"), slow, ())}
    assert points["schedule-ahead: e2e_mean_s"]["before"]["said"] == "higher"
    same = {p["name"]: p for p in ladder(rungs_on("cpu"), [draw(s) for s in (1.0, 1.1, 1.2)], ())}
    assert same["schedule-ahead: e2e_mean_s"]["before"]["said"] == "no effect"
    assert against({0: 1.0}, {0: 0.5})["difference"] is None  # one draw has no interval


def test_what_was_said_before_stands_beside_what_was_measured():
    said = [{"name": STATIC, "run": dict.fromkeys(FIGURES, 3.0)}]
    points = {p["name"]: p for p in ladder(rungs_on("cpu"), [draw(1.0), draw(3.0)], said)}
    first = points[f"{STATIC}: e2e_mean_s"]
    assert first["predicted"] == {"formula": 3.0} and first["errors"]["formula"] == pytest.approx(0.5)  # 3 for 2
    assert "predicted" not in points[f"{PREFIX}: e2e_mean_s"]
    assert list(ladder(rungs_on("cpu"), [], said)) == []


def test_answers_are_held_against_the_first_rung_and_the_one_before():
    tokens = {"a": {0: [1, 2], 1: [3]}, "b": {0: [1, 9], 1: [3]}, "c": {0: [1, 9], 1: [3]}}
    one, two = agreements(("a", "b", "c"), tokens)
    assert (one["value"], one["first_other_token"], one["before_equal"]) == (0.5, [1], 1)
    assert (two["value"], two["first_other_token"], two["before_equal"]) == (0.5, [1], 2)


def test_a_gpu_is_foretold_and_has_all_rungs(session, monkeypatch):
    monkeypatch.setattr(part, "device_of", lambda session: "cuda")
    names = part.sections(session)
    assert names[0] == FORESEEN and part.profile_section(GRAPHS) in names and LADDER in names
    assert key_of("h100_80gb_hbm3", PARTS["inference"]) == "h100_80gb_hbm3"
    with pytest.raises(InputError, match="no GPU"):
        part.inference(session, report_of(session))
