"""The count of what becomes of requests: lost, answered twice and wrong answers are seen."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.cluster import faults
from helpers.cluster.faults import Disconnect
from helpers.errors import InputError
from helpers.metrics.timeline import Timeline

CASE = faults.Case("a test", "1P1D")
ASKED = faults.load(20)
RIGHT = {r.id: list(range(r.output_tokens)) for r in ASKED}


def timeline(request, status="finished", reason=""):
    return Timeline(
        request.id, request.arrival_s, request.prompt_tokens, request.output_tokens, status, reason,
        first_token_s=request.arrival_s + 0.5,
    )  # fmt: skip


def outcome(timelines=None, tokens=None):
    counts = {"rerouted": 3, "ignored_tokens": 2, "workers_lost": 1}
    made = tuple(timeline(r) for r in ASKED) if timelines is None else tuple(timelines)
    run = SimpleNamespace(
        timelines=made, tokens=RIGHT if tokens is None else tokens, log=SimpleNamespace(counts=counts), end_s=9.0,
        kv_peak_share=(0.2, 0.4),
    )  # fmt: skip
    return faults.outcome(CASE, ASKED, run, RIGHT)


def test_all_is_well():
    made = outcome()
    assert (made.sent, made.finished, made.failed, made.lost, made.twice, made.same) == (20, 20, 0, 0, 0, 20)
    assert (made.rerouted, made.ignored_tokens, made.workers_lost, made.kv_peak_share) == (3, 2, 1, 0.4)
    assert made.ttft_p90_s == pytest.approx(0.5) and made.transfer_p90_s is None
    assert made.sound


def test_a_failure_with_a_reason_is_counted_by_it():
    made = outcome([timeline(r) if r.id else timeline(r, "rejected", "full") for r in ASKED])
    assert (made.finished, made.failed, made.lost, made.reasons) == (19, 1, 0, {"full": 1})
    assert made.sound


def test_what_is_wrong_is_seen():
    silent = outcome([timeline(r) if r.id else timeline(r, "unfinished") for r in ASKED])
    assert (silent.lost, silent.sound) == (1, False)  # it has no reason
    missing = outcome([timeline(r) for r in ASKED if r.id])
    assert (missing.lost, missing.sound) == (1, False)
    more = outcome(tokens={**RIGHT, 3: [*RIGHT[3], 0]})
    assert (more.twice, more.sound) == (1, False)
    doubled = outcome([*(timeline(r) for r in ASKED), timeline(ASKED.requests[0])])
    assert doubled.twice == 1 and not doubled.sound
    other = outcome(tokens={**RIGHT, 3: [99] * len(RIGHT[3])})
    assert (other.same, other.sound) == (19, False)


def test_cases_by_name():
    assert [case.name for case in faults.named(["hangs"])] == ["a prefill worker hangs", "a decode worker hangs"]
    assert faults.named(None) == list(faults.CASES)
    with pytest.raises(InputError, match="a slow link"):
        faults.named(["flood"])
    with pytest.raises(InputError, match="no load"):
        faults.run_cases([CASE], 5)


def test_a_case_runs():
    """Clients leave one decode worker: they are counted, and the rest is answered rightly."""
    case = replace(CASE, faults=tuple(Disconnect(i, 0.3) for i in range(20)))
    (made,) = faults.run_cases([case], 20)
    assert made.sound and made.finished + made.failed == 20
    assert made.failed == made.reasons.get("its client left", 0) > 0
