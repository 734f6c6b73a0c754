"""The summary of a log measured by hand, as plain JSON."""

import json
import math
from dataclasses import replace
from random import Random

import pytest

from helpers.errors import InputError
from helpers.metrics.series import Window
from helpers.metrics.summary import summarize
from helpers.metrics.timeline import EventLog, WorkerInfo
from helpers.workload.slo import SLO

EXPECTED = {
    "window_s": None, "duration_s": 5.0, "requests": 5, "completed": 3, "rejected": 1, "unfinished": 1, "aborted": 1,
    "goodput_per_s": 0.4, "attainment": 0.4, "throughput_tokens_per_s": 2.2, "throughput_requests_per_s": 0.6,
    "output_tokens": 11, "hit_rate": 30 / 260, "fetch_rate": 20 / 260, "preemptions": 1, "requeues": 1,
    "wasted_prefill_tokens": 40, "imbalance": 148 / 99, "jain": 198**2 / (2 * (148**2 + 50**2)), "stable": None,
    "gpu_s": 2 * 5.0, "goodput_per_gpu_hour": 2 / (10 / 3600),
}  # fmt: skip


def test_every_number_by_hand(small_log):
    found = summarize(small_log, SLO(ttft_s=1.0))
    assert {name: found[name] for name in EXPECTED} == pytest.approx(EXPECTED)
    assert found["ttft_s"] == {
        "mean": pytest.approx(5 / 3), "p50": 1.0, "p90": 3.0, "n": 3, "requests": 3, "estimator": "nearest_rank"
    }  # fmt: skip
    assert found["itl_s"]["mean"] == pytest.approx(7.5 / 8)
    assert (found["itl_s"]["n"], found["itl_s"]["requests"]) == (8, 2)
    assert (found["tpot_s"]["n"], found["e2e_s"]["n"], found["queue_s"]["n"]) == (2, 3, 4)
    assert found["classes"] == {
        "standard": {"requests": 4, "completed": 2, "rejected": 1, "aborted": 1, "wasted_prefill_tokens": 10 + 30}
        | {"goodput_per_s": 2 / 5, "attainment": 2 / 4},
        "strict": {"requests": 1, "completed": 1, "rejected": 0, "aborted": 0, "wasted_prefill_tokens": 0}
        | {"goodput_per_s": 0.0, "attainment": 0.0},
    }
    assert found["rejections"] == {"queue is full": 1}
    assert "5 requests are too few" not in found["stability"]["evidence"]  # the rejected one is not counted
    assert "4 requests are too few" in found["stability"]["evidence"]


def test_the_set_of_names_is_the_contract(small_log):
    nested = {"ttft_s", "tpot_s", "e2e_s", "queue_s", "itl_s", "slos", "classes", "rejections", "balance", "stability"}
    assert set(summarize(small_log)) == set(EXPECTED) | nested


def test_classes_are_counted_without_an_slo_and_add_up(small_log):
    found = summarize(small_log)
    assert found["classes"]["standard"]["goodput_per_s"] is None
    for name in ("requests", "completed", "rejected", "aborted", "wasted_prefill_tokens"):
        assert sum(one[name] for one in found["classes"].values()) == found[name]


@pytest.mark.parametrize("slos", [None, SLO(ttft_s=1.0), {"standard": SLO(tpot_s=0.1), "strict": SLO(e2e_s=9.0)}])
def test_it_is_json_without_nan(small_log, slos):
    found = summarize(small_log, slos, Window(0.25, 4.25))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_window_chooses_arrivals(small_log):
    found = summarize(small_log, SLO(ttft_s=1.0), Window(0.5, 2.5))
    assert (found["requests"], found["completed"], found["rejected"]) == (3, 2, 1)
    assert (found["goodput_per_s"], found["duration_s"], found["output_tokens"]) == (0.5, 2.0, 4)
    assert (found["ttft_s"]["mean"], found["ttft_s"]["n"], found["itl_s"]["n"]) == (2.0, 2, 3)
    assert found["hit_rate"] == 10 / 80


def test_a_split_fleet_shows_its_least_even_role(small_log):
    """Three workers with 148, 50 and 50 tokens in one role, a single one in the other."""
    log = replace(small_log, step_logs=small_log.step_logs * 2)
    for role in ("prefill", "decode"):
        other = "decode" if role == "prefill" else "prefill"
        workers = tuple(WorkerInfo(r) for r in (role, role, other, role))  # loads 148, 50, 148, 50
        found = summarize(replace(log, workers=workers))
        assert found["balance"][other] == {"workers": 1, "jain": 1.0, "imbalance": 1.0}
        assert found["imbalance"] == found["balance"][role]["imbalance"] == pytest.approx(148 / (248 / 3))
        assert found["jain"] == found["balance"][role]["jain"] < 1


def test_p99_needs_3000_requests(queue_log):
    few, many = (summarize(queue_log(Random(0), 0.5, n))["ttft_s"] for n in (2999, 3000))
    assert ("p90" in few, "p99" in few, "p95" in few) == (True, False, False)
    assert ("p90" in many, "p99" in many, "p95" in many) == (True, True, True)


def test_nothing_measured_is_none_and_not_zero():
    found = summarize(EventLog(()), SLO(ttft_s=1.0))
    absent = {"goodput_per_s", "attainment", "throughput_tokens_per_s", "hit_rate", "imbalance", "jain", "stable"}
    assert {name for name in absent if found[name] is None} == absent
    assert found["ttft_s"]["mean"] is None
    assert math.isclose(found["requests"], 0)


def test_bad_input_is_refused(small_log):
    with pytest.raises(InputError, match="no SLO"):
        summarize(small_log, {"standard": SLO()})
    with pytest.raises(InputError, match="unknown percentile estimator"):
        summarize(small_log, estimator="p2")
