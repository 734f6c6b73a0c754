"""The judges of lab 2: what a right answer reaches on traffic that it never saw, and what each mistake is told."""

from random import random
from statistics import fmean

import pytest

from helpers.errors import InputError
from helpers.lessons import help_desk as desk
from helpers.lessons import router_reports as files
from helpers.lessons import routers as lab
from helpers.lessons.building import LABS
from helpers.lessons.probing import IDLE, LOADED, QUESTION, likes, looked_at, unfit
from helpers.lessons.verdict import NOT_YET, Unanswered, judged
from helpers.metrics.goodput import goodput, hit_rate
from helpers.serving.experiment import Experiment
from helpers.simulator.views import Telemetry


def weighed(reuse, tokens=1, requests=1000):
    """A score: cached tokens by a weight, less what was sent."""
    return lambda request, w: reuse * w.cached_tokens - tokens * w.sent_tokens - requests * w.sent_requests


def foreseen(slack, tokens_per_s=25_000):
    """A rule: the queue of what was sent and the own prompt, against a part of the bound."""
    return lambda request, w: (
        w.sent_tokens / tokens_per_s + lab.prefill_s(request.prompt_tokens, w.cached_tokens)
        <= slack * lab.SLOS[request.slo_class].ttft_s
    )


# The traffic


def test_the_draws_are_the_frozen_ones(monkeypatch):
    assert all(len(digest) == 16 for digest in desk.FROZEN.values()) and tuple(desk.FROZEN) == desk.DRAWS
    for seed in desk.DRAWS:
        drawn = desk.draw(seed)
        assert [r.slo_class for r in drawn].count("summary") == desk.SUMMARIES and len(drawn) == desk.REQUESTS
        assert [r.arrival_s for r in drawn] == sorted(r.arrival_s for r in drawn)
    assert not set(desk.DRAWS) & set(desk.UNSEEN)
    monkeypatch.setitem(desk.FROZEN, 1, "0" * 16)
    with pytest.raises(InputError, match="not the one that was frozen"):
        desk.draw.__wrapped__(1)


def test_summaries_are_several_times_as_long_and_share_nothing():
    prompts = {name: [r for r in desk.draw(1) if r.slo_class == name] for name in desk.SLOS}
    length = {name: fmean(r.prompt_tokens for r in of) for name, of in prompts.items()}
    assert length["summary"] > 3 * length["question"]
    assert not any(r.prefix_blocks for r in prompts["summary"]) and all(r.prefix_blocks for r in prompts["question"])


def test_the_documents_do_not_fit_in_the_fleet():
    workload = desk.draw(1)
    blocks = {block for r in workload for block in r.prefix_blocks}
    assert len(blocks) > len(desk.FLEET.roles) * desk.FLEET.kv_blocks(workload.block_tokens)


def test_the_best_given_router_is_the_best_on_every_draw():
    given = lab.given_knees()
    assert all(
        given[lab.BEST][seed] > max(given["least_requests"][seed], given["least_tokens"][seed])
        for seed in given[lab.BEST]
    )


# Part 1


def test_reuse_weighed_above_waiting_beats_the_given_on_draws_that_nobody_has_seen():
    found = lab.against_the_best(weighed(5), desk.UNSEEN)
    assert found.difference.low > 0 and found.ratio.mean > lab.GAIN


@pytest.mark.parametrize("weak", [weighed(1, requests=0), weighed(1, tokens=0)], ids=["equal tokens", "requests"])
def test_weak_scores_do_not_beat_the_given_on_them(weak):
    found = lab.against_the_best(weak, desk.UNSEEN)
    assert found.ratio.mean < 1 and found.difference.low < 0


