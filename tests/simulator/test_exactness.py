"""Fast-forward, step by step, lazily or eagerly booked: the same run, to the last bit.

On dyadic times every sum is exact, so the modes must agree exactly, ties included. On other floats they
agree to 1e-9.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.metrics.steps import row_duration_s
from helpers.metrics.timeline import token_times
from helpers.policies.catalogue import ADMISSIONS
from helpers.simulator import gate
from helpers.simulator.fleet_changes import ScalerViews
from helpers.simulator.worker import FastWorker
from tests.simulator.random_cases import COARSE, DYADIC, FLOAT, TICK, TIED, make_case, play, record


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_fast_forward_equals_stepping_exactly_on_dyadic_times(seed):
    case = make_case(seed, TICK)
    fast, seen = play(case, DYADIC)
    slow, seen_slow = play(case, DYADIC, stepwise=True)
    assert record(fast) == record(slow)
    assert seen == seen_slow


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
@example(98661)  # two workers tell at one time, and whoever is heard first lets a held request through
def test_ties_are_resolved_alike(seed):
    case = make_case(seed, COARSE)
    fast, seen = play(case, TIED)
    slow, seen_slow = play(case, TIED, stepwise=True)
    assert record(fast) == record(slow)
    assert seen == seen_slow


def test_the_coarse_grid_has_ties():
    """A control: arrivals do meet the ends of steps there, and on the fine grid they do not."""

    def met(grid, cost):
        count = 0
        for seed in range(40):
            case = make_case(seed, grid)
            log, _ = play(case, cost, stepwise=True)
            ends = {t + s for w in log.step_logs for t, s in zip(w.start_s, w.base_s, strict=True)}
            count += len(ends & {r.arrival_s for r in case.requests})
        return count

    assert met(COARSE, TIED) > 100
    assert met(TICK, DYADIC) < 5


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_lazy_booking_equals_eager_booking(seed):
    grid, cost = (COARSE, TIED) if seed % 2 else (TICK, DYADIC)
    case = make_case(seed, grid)
    lazy, _ = play(case, cost, observes=frozenset())
    eager, _ = play(case, cost, observes=frozenset(), eager=True)
    slow, _ = play(case, cost, observes=frozenset(), stepwise=True)
    assert record(lazy) == record(eager) == record(slow)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_fast_forward_equals_stepping_to_1e_9_on_any_floats(seed):
    case = make_case(seed, 0.0)
    (fast, _), (slow, _) = play(case, FLOAT), play(case, FLOAT, stepwise=True)
    for a, b in zip(fast.timelines, slow.timelines, strict=True):
        assert (a.status, a.prefill_worker, a.decode_worker, a.preemptions) == (
            b.status,
            b.prefill_worker,
            b.decode_worker,
            b.preemptions,
        )
        assert token_times(a, fast.step_logs) == pytest.approx(token_times(b, slow.step_logs), abs=1e-9)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_nothing_is_lost_and_every_token_comes_once(seed):
    case = make_case(seed, TICK)
    log, _ = play(case, DYADIC)
    assert [t.id for t in log.timelines] == sorted(r.id for r in case.requests)
    for t in log.timelines:
        if t.status == "finished":
            times = token_times(t, log.step_logs)
            assert len(times) == t.output_tokens
            assert times == sorted(times)
            assert times[-1] == t.finished_s


def test_the_cases_have_every_feature():
    """A control of the generator: without preemptions, losses, transfers … the tests above prove little."""
    count = dict.fromkeys(("preempted", "requeued", "handed", "cached", "fetched", "rejected"), 0)
    changes = Counter()
    for seed in range(120):
        log, _ = play(make_case(seed, TICK), DYADIC)
        changes.update(log.counts)
        changes["late"] += sum(
            t.prefill_worker is not None and log.workers[t.prefill_worker].start_s > 0 for t in log.timelines
        )
        for t in log.timelines:
            count["preempted"] += t.preemptions > 0
            count["requeued"] += t.requeues > 0
            count["handed"] += t.transfer_end_s is not None
            count["cached"] += t.cached_tokens > 0
            count["fetched"] += t.fetched_tokens > 0
            count["rejected"] += t.status == "rejected"
    assert min(count.values()) >= 20, count
    assert min(changes[name] for name in ("workers_start", "workers_stop", "workers_change", "late")) >= 50, changes


def test_every_admission_policy_says_something_in_the_cases():
    """A control of the generator: each policy is drawn, and turns away or holds some of the requests."""
    said = Counter()
    for seed in range(900):
        case = make_case(seed, TICK)
        if case.admission:
            name = case.admission[0]
            note = lambda sequence, decision, verdict, now, name=name: said.update([(name, verdict.action)])  # noqa: E731
            log, _ = play(case, DYADIC, on_decision=note)
            said[name, "late"] += sum("after the prefill" in t.reason for t in log.timelines)
    holding = {"fair", "router_queue", "priority_tiers"}
    for name in ADMISSIONS.keys() - {"none"}:
        assert said[name, "accept"] > 50
        assert said[name, "queue" if name in holding else "reject"] > 20, (name, said)
    assert said["priority_tiers", "reject"] > 20 and said["predicted_load", "late"] > 20


def test_a_line_in_the_wrong_order_is_caught(monkeypatch):
    """A control: when one of the modes lets the last of the line go first, the runs differ."""
    differs = 0
    for seed in range(300):
        case = make_case(seed, TICK)
        if case.admission in [("fair", {"prompt_steps": 0.5}), ("router_queue", {"threshold": 0.5, "order": "wspt"})]:
            slow, _ = play(case, DYADIC, stepwise=True)
            with monkeypatch.context() as patch:
                patch.setattr(gate, "heappop", lambda line: line.pop())
                fast, _ = play(case, DYADIC)
            differs += record(fast) != record(slow)
    assert differs > 5


@pytest.mark.parametrize("wrong", ["one step too many", "growth forgotten", "block late", "busy as last booked"])
def test_a_wrong_fast_forward_is_caught(monkeypatch, wrong):
    if wrong == "one step too many":
        right = FastWorker._run
        monkeypatch.setattr(FastWorker, "_run", lambda self, n, until: right(self, n, until + 0.02))
    elif wrong == "growth forgotten":
        pace = FastWorker._pace
        monkeypatch.setattr(FastWorker, "_pace", lambda self: (pace(self)[0], 0.0))
    elif wrong == "busy as last booked":  # what a scaler reads must not depend on when a worker was last looked at

        def as_booked(self, worker):
            log = self._cluster.workers[worker].log
            return sum(row_duration_s(log, row) for row in range(len(log)))

        monkeypatch.setattr(ScalerViews, "busy_s", as_booked)
    else:
        start = FastWorker._start_decode

        def late(self, sequence):
            start(self, sequence)
            self._grow = [(at + 1, order, s) if s is sequence else (at, order, s) for at, order, s in self._grow]

        monkeypatch.setattr(FastWorker, "_start_decode", late)
    differs = 0
    for seed in range(40):
        case = make_case(seed, TICK)
        try:
            differs += record(play(case, DYADIC)[0]) != record(play(case, DYADIC, stepwise=True)[0])
        except Exception:
            differs += 1
    assert differs > 0
