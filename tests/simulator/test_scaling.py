"""Fleets that change: worked examples by hand, and what is refused."""

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.policies.view import Decision, Dispatched, Finished, FirstToken, KVStored, Plan, Verdict, WorkerLost
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.disturbances import LoseWorker
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request

SECOND = AffineCost(1.0, 0.0, 0.0, 0.0, 0.0)  # every step takes one second, whatever is in it
WIDE = Limits(1000, 16, 4096, 64)
SPLIT = ("prefill", "prefill", "decode")
LAST = [Request(99, 30.0, 16, 2)]  # keeps a run going, so that the scaler is asked
LONG = [Request(90 + i, 0.0, 16, 20) for i in range(3)]  # what worker 0 has to do to 20 s, so that another one goes


class Script:
    """Wants what is written for the time at which it is asked, and notes what it sees and hears."""

    name, observes = "script", frozenset({Dispatched, FirstToken, Finished, WorkerLost})

    def __init__(self, plans, period_s=1.0):
        self.plans, self.period_s = dict(plans), period_s
        self.seen, self.heard = {}, []

    def scale(self, views, now):
        ids = (views.prefill, views.decode, views.starting, views.leaving)
        known = sorted({w for some in ids for w in some})
        self.seen[now] = (*ids, {w: views.busy_s(w) for w in known})
        return self.plans.get(now, Plan({}))

    def observe(self, event, now):
        self.heard.append((now, type(event).__name__, getattr(event, "worker", None)))


def newest(request, views):
    """The newest worker that takes it."""
    prefill = views.prefill[-1]
    return Decision(prefill, prefill if prefill in views.decode else views.decode[-1])


def scaled(requests, roles, plans, policy=newest, startup_s=0.0, role_change_s=0.0, cost=SECOND, told=None, **options):
    """Serve under a script; returns the log and the script."""
    script = plans if hasattr(plans, "scale") else Script(plans)
    workers = tuple(WorkerSpec(WIDE, cost, role) for role in roles)
    telemetry = options.pop("telemetry", Telemetry())
    hop_s = options.pop("hop_s", 0.0)
    spec = ClusterSpec(workers, Link(0.5, 1e9, "batched"), 0.0, 1, telemetry, hop_s, startup_s, role_change_s)
    cluster = Cluster(spec, [Told(policy, told)], scaler=script, **options)
    return cluster.run(requests), script, cluster


def mostly_newest(request, views):
    """Worker 0 for the long ones, else the newest."""
    return 0 if request.id >= 90 and request.arrival_s == 0.0 else views.prefill[-1]


class Told:
    """A router that does what a function of (request, views) says, and notes what it hears in `told`."""

    name = "told"
    observes = frozenset({WorkerLost, KVStored})

    def __init__(self, decide, told):
        self._decide, self._told = decide, told

    def route(self, request, views, now, rng):
        decision = self._decide(request, views)
        return decision if isinstance(decision, Decision) else Decision(decision, decision)

    def observe(self, event, now):
        if self._told is not None:
            self._told.append((now, type(event).__name__, event.worker))


def stays(log):
    return [(w.role, w.start_s, w.ready_s, w.stop_s) for w in log.workers]


# -- in


def test_a_started_worker_serves_after_its_start_up():
    """Wanted at 1 s, up at 1 + 2.5 = 3.5 s: the request of 3.5 s is the first that it gets, not that of 3.4 s."""
    requests = [Request(0, 3.4, 16, 2), Request(1, 3.5, 16, 2), *LAST]
    log, script, _ = scaled(requests, ("mixed",), {1.0: Plan({"mixed": 2})}, startup_s=2.5)
    assert [t.prefill_worker for t in log.timelines] == [0, 1, 1]
    assert stays(log) == [("mixed", 0.0, 0.0, None), ("mixed", 1.0, 3.5, None)]
    assert script.seen[1.0][:3] == ((0,), (0,), ())
    assert script.seen[2.0][:3] == ((0,), (0,), (1,))
    assert script.seen[4.0][:3] == ((0, 1), (0, 1), ())
    assert log.counts == {"workers_start": 1, "workers_stop": 0, "workers_change": 0}


def test_without_a_start_up_a_worker_is_there_at_once():
    log, _, _ = scaled([Request(0, 1.0, 16, 2), *LAST], ("mixed",), {1.0: Plan({"mixed": 2})})
    assert log.timelines[0].prefill_worker == 1  # a change of the fleet comes before an arrival of the same time