def test_other_weights_pass_too():
    assert lab.judge_score(weighed(8, requests=2000)) is None


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda request, w: -w.sent_tokens, "ignores prefixes"),
        (lambda request, w: w.cached_tokens, "4.0 times its part"),
        (lambda request, w: 0, "no load"),
        (lambda request, w: w.cached_tokens - 1000 * w.sent_requests, "counts requests"),
        (lambda request, w: 5 * w.cached_tokens - w.waiting_tokens - 1000 * w.running, "up to 1.1 s old"),
        (weighed(1, requests=0), "weigh reuse against waiting"),
        (lambda request, w: 5 * w.cached_tokens + w.sent_tokens, "rises with the load"),
        (lambda request, w: -w.cached_tokens - w.sent_tokens, "falls with what is cached"),
        (weighed(1000), "reuse outweighs any queue"),
    ],
)
def test_a_score_that_routes_badly_is_told_why(wrong, hint):
    found = lab.judge_score(wrong)
    assert found is not None and hint in found


@pytest.mark.parametrize(
    ("unusable", "hint"),
    [
        (lambda request, w: None, "gives None; return a number"),
        (lambda request, w: "high", "gives 'high'"),
        (lambda request, w: float("nan"), "gives nan"),
        (lambda request, w: random(), "asked twice the same"),
        (lambda request, w: -w.sent_tokens - request.output_tokens, "output_tokens"),
        (lambda request, w: -w.hit_rate, "a worker has no 'hit_rate'"),
        (lambda request, w: -request.tokens, "a request has no 'tokens'"),
    ],
)
def test_a_score_that_cannot_be_used_is_told_so_without_a_run(monkeypatch, unusable, hint):
    monkeypatch.setattr(lab, "at_the_best_knees", None)
    assert hint in lab.judge_score(unusable)


def test_an_answer_that_stops_is_a_verdict_and_a_stub_is_unanswered():
    verdict = judged("score", lab.judge_score, lambda request, w: w.cached_tokens / w.sent_tokens)
    assert not verdict.passed
    assert "for a question on an idle worker it stops with ZeroDivisionError" in verdict.text
    with pytest.raises(Unanswered):
        lab.judge_score(lambda request, w: NOT_YET)
    assert set(lab.routed(lambda request, w: NOT_YET)) == set(lab.GIVEN)


@pytest.mark.parametrize("broken", [lambda request, w: 1 / w.sent_tokens, lambda request, w: w.speed, lambda r, w: "x"])
def test_a_policy_that_cannot_be_used_has_no_row_and_stops_no_table(broken):
    assert set(lab.routed(broken)) == set(lab.GIVEN)
    assert set(lab.admitted(broken)) == set(lab.GATES)
    assert set(lab.admitted(lambda request, w: w.sent_tokens < 9000)) == {*lab.GATES, "yours"}


def test_gains_within_the_noise_do_not_pass(monkeypatch):
    """The control of the judge: the same knees as the best given router's are no gain, a tenth more is one."""
    best = {seed: one.goodput_per_s for seed, one in desk.knees(lab.BEST).items()}
    real = lab._goodput
    for factor, passes in ((1.0, False), (1.04, False), (1.1, True)):
        told = lambda router, seeds, factor=factor: (  # noqa: E731
            real(router, seeds) if isinstance(router, str) else {seed: factor * best[seed] for seed in seeds}
        )
        monkeypatch.setattr(lab, "_goodput", told)
        assert (lab.judge_score(weighed(5)) is None) == passes


# Part 2


@pytest.mark.parametrize("slack", [0.6, 0.75])
def test_rules_that_foresee_pass(slack):
    assert lab.judge_rule(foreseen(slack)) is None


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda request, w: False, "rejects everybody"),
        (lambda request, w: True, "accepts everybody"),
        (lambda request, w: request.slo_class == "question", "rejects every summary"),
        (lambda request, w: request.slo_class == "summary", "rejects every question"),
        (lambda request, w: request.prompt_tokens < 20_000, "class summary 20%"),
        (lambda request, w: w.sent_tokens + request.prompt_tokens < 25_000, "even an idle worker refuses one"),
        (lambda request, w: w.sent_requests < 16, "counts requests"),
        (lambda request, w: w.sent_tokens < 30_000, "own prompt is not in it: a short one"),
        (lambda request, w: w.sent_requests < 40, "own prompt is not in it, and 30,000 tokens"),
        (lambda request, w: request.output_tokens < 300, "output_tokens"),
        (lambda request, w: w.waiting_tokens < 60_000, "reports alone"),
        (foreseen(1.0), "leave some slack"),
        (lambda request, w: w.sent_tokens, "return True or False"),
        (lambda request, w: w.queue_s < 1, "a worker has no 'queue_s'"),
    ],
)
def test_a_rule_that_admits_badly_is_told_why(wrong, hint):
    found = lab.judge_rule(wrong)
    assert found is not None and hint in found


