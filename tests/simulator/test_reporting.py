"""Views that come with steps, by hand: every step takes the same time, whoever is in it."""

import pytest

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError
from helpers.policies.view import Decision
from helpers.scheduling.limits import Limits
from helpers.simulator.cluster import Cluster
from helpers.simulator.spec import ClusterSpec, WorkerSpec
from helpers.simulator.views import Telemetry
from helpers.workload.request import Request
from tests.simulator.random_cases import DYADIC, TICK, make_case, play, record

STEP = 2.0**-7  # seconds, which add up exactly
COST = AffineCost(STEP, 0.0, 0.0, 0.0, 0.0)
LIMITS = Limits(100, 16, 512, 32)
BY_STEP = Telemetry(by_step=True)
BOTH = pytest.mark.parametrize("stepwise", [False, True])


def found(requests, telemetry, stepwise, hop=0.0):
    """What each request finds on the only worker: running, waiting, waiting tokens, KV tokens, blocks, age in steps."""
    seen = []

    class Looks:
        name, observes = "looks", frozenset()

        def route(self, request, views, now, rng):
            v = views[0]
            load = v.running, v.waiting, v.waiting_tokens, v.kv_tokens, v.kv_used_blocks
            seen.append((*load, v.age_s / STEP))
            return Decision(0, 0)

    spec = ClusterSpec((WorkerSpec(LIMITS, COST),), telemetry=telemetry, hop_s=hop * STEP)
    Cluster(spec, [Looks()], stepwise=stepwise).run(requests)
    return seen


def at(*requests):
    """Requests of (arrival in steps, prompt tokens, output tokens)."""
    return [Request(i, when * STEP, prompt, output) for i, (when, prompt, output) in enumerate(requests)]


# A: prompt 100, three tokens, in the steps that begin at 0, 1 and 2. B joins at 1 and ends with A. C is in the step at
# 2 alone, D in that at 3.
FEW = at((0, 100, 3), (0.5, 40, 2), (1.5, 20, 1), (2.5, 8, 1), (10, 8, 1))


@BOTH
def test_a_view_is_of_the_moment_before_the_step_in_flight(stepwise):
    """A holds 7 blocks of 16 tokens, B 3. Whom a step admits waits in its report; whom it ends still runs there."""
    assert found(FEW, BY_STEP, stepwise) == [
        (0, 0, 0, 0, 0, 0),
        (0, 1, 100, 0, 0, 0.5),  # the step of A began at 0: A waited
        (1, 1, 40, 100, 7, 0.5),  # at 1: A has its prompt, B waits
        (2, 1, 20, 101 + 40, 10, 0.5),  # at 2: a token more of A, the prompt of B, C waits
        (0, 0, 0, 0, 0, 0),  # nothing runs: as it is
    ]


@BOTH
def test_control_without_it_a_view_has_the_step_in_flight_behind_it(stepwise):
    assert found(FEW, Telemetry(), stepwise) == [
        (0, 0, 0, 0, 0, 0),
        (1, 0, 0, 100, 7, 0),
        (2, 0, 0, 101 + 40, 10, 0),
        (0, 0, 0, 0, 0, 0),  # A, B and C end at 3
        (0, 0, 0, 0, 0, 0),
    ]


@BOTH
@pytest.mark.parametrize(
    ("telemetry", "kv_tokens", "blocks"),
    [
        # 100 tokens after the first step, one more after each: at 20 100 + 19. The step at 29 begins with 128 tokens,
        # which 8 blocks hold, and takes a ninth, which the report at 30 is the first to have.
        (BY_STEP, (119, 128, 129), (8, 8, 9)),
        (Telemetry(), (120, 129, 130), (8, 9, 9)),
    ],
)
def test_a_long_run_of_decodes_is_reported_step_by_step(stepwise, telemetry, kv_tokens, blocks):
    """Whoever looks comes with one token, which the next step computes."""
    looks = [found(at((0, 100, 50), (when, 1, 1)), telemetry, stepwise)[1] for when in (20.25, 29.25, 30.25)]
    assert tuple(v[3] for v in looks) == kv_tokens and tuple(v[4] for v in looks) == blocks


@BOTH
def test_who_is_on_the_way_is_in_no_report(stepwise):
    """With a way of a quarter of a step A begins at 0.25; B and C come before and after that."""
    looks = found(at((0, 100, 3), (0.125, 8, 1), (0.5, 8, 1)), BY_STEP, stepwise, hop=0.25)
    assert [v[:2] for v in looks] == [(0, 0), (0, 0), (0, 1)] and looks[2][5] == 0.25


@pytest.mark.parametrize(("telemetry", "workers"), [(BY_STEP, [0, 1, 0, 0]), (Telemetry(), [0, 1, 0, 1])])
def test_the_shortest_queue_does_not_see_whom_it_has_just_sent(serve, telemetry, workers):
    """Four requests within the first step. C goes to the first of two equals. D sees C there only without reports: by
    them each worker still has one request, and the lowest id gets it."""
    requests = at((0, 100, 3), (0.25, 100, 3), (0.5, 100, 3), (0.75, 100, 3))
    log = serve(requests, ("mixed",) * 2, "least_requests", LIMITS, COST, telemetry=telemetry)
    assert [t.prefill_worker for t in log.timelines] == workers


def test_whoever_decides_without_views_is_served_alike(serve, traffic):
    """Steps and requests are the same; only what is seen differs."""
    logs = [serve(traffic(), ("mixed",) * 2, "round_robin", telemetry=how) for how in (Telemetry(), BY_STEP)]
    a, b = [[(t.prefill_worker, t.first_token_s, t.finished_s) for t in log.timelines] for log in logs]
    assert a == [pytest.approx(one, abs=1e-9) for one in b]


def test_the_reference_and_the_fast_worker_report_alike_where_it_matters():
    """Random cases with these reports in both modes; control: in most of them the views decide something."""
    told = matters = 0
    for seed in range(200):
        case = make_case(seed, TICK)
        if case.telemetry.by_step:
            told += 1
            (fast, seen), (slow, seen_slow) = play(case, DYADIC), play(case, DYADIC, stepwise=True)
            assert record(fast) == record(slow) and seen == seen_slow
            case.telemetry = Telemetry()
            matters += record(play(case, DYADIC)[0]) != record(fast)
    assert told >= 30 and matters >= told / 2


@pytest.mark.parametrize("other", [{"period_s": 1.0}, {"delay_s": 0.1}, {"noise": 0.1}])
def test_reports_by_step_have_no_period(other):
    with pytest.raises(InputError, match="telemetry by step has no period, delay or noise"):
        Telemetry(by_step=True, **other)
