"""The statistics of the targets on runs that are worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.targets.measures import (
    REJECTION,
    SERVICE,
    UPSETS,
    after_upset,
    rejection,
    series_after_upset,
    service,
    wasted_share,
)
from helpers.bench.targets.registry import PLACES, load
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload
from helpers.workload.slo import SLO

SCENARIO = load(PLACES["routers:dynamic_routing"]).scenario("slow worker, live views")
# 900 requests, one every 0.1 s from 0.1 to 90 s: 30 windows of 3 s, the upset (0.4 of the requests) at 36.1 s.
TIMES = [(i + 1) / 10 for i in range(900)]
AT_S = 36.1


def run_of(ttft_s, worker=lambda i: i % 2):
    """A run in which request i, arriving at t, waits ttft_s(t) on worker(i) and takes 0.1 s more."""
    timelines = tuple(
        Timeline(
            i, t, 100, 2, "finished", prefill_worker=worker(i), dispatched_s=t, prefill_start_s=t,
            first_token_s=t + ttft_s(t), finished_s=t + ttft_s(t) + 0.1,
        )
        for i, t in enumerate(TIMES)
    )  # fmt: skip
    log = EventLog(timelines, workers=(WorkerInfo(), WorkerInfo()), end_s=max(t.finished_s for t in timelines))
    return SimpleNamespace(log=log, timelines=timelines, workers=log.workers)


def asked():
    workload = Workload("by hand", tuple(Request(i, t, 100, 2) for i, t in enumerate(TIMES)))
    return Experiment(workload, Fleet(workers=2), slo=SLO(ttft_s=0.5))


def found(ttft_s, **more):
    return after_upset(run_of(ttft_s, **more), asked(), SCENARIO)


def test_a_disturbance_that_lasts_15_s_is_read_as_such():
    """0.1 s, but 1.0 s for who arrives in the 15 s after the upset.

    These fill the windows that end at 39, 42, 45, 48 and 51 s: 15 s late. In the one that ends at 54 s only 1 of 30
    is late, and p95 is the 29th: it is the first of three in the band, 17.9 s after the upset.
    """
    values = found(lambda t: 1.0 if AT_S <= t < AT_S + 15 - 0.05 else 0.1)
    assert values["settling_s"] == pytest.approx(54 - AT_S) and values["settled"] == 1
    assert values["late_s"] == pytest.approx(15.0)
    assert values["peak_s"] == pytest.approx(1.0) and values["overshoot"] == pytest.approx(9.0)


def test_what_changes_nothing_is_settled_at_once():
    values = found(lambda t: 0.1)
    assert values["settling_s"] == pytest.approx(39 - AT_S) and values["settled"] == 1  # at the first window
    assert values["late_s"] == 0 and values["overshoot"] == pytest.approx(0.0)


def test_a_queue_that_grows_has_not_settled_although_it_ends_near_its_own_level():
    values = found(lambda t: 0.1 if t < AT_S else 0.1 + 0.05 * (t - AT_S))
    assert values["settled"] == 0 and values["settling_s"] == pytest.approx(90 - AT_S)
    level = found(lambda t: 0.1 if t < AT_S else 2.0)  # control: a new level is one, however high
    assert level["settled"] == 1 and level["late_s"] == pytest.approx(54.0)


def test_noise_before_the_upset_widens_the_band():
    """Windows of 0.1 and 0.2 s in turn: mean 0.15, deviation 0.05, so 2 deviations are two thirds of the level.

    About the level 0.3 that is 0.2 to each side: 0.2 and 0.4 in turn are inside. With nothing but 15 % it would be
    0.045, and nothing settles.
    """
    swings = lambda t, low, high: low if int((t - 1e-9) // 3) % 2 == 0 else high  # noqa: E731
    noisy = found(lambda t: swings(t, 0.1, 0.2) if t < 36 else swings(t, 0.2, 0.4))
    assert noisy["settled"] == 1
    steady = found(lambda t: 0.15 if t < 36 else swings(t, 0.2, 0.4))
    assert steady["settled"] == 0


def test_imbalance_after_the_upset():
    """All on one of two workers: the other has nothing, so the deviation is as large as the mean."""
    assert found(lambda t: 0.5, worker=lambda i: 0)["oscillation"] == pytest.approx(1.0, abs=0.01)
    even = found(lambda t: 0.4)  # each second request: two wait on each worker all the time
    assert even["oscillation"] < 0.1
    before = found(lambda t: 0.4, worker=lambda i: 0 if TIMES[i] < 36 else i % 2)
    assert before["oscillation"] < 0.1  # what was before the upset does not count


def test_without_an_upset_there_is_nothing_to_say():
    calm = load(PLACES["routers:dynamic_routing"]).scenario("knee")
    assert after_upset(run_of(lambda t: 0.1), asked(), calm) == {}
    assert series_after_upset(run_of(lambda t: 0.1), asked(), calm) == {}
    kept = series_after_upset(run_of(lambda t: 0.1), asked(), SCENARIO)
    assert len(kept["times_s"]) == len(kept["ttft_p95_s"]) == 30


def timeline(number, status, slo_class, ttft_s=None, prefilled=0, began=False):
    return Timeline(
        number, 0.0, 100, 1, status, slo_class=slo_class, prefilled_tokens=prefilled,
        prefill_start_s=0.0 if began else None, first_token_s=ttft_s, finished_s=ttft_s,
    )  # fmt: skip


def test_rejections_by_class_and_the_work_in_vain():
    """Of 600 tokens computed, 200 were for a request that came too late, and 100 for one turned away after all."""
    ones = (
        timeline(0, "finished", "high", 0.1, 100, True),
        timeline(1, "finished", "high", 9.0, 200, True),
        timeline(2, "finished", "low", 0.1, 200, True),
        timeline(3, "rejected", "low"),
        timeline(4, "rejected", "low long", None, 100, True),
    )
    log = EventLog(ones, end_s=9.0)
    slos = dict.fromkeys(("high", "low", "low long"), SLO(ttft_s=1.0))
    values = rejection(SimpleNamespace(log=log, timelines=ones), SimpleNamespace(slo=slos))
    assert values == {
        "attainment of high": 0.5,
        "attainment of low": 0.5,
        "attainment of high long": None,
        "attainment of low long": 0.0,
        "rejected": 0.4,
        "aborted": 0.2,
        "wasted_prefill": 0.5,
    }
    assert wasted_share(EventLog(ones[3:4]), slos) is None  # nothing was computed
    met = tuple(replace(one, status="finished", first_token_s=0.1, finished_s=0.1) for one in ones[:3])
    assert wasted_share(EventLog(met), slos) == 0  # control: the same work, all of it in time


def test_goodput_counts_up_to_the_last_arrival():
    """450 of 900 requests are in time, the last arrives at 90 s: 5 a second, whatever the drain takes."""
    run = run_of(lambda t: 0.1 if t <= 45 else 60.0)
    values = service(run, asked())
    assert values["goodput_per_s"] == pytest.approx(5.0) and values["attainment"] == pytest.approx(0.5)
    assert values["ttft_p50_s"] == pytest.approx(0.1) and values["ttft_p90_s"] == pytest.approx(60.0)


def test_every_number_is_declared():
    values = {**service(run_of(lambda t: 0.1), asked()), **found(lambda t: 0.1)}
    assert set(values) == {"goodput_per_s"} | {one.name for one in (*SERVICE, *UPSETS)}
    assert len({one.name for one in (*SERVICE, *UPSETS, *REJECTION)}) == len(SERVICE) + len(UPSETS) + len(REJECTION)
