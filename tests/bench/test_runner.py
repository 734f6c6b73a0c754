"""The runner: fresh processes in random order, planted differences found, crashes told, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.bench import runner
from helpers.bench.order import BASELINE, IDENTICAL, SLOW, Cell, blocks_of, ordered
from helpers.bench.report import as_written, record_of, summary
from helpers.bench.runner import Plan, run_targets
from helpers.bench.targets.registry import load
from helpers.errors import InputError
from helpers.paths import ROOT

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def planted_found(monkeypatch):
    """The processes get the search path of this one, and so find `planted`."""
    monkeypatch.syspath_prepend(HERE)


def run(name, **more):
    plan = Plan(**{"seeds": (0, 1), "jobs": 2, **more})
    (results,) = run_targets([f"planted:{name}"], plan)
    return results, record_of(results)


def arm(record, name, scenario=0):
    return next(one for one in record["scenarios"][scenario]["arms"] if one["arm"] == name)


@pytest.fixture(scope="module")
def sound():
    sys.path.insert(0, HERE)
    try:
        return run("SOUND", seeds=(0, 1, 2))
    finally:
        sys.path.remove(HERE)


def test_a_planted_difference_is_found_and_everything_is_sound(sound):
    _results, record = sound
    assert record["sound"] and not record["failures"]
    # One of two workers gets everything: 30 requests a second, of which it can serve about 20.
    assert arm(record, "worse")["verdict"] == "lower"
    assert arm(record, "least_requests")["verdict"] != "lower"
    assert [one["passed"] for one in record["checks"] + record["controls"]] == [True] * 7
    assert len(arm(record, "worse")["samples"]["goodput_per_s"]) == 3


def test_every_arm_under_every_block_of_seeds_has_a_process_of_its_own(sound):
    results, record = sound
    # 2 scenarios x (baseline + 3 variants) x 3 seeds, and 2 controls x 3 seeds on the first scenario.
    assert len(results.samples) == 2 * 4 * 3 + 2 * 3
    assert Counter(cell.arm for cell in results.samples)[IDENTICAL] == 3
    assert len(record["order"]) == 4 + 2 + 1  # one block of seeds: an arm each, the controls, what is repeated
    assert {cell.kind for cell in results.again} == {"again"} and len(results.again) == 4


def test_identical_arms_came_to_the_same_run_to_the_last_bit(sound):
    results, _ = sound
    for seed in (0, 1, 2):
        one, other = (results.samples[Cell(name, "one", seed)] for name in (BASELINE, IDENTICAL))
        assert one.digests == other.digests
        assert one.digests != results.samples[Cell(SLOW, "one", seed)].digests  # control: the digest does tell


def test_the_order_is_drawn_from_its_seed_and_really_random():
    target = load("planted:SOUND")
    assert ordered(target, range(10), 7) == ordered(target, range(10), 7)
    turns = {tuple(task.label for task in ordered(target, range(5), seed)) for seed in range(20)}
    assert len(turns) > 15  # of 6! = 720 orders of the arms
    first = Counter(ordered(target, range(5), seed)[0].cells[0].arm for seed in range(60))
    assert len(first) == 6 and max(first.values()) < 30  # no arm is first half of the time; fixed orders would be
    tasks = ordered(target, range(10), 0)
    # Blocks of five seeds come one after the other, each with every arm once.
    half = [task.cells[0].arm for task in tasks[:6]], [task.cells[0].arm for task in tasks[6:12]]
    assert sorted(half[0]) == sorted(half[1]) and half[0] != half[1]
    assert {cell.seed for task in tasks[:6] for cell in task.cells} == set(range(5))


def test_blocks_hold_all_seeds_once():
    assert blocks_of(range(12), 5) == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]


def test_a_crash_is_one_sentence_with_its_cause_and_takes_no_finished_sample():
    _results, record = run("DYING")
    (said,) = record["failures"][:1]
    assert said.startswith("planted, dies, seeds 0 to 1: its process ended with exit code 1 after 0 of 2 runs")
    assert "RuntimeError: planted: this router gives up" in said and "\n" not in said
    assert not record["sound"]
    assert arm(record, "random")["difference"]["goodput_per_s"]["n"] == 2  # the others are there
    assert arm(record, "dies")["samples"] == {} and arm(record, "dies")["verdict"] == "not shown"


def test_a_process_that_vanishes_is_told_by_its_exit_code():
    _, record = run("VANISHING")
    assert any("vanishes" in one and "exit code 9" in one and "it said nothing" in one for one in record["failures"])


def test_samples_sent_before_a_crash_are_kept():
    """The first run of the process is on 5 requests, the second on 60, at the sixth of which it dies."""
    results, record = run("DYING_LATER")
    kept = {cell for cell in results.samples if cell.arm == "dies"}
    assert kept and {cell.scenario for cell in kept} == {"short"}
    assert all(results.samples[cell].values["goodput_per_s"] is not None for cell in kept)
    assert any("dies" in one and f"after {len(kept)} of 4 runs" in one for one in record["failures"])


def test_a_policy_that_is_another_one_in_each_process_is_noticed():
    _, record = run("WAVERING")
    found = {one["name"]: one for one in record["checks"]}
    assert not found["repeatable in another process"]["passed"] and not record["sound"]
    assert "wavers" in found["repeatable in another process"]["said"]
    assert found["frozen draws in all arms"]["passed"]  # the draws are the same all the same


def test_a_statistic_that_cannot_tell_fails_its_control():
    _, record = run("BLIND")
    identical, slow, damaged = record["controls"]
    assert identical["passed"] and damaged["passed"] and not slow["passed"] and not record["sound"]
    assert "must be 'lower'" in slow["said"]


def test_a_run_without_the_primary_statistic_is_a_breach():
    _, record = run("FORGETFUL")
    verified = next(one for one in record["checks"] if one["name"] == "timed runs verified")
    assert not verified["passed"] and "the run has no goodput_per_s" in verified["said"]


def test_nothing_looked_at_is_not_passed(sound):
    assert not any(one["passed"] for one in record_of(replace(sound[0], samples={}, again={}))["checks"])


def test_a_draw_that_was_not_the_frozen_one_is_noticed(sound):
    results, _ = sound
    cell = Cell("worse", "two", 1)
    other = replace(results.samples[cell], workload_sha256="0" * 64)
    found = record_of(replace(results, samples={**results.samples, cell: other}))["checks"]
    assert [one["name"] for one in found if not one["passed"]] == ["frozen draws in all arms"]
    assert "two, worse, seed 1" in next(one["said"] for one in found if not one["passed"])


def test_a_missing_run_is_noticed(sound):
    results, _ = sound
    fewer = {cell: one for cell, one in results.samples.items() if cell != Cell("random", "two", 2)}
    found = record_of(replace(results, samples=fewer))
    assert [one["said"] for one in found["checks"] if not one["passed"]] == ["1 of 30 runs are missing"]
    assert arm(found, "random", 1)["samples"]["goodput_per_s"][2] is None  # and the others keep their places


def test_a_workload_that_was_changed_since_it_was_written_down_shows(sound):
    results, _ = sound
    drawn = results.frozen["one"][0]

    def written(digest, **plan):
        told = replace(
            results, target=replace(results.target, frozen={"one": digest}), plan=replace(results.plan, **plan)
        )
        return as_written(told, told.target.scenario("one")), as_written(told, told.target.scenario("two"))

    assert written(drawn[:16]) == (True, None)  # of the second nothing is written down
    assert written("0" * 16) == (False, None)
    assert written(drawn[:16], requests=10) == (None, None)  # another number of requests is another draw


def test_repetitions_keep_every_time_and_must_agree():
    results, _record = run("WAVERING", iterations=2)
    assert all(len(one.wall_s) == 2 for one in results.samples.values())
    wavering = [one.breaches for cell, one in results.samples.items() if cell.arm == "wavers"]
    assert wavering and all("a repetition in the same process came to another run" in one for one in wavering)
    assert not any(one.breaches for cell, one in results.samples.items() if cell.arm == BASELINE)


def test_where_seconds_are_measured_nothing_runs_beside(monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTED_ALONE", str(tmp_path))
    monkeypatch.setenv("PLANTED_PATIENCE_S", "0.2")
    _, record = run("ALONE_WITH_THE_CLOCK", requests=20, jobs=3)
    assert record["failures"] == []
    # Control: side by side they meet, however long it takes them to start; the wait ends when they do.
    monkeypatch.setenv("PLANTED_PATIENCE_S", "60")
    monkeypatch.setattr(runner, "_is_timed", lambda target, task: False)
    _, crowded = run("ALONE_WITH_THE_CLOCK", requests=20, jobs=3)
    assert any("FileExistsError" in one for one in crowded["failures"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"seeds": (0,)}, "1 seeds give no interval"),
        ({"requests": 0}, "0 requests"),
        ({"iterations": 0}, "0 iterations"),
        ({"jobs": 0}, "0 jobs"),
    ],
)
def test_plans_that_cannot_be_are_refused(more, says):
    with pytest.raises(InputError, match=says):
        Plan(**{"seeds": (0, 1), **more})


def test_the_summary_leaves_the_raw_samples_out(sound):
    _, record = sound
    assert "samples" not in json.dumps(summary(record)) and "samples" in json.dumps(record)
    assert summary(record)["scenarios"][0]["arms"][1]["verdict"] == record["scenarios"][0]["arms"][1]["verdict"]


# -- whatever ends the run ends the processes

PARENT = """
import sys
sys.path.insert(0, {here!r})
from helpers.bench.runner import Plan, run_targets
run_targets(["planted:HANGING"], Plan((0, 1), jobs=2))
"""


def children_of(pid: int) -> list[int]:
    """The processes of the runner that a process has started, by their parent in /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text() if entry.name.isdigit() else ""
            line = (entry / "cmdline").read_text() if status else ""
        except OSError:
            continue
        if status and int(status.rpartition(")")[2].split()[1]) == pid and "helpers.bench.child" in line:
            found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true, limit_s: float = 60.0) -> bool:
    """Wait until something is so; the limit is there only so that a broken runner does not hang the tests."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_runner_is_interrupted_or_killed(end):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(here=HERE)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        hung: set[int] = set()

        def both_hang() -> bool:
            hung.update(children_of(parent.pid))
            return (sum(map(alive, hung)) == 2 and len(hung) > 2) or len(hung) >= 3

        assert until(both_hang)
        assert any(map(alive, children_of(parent.pid)))  # control: they are there, and this test can see them
        last = children_of(parent.pid)
        parent.send_signal(end)
        parent.wait(60)
        assert until(lambda: not any(map(alive, last)))
    finally:
        parent.kill()
        parent.communicate()
