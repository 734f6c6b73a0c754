"""The learner's router on live workers: what is asked of a run, with the simulator in place of the workers."""

import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest

from helpers.cost.samples import StepSample
from helpers.errors import InputError, WorkerError
from helpers.lessons import live_router as lab
from helpers.lessons import routers
from helpers.lessons.live_router import SERVED, Live, Noted, Row, judge_live, live, live_row, live_rows, small_desk
from helpers.lessons.note import Note
from helpers.lessons.verdict import NOT_YET, Unanswered, judged
from helpers.policies.scored import scored
from helpers.scheduling.limits import Limits
from helpers.serving.cluster_backend import ClusterRun
from helpers.serving.experiment import Experiment
from helpers.serving.run import MEASURED, SIMULATED
from helpers.widgets.routers_lab import live as table_of

LIMITS = Limits(245, 64, 512, 32)


def own(request, worker):
    return 5 * worker.cached_tokens - worker.sent_tokens - 1000 * worker.sent_requests


def other(request, worker):
    return worker.cached_tokens - worker.sent_tokens


def run_of(workload, score):
    """A simulated run dressed as a live one, and what its router said."""
    noted = Noted(score)
    run = Experiment(workload, lab.fleet_of(lab.FLEET, LIMITS, None), scored(noted, lab.BLOCK_TOKENS)).run(explain=True)
    tokens = {t.id: [7] * t.output_tokens for t in run.timelines}
    told = replace(run.provenance, kind=MEASURED)
    return ClusterRun(run.log, told, run.wall_s, run.decisions, tokens=tokens), tuple(noted.said)


@pytest.fixture(scope="module")
def served():
    workload = small_desk(SERVED).at_rate(40.0)
    runs, said = zip(run_of(workload, own), run_of(workload, own), strict=True)
    return Live(workload, workload.sha256, runs, said, runs[0], 4.0, 20.0)


# The traffic


def test_the_draws_are_the_frozen_ones_and_share_nothing(monkeypatch):
    draws = [small_desk(seed) for seed in lab.REQUESTS]
    assert [len(one) for one in draws] == list(lab.REQUESTS.values()) and len({one.sha256 for one in draws}) == 3
    for one in draws:
        assert one.requests[-1].arrival_s == pytest.approx(len(one))  # one a second
        assert [r.slo_class for r in one].count("summary") == round(lab.SUMMARIES * len(one))
    monkeypatch.setitem(lab.FROZEN, SERVED, "0" * 16)
    with pytest.raises(InputError, match="not the one that was frozen"):
        small_desk.__wrapped__(SERVED)


# The judge


def test_the_runs_of_a_score_pass_with_it_and_not_with_another(served):
    assert judge_live(own, served) is None
    assert "another score was served" in judge_live(other, served)
    assert "another score was served" in judge_live(lambda r, w: own(r, w) + 1, served)  # with the same decisions


def damaged(served, **changed):
    """The first run with other fields."""
    return replace(served, runs=(replace(served.runs[0], **changed), served.runs[1]))


def with_timelines(served, change):
    """The first run with the timelines that `change` makes of its list."""
    log = served.runs[0].log
    return damaged(served, log=replace(log, timelines=tuple(change(list(log.timelines)))))


def elsewhere(ones):
    return [replace(ones[0], prefill_worker=1 - ones[0].prefill_worker), *ones[1:]]


def unanswered(ones):
    return [replace(ones[0], status="rejected", reason="no room"), *ones[1:]]


DAMAGE = {
    "a request is missing": (lambda s: with_timelines(s, lambda ones: ones[1:]), "never left"),
    "a request is answered twice": (lambda s: with_timelines(s, lambda ones: [*ones, ones[-1]]), "left twice"),
    "a request is not answered": (lambda s: with_timelines(s, unanswered), "was not answered: no room"),
    "a token is missing": (
        lambda s: damaged(s, tokens={**s.runs[0].tokens, 5: s.runs[0].tokens[5][:-1]}),
        "request 5 got",
    ),
    "nobody decided": (lambda s: damaged(s, decisions=s.runs[0].decisions[1:]), "was routed 0 times"),
    "it was decided twice": (
        lambda s: damaged(s, decisions=(*s.runs[0].decisions, s.runs[0].decisions[3])),
        "was routed 2 times",
    ),
    "it went elsewhere": (lambda s: with_timelines(s, elsewhere), "not where your score is highest"),
    "the score was asked of one worker": (
        lambda s: replace(s, said=(s.said[0][1:], s.said[1])),
        "asked about 1 of 2 workers: somebody else decided",
    ),
    "it was simulated": (
        lambda s: damaged(s, provenance=replace(s.runs[0].provenance, kind=SIMULATED)),
        "no live worker has served that",
    ),
    "another second run": (lambda s: replace(s, runs=(s.runs[0], s.runs[0]), said=(s.said[0], ())), "0 of 2 workers"),
    "another workload": (lambda s: replace(s, sha256="0"), "not the one that was frozen"),
}


