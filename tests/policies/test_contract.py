"""What every router keeps: live workers of the right role, one answer for one state, scores only when asked for."""

from copy import deepcopy
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.catalogue import ROUTERS
from helpers.policies.registry import router
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.view import Decision, Dispatched, FirstToken
from helpers.workload.request import Request

PREDICTOR = CostPredictor(AffineCost(1e-3, 1e-4, 1e-9, 1e-5, 1e-8), 2048)

FLEETS = {
    "one mixed": [(0, "mixed")],
    "mixed": [(w, "mixed") for w in range(6)],
    "ids with gaps": [(2, "mixed"), (5, "mixed"), (70, "mixed")],
    "split": [(0, "prefill"), (1, "decode"), (2, "prefill"), (3, "decode"), (4, "decode")],
    "split and mixed": [(0, "decode"), (1, "mixed"), (2, "prefill"), (3, "mixed")],
}


def request(number, blocks=(0, 1), session=None, tenant="default"):
    return Request(number, number / 10, 512 * len(blocks) + 5, 20, tuple(blocks), session=session, tenant=tenant)


def snapshot(fleet, rng):
    """The fleet with random loads, small enough that equals are common."""
    return Snapshot(
        view(
            w,
            role,
            running=rng.randrange(4),
            waiting=rng.randrange(3),
            waiting_tokens=rng.randrange(3) * 100,
            kv_tokens=rng.randrange(4) * 500,
        )
        for w, role in fleet
    )


class Counting:
    """Views that count how often a worker is looked at."""

    def __init__(self, views):
        self._views, self.prefill, self.decode, self.looks = views, views.prefill, views.decode, 0

    def __getitem__(self, worker):
        self.looks += 1
        return self._views[worker]


# Routers with a rule of their own for the decode worker; all others pair by `Pairing`.
OWN_DECODE = ("dynamo", "dynamo_lmetric", "sglang_cache_aware", "llm_d", "split_policy", "predicted_ttft")
# Routers that let a decode worker prefill a short prompt itself.
ON_DECODE = ("split_policy",)


def violations(decision, views, paired=True, on_decode=False):
    """What is wrong with a decision, whatever the policy; unless `paired`, any decode worker will do.

    With `on_decode` a worker that decodes may prefill what it decodes.
    """
    wrong = []
    allowed = (*views.prefill, decision.decode) if on_decode else views.prefill
    if decision.prefill not in allowed:
        wrong.append("the prefill worker does not take prefills or is not live")
    if decision.decode not in views.decode:
        wrong.append("the decode worker does not decode or is not live")
    elif views[decision.prefill].role == "mixed" and decision.decode != decision.prefill:
        wrong.append("a mixed worker gave its decode away")
    elif paired and decision.decode != decision.prefill:
        least = min((views[w].kv_tokens, w) for w in views.decode)
        if (views[decision.decode].kv_tokens, decision.decode) != least:
            wrong.append("not the decode worker with the fewest KV tokens")
    return wrong


def decisions(make, fleet, seed, count=60, route_seed=1):
    """The decisions of a fresh router on a random stream with changing loads, and their violations."""
    one, rng, drawn = make(), Random(seed), Random(route_seed)
    chosen, wrong = [], []
    for number in range(count):
        views = snapshot(fleet, rng)
        blocks = (0, rng.randrange(4), 10 + rng.randrange(6))[: rng.randrange(4)]
        asked = request(number, blocks, session=rng.choice([None, rng.randrange(5)]))
        decision = one.route(asked, views, asked.arrival_s, drawn)
        wrong += violations(decision, views, one.name not in OWN_DECODE, one.name in ON_DECODE)
        chosen.append(decision)
        for event in (Dispatched(asked, decision), FirstToken(asked, decision.prefill))[: rng.randrange(3)]:
            if type(event) in one.observes:
                one.observe(event, asked.arrival_s)
    return chosen, wrong


class Astray:
    """A control: takes any worker for anything."""

    name, observes = "astray", frozenset()

    def route(self, request, views, now, rng):
        worker = rng.choice([*views.prefill, *views.decode])
        return Decision(worker, rng.choice(views.decode))