def test_what_is_wanted_counts_who_is_starting():
    """Two wanted at 1 s and again at 2 s are two; a start is called off before anybody who serves is stopped."""
    plans = {1.0: Plan({"mixed": 2}), 2.0: Plan({"mixed": 2}), 3.0: Plan({"mixed": 1})}
    log, script, cluster = scaled(LAST, ("mixed",), plans, startup_s=10.0)
    assert stays(log) == [("mixed", 0.0, 0.0, None), ("mixed", 1.0, None, 3.0)]
    assert script.seen[4.0][:4] == ((0,), (0,), (), ())
    assert [(a["action"], a["worker"]) for a in cluster.changes.actions] == [("start", 1), ("call off", 1)]
    assert log.timelines[0].prefill_worker == 0


def test_lost_workers_can_be_wanted_back():
    log, _, _ = scaled(
        [Request(0, 5.0, 16, 2), *LAST], ("mixed",) * 2, {2.0: Plan({"mixed": 2})},
        disturbances=[LoseWorker(1, 1.5)], startup_s=1.0,
    )  # fmt: skip
    assert stays(log)[1:] == [("mixed", 0.0, 0.0, 1.5), ("mixed", 2.0, 3.0, None)]
    assert log.timelines[0].prefill_worker == 2  # ids are never used twice


def test_a_fleet_that_was_lost_comes_back_when_it_is_wanted():
    """Nothing serves from 1 to 5 s: what comes then is rejected; a scaler that wants nothing changes nothing."""
    lost = [LoseWorker(0, 1.0)]
    requests = [Request(0, 3.0, 16, 2), Request(1, 6.0, 16, 2), *LAST]
    log, _, _ = scaled(requests, ("mixed",), {4.0: Plan({"mixed": 1})}, disturbances=lost, startup_s=1.0)
    assert [t.status for t in log.timelines] == ["rejected", "finished", "finished"]
    log, _, _ = scaled(requests, ("mixed",), {}, disturbances=lost)
    assert {t.status for t in log.timelines} == {"rejected"}


# -- out


def test_a_worker_that_is_to_go_finishes_what_it_has():
    """Output 5 from 0 s: prefill to 1 s, four more steps to 5 s. Told to go at 1 s, it stops at 5 s; 2 s goes to 0."""
    told = []
    requests = [Request(0, 0.0, 32, 5, (7, 8)), *LONG, Request(1, 2.0, 16, 2), *LAST]
    log, script, _ = scaled(requests, ("mixed",) * 2, {1.0: Plan({"mixed": 1})}, mostly_newest, told=told)
    assert [(t.prefill_worker, t.finished_s, t.requeues) for t in log.timelines[:2]] == [(1, 5.0, 0), (0, 4.0, 0)]
    assert stays(log) == [("mixed", 0.0, 0.0, None), ("mixed", 0.0, 0.0, 5.0)]
    assert script.seen[2.0][:4] == ((0,), (0,), (), (1,)) and script.seen[5.0][3] == ()
    assert (1.0, "WorkerLost", 1) in told and (1.0, "WorkerLost", 1) in script.heard
    assert (5.0, "Finished", 1) in script.heard


def test_the_cache_of_a_worker_that_is_to_go_is_told_to_nobody():
    """Told to go at 1 s, with a second prompt in its queue whose blocks it stores later: the router hears nothing."""
    told = []
    requests = [Request(0, 0.0, 32, 5, (7, 8)), *LONG, Request(1, 0.5, 32, 5, (17, 18)), *LAST]
    scaled(requests, ("mixed",) * 2, {1.0: Plan({"mixed": 1})}, mostly_newest, told=told)
    assert told == [(1.0, "KVStored", 1), (1.0, "WorkerLost", 1)]
    kept = []
    scaled(requests, ("mixed",) * 2, {}, mostly_newest, told=kept)
    assert kept == [(1.0, "KVStored", 1), (2.0, "KVStored", 1)]  # a control: a worker that stays tells


def test_a_request_on_its_way_is_waited_for():
    """Sent at 0.9 s over a hop of 0.5 s, it arrives at 1.4 s on a worker that was told to go at 1 s, and is served."""
    requests = [*LONG, Request(0, 0.9, 16, 2), *LAST]
    log, _, _ = scaled(requests, ("mixed",) * 2, {1.0: Plan({"mixed": 1})}, mostly_newest, hop_s=0.5)
    assert (log.timelines[0].prefill_worker, log.timelines[0].finished_s) == (1, 3.4)
    assert log.workers[1].stop_s == 3.4


