"""What routers count on the decode side of a split, in whole runs: right at each decision, and nothing at the end."""

import pytest

from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.policies.catalogue import ROUTERS
from helpers.policies.pairing import ByReports, Pairing
from helpers.policies.registry import router
from helpers.policies.scaling.fixed import Fixed
from helpers.policies.view import ACCEPT, FirstToken, HandedOver, Rejected, Verdict
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import LoseWorker
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request
from tests.simulator.conftest import COST, KV_BYTES, LAYERS, LIMITS

LINK = Link(5e-3, 2e9)  # slow enough that hand-overs take time
SPLIT = ("prefill", "prefill", "decode", "decode", "decode")
PREDICTOR = CostPredictor(COST, LIMITS.token_budget, LINK, KV_BYTES)
# These choose the decode worker by a rule of their own.
OWN_RULE = ("dynamo", "dynamo_lmetric", "sglang_cache_aware", "llm_d")
PAIRED = [name for name in ROUTERS if name not in OWN_RULE]


def made(name="least_tokens", pairing=Pairing):
    one = router(name, 5, LIMITS.block_tokens, PREDICTOR)
    object.__setattr__(one, "pairing", pairing())
    return one


def serve(requests, routers, roles=SPLIT, telemetry=None, limits=LIMITS, **options):
    spec = ClusterSpec(
        tuple(WorkerSpec(limits, COST, role) for role in roles), LINK, KV_BYTES, LAYERS, telemetry or Telemetry()
    )
    return Cluster(spec, routers, closed_loop=any(r.parent is not None for r in requests), **options).run(requests)


def test_those_who_have_no_pairing_have_a_rule_of_their_own():
    assert {name for name in ROUTERS if not hasattr(router(name, 5, 16, PREDICTOR), "pairing")} == set(OWN_RULE)


# -- a herd


def at_once(count=9):
    return [Request(i, 0.0, 400, 20) for i in range(count)]


@pytest.mark.parametrize("name", PAIRED)
def test_what_comes_at_once_is_dealt_out_and_by_reports_alone_herds(name):
    """Nine equal prompts at one moment, and every report says 0: three for each of the decode workers 2, 3 and 4."""
    dealt = [t.decode_worker for t in serve(at_once(), [made(name)]).timelines]
    assert sorted(dealt) == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    herd = {t.decode_worker for t in serve(at_once(), [made(name, ByReports)]).timelines}
    assert herd == {2}


# -- counts that are right


def census(telemetry, pairing, traffic, name="least_tokens"):
    """Decisions at which the count of a decode worker is not that of the requests which its view cannot know."""
    wrong, looks, sent, one = [], 0, [], made(name, pairing)

    def look(sequence, decision, verdict, now):
        nonlocal looks
        for worker in (2, 3, 4):
            view = cluster.views[worker]
            made_s = now - view.age_s + 1e-9
            unknown = [
                s
                for s in sent
                if s.decode_worker == worker
                and (s.finished_s is None or s.finished_s > now)
                and (s.transfer_end_s is None or s.transfer_end_s > made_s)
            ]
            expected = len(unknown), sum(s.request.prompt_tokens for s in unknown)
            looks += bool(unknown)
            if one.pairing.on_the_way.to(view, now) != expected:
                wrong.append((now, worker, expected))
        sent.append(sequence)

    workers = tuple(WorkerSpec(LIMITS, COST, role) for role in SPLIT)
    spec = ClusterSpec(workers, LINK, KV_BYTES, LAYERS, telemetry)
    cluster = Cluster(spec, [one], on_decision=look)
    cluster.run(traffic(300, rate_per_s=60.0, prompt=600))
    return wrong, looks


TELLING = {
    "at once": Telemetry(),
    "every 50 ms, 20 ms late": Telemetry(0.05, 0.02),
    "by step": Telemetry(by_step=True),
}


@pytest.mark.parametrize("telemetry", TELLING.values(), ids=TELLING)
def test_each_request_is_in_the_count_until_the_view_can_know_it(telemetry, traffic):
    wrong, looks = census(telemetry, Pairing, traffic)
    assert wrong == [] and looks > 200


class Early(Pairing):
    """A control: stops at the first token, while the KV is still on its way."""

    observes = Pairing.observes | {FirstToken}

    def observe(self, event, now):
        if type(event) is FirstToken:
            self.on_the_way._forget(event.request.id)
        else:
            Pairing.observe(self, event, now)


