"""Requests under way as a router counts them: against a recount, whatever happens and in which order."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.policies.counting import CountingRouter
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, WorkerLost
from helpers.workload.request import Request

WORKERS = 4


def request(number):
    return Request(number, 0.0, 100, 10)


class Recount:
    """Where each request is, by the rules as they are stated, and the counts made from that anew each time."""

    def __init__(self):
        self.at, self.decodes_at = {}, {}

    def observe(self, event):
        if isinstance(event, Dispatched):
            self.at[event.request.id], self.decodes_at[event.request.id] = event.decision.prefill, event.decision.decode
        elif isinstance(event, FirstToken) and event.request.id in self.at:
            self.at[event.request.id] = self.decodes_at[event.request.id]
        elif isinstance(event, Finished):
            self.at.pop(event.request.id, None)
        elif isinstance(event, WorkerLost):
            self.at = {request: worker for request, worker in self.at.items() if worker != event.worker}

    def counts(self):
        found = Counter(self.at.values())
        return [found[worker] for worker in range(WORKERS)]


def history(seed, steps=80):
    """Dispatches, some of them again, first tokens, ends and losses, known and unknown requests mixed."""
    rng = Random(seed)
    for _ in range(steps):
        one = request(rng.randrange(12))
        kind = rng.choice([Dispatched, Dispatched, FirstToken, Finished, WorkerLost])
        if kind is Dispatched:
            prefill = rng.randrange(WORKERS)
            yield Dispatched(one, Decision(prefill, rng.choice([prefill, rng.randrange(WORKERS)])))
        elif kind is WorkerLost and rng.random() < 0.2:
            yield WorkerLost(rng.randrange(WORKERS))
        elif kind is not WorkerLost:
            yield kind(one, rng.randrange(WORKERS))


def differences(router, seed):
    """(counts, recount) after each event where they are not the same, or below zero."""
    recount, wrong = Recount(), []
    router.own.grow(WORKERS)
    for event in history(seed):
        router.observe(event, 0.0)
        recount.observe(event)
        if router.own.load != recount.counts() or min(router.own.load) < 0:
            wrong.append((list(router.own.load), recount.counts()))
    return wrong


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_count_is_the_recount_after_every_event(seed):
    assert differences(CountingRouter(), seed) == []


class Twice(CountingRouter):
    """A control: a request that is sent again counts twice."""

    def observe(self, event, now):
        if isinstance(event, Dispatched):
            self.own.add(event.decision.prefill, 1)
        else:
            CountingRouter.observe(self, event, now)


class NeverMoves(CountingRouter):
    """A control: after its first token a request stays on its prefill worker."""

    def observe(self, event, now):
        if not isinstance(event, FirstToken):
            CountingRouter.observe(self, event, now)


@pytest.mark.parametrize("wrong", [Twice, NeverMoves])
def test_the_recount_finds_a_router_that_counts_wrongly(wrong):
    assert any(differences(wrong(), seed) for seed in range(5))


def test_a_request_that_comes_back_from_a_lost_worker_counts_once_where_it_goes():
    one = CountingRouter()
    for number in range(3):
        one.observe(Dispatched(request(number), Decision(0, 0)), 0.0)
    one.observe(WorkerLost(0), 1.0)
    assert one.own.load[0] == 0
    one.observe(Dispatched(request(0), Decision(1, 1)), 1.0)
    assert one.own.load[:2] == [0, 1]
    one.observe(Finished(request(0), 1), 2.0)
    assert one.own.load[:2] == [0, 0]