def test_the_worker_with_the_fewest_requests_goes():
    requests = [Request(0, 0.0, 16, 9), Request(1, 0.0, 16, 9), *LAST]
    log, _, _ = scaled(requests, ("mixed",) * 3, {1.0: Plan({"mixed": 2})}, lambda r, v: (1, 2, 0)[r.id % 3])
    assert [w.stop_s for w in log.workers] == [1.0, None, None]
    log, _, _ = scaled(LAST, ("mixed",) * 3, {1.0: Plan({"mixed": 2})}, lambda r, v: 0)
    assert [w.stop_s for w in log.workers] == [None, None, 1.0]  # the highest id among equals


def test_the_last_one_stays_until_another_is_there():
    """A mixed worker is to take over from a prefill and a decode worker: asked for at 1 s, up at 6 s."""
    plan = Plan({"prefill": 0, "decode": 0, "mixed": 1})
    log, script, _ = scaled(LAST, ("prefill", "decode"), {1.0: plan, 3.0: plan, 7.0: plan}, startup_s=5.0)
    assert script.seen[4.0][:4] == ((0,), (1,), (2,), ())  # nobody could serve without them
    assert stays(log) == [("prefill", 0.0, 0.0, 7.0), ("decode", 0.0, 0.0, 7.0), ("mixed", 1.0, 6.0, None)]


def test_a_worker_that_fails_while_it_drains_gives_its_requests_back():
    told = []
    log, _, _ = scaled(
        [Request(0, 0.0, 16, 5), *LONG, *LAST], ("mixed",) * 2, {1.0: Plan({"mixed": 1})}, mostly_newest,
        disturbances=[LoseWorker(1, 3.5)], told=told,
    )  # fmt: skip
    first = log.timelines[0]
    assert (first.requeues, first.decode_worker, first.status) == (1, 0, "finished")
    assert log.workers[1].stop_s == 4.0  # the step from 3 to 4 s was its last
    assert told == [(1.0, "WorkerLost", 1)]  # once


# -- from role to role


def test_a_prefill_worker_becomes_a_decode_worker():
    """Prompt on worker 1: prefill 0 to 1 s, KV on the link 1 to 1.5 s, then worker 2 decodes three tokens to 4.5 s.

    Worker 1 is told at 1 s and drained at 1.5 s; after 0.75 s more, worker 3 serves in its place.
    """
    plans = {1.0: Plan({}, "test", ((1, "decode"),))}
    log, script, cluster = scaled([Request(0, 0.0, 16, 4), *LAST], SPLIT, plans, role_change_s=0.75)
    assert stays(log) == [
        ("prefill", 0.0, 0.0, None),
        ("prefill", 0.0, 0.0, 1.5),
        ("decode", 0.0, 0.0, None),
        ("decode", 1.5, 2.25, None),
    ]
    first = log.timelines[0]
    assert (first.prefill_worker, first.decode_worker, first.transfer_end_s, first.finished_s) == (1, 2, 1.5, 4.5)
    assert script.seen[2.0][:4] == ((0,), (2,), (3,), ()) and script.seen[3.0][:3] == ((0,), (2, 3), ())
    assert log.timelines[1].decode_worker == 3
    assert log.counts == {"workers_start": 0, "workers_stop": 0, "workers_change": 1}
    assert cluster.changes.actions == [
        {"time_s": 1.0, "action": "change", "worker": 1, "role": "prefill", "reason": "test"}
    ]


def test_a_decode_worker_waits_for_the_prefills_that_are_meant_for_it():
    """Prefill of 15,490 tokens in four chunks on worker 0, meant for worker 2, which is told to change at 1 s.

    The prefill ends at 4 s, the KV is there at 4.5 s, and the one token left is out at 5.5 s.
    """
    roles, plans = ("prefill", "decode", "decode"), {1.0: Plan({}, "", ((2, "prefill"),))}
    log, _, _ = scaled([Request(0, 0.0, 5 * 4096 - 4990, 2), *LAST], roles, plans)
    first = log.timelines[0]
    assert (first.first_token_s, first.transfer_end_s, first.finished_s, first.decode_worker) == (4.0, 4.5, 5.5, 2)
    assert stays(log)[2:] == [("decode", 0.0, 0.0, 5.5), ("prefill", 5.5, 5.5, None)]


def test_who_fails_before_the_change_is_not_followed():
    plans = {1.0: Plan({}, "", ((1, "decode"),))}
    requests = [Request(0, 0.0, 4096 * 3, 2), *LAST]
    log, script, _ = scaled(requests, SPLIT, plans, disturbances=[LoseWorker(1, 1.5)])
    assert stays(log)[3] == ("decode", log.end_s, None, log.end_s)  # it never came
    assert script.seen[2.0][:4] == ((0,), (2,), (), ())
    assert log.timelines[0].requeues == 1


