"""The verification of timed runs notices planted faults, each of which is really there."""

from dataclasses import replace

import pytest

from helpers.bench.verification import CORRUPTIONS, breaches, digests, unnoticed
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate


@pytest.fixture(scope="module")
def played():
    workload = generate("conversation", requests=60, rate_per_s=4.0, seed=3)
    return Experiment(workload, Fleet(workers=2), "least_requests").run().log, workload


def test_a_sound_run_has_no_breach_and_every_planted_fault_is_noticed(played):
    log, workload = played
    assert breaches(log, workload, workload.sha256) == ()
    assert unnoticed(log, workload, workload.sha256) == [] and len(CORRUPTIONS) == 7
    for name, corrupt in CORRUPTIONS.items():
        damaged, other = corrupt(log, workload)
        assert damaged != log or other != workload, name  # control: something was damaged
        assert breaches(damaged, other, workload.sha256), name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a request is missing", "1 requests never left, the first is 0"),
        ("a request is there twice", "1 requests left twice, the first is 59"),
        ("a token is missing", "and asked for"),
        ("an output is longer in both places", "and asked for"),
        ("an end is moved", "its last token was out"),
        ("a first token is before the prefill", "times are not in order"),
        ("a prompt of the workload is changed", "the workload is not the one that was frozen"),
    ],
)
def test_each_fault_is_named(played, name, says):
    log, workload = played
    found = breaches(*CORRUPTIONS[name](log, workload), workload.sha256)
    assert says in found[0]


def test_a_request_of_another_workload_and_one_left_over_are_named(played):
    log, workload = played
    strange = replace(log, timelines=(*log.timelines, replace(log.timelines[-1], id=99)))
    assert breaches(strange, workload, workload.sha256) == ("1 requests were never asked for, the first is 99",)
    late = replace(log, timelines=(replace(log.timelines[0], status="unfinished"), *log.timelines[1:]))
    assert breaches(late, workload, workload.sha256) == ("request 0 is neither finished nor rejected",)
    other = replace(log, timelines=(replace(log.timelines[0], prompt_tokens=1), *log.timelines[1:]))
    assert "is another one" in breaches(other, workload, workload.sha256)[0]


def test_a_rejected_request_has_left(played):
    log, workload = played
    turned = replace(log.timelines[0], status="rejected")
    found = breaches(replace(log, timelines=(turned, *log.timelines[1:])), workload, workload.sha256)
    assert not any("never left" in one or "neither" in one for one in found)


def test_a_check_that_sees_nothing_would_be_reported(played, monkeypatch):
    log, workload = played
    monkeypatch.setitem(CORRUPTIONS, "nothing at all", lambda log, w: (log, w))
    assert unnoticed(log, workload, workload.sha256) == ["nothing at all"]


def test_digests_tell_decisions_from_times(played):
    log, _ = played
    same = digests(log)
    first = log.timelines[0]
    later = replace(log, timelines=(replace(first, finished_s=first.finished_s + 1e-12), *log.timelines[1:]))
    assert digests(later)["decisions"] == same["decisions"] and digests(later)["timelines"] != same["timelines"]
    elsewhere = replace(log, timelines=(replace(first, prefill_worker=1 - first.prefill_worker), *log.timelines[1:]))
    assert digests(elsewhere)["decisions"] != same["decisions"]
