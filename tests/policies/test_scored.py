"""Routers and admission made of one function: what the function sees, and that nothing else decides."""

from math import inf, nan
from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.admission.own_rule import OwnRule, by_rule
from helpers.policies.facts import Facts
from helpers.policies.known import WorkerFacts
from helpers.policies.scored import Scored, scored
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import (
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    KVEvicted,
    KVStored,
    Rejected,
    WorkerLost,
    WorkerView,
)
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Request

BLOCKS = (11, 12, 13)
ASKED = Request(1, 0.0, 1200, 50, BLOCKS)  # two full blocks of 512 and 176 tokens of a third


def chosen(router, views, request=ASKED):
    return router.route(request, views, 0.0, Random(0))


def seen_by(router, views, request=ASKED) -> list[WorkerFacts]:
    """The facts that the score is asked with."""
    found = []
    made = Scored(lambda asked, worker: found.append(worker) or 0.0, router.block_tokens)
    object.__setattr__(made, "known", router.known)
    chosen(made, views, request)
    return found


def idle(workers=3):
    return Snapshot(view(w) for w in range(workers))


def test_the_highest_score_wins_and_the_lowest_id_among_equals():
    assert chosen(Scored(lambda request, worker: worker.worker), idle()).prefill == 2
    assert chosen(Scored(lambda request, worker: -worker.worker), idle()).prefill == 0
    assert chosen(Scored(lambda request, worker: worker.worker > 0), idle()).prefill == 1
    assert chosen(Scored(lambda request, worker: -inf), idle()).prefill == 0


def test_the_report_is_handed_on_as_it_is():
    reported = WorkerView(0, "mixed", 0.75, 3, 2, 4000, 9000, 20, 100)
    (facts,) = seen_by(Scored(lambda request, worker: 0), Snapshot([reported]))
    assert facts == (*reported, 0, 0, 0)


def test_what_was_sent_counts_until_its_first_token_and_its_end():
    router = Scored(lambda request, worker: 0)
    router.observe(KVStored(1, BLOCKS[:1]), 0.0)
    router.observe(Dispatched(ASKED, Decision(1, 1)), 0.0)
    # 1200 tokens less the block of 512 that is cached
    assert [(f.cached_tokens, f.sent_tokens, f.sent_requests) for f in seen_by(router, idle())] == [
        (0, 0, 0),
        (512, 688, 1),
        (0, 0, 0),
    ]
    router.observe(FirstToken(ASKED, 1), 1.0)
    assert seen_by(router, idle())[1][-2:] == (0, 1)
    router.observe(Finished(ASKED, 1), 2.0)
    assert seen_by(router, idle())[1][-2:] == (0, 0)


def test_the_decode_worker_counts_a_request_after_its_first_token():
    router = Scored(lambda request, worker: 0)
    router.observe(Dispatched(ASKED, Decision(0, 2)), 0.0)
    router.observe(FirstToken(ASKED, 0), 1.0)
    assert [f.sent_requests for f in seen_by(router, idle())] == [0, 0, 1]


@pytest.mark.parametrize("end", [Finished(ASKED, 0), Rejected(ASKED, "its prefill was in vain")])
def test_whoever_leaves_counts_no_more(end):
    router = Scored(lambda request, worker: 0)
    router.observe(Dispatched(ASKED, Decision(0, 0)), 0.0)
    router.observe(end, 1.0)
    assert seen_by(router, idle())[0][-2:] == (0, 0)


def test_caches_are_known_block_by_block_and_never_the_last_token():
    router = Scored(lambda request, worker: 0)
    router.observe(KVStored(0, BLOCKS), 0.0)
    router.observe(KVStored(1, BLOCKS[1:]), 0.0)
    router.observe(KVStored(2, BLOCKS), 0.0)
    router.observe(KVEvicted(2, BLOCKS[1:]), 0.0)
    assert [f.cached_tokens for f in seen_by(router, idle())] == [1199, 0, 512]
    router.observe(WorkerLost(0), 1.0)
    assert [f.cached_tokens for f in seen_by(router, idle())] == [0, 0, 512]