def test_a_change_that_would_leave_nobody_is_put_off():
    roles = ("prefill", "decode", "decode")
    log, _, _ = scaled(LAST, roles, {1.0: Plan({"prefill": 1, "decode": 2}, "", ((0, "decode"),))})
    assert [w.stop_s for w in log.workers] == [None] * 3


# -- what a scaler sees


def test_busy_seconds_are_those_in_steps_up_to_now():
    """Prompts at 0.5 s (one step) and at 3.25 s (two steps): at 4 s, 1 + 0.75 s were spent in steps, at 5 s 1.75."""
    requests = [Request(0, 0.5, 16, 1), Request(1, 3.25, 16, 2), *LAST]
    for telemetry in (Telemetry(), Telemetry(100.0)):
        _, script, _ = scaled(requests, ("mixed",), {}, telemetry=telemetry)
        busy = {now: seen[4][0] for now, seen in script.seen.items()}
        assert [busy[t] for t in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)] == [0.5, 1.0, 1.0, 1.75, 2.75, 3.0]


def test_a_worker_that_is_younger_than_the_news_looks_idle():
    seen = []

    def note(request, views):
        seen.append([views[w].waiting for w in views.prefill])
        return views.prefill[-1]

    requests = [Request(i, 2.0 + i / 8, 16, 9) for i in range(4)]
    log, _, _ = scaled(requests, ("mixed",), {1.0: Plan({"mixed": 2})}, note, telemetry=Telemetry(100.0))
    assert seen == [[0, 0]] * 4 and {t.prefill_worker for t in log.timelines} == {1}


def test_the_scaler_is_asked_as_long_as_there_is_something_to_do():
    _, script, _ = scaled([Request(0, 4.5, 16, 3)], ("mixed",), {})
    assert sorted(script.seen) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]  # the request is there until 7.5 s


def test_held_requests_are_asked_for_again_when_a_worker_comes():
    class Two:
        name, queues = "two", True

        def admit(self, request, views, decision, now, rng):
            return Verdict("accept") if len(views.prefill) > 1 else Verdict("queue")

    held = [Request(0, 0.0, 16, 2)]
    log, _, _ = scaled([*held, *LAST], ("mixed",), {1.0: Plan({"mixed": 2})}, startup_s=3.0, admission=Two())
    assert log.timelines[0].dispatched_s == 4.0


def test_a_fleet_without_a_scaler_says_so(traffic, serve):
    log = serve(traffic(), ("mixed",) * 2)
    assert log.counts == {} and {(w.start_s, w.ready_s, w.stop_s) for w in log.workers} == {(0.0, 0.0, None)}
    lost = serve(traffic(), ("mixed",) * 2, disturbances=[LoseWorker(1, 2.0)])
    assert lost.workers[0].stop_s is None and lost.workers[1].stop_s == pytest.approx(2.0, abs=0.1)


# -- refused


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (Plan({"mixed": 0}), "a fleet that cannot serve; keep a worker for each part"),
        (Plan({"mixed": 0, "prefill": 2}), "a fleet that cannot serve"),
        (Plan({"mixed": -1}), "scaler script wants -1 mixed workers; name roles of mixed, prefill, decode"),
        (Plan({"both": 1}), "scaler script wants 1 both workers"),
        (Plan({}, "", ((7, "decode"),)), "scaler script gave worker 7 the role 'decode'; name a worker"),
        (Plan({}, "", ((0, "both"),)), "scaler script gave worker 0 the role 'both'"),
        (Plan({}, "", ((0, "mixed"),)), "gave worker 0 the role 'mixed'; .* that it does not have"),
        (Plan({"mixed": 2}, "", ((0, "decode"), (0, "prefill"))), "gave worker 0 the role 'prefill'; .* once"),
    ],
)
def test_a_plan_that_cannot_be_gets_one_sentence(plan, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        scaled(LAST, ("mixed",), {1.0: plan})
    assert "\n" not in str(error.value)


def test_prefill_workers_need_a_link():
    spec = ClusterSpec((WorkerSpec(WIDE, SECOND),))
    script = Script({1.0: Plan({"prefill": 1})})
    with pytest.raises(InputError, match="which hand KV over; give the fleet a link"):
        Cluster(spec, [Told(newest, None)], scaler=script).run(LAST)


@pytest.mark.parametrize("name", ["startup_s", "role_change_s"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_times_that_cannot_be_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}; give a finite number of 0 or more"):
        ClusterSpec((WorkerSpec(WIDE, SECOND),), **{name: value})