def test_what_is_forbidden_has_more_goodput():
    """Starving the long class pays: only the shares of the classes turn it down."""
    starving, fair = (
        fmean(one.goodput_per_s for one in lab.under_overload(rule).values())
        for rule in (lambda request, w: request.slo_class == "question", foreseen(0.7))
    )
    assert starving > fair


def test_what_is_asked_stands_in_the_lab():
    """The text states the thresholds as figures; here they are those of the judges."""
    text = " ".join((LABS / "source" / f"{lab.LAB}.py").read_text(encoding="utf-8").replace("\n#", " ").split())
    for words in (
        f"at least {lab.GAIN - 1:.0%} more goodput".replace("%", " %"),
        f"of those that you accept {lab.IN_TIME:.0%} get".replace("%", " %"),
        f"goodput is at least {lab.NOT_LOWER:.0%} of that of `{lab.REFERENCE}`".replace("%", " %"),
        f"{lab.SHARES['question']:.0%} of *each* class".replace("%", " %"),
        f"comes at {desk.OVERLOAD_PER_S:g} requests/s",
        f"a weight of {desk.ROUTER_PARAMETERS['overlap_weight']:g} for reuse",
        f"up to {desk.FLEET.telemetry.period_s + desk.FLEET.telemetry.delay_s:g} s",
        f"TTFT of {lab.SLOS['question'].ttft_s:g} s (question) or {lab.SLOS['summary'].ttft_s:g} s (summary)",
        f"TPOT of {1000 * lab.SLOS['summary'].tpot_s:g} ms",
    ):
        assert words in text
    assert set(lab.SHARES.values()) == {lab.SHARES["question"]}


# What a function looks at


def test_facts_are_found_by_changing_one():
    assert looked_at(weighed(5)) == {"cached_tokens", "sent_tokens", "sent_requests"}
    assert looked_at(lambda request, w: w.kv_tokens + request.prompt_tokens) == {"kv_tokens", "prompt_tokens"}
    assert looked_at(lambda request, w: request.slo_class == "question") == {"slo_class"}
    assert looked_at(lambda request, w: w.sent_tokens < 30_000) == {"sent_tokens"}
    assert looked_at(lambda request, w: 1.0) == set()


def test_what_a_score_likes_is_found():
    assert likes(weighed(5), ["cached_tokens"]) and not likes(weighed(5), ["sent_tokens", "sent_requests"])
    assert not likes(lambda request, w: 1.0, ["cached_tokens"])
    assert not likes(lambda request, w: w.sent_tokens * (1 if w.running else -1), ["sent_tokens"])


def test_memory_between_calls_is_found():
    calls = []
    assert "asked twice" in unfit(lambda request, w: calls.append(w) or len(calls), (int, float), "a number")
    assert unfit(weighed(5), (int, float), "a number") is None
    assert IDLE.sent_tokens == 0 < LOADED.sent_tokens and QUESTION.prefix_blocks


# Part 3


@pytest.fixture(scope="module")
def reported():
    return files.reports()


@pytest.fixture(scope="module")
def found(reported):
    return {name: files.findings_of(report) for name, report in reported.items()}


def test_each_flaw_is_really_there_and_nowhere_else(reported, found):
    ticked = {name for name, of in found.items() if any(one.tick_s for one in of.values())}
    # Counted by lookups the smaller memory hits a third more; counted by first lookups it hits the same or less.
    repeated = {
        name for name, of in found.items() if any(one.lookup_hits > 1.2 * one.first_hits for one in of.values())
    }
    # Most are turned away while those let in do not wait, and the same requests fare better with nobody turned away.
    self_fed = {
        name
        for name, of in found.items()
        if any(one.turned_away[1] > 0.5 and one.wait_p90_s < 0.1 for one in of.values())
    }
    right = {flaw: {name for name, a in files.ANSWERS.items() if a == flaw} for flaw in files.FLAWS}
    assert {"ticks": ticked, "repeated prefills": repeated, "self-fed estimate": self_fed} == {
        flaw: of for flaw, of in right.items() if flaw != "none"
    }
    assert right["none"] == set(reported) - ticked - repeated - self_fed