class Late(Pairing):
    """A control: never hears that the KV is there, and goes on counting what the report has."""

    observes = Pairing.observes - {HandedOver}


@pytest.mark.parametrize("pairing", [Early, Late, ByReports])
def test_the_census_finds_a_gap_and_a_double_count(pairing, traffic):
    assert census(Telemetry(), pairing, traffic)[0]


# -- nothing is left


class Bouncer:
    """Turns every third request away when its prefill has ended."""

    name, observes = "bouncer", frozenset()

    def admit(self, request, views, decision, now, rng):
        return ACCEPT

    def admit_decode(self, request, views, decision, now, rng):
        return Verdict("reject", "full") if request.id % 3 == 0 else ACCEPT


ROUGH = {
    "calm": {},
    "stale": {"telemetry": Telemetry(0.25, 0.05, 0.2)},
    "by step": {"telemetry": Telemetry(by_step=True)},
    "losses": {"disturbances": (LoseWorker(0, 1.0), LoseWorker(4, 1.5), LoseWorker(3, 2.0))},
    "nobody left to decode": {"disturbances": tuple(LoseWorker(w, 1.0) for w in (2, 3, 4))},
    "turned away when prefilled": {"admission": Bouncer()},
    "little room": {"limits": Limits(90, 16, 256, 16)},
    "a scaler drains": {"scaler": Fixed(mixed=0, prefill=1, decode=2, period_s=0.5)},
    "beside mixed ones": {"roles": ("prefill", "decode", "mixed", "mixed", "decode")},
}


class Peak(Pairing):
    """Remembers how many requests it counted at most."""

    __slots__ = ("most",)

    def __init__(self):
        super().__init__()
        self.most = 0

    def observe(self, event, now):
        super().observe(event, now)
        self.most = max(self.most, len(self.on_the_way))


@pytest.mark.parametrize("how", ROUGH.values(), ids=ROUGH)
def test_counters_return_to_zero(how, traffic):
    routers = [made("least_requests", Peak) for _ in range(2)]
    log = serve(traffic(150, rate_per_s=40.0, prompt=200, output=30), routers, **how)
    assert {t.status for t in log.timelines} <= {"finished", "rejected"}
    assert [len(one.pairing.on_the_way) for one in routers] == [0, 0]
    assert all(one.pairing.most > 1 for one in routers)


@pytest.mark.parametrize("name", PAIRED)
def test_counters_of_each_router_return_to_zero(name, traffic):
    one = made(name, Peak)
    serve(traffic(80, rate_per_s=40.0), [one], disturbances=(LoseWorker(1, 0.5), LoseWorker(4, 1.0)))
    assert len(one.pairing.on_the_way) == 0 and one.pairing.most > 2


class Deaf(Pairing):
    """A control: does not hear of rejections."""

    observes = Pairing.observes - {Rejected}


def test_to_be_deaf_to_rejections_leaves_something(traffic):
    one = made("least_requests", Deaf)
    serve(traffic(150, rate_per_s=40.0, prompt=200, output=30), [one], admission=Bouncer())
    assert len(one.pairing.on_the_way) > 20


# -- what does not change


def parts(log):
    """All that a run has left behind, to be compared."""
    return log.timelines, [(list(one.start_s), list(one.decoding), list(one.prefilled)) for one in log.step_logs]


@pytest.mark.parametrize("roles", [("mixed",) * 3, ("prefill", "decode")], ids=["mixed", "1P1D"])
@pytest.mark.parametrize("name", PAIRED)
def test_without_a_choice_on_the_decode_side_nothing_changes(name, roles, traffic):
    asked = traffic(120, rate_per_s=30.0)
    counted, blind = (serve(asked, [made(name, pairing)], roles) for pairing in (Pairing, ByReports))
    assert parts(counted) == parts(blind)


def test_with_a_choice_runs_differ(traffic):
    asked = traffic(120, rate_per_s=30.0)
    counted, blind = (serve(asked, [made("round_robin", pairing)]) for pairing in (Pairing, ByReports))
    assert parts(counted) != parts(blind)


class Unasked(Pairing):
    """A control: says so when it is told anything."""

    def observe(self, event, now):
        raise AssertionError("a fleet of mixed workers has nothing to tell")


def test_a_fleet_of_mixed_workers_tells_a_pairing_nothing():
    serve(at_once(), [made("round_robin", Unasked)], ("mixed",) * 3)
    with pytest.raises(AssertionError, match="nothing to tell"):
        serve(at_once(), [made("round_robin", Unasked)])