class OwnDice(Astray):
    """A control: keeps its own randomness."""

    dice = Random(5)

    def route(self, request, views, now, rng):
        return super().route(request, views, now, self.dice)


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("name", ROUTERS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_sends_to_live_workers_of_the_right_role(name, fleet, seed):
    _, wrong = decisions(lambda: router(name, len(fleet), predictor=PREDICTOR), fleet, seed)
    assert wrong == []


def test_the_role_check_finds_a_router_that_strays():
    for fleet in (FLEETS["split"], FLEETS["mixed"]):
        assert decisions(Astray, fleet, seed=0)[1]


@pytest.mark.parametrize("name", ROUTERS)
def test_the_same_state_and_seed_give_the_same_decisions(name):
    for fleet in FLEETS.values():
        first, again = (decisions(lambda: router(name, 6, predictor=PREDICTOR), fleet, seed=3)[0] for _ in range(2))
        assert first == again


def test_the_determinism_check_finds_a_router_with_its_own_dice():
    first, again = (decisions(OwnDice, FLEETS["mixed"], seed=3)[0] for _ in range(2))
    assert first != again


REMEMBERING = ["round_robin", "prefix_approx", "prefix_exact", "session", "feedback", "aibrix", "aibrix_preble"]


@pytest.mark.parametrize("name", [*REMEMBERING, "vllm_dp_inflight"])
def test_a_copy_made_halfway_goes_on_the_same(name):
    views = Snapshot(view(w) for w in range(5))

    def go_on(one, numbers):
        drawn, chosen = Random(2), []
        for number in numbers:
            asked = request(number, (0, number % 4, 10 + number % 7), session=number % 3)
            chosen.append(one.route(asked, views, 0.0, drawn))
            if Dispatched in one.observes:
                one.observe(Dispatched(asked, chosen[-1]), 0.0)
        return chosen

    one = router(name, 5)
    go_on(one, range(7))
    copy = deepcopy(one)
    later = go_on(one, range(7, 60))
    assert later == go_on(copy, range(7, 60))
    assert later != go_on(router(name, 5), range(7, 60))


@pytest.mark.parametrize("name", ["random", "power_of_two"])
def test_randomness_comes_from_the_given_rng(name):
    one, other = (decisions(lambda: router(name, 6), FLEETS["mixed"], 3, route_seed=s)[0] for s in (1, 2))
    assert one != other


@pytest.mark.parametrize(
    ("name", "looks"),
    [("random", 0), ("round_robin", 0), ("static_shard", 0), ("power_of_two", 2), ("prefix_exact", 0)],
)
def test_does_not_look_at_the_whole_fleet(name, looks):
    views = Counting(Snapshot(view(w) for w in range(1024)))
    one, rng = router(name, 1024), Random(0)
    for number in range(50):
        decision = one.route(request(number), views, 0.0, rng)
        if Dispatched in one.observes:
            one.observe(Dispatched(request(number), decision), 0.0)
    assert views.looks == 50 * looks


def test_the_count_of_looks_finds_a_router_that_looks_at_all():
    views = Counting(Snapshot(view(w) for w in range(100)))
    router("least_requests", 100).route(request(0), views, 0.0, Random(0))
    assert views.looks == 100


@pytest.mark.parametrize("name", ["least_requests", "least_tokens", "power_of_two", "prefix_approx", "prefix_exact"])
def test_scores_only_when_asked_for(name):
    views = Snapshot(view(w, waiting=w, waiting_tokens=w) for w in range(3))
    silent = router(name, 3).route(request(0), views, 0.0, Random(0))
    spoken = router(name, 3, explain=True).route(request(0), views, 0.0, Random(0))
    assert silent.scores == () and spoken._replace(scores=()) == silent
    terms = {term for _, term, _ in spoken.scores}
    decisive = "cost" if "cost" in terms else terms.pop()
    best = min((value, worker) for worker, term, value in spoken.scores if term == decisive)
    assert best[1] == spoken.prefill


@pytest.mark.parametrize("name", [n for n, e in ROUTERS.items() if "explain" in {p.name for p in e.parameters}])
def test_to_explain_changes_no_decision(name):
    fleet = FLEETS["split and mixed"]

    def run(explain):
        return decisions(lambda: router(name, 4, predictor=PREDICTOR, explain=explain), fleet, seed=7)[0]

    silent, spoken = run(False), run(True)
    assert [one._replace(scores=()) for one in spoken] == silent
    assert all(one.scores for one in spoken) and not any(one.scores for one in silent)


@pytest.mark.parametrize("name", ROUTERS)
def test_no_worker_left_is_one_sentence(name):
    one = router(name, 2, predictor=PREDICTOR)
    with pytest.raises(InputError, match="no live worker takes prefills"):
        one.route(request(0), Snapshot([view(0, "decode")]), 0.0, Random(0))
    with pytest.raises(InputError, match="no live worker takes decodes"):
        one.route(request(0), Snapshot([view(0, "prefill")]), 0.0, Random(0))


@pytest.mark.parametrize("name", ROUTERS)
def test_views_that_change_in_place_are_noticed(name):
    views = Snapshot(view(w) for w in range(4))
    views.prefill, views.decode = [0, 1, 2, 3], [0, 1, 2, 3]
    one, rng = router(name, 4, predictor=PREDICTOR), Random(0)
    one.route(request(0), views, 0.0, rng)
    views.prefill[:] = views.decode[:] = [2]
    chosen = {one.route(request(n), views, 0.0, rng).prefill for n in range(1, 5)}
    assert chosen == {2}
    split = Snapshot([view(2, "prefill"), view(3, "decode")])
    views.decode[:], views._views = [3], split._views
    assert one.route(request(9), views, 0.0, rng)[:2] == (2, 3)