def test_what_the_wrong_reports_conclude_is_wrong(reported, found):
    refusing, without = found["A"].values()
    assert refusing.met < 0.5 < 0.9 < without.met  # nobody had to be turned away
    large, small = found["C"].values()
    assert small.first_hits <= large.first_hits and small.met < 0.2 < 0.9 < large.met  # the memory was needed
    truth = files._serve(files.at_rate(desk.draw(1), files.TICKED_PER_S), "least_tokens")
    assert found["D"]["replay"].met < 0.7 < 0.9 < files._met(truth)  # without ticks the fleet is large enough


def test_the_claims_are_true_of_their_runs(reported, found):
    assert f"{fmean(found['A']['with admission'].turned_away):.0%}" in reported["A"].claim
    assert all(f"{one.lookup_hits:.0%}" in reported["C"].claim for one in found["C"].values())
    assert f"{found['D']['replay'].met:.0%}" in reported["D"].claim


def test_the_sound_report_is_sound(reported, found):
    """Open loop, no tick, nothing rejected or preempted, both routers below their knee, and it holds on new draws."""
    for name, one in found["B"].items():
        workload, run = reported["B"].runs[name]
        assert one.tick_s is None and one.turned_away == (0, 0) and one.preemptions == 0
        assert one.lookup_hits == pytest.approx(one.first_hits) and one.met > desk.TARGET
        assert [t.arrival_s for t in run.timelines] == [r.arrival_s for r in workload]
    gained = []
    for seed in desk.UNSEEN:
        met = [
            files._met(files._serve(files.at_rate(desk.draw(seed), files.SOUND_PER_S), router))
            for router in ("prefix_exact", "least_tokens")
        ]
        gained.append(met[0] - met[1])
    assert min(gained) > 0


def test_a_lookup_rate_by_hand():
    """Prompts of 100 tokens, the second preempted once: 300 looked up, 100 + 110 computed, so 90 of 300 found."""
    run = files._serve(files.at_rate(desk.draw(1), 3.0), "least_tokens")
    first, second = run.timelines[:2]
    for one, computed, preemptions in ((first, 100, 0), (second, 110, 1)):
        one.prompt_tokens, one.prefilled_tokens, one.preemptions, one.cached_tokens = 100, computed, preemptions, 0
    assert files.lookup_hit_rate([first, second]) == pytest.approx(0.3)
    assert hit_rate([first, second]) == 0


def test_flaws_are_judged():
    assert lab.judge_flaws(dict(files.ANSWERS)) is None
    swapped = {**files.ANSWERS, "A": files.ANSWERS["D"], "D": files.ANSWERS["A"]}
    assert "2 of 4" in lab.judge_flaws(swapped) and "Report A" in lab.judge_flaws(swapped)
    assert "no flaw in the list" in lab.judge_flaws({**files.ANSWERS, "B": "cosmic rays"})
    assert "one flaw for each" in lab.judge_flaws({"A": "none"})
    for name in files.ANSWERS:
        for flaw in files.FLAWS:
            hint = lab.judge_flaws({**files.ANSWERS, name: flaw})
            assert (hint is None) == (flaw == files.ANSWERS[name])
            assert hint is None or files.ANSWERS[name] not in hint


def test_fresh_reports_would_save_the_score_of_reports():
    """Age is what breaks it: with live views the same score keeps the promise where it lost it."""

    def score(request, w):
        return 5 * w.cached_tokens - w.waiting_tokens - 1000 * (w.running + w.waiting)

    rate = desk.knees(lab.BEST)[1].rate_per_s
    old = desk.experiment(score)
    live = Experiment(old.workload, desk.replace(desk.FLEET, telemetry=Telemetry()), old.router, slo=desk.SLOS)
    assert desk.look(live, rate).met > desk.TARGET > desk.look(old, rate).met
    assert goodput(live.run().log, desk.SLOS).arrived == desk.REQUESTS
