"""What admission policies hear of requests, and the no that they may say after a prefill."""

import pytest

from helpers.errors import InputError
from helpers.policies.view import (
    ACCEPT,
    Arrived,
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    KVStored,
    Rejected,
    Verdict,
    WorkerLost,
)
from helpers.simulator.disturbances import LoseWorker
from helpers.workload.request import Request
from tests.simulator.one_at_a_time import OneAtATime

ALL = frozenset({Arrived, Rejected, Dispatched, FirstToken, Finished, KVStored, WorkerLost})


def burst(count, gap_s=0.001, prompt=100, output=5):
    return [Request(i, i * gap_s, prompt, output, tenant="ann" if i < count // 2 else "bob") for i in range(count)]


# -- what is told


class Listening:
    """Accepts all but every fifth, and writes down what it hears."""

    name = "listening"

    def __init__(self, observes=ALL):
        self.observes, self.heard = observes, []

    def admit(self, request, views, decision, now, rng):
        return Verdict("reject", "fifth") if request.id % 5 == 4 else ACCEPT

    def observe(self, event, now):
        self.heard.append((type(event), getattr(getattr(event, "request", None), "id", None)))


def test_a_policy_hears_the_life_of_every_request(serve, traffic):
    one = Listening()
    log = serve(traffic(40), admission=one)
    for t in log.timelines:
        life = [kind for kind, request in one.heard if request == t.id]
        assert life == ([Arrived, Rejected] if t.id % 5 == 4 else [Arrived, Dispatched, FirstToken, Finished])
    assert sum(kind is KVStored for kind, _ in one.heard) > 0


def test_it_hears_only_what_it_asks_for(serve, traffic):
    one, deaf = Listening(frozenset({Finished})), Listening(frozenset())
    serve(traffic(40), admission=one)
    serve(traffic(40), admission=deaf)
    assert {kind for kind, _ in one.heard} == {Finished} and len(one.heard) == 32
    assert deaf.heard == []


def test_with_several_front_ends_each_hears_of_its_own(serve, traffic):
    policies = [Listening(), Listening(), Listening()]
    serve(traffic(60), routers=3, admission=policies)
    for front, one in enumerate(policies):
        assert {request for _, request in one.heard if request is not None} == set(range(front, 60, 3))
        assert sum(kind is KVStored for kind, _ in one.heard) == sum(k is KVStored for k, _ in policies[0].heard)


def test_one_gate_before_all_front_ends_hears_of_all_once(serve, traffic):
    one = Listening()
    serve(traffic(60), ("mixed",) * 2, routers=3, admission=one, disturbances=[LoseWorker(0, 0.5)])
    assert {request for kind, request in one.heard if kind is Arrived} == set(range(60))
    assert sum(kind is WorkerLost for kind, _ in one.heard) == 1


def test_one_gate_has_one_line_and_several_have_their_own(serve):
    shared = serve(burst(9), routers=3, admission=OneAtATime())
    own = serve(burst(9), routers=3, admission=[OneAtATime() for _ in range(3)])

    def inside(log):
        began = [t.dispatched_s for t in log.timelines]
        return max(sum(t.dispatched_s <= at < t.finished_s for t in log.timelines) for at in began)

    assert (inside(shared), inside(own)) == (1, 3)


def test_a_loss_asks_the_line(serve):
    """What counted on the lost worker is gone, and the other worker is free at that moment."""

    class Loss(OneAtATime):
        observes = OneAtATime.observes | {WorkerLost}

        def observe(self, event, now):
            if isinstance(event, WorkerLost):
                self.most = 9
            else:
                super().observe(event, now)

    requests = [Request(0, 0.0, 100, 400), Request(1, 0.1, 100, 5)]
    loss = [LoseWorker(0, 0.5)]
    log = serve(requests, ("mixed",) * 2, lambda r, v: v.prefill[-1], admission=Loss(), disturbances=loss)
    assert log.timelines[1].dispatched_s == 0.5 < log.timelines[0].finished_s


# -- what is refused


def test_a_policy_that_holds_must_say_so(serve):
    class Mute:
        name = "mute"

        def admit(self, request, views, decision, now, rng):
            return Verdict("queue")

    with pytest.raises(InputError, match="admission mute said 'queue'; give it queues = True, so that it is asked"):
        serve(burst(2), admission=Mute())


# -- a no after the prefill


class Late:
    """Says no to the decode of every third request."""

    name, observes = "late", frozenset({Rejected})

    def __init__(self):
        self.heard, self.decisions = [], []

    def admit(self, request, views, decision, now, rng):
        return ACCEPT

    def admit_decode(self, request, views, decision, now, rng):
        self.decisions.append(decision)
        return Verdict("reject", "no decode") if request.id % 3 == 2 else ACCEPT

    def observe(self, event, now):
        self.heard.append(event.request.id)


SPLIT = ("prefill", "decode")


def test_a_decode_that_is_refused_wastes_its_prefill_and_gives_its_blocks_back(serve):
    one = Late()
    log = serve(burst(30, gap_s=0.05), SPLIT, admission=one)
    refused = [t for t in log.timelines if t.id % 3 == 2]
    assert one.heard == [t.id for t in refused] and set(one.decisions) == {Decision(0, 1)}
    for t in log.timelines:
        if t in refused:
            assert (t.status, t.reason, t.prefilled_tokens, t.generated_tokens) == ("rejected", "no decode", 100, 1)
            assert t.first_token_s is not None and t.transfer_start_s is None and t.spans == ()
        else:
            assert t.status == "finished" and t.generated_tokens == 5


def test_its_blocks_come_back(serve):
    """600 blocks of 16 tokens hold 96 prompts of 100 tokens: of 300 refused, the last still finds room."""

    class Never(Late):
        def admit_decode(self, request, views, decision, now, rng):
            return Verdict("reject", "no decode")

    log = serve(burst(300), SPLIT, admission=Never())
    assert {(t.status, t.prefilled_tokens) for t in log.timelines} == {("rejected", 100)}


def test_a_mixed_worker_has_no_such_moment(serve):
    one = Late()
    assert {t.status for t in serve(burst(9), admission=one).timelines} == {"finished"}
    assert one.decisions == []


def test_who_has_lost_a_worker_on_the_way_is_not_refused(serve):
    class Never(Late):
        def admit_decode(self, request, views, decision, now, rng):
            self.decisions.append(request.id)
            return Verdict("reject", "no decode") if now > 1.0 else ACCEPT

    one, requests = Never(), [Request(0, 0.0, 100, 400)]
    log = serve(requests, ("prefill", "decode", "decode"), lambda r, v: Decision(0, v.decode[0]), admission=one,
                disturbances=[LoseWorker(1, 1.5)])  # fmt: skip
    assert one.decisions == [0]
    assert (log.timelines[0].status, log.timelines[0].requeues) == ("finished", 1)