def test_a_lost_worker_has_nothing_under_way():
    router = Scored(lambda request, worker: 0)
    router.observe(Dispatched(ASKED, Decision(0, 0)), 0.0)
    router.observe(WorkerLost(0), 1.0)
    assert seen_by(router, idle())[0][-2:] == (0, 0)


@pytest.mark.parametrize("score", [nan, None, "high", 1j])
def test_a_score_that_is_no_number_is_refused(score):
    with pytest.raises(InputError, match=r"worker 0 is .*return a number"):
        chosen(Scored(lambda request, worker: score), idle())


def test_a_block_of_no_tokens_is_refused():
    with pytest.raises(InputError, match="block_tokens is 0"):
        Scored(lambda request, worker: 0, 0)
    with pytest.raises(InputError, match="block_tokens is 0"):
        OwnRule(lambda request, worker: True, 0)


def test_a_decision_is_explained_on_demand():
    decision = chosen(Scored(lambda request, worker: 10 * worker.worker, explain=True), idle(2))
    assert decision.scores == ((0, "score", 0), (1, "score", 10))


def served(router, admission="none", **fleet):
    workload = generate("documents", rate_per_s=12, requests=300, seed=1)
    return Experiment(workload, Fleet(**fleet), router, admission).run()


def places(run):
    return [(t.prefill_worker, t.decode_worker) for t in run.timelines]


def test_fewest_requests_by_a_score_is_the_router_of_that_name():
    mine = served(scored(lambda request, worker: -worker.running - worker.waiting), workers=4)
    assert places(mine) == places(served("least_requests", workers=4))
    assert places(mine) != places(served(scored(lambda request, worker: -worker.waiting), workers=4))


def test_it_serves_a_split_fleet_and_gives_the_same_run_twice():
    def nearest(request, worker):
        return worker.cached_tokens - worker.sent_tokens

    run, again = (served(scored(nearest), workers=4, split="2P2D") for _ in range(2))
    assert places(run) == places(again)
    assert {p for p, _ in places(run)} == {0, 1} and {d for _, d in places(run)} == {2, 3}
    assert run.provenance.policy["router"] == "nearest"


def test_a_rule_sees_the_worker_that_the_router_chose():
    asked = []
    rule = by_rule(lambda request, worker: asked.append(worker) or True)(Facts(3))
    rule.observe(KVStored(2, BLOCKS[:2]), 0.0)
    rule.observe(Dispatched(Request(0, 0.0, 700, 5), Decision(2, 2)), 0.0)
    verdict = rule.admit(ASKED, idle(), Decision(2, 2), 0.0, Random(0))
    assert verdict.action == "accept"
    assert (asked[0].worker, asked[0].cached_tokens, asked[0].sent_tokens, asked[0].sent_requests) == (2, 1024, 700, 1)


def test_a_rule_says_yes_or_no_and_nothing_else():
    facts = Facts(3)
    assert by_rule(lambda r, w: False)(facts).admit(ASKED, idle(), Decision(0, 0), 0.0, Random(0)).action == "reject"
    with pytest.raises(InputError, match="the rule says 1 of request 1; return True or False"):
        by_rule(lambda r, w: 1)(facts).admit(ASKED, idle(), Decision(0, 0), 0.0, Random(0))


def test_a_rule_turns_away_in_a_run_whom_it_does_not_want():
    def short(request, worker):
        return request.prompt_tokens < 8000

    run = served("round_robin", by_rule(short), workers=4)
    rejected = {t.status == "rejected" for t in run.timelines if t.prompt_tokens >= 8000}
    accepted = {t.status == "rejected" for t in run.timelines if t.prompt_tokens < 8000}
    assert rejected == {True} and accepted == {False}
    assert run.provenance.policy["admission"] == "short"
