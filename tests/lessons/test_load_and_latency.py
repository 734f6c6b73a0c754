"""The judges of lab 1: right answers pass, and each typical mistake gets the hint that names it."""

import math

import pytest

from helpers.lessons import load_and_latency as lab
from helpers.lessons.verdict import NOT_YET, Unanswered, judged
from helpers.metrics.latency import tpot_s, ttft_s
from helpers.metrics.percentiles import percentile
from helpers.metrics.queueing import pollaczek_khinchine_wait_s
from helpers.workload.hygiene import describe


def finished_only(function):
    """The function on requests that finished, None on the others."""
    return lambda t: function(t) if t.status == "finished" else None


def with_gaps(function):
    """The function on finished requests of two tokens or more, None on the others."""
    return lambda t: function(t) if t.status == "finished" and t.output_tokens > 1 else None


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda t: t.first_token_s and t.first_token_s - t.dispatched_s, "from the send"),
        (lambda t: t.first_token_s and t.first_token_s - t.prefill_start_s, "start of the prefill"),
        (finished_only(lambda t: t.finished_s - t.arrival_s), "E2E"),
        (finished_only(ttft_s), "request 4 (unfinished, 7 tokens) has a TTFT"),
        (lambda t: ttft_s(t) or 0.0, "has no TTFT"),
        (lambda t: 1.0, "look at the definition"),
        (lambda t: t.first_token_s - t.arrival_s, "request 3 (rejected, 7 tokens): your function stops with TypeError"),
    ],
)
def test_wrong_ttfts_get_their_hint(wrong, hint):
    found = lab.judge_ttft(wrong)
    assert found is not None and hint in found


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (with_gaps(lambda t: (t.finished_s - t.first_token_s) / t.output_tokens), "n - 1 gaps"),
        (with_gaps(lambda t: (t.finished_s - t.arrival_s) / t.output_tokens), "TTFT is in it"),
        (with_gaps(lambda t: (t.finished_s - t.arrival_s) / (t.output_tokens - 1)), "TTFT is in it"),
        (lambda t: tpot_s(t) or 0.0, "has no TPOT"),
        (finished_only(lambda t: (t.finished_s - t.first_token_s) / max(1, t.output_tokens - 1)), "has no TPOT"),
    ],
)
def test_wrong_tpots_get_their_hint(wrong, hint):
    found = lab.judge_tpot(wrong)
    assert found is not None and hint in found


def test_dividing_by_zero_gaps_is_a_verdict():
    verdict = judged("TPOT", lab.judge_tpot, finished_only(lambda t: t.finished_s / (t.output_tokens - 1) * 0 + 0.5))
    assert not verdict.passed


def test_right_latencies_pass():
    assert lab.judge_ttft(ttft_s) is None and lab.judge_tpot(tpot_s) is None


def wait(rate, service, c2):
    return pollaczek_khinchine_wait_s(rate, service, c2) if rate * service < 1 else math.inf


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda r, s, c2: wait(r, s, 0.0), "c2 is missing"),
        (lambda r, s, c2: wait(r, s, 1.0), "c2 = 1 only"),
        (lambda r, s, c2: s + wait(r, s, c2), "no wait"),
        (lambda r, s, c2: 2 * wait(r, s, c2), "2 below"),
        (lambda r, s, c2: r * s * s * (1 + c2) / 2, "idle share"),
        (lambda r, s, c2: wait(r, s, c2 * c2), "squared"),
        (lambda r, s, c2: r * s / (1 - r * s) * (1 + c2) / 2 * s if r * s != 1 else 0.0, "never ends"),
        (lambda r, s, c2: 0.3, "by hand"),
    ],
)
def test_wrong_waits_get_their_hint(wrong, hint):
    found = lab.judge_wait(wrong)
    assert found is not None and hint in found


def test_a_wait_that_stops_leaves_a_gap_at_that_load():
    """At load 0.5 with S = 0.5 s the rate is 1/s, and 1 / (1 - 1) stops; at 0.25 it is 0.5/s."""
    assert lab.waits(lambda r, s, c2: (r, s, c2) and r / (1 - r), (0.25, 0.5), 0.5, 4) == [1.0, None]


def test_the_right_wait_passes_and_the_stub_is_unanswered():
    assert lab.judge_wait(wait) is None
    with pytest.raises(Unanswered):
        lab.judge_wait(lambda r, s, c2: NOT_YET)


def test_the_knee_is_judged_by_the_simulator():
    workload = lab.lab_workload()
    assert "too low" in lab.judge_knee(0.5)
    assert "too high" in lab.judge_knee(4.0)
    low, high = 1.0, 2.0  # bisect: somewhere in between the judge must be content
    for _ in range(12):
        middle = (low + high) / 2
        verdict = lab.judge_knee(middle)
        if verdict is None:
            break
        low, high = (middle, high) if "too low" in verdict else (low, middle)
    assert verdict is None
    assert lab.attainment(workload, middle) >= lab.TARGET > lab.attainment(workload, lab.KNEE_MARGIN * middle)


@pytest.mark.parametrize("strange", ["fast", -1.0, 0, math.inf, None])
def test_a_knee_that_is_no_rate_is_refused(strange):
    assert "no rate" in lab.judge_knee(strange)


@pytest.fixture(scope="module")
def files():
    return lab.reports()


def test_each_flaw_is_really_there_and_nowhere_else(files):
    ticked = {name for name, one in files.items() if describe(one.workload).ticks.tick_s is not None}
    small = {name for name, one in files.items() if len(one.run.timelines) < 3000}
    due = {name: {r.id: r.arrival_s for r in one.workload} for name, one in files.items()}
    late = {
        name
        for name, one in files.items()
        if percentile([t.arrival_s - due[name][t.id] for t in one.run.timelines], 50).value > 1.0
    }
    found = {"ticks": ticked, "too few requests": small, "closed loop": late}
    right = {flaw: {name for name, a in lab.ANSWERS.items() if a == flaw} for flaw in found}
    assert found == right
    assert [name for name, flaw in lab.ANSWERS.items() if flaw == "none"] == sorted(
        set(files) - set().union(*right.values())
    )


def test_the_claims_are_true_of_their_runs(files):
    """Each report's number is right: what is wrong is what it is taken to mean."""
    ttfts = {name: [ttft_s(t) for t in one.run.timelines] for name, one in files.items()}
    assert percentile(ttfts["A"], 50).value < 0.5
    assert f"{percentile(ttfts['B'], 99).value:.3f}" in files["B"].claim
    assert lab.goodput(files["C"].run.log, lab.LAB_SLO).attainment > 0.9
    assert percentile(ttfts["D"], 90).value > 2.0


def test_flaws_are_judged():
    assert lab.judge_flaws(dict(lab.ANSWERS)) is None
    swapped = {**lab.ANSWERS, "A": lab.ANSWERS["D"], "D": lab.ANSWERS["A"]}
    assert "2 of 4" in lab.judge_flaws(swapped) and "Report A" in lab.judge_flaws(swapped)
    assert "no flaw in the list" in lab.judge_flaws({**lab.ANSWERS, "B": "cosmic rays"})
    assert "one flaw for each" in lab.judge_flaws({"A": "none"})
    for name in lab.ANSWERS:
        for flaw in lab.FLAWS:
            hint = lab.judge_flaws({**lab.ANSWERS, name: flaw})
            assert (hint is None) == (flaw == lab.ANSWERS[name])
            assert hint is None or lab.ANSWERS[name] not in hint.replace(lab.WHERE[name], "")
