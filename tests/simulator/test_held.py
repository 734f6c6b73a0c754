"""The line before a gate of admission: who is asked, when, in which order, and what it costs."""

from random import Random

import pytest

from helpers.policies.registry import make
from helpers.policies.view import (
    ACCEPT,
    Dispatched,
    Finished,
    Verdict,
)
from helpers.simulator.gate import Gate
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request
from tests.simulator.one_at_a_time import OneAtATime


class Ranked(OneAtATime):
    """The largest id first."""

    def rank(self, request, now):
        return -request.id


class Lanes(OneAtATime):
    """Tenants in turn: who was let in longest ago is next."""

    observes = frozenset({Dispatched, Finished})

    def __init__(self):
        super().__init__()
        self.last = {}

    def lane(self, request):
        return request.tenant

    def lane_rank(self, lane, now):
        return self.last.get(lane, -1)

    def observe(self, event, now):
        super().observe(event, now)
        if isinstance(event, Dispatched):
            self.last[event.request.tenant] = len(self.last) + now


def burst(count, gap_s=0.001, prompt=100, output=5):
    return [Request(i, i * gap_s, prompt, output, tenant="ann" if i < count // 2 else "bob") for i in range(count)]


def sent(log):
    """The ids in the order in which they were dispatched."""
    return [t.id for t in sorted(log.timelines, key=lambda t: t.dispatched_s)]


# -- order


def test_the_held_are_let_in_one_by_one_in_order_of_arrival(serve):
    log = serve(burst(8), admission=OneAtATime())
    assert sent(log) == list(range(8))
    ends = [t.finished_s for t in log.timelines]
    assert [t.dispatched_s for t in log.timelines[1:]] == ends[:-1]


def test_a_rank_orders_the_line(serve):
    assert sent(serve(burst(8), admission=Ranked())) == [0, 7, 6, 5, 4, 3, 2, 1]


def test_a_lane_is_chosen_at_the_moment(serve):
    assert sent(serve(burst(8), admission=Lanes())) == [0, 4, 1, 5, 2, 6, 3, 7]


def test_who_comes_to_a_line_joins_it(serve):
    """Request 3 arrives just when there would be room for it, and two others wait: it does not overtake."""
    requests = [Request(i, at, 100, 5) for i, at in enumerate((0.0, 0.001, 0.002))]
    first_end = serve(requests, admission=OneAtATime()).timelines[0].finished_s
    log = serve([*requests, Request(3, first_end, 100, 5)], admission=OneAtATime())
    assert sent(log) == [0, 1, 2, 3]


def test_the_wait_counts_in_ttft(serve):
    log = serve(burst(4), admission=OneAtATime())
    for before, after in zip(log.timelines, log.timelines[1:], strict=False):
        assert after.first_token_s - after.arrival_s > before.finished_s - after.arrival_s > 0


# -- cost


def test_a_moment_costs_a_head_of_line_policy_one_question(serve):
    """200 held at once: each is asked when it arrives at an empty line, or heads it at an event that lets nobody in."""
    one, count = OneAtATime(), 200
    serve(burst(count), admission=one)
    # Each arrival and each first and last token asks the head once; a last token lets one in and asks the next.
    assert one.asked <= 4 * count


def test_without_head_of_line_everybody_is_asked(serve):
    """Control: the same policy without the attribute gives the same run, and asks quadratically often."""
    fast, slow = OneAtATime(), OneAtATime()
    slow.head_of_line = False
    assert serve(burst(60), admission=fast).timelines == serve(burst(60), admission=slow).timelines
    assert slow.asked > 60 * 60 / 2 > 5 * fast.asked


class PerWorker:
    """Holds what the router sent to a worker that has a request: not a matter of the head of the line."""

    name, queues = "per_worker", True

    def __init__(self, head_of_line):
        self.head_of_line = head_of_line

    def admit(self, request, views, decision, now, rng):
        return ACCEPT if not views[decision.prefill].requests else Verdict("queue", "full")


def test_a_cap_on_the_chosen_worker_must_ask_everybody(serve):
    """Requests 0 to 2 are bound to worker 0, request 3 to worker 1, which is idle: it need not wait."""
    bound = lambda request, views: int(request.id == 3)  # noqa: E731
    free, stuck = (
        serve(burst(4), ("mixed",) * 2, bound, admission=PerWorker(head_of_line)) for head_of_line in (False, True)
    )
    assert free.timelines[3].dispatched_s == free.timelines[3].arrival_s
    assert stuck.timelines[3].dispatched_s == stuck.timelines[1].finished_s  # the wrong attribute makes it wait


# -- when


class Until:
    """Holds everything until a moment, and knows of no event that ends it."""

    name, queues, head_of_line = "until", True, True

    def __init__(self, open_s):
        self.open_s = open_s

    def admit(self, request, views, decision, now, rng):
        return ACCEPT if now >= self.open_s else Verdict("queue", "closed")


def test_an_arrival_asks_the_line_from_its_head(serve):
    accepted = []
    note = lambda sequence, decision, verdict, now: verdict is ACCEPT and accepted.append(sequence.request.id)  # noqa: E731
    log = serve([*burst(3), Request(3, 7.0, 100, 5)], admission=Until(5.0), on_decision=note)
    assert [t.dispatched_s for t in log.timelines] == [7.0] * 4 and accepted == [0, 1, 2, 3]


def test_a_telemetry_sample_asks_the_line(serve):
    requests = [*burst(3), Request(3, 50.0, 100, 5)]
    log = serve(requests, admission=Until(5.0), telemetry=Telemetry(0.25))
    assert [t.dispatched_s for t in log.timelines] == [5.0] * 3 + [50.0]


def test_a_first_token_asks_the_line(serve):
    """The gate reads prompts in flight, so it opens at a first token, long before the last."""
    log = serve(burst(2, output=400), admission=gate(threshold=0.0))
    first, second = log.timelines
    assert second.dispatched_s == first.first_token_s < first.finished_s


def gate(**parameters):
    return make("admission", "router_queue", **parameters)


def test_the_end_of_the_run_asks_with_fresh_views(serve):
    """The last news of a stale view says busy; before the rest is turned away, one more sample is taken."""

    class WhenIdle:
        name, queues, head_of_line = "when_idle", True, True

        def admit(self, request, views, decision, now, rng):
            return ACCEPT if not views[0].requests and request.id != 2 else Verdict("queue", "busy")

    log = serve(burst(3), admission=WhenIdle(), telemetry=Telemetry(100.0, 1.0))
    assert [t.status for t in log.timelines] == ["finished", "finished", "rejected"]
    assert log.timelines[2].reason == "held by admission until the end of the run"


# -- the line alone


class Sequence:
    def __init__(self, number, tenant="ann", prompt=1):
        self.number, self.request = number, Request(number, 0.0, prompt, 1, tenant=tenant)


def test_a_line_in_lanes_is_a_sort_by_hand():
    """Against a plain scan: the least of (lane rank, rank, number) over everybody, at every step."""

    class Policy:
        name = "lanes"

        def __init__(self):
            self.served = {}

        def rank(self, request, now):
            return request.prompt_tokens

        def lane(self, request):
            return request.tenant

        def lane_rank(self, lane, now):
            return self.served.get(lane, 0)

    policy, rng, plain, taken = Policy(), Random(3), [], []
    one = Gate(policy, Random(0))
    for number in range(400):
        if plain and rng.random() < 0.45:
            best = min(plain, key=lambda s: (policy.lane_rank(s.request.tenant, 0), s.request.prompt_tokens, s.number))
            lane, (rank, _, sequence) = one.take(0.0)
            assert (sequence, rank) == (best, best.request.prompt_tokens)
            if rng.random() < 0.5:
                one.put_back(lane, (rank, sequence.number, sequence))
            else:
                plain.remove(best)
                taken.append(best)
                policy.served[lane] = policy.served.get(lane, 0) + rng.randrange(3)
        else:
            plain.append(Sequence(number, rng.choice(["ann", "bob", "cid"]), rng.randrange(5)))
            one.hold(plain[-1], 0.0)
        assert len(one) == len(plain)
    assert len(taken) > 60 and len({s.request.tenant for s in taken}) == 3


def test_without_a_lane_rank_the_lanes_go_by_their_heads():
    class Policy:
        name = "plain"

        def lane(self, request):
            return request.tenant

    one = Gate(Policy(), Random(0))
    for number, tenant in enumerate(["bob", "ann", "bob", "ann"]):
        one.hold(Sequence(number, tenant), 0.0)
    assert [one.take(0.0)[1][1] for _ in range(4)] == [0, 1, 2, 3]


def test_who_is_let_in_later_comes_to_the_workers_later(serve):
    """Request 2 is held until request 3 has come and gone in: its worker, which is busy, has it behind request 3."""

    class HoldsTwo:
        name, queues, head_of_line = "holds_two", True, False

        def admit(self, request, views, decision, now, rng):
            return Verdict("queue", "wait") if request.id == 2 and now < 0.05 else ACCEPT

    requests = [
        Request(0, 0.0, 100, 5),
        Request(1, 0.001, 4000, 5),
        Request(2, 0.002, 512, 5),
        Request(3, 0.003, 512, 5),
    ]
    later = [t.first_token_s for t in serve(requests, admission=HoldsTwo()).timelines]
    at_once = [t.first_token_s for t in serve(requests).timelines]
    assert later[2] > later[3] and at_once[2] <= at_once[3]


@pytest.mark.parametrize("fronts", [1, 3])
def test_being_held_does_not_move_a_request_to_another_front_end(serve, fronts):
    policies = [OneAtATime() for _ in range(fronts)]
    told = [set() for _ in range(fronts)]
    for one, ids in zip(policies, told, strict=True):
        one.admit = lambda request, *rest, ids=ids, ask=one.admit: ids.add(request.id) or ask(request, *rest)
    serve(burst(12), routers=fronts, admission=policies)
    assert told == [set(range(front, 12, fronts)) for front in range(fronts)]