@pytest.mark.parametrize(("damage", "hint"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_wrong_with_a_run_is_found(served, damage, hint):
    assert hint in judge_live(own, damage(served))


@pytest.mark.parametrize("wrong", [lab.live, {}, 3.0])
def test_what_nobody_served_is_told_so(wrong):
    assert "no live worker has served that" in judge_live(own, wrong)


def test_a_stub_is_unanswered_and_a_sentence_is_its_own_hint():
    assert judged("live", judge_live, own, NOT_YET).text.startswith("replace NOT_YET")
    assert judge_live(own, Note("Nothing was served live", "there is one core.")) == "there is one core."
    with pytest.raises(Unanswered):
        routers.judge_score(lambda request, w: NOT_YET)


# Serving


@pytest.fixture
def no_workers(monkeypatch):
    monkeypatch.setattr(lab, "workers_for", None)


@pytest.mark.parametrize("stub", [NOT_YET, "round_robin", lambda request, w: NOT_YET])
def test_without_a_score_nothing_is_started(no_workers, stub):
    assert "Give it a score that answers" in str(live(stub))


def test_one_core_is_told_in_a_sentence_and_starts_nothing(no_workers, monkeypatch):
    monkeypatch.setattr(lab, "cores", lambda: 1)
    found = live(lambda request, w: 0)
    assert isinstance(found, Note) and "2 workers want a core each, and here is 1" in str(found)


def test_a_missing_package_is_named_in_a_sentence(monkeypatch):
    monkeypatch.setattr(lab, "cores", lambda: 2)
    monkeypatch.delitem(sys.modules, "helpers.cluster.workers", raising=False)
    monkeypatch.setitem(sys.modules, "zmq", None)
    assert "pip install -e '.[engine,serve]'" in str(live(lambda request, w: 1))


def test_a_worker_that_dies_is_a_sentence_too(monkeypatch):
    @contextmanager
    def dying(*_):
        raise WorkerError("worker 1 ended with code -9 as it started")
        yield

    monkeypatch.setattr(lab, "cores", lambda: 2)
    monkeypatch.setattr(lab, "workers_for", dying)
    assert "Worker 1 ended with code -9" in str(live(lambda request, w: 2))


def test_the_way_to_a_worker_stays_out_where_hardly_any_was_idle(monkeypatch):
    """Steps of 5 ms and a token at 0.1 ms; whatever the fit makes of them, together they take as long as they took."""
    steps = [StepSample(((40 + i, 0),), i % 5, 100 * (i % 5), 0.005 + 1e-4 * (40 + i)) for i in range(80)]

    def too_few(_):
        raise InputError("2 requests met an idle worker, and a term needs 10")

    monkeypatch.setattr(lab, "terms_of", too_few)
    monkeypatch.setattr(lab, "gapped", lambda _: [steps[:40], steps[40:]])
    found = lab.learnt_from(None)
    assert found.hop_s == 0.0 and found.link is None
    said_s = sum(found.cost.step(s.chunks, s.decodes, s.kv_tokens) for s in steps)
    assert said_s == pytest.approx(80 * 0.005 + 1e-4 * sum(40 + i for i in range(80)))
    monkeypatch.setattr(lab, "terms_of", lambda runs: runs)  # the control: where there were enough, they count
    assert lab.learnt_from("run") == ["run"]


# The figures


def test_errors_are_relative_to_the_mean_of_the_runs_and_shares_differ():
    """Live 100 and 300 ms: mean 200. Said 250: a quarter more. They are 200 apart, as much as their mean."""
    time, share = Row("TTFT mean", "s", (0.1, 0.3), 0.25), Row("cached", "share", (0.4, 0.5), 0.5)
    assert (time.error, time.apart) == (pytest.approx(0.25), pytest.approx(1.0))
    assert (share.error, share.apart) == (pytest.approx(0.05), pytest.approx(0.1))
    table = table_of([time, share])
    assert table.rows[0] == ["TTFT mean (ms)", "100", "300", "250", "+25.0%", "100.0%"]
    assert table.rows[1] == ["cached (%)", "40", "50", "50", "+5.0 points", "10.0 points"]


def test_the_rows_are_those_of_the_runs_and_there_are_none_before(served):
    assert {row.name for row in served.rows} >= {"TTFT mean", "TPOT mean", "throughput", "prompt tokens cached"}
    assert all(row.error == pytest.approx(0) and row.apart == pytest.approx(0) for row in served.rows)  # the same runs
    assert live_row(served, "requests to worker 0").unit == "share"
    assert 0 < live_row(served, "prompt tokens cached").simulated < 1
    assert live_rows(NOT_YET) == [] and live_row(NOT_YET, "TTFT mean") is None and not table_of([]).rows


def test_a_slower_simulator_is_off_by_as_much_as_it_is_slower(served):
    slow = replace(
        served.simulated, log=replace(served.simulated.log, timelines=tuple(map(later, served.runs[0].log.timelines)))
    )
    row = live_row(replace(served, simulated=slow), "TTFT mean")
    assert row.error == pytest.approx(0.1 / row.live[0])


def later(t):
    return replace(t, first_token_s=t.first_token_s + 0.1, finished_s=t.finished_s + 0.1)
