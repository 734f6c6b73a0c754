"""Traces of decisions: what they say is true, what they are read with refuses what is not."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.bench.cells import asked, sample_of
from helpers.bench.decision_trace import FIELDS, explaining, read_trace, traced, write_trace
from helpers.bench.order import BASELINE, IDENTICAL, Cell
from helpers.bench.targets.registry import PLACES, load
from helpers.errors import InputError

TARGET = load(PLACES["routers:dynamic_routing"])
OLD = "lost worker, old views"


@pytest.fixture(scope="module")
def workload():
    return TARGET.scenario(OLD).workload(0, 60)


@pytest.fixture(scope="module")
def written(workload, tmp_path_factory):
    cell = Cell(BASELINE, OLD, 0)
    found = write_trace(tmp_path_factory.mktemp("traces"), TARGET, cell, workload, "0" * 40)
    return cell, found


def test_a_trace_is_read_back_with_every_decision(written, workload):
    _, found = written
    path = found["file"]
    (run,) = read_trace(Path(path))
    assert run.head["router"] == "least_requests" and run.head["view_period_s"] == 0.5
    assert run.head["upset"] == "lost worker" and run.head["workload_sha256"] == workload.sha256
    # Each request once, and once more whoever was on worker 0 when it was lost.
    once = {one["request"] for one in run.decisions}
    assert once == {r.id for r in workload} and len(run.decisions) > len(once)
    assert all(one["status"] == "finished" and one["first_token_s"] > one["arrival_s"] for one in run.decisions)


def test_the_decisions_are_those_of_the_run_that_was_measured(written, workload):
    cell, found = written
    measured = sample_of(TARGET, cell, workload)
    assert found["decisions_sha256"] == measured.digests["decisions"]
    other = sample_of(TARGET, replace(cell, arm="round_robin"), workload)
    assert found["decisions_sha256"] != other.digests["decisions"]  # control


def test_what_the_router_saw_is_old_and_explains_its_choice(written):
    """The baseline takes the fewest requests by its views, the lowest id among equals; the truth is beside them."""
    (run,) = read_trace(Path(written[1]["file"]))
    ages, wrong = set(), 0
    for one in run.decisions:
        seen = {c["worker"]: c["seen_requests"] for c in one["candidates"]}
        assert one["prefill"] == min(seen, key=lambda w: (seen[w], w))
        assert all(c["scores"] == {"requests": c["seen_requests"]} for c in one["candidates"])
        ages |= {c["age_s"] for c in one["candidates"]}
        true = {c["worker"]: c["requests"] for c in one["candidates"]}
        wrong += true[one["prefill"]] > min(true.values())
    # A view is never older than the period, and some are nearly that old.
    assert min(ages) >= 0 and 0.4 < max(ages) <= 0.5
    assert wrong > len(run.decisions) / 4  # the herd: the shortest queue that was seen was not the shortest
    at_s = run.head["upset_s"]
    after = [{c["worker"] for c in one["candidates"]} for one in run.decisions if one["time_s"] > at_s]
    assert after and all(workers == {1, 2, 3} for workers in after)


def test_live_views_are_the_truth():
    scenario = TARGET.scenario("step, live views")
    experiment = asked(scenario, Cell(BASELINE, scenario.name, 0), scenario.workload(0, 30))
    _, lines = traced(explaining(experiment))
    candidates = [c for line in lines for c in line["candidates"]]
    assert candidates and all(c["age_s"] == 0 for c in candidates)
    assert all(c["seen_requests"] == c["requests"] for c in candidates)


def test_routers_that_explain_nothing_have_no_scores_and_controls_no_trace(tmp_path, workload):
    found = write_trace(tmp_path, TARGET, Cell("round_robin", OLD, 0), workload, "unknown")
    (run,) = read_trace(Path(found["file"]))
    assert all(c["scores"] == {} for one in run.decisions for c in one["candidates"])
    assert write_trace(tmp_path, TARGET, Cell(IDENTICAL, OLD, 0), workload, "unknown") is None


def test_the_same_trace_is_the_same_file(tmp_path, written, workload):
    again = write_trace(tmp_path, TARGET, written[0], workload, "0" * 40)
    assert Path(again["file"]).read_bytes() == Path(written[1]["file"]).read_bytes()


# -- reading


def lines_of(written):
    with gzip.open(written[1]["file"], "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def saved(tmp_path, lines, name="trace.jsonl"):
    path = tmp_path / name
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_two_runs_in_one_file_are_two_runs(tmp_path, written):
    lines = lines_of(written)
    assert [len(run.decisions) for run in read_trace(saved(tmp_path, [*lines, *lines]))] == [len(lines) - 1] * 2


def changed(line, **fields):
    return {**line, **fields}


def without(line, field):
    return {key: value for key, value in line.items() if key != field}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: [*lines[:2], "no json\n"], "line 3: this is no JSON"),
        (lambda lines: [*lines[:2], "[1]\n"], "line 3: record is None"),
        (lambda lines: [changed(lines[0], version=2)], "line 1: schema version 2, this code reads 1"),
        (lambda lines: [lines[0], without(lines[1], "reason")], "line 2: .*reason is missing or too much"),
        (lambda lines: [lines[0], changed(lines[1], mood="good")], "line 2: .*mood is missing or too much"),
        (lambda lines: [lines[0], changed(lines[1], time_s="now")], "line 2: time_s is 'now'; give int or float"),
        (lambda lines: [lines[0], changed(lines[1], prefill=True)], "line 2: prefill is True; give int"),
        (lambda lines: [lines[0], changed(lines[1], prefill=9)], "line 2: worker 9 was chosen and is no candidate"),
        (lambda lines: [lines[0], lines[9], lines[1]], "line 3: .* comes after"),
        (lambda lines: lines[1:2], "line 1: a decision comes before the head of its run"),
        (
            lambda lines: [lines[0], changed(lines[1], candidates=[without(lines[1]["candidates"][0], "age_s")])],
            "line 2: a candidate has the fields .*age_s is missing",
        ),
    ],
)
def test_lines_that_are_not_of_the_schema_are_named(tmp_path, written, spoil, says):
    lines = lines_of(written)
    assert read_trace(saved(tmp_path, lines))  # control: unspoilt they are fine
    with pytest.raises(InputError, match=says):
        read_trace(saved(tmp_path, spoil(lines)))


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a trace"):
        read_trace(tmp_path / "nowhere.jsonl")
    (tmp_path / "not.jsonl.gz").write_text("plain")
    with pytest.raises(InputError, match="cannot be read as a trace"):
        read_trace(tmp_path / "not.jsonl.gz")


def test_every_field_is_explained():
    for kind, fields in FIELDS.items():
        assert all(meaning and types for types, meaning in fields.values()), kind
