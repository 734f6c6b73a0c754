"""Exposed, hidden, ladders and sizes, worked by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.disagg import live
from helpers.bench.disagg.figures import exposed_s, hidden_s, latencies, legs, longest_gap_s, second_token_s
from helpers.bench.disagg.live import SETUPS
from helpers.bench.disagg.report import steps_of
from helpers.bench.order import BASELINE, Cell
from helpers.bench.record.disagg import summed_up
from helpers.bench.soundness import answers_alike
from helpers.bench.targets import disagg, inference_full
from helpers.bench.targets.disagg import FIRST, LADDER, RUNGS
from helpers.bench.targets.latencies import LATENCIES
from helpers.bench.targets.target import Sample, changes
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline
from helpers.paths import ROOT
from helpers.scheduling.limits import Limits
from helpers.scheduling.plain import NoReuse, StaticBatches
from helpers.scheduling.scheduler import Scheduler
from helpers.scheduling.sequence import Sequence
from helpers.workload.request import Request


def timeline(**more):
    return Timeline(0, 1.0, 64, 3, "finished", first_token_s=2.0, finished_s=3.0, **more)


def test_what_is_exposed_and_what_is_hidden():
    """First bytes at 1.7, first token at 2.0, all there at 2.25: 0.3 s hidden, 0.25 s exposed."""
    early = timeline(transfer_start_s=1.7, transfer_end_s=2.25)
    assert (hidden_s(early), exposed_s(early)) == (pytest.approx(0.3), pytest.approx(0.25))
    late = timeline(transfer_start_s=2.1, transfer_end_s=2.25)  # control: nothing went before the token
    assert (hidden_s(late), exposed_s(late)) == (0.0, pytest.approx(0.25))
    assert (hidden_s(timeline()), exposed_s(timeline())) == (None, None)


def test_the_second_token_and_the_longest_gap():
    """Rows of 0.1 s from 2.4 and of 0.5 s from 2.5: tokens at 2.0, 2.5 and 3.0, so gaps of 0.5 and 0.5."""
    steps = StepLog()
    steps.append(2.4, 1, 0.1, 0.0, 1, 0)
    steps.append(2.5, 1, 0.5, 0.0, 1, 0)
    t = timeline(spans=(Span(0, 0, 1),))
    log = EventLog((t,), (steps,))
    assert second_token_s(log)(t) == pytest.approx(1.5)  # 2.4 + 0.1 - 1.0
    assert longest_gap_s(log, t) == pytest.approx(0.5)
    assert second_token_s(log)(timeline()) is None


def test_a_hand_off_leg_by_leg():
    """First token at 2.0; offered at 1.9, told at 2.1, heard at 2.125, joined at 2.25, and the step that has it ends at
    2.5. Control: whose way is not known has none, and does not count as nothing."""
    steps = StepLog()
    steps.append(2.4, 1, 0.1, 0.0, 1, 0)
    one = timeline(transfer_start_s=1.7, transfer_end_s=2.25, spans=(Span(0, 0, 0),))
    found = legs(EventLog((one,), (steps,)), {0: [1.9, 0.01, 2.1, 2.125]})
    wanted = {"offered": -0.1, "took": 0.01, "told": 0.1, "heard": 0.025, "joined": 0.125, "stepped": 0.25}
    assert found == {f"{name}_leg_s": pytest.approx(value) for name, value in wanted.items()}
    assert set(legs(EventLog((one,), (steps,)), {}).values()) == {None}
    assert legs(EventLog((one,), (steps,)), {0: [1.9, None, 2.1, 2.125]})["took_leg_s"] is None


def test_rungs_are_held_against_the_one_before():
    """10, 8 and 8 on both seeds: -2 for the second rung, 0 for the third, and against the first that would be -2."""
    arms = [{"arm": name, "samples": {"x": [v, v]}} for name, v in (("a", 10.0), ("b", 8.0), ("c", 8.0))]
    record = {"margin": 0.05, "seeds": [0, 1], "scenarios": [{"name": "s", "primary": "x", "arms": arms}]}
    found = steps_of(record)["steps"]
    assert [(one["rung"], one["before"], one["said"]) for one in found] == [
        ("b", "a", "lower"),
        ("c", "b", "no effect"),
    ]
    assert found[0]["difference"]["mean"] == pytest.approx(-2.0)


def test_every_rung_changes_one_thing_and_the_rival_only_the_split():
    scenario = LADDER.scenarios[0]
    assert [changes(scenario.baseline, one) for one in scenario.variants.values()] == [
        *[["mover"]] * (len(RUNGS) - 1),
        ["fleet.split"],
    ]
    assert changes(scenario.baseline, scenario.planted) == ["link_bytes_per_s"]
    # a first token does not wait for its hand-off: only a sender that does lets a slow link be seen in TTFT
    assert changes(FIRST.scenarios[0].baseline, FIRST.scenarios[0].planted) == ["mover", "link_bytes_per_s"]
    with pytest.raises(InputError, match="mover and link_bytes_per_s"):
        replace(scenario, variants={"two": replace(scenario.planted, mover="slabs")}, predicted={})


def sequence(number):
    return Sequence(Request(number, 0.0, 64, 2, (5, number)), number, 0.0)


@pytest.mark.parametrize(("kind", "comes_in"), [(StaticBatches, False), (Scheduler, True)])
def test_a_static_batch_lets_nobody_in_between(kind, comes_in):
    scheduler = kind(Limits(16, 64, 256, 4))
    scheduler.add(sequence(0))
    scheduler.commit(scheduler.schedule())
    scheduler.add(sequence(1))
    assert bool(scheduler.schedule().chunks) is comes_in


def test_without_reuse_nothing_is_found():
    for kind, found in ((NoReuse, 0), (None, 1)):
        scheduler = Scheduler(Limits(16, 64, 256, 4))
        if kind:
            scheduler.pool = kind(16)
        for number in range(2):
            asked = Sequence(Request(number, 0.0, 100, 1, (5, number)), number, 0.0)
            scheduler.add(asked)
            scheduler.commit(scheduler.schedule())
        assert asked.cached_tokens == 64 * found


def results(answers):
    """The baseline and one arm with these answers."""
    sample = lambda of: Sample({}, "", {}, (), (), {"answers": of})  # noqa: E731
    cells = {Cell(BASELINE, "s", 0): sample(list("abcdefghijklmnopqrst")), Cell("v", "s", 0): sample(list(answers))}
    return SimpleNamespace(samples=cells, target=inference_full.TARGET)


def test_answers_of_live_arms_are_compared():
    """One of twenty may be another, as near ties turn; two may not; and nothing to compare is no pass."""
    assert answers_alike(results("abcdefghijklmnopqrsX"))["passed"]
    assert not answers_alike(results("abcdefghijklmnopqrXX"))["passed"]
    assert not answers_alike(SimpleNamespace(samples={}, target=inference_full.TARGET))["passed"]


def test_the_arms_of_a_recording_are_summed_up_over_their_seeds():
    runs = [
        {"name": f"layerwise, seed {i}", "arm": "layerwise", "run": {"exposed_of_ttft": v}}
        for i, v in enumerate((0.5, 0.1))
    ]
    first = {"name": "layerwise: first use", "arm": "layerwise", "run": {"exposed_of_ttft": 9.0}}
    (found,) = summed_up([first, *runs], "cuda")
    assert (found["name"], found["value"], found["met"]) == ("layerwise: exposed_of_ttft", pytest.approx(0.3), False)
    assert "met" not in next(summed_up(runs, "cpu"))  # the goal is one of GPUs


@pytest.mark.parametrize(("left", "why"), [((), ""), ((0,), "not sent in time"), ((1,), "no stage")])
def test_a_run_that_lost_a_request_is_no_run(monkeypatch, left, why):
    """Whether it failed on the way or was never sent. Control: all that were asked have finished."""
    asked = SETUPS["cpu"].draw(0, 0.1)
    done = [timeline() for _ in asked]
    done = {(): done, (0,): done[1:], (1,): [*done[1:], replace(done[0], status="unfinished", reason="no stage")]}[left]
    monkeypatch.setattr(live, "serve", lambda *_: SimpleNamespace(timelines=done))
    crew = SimpleNamespace(spec=SimpleNamespace(token_budget=256))
    if left:
        with pytest.raises(InputError, match=f"1 of {len(asked)} requests.*{why}"):
            live.run_of(SETUPS["cpu"], crew, "bounce", asked)
    else:
        assert live.run_of(SETUPS["cpu"], crew, "bounce", asked).timelines == done


NOISY = """
import os, sys
sys.path.insert(0, {root!r})
from helpers.bench.disagg import child
def points(section):
    os.write(1, b"a library speaks\\n")
    print("and Python too")
    yield {{"name": section}}
child.points = points
child.main()
"""


def test_what_libraries_print_is_no_point():
    code = NOISY.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], input='{"section": "x"}\n', capture_output=True, text=True)
    assert json.loads(done.stdout) == {"name": "x"}
    assert "a library speaks" in done.stderr


def test_the_statistics_of_live_targets_are_those_that_a_run_gives_in_its_order():
    steps = StepLog()
    for start_s in (2.4, 2.5):
        steps.append(start_s, 1, 0.1, 0.0, 1, 0)
    given = latencies(EventLog((timeline(spans=(Span(0, 0, 1),)),), (steps,)))
    assert list(given) == [one.name for one in LATENCIES]
    for target in (*disagg.TARGETS.values(), inference_full.TARGET):
        assert set(LATENCIES) <= set(target.statistics)
        assert len({one.name for one in target.statistics}) == len(target.statistics)
