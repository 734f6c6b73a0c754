"""The serving explorer: its numbers are those of the simulator and the metrics, and they move as queues do."""

import json
import re

import pytest

from helpers.cost.calibration import COEFFICIENTS
from helpers.errors import InputError
from helpers.metrics.latency import ttft_s
from helpers.metrics.percentiles import percentile
from helpers.policies.catalogue import KINDS
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.widgets.explorer import answer
from helpers.widgets.explorers import serving, simulated
from helpers.widgets.explorers.registry import reply
from helpers.widgets.explorers.serving import EXPLORER
from helpers.workload.generate import generate

RECORD = {"hardware_key": "cpu_epyc_2c", "coefficients": dict.fromkeys(COEFFICIENTS, 1e-6)}
FEW = {"requests": 400}


def ask(record=None, **values):
    return answer(EXPLORER, FEW | values, record)


def told(found):
    return {one["label"]: one["text"] for one in found["readouts"]}


def attainment(**values):
    return float(told(ask(**values))["SLO attainment"].rstrip("%"))


def series(found, figure):
    return {one["name"]: one for one in found["figures"][figure]["spec"]["data"]}


def a_run(seed=3):
    knobs = {"document_tokens": "lognormal:6000:0.3", "tenant_tokens": "lognormal:1200:0.2"}
    made = generate("documents", rate_per_s=16.0, requests=400, seed=seed, exact_rate=True, **knobs)
    return Experiment(made, Fleet(workers=4), "least_tokens", seed=seed).cluster().run(made.requests)


def test_the_figure_shows_the_run_that_the_simulator_gives():
    drawn = series(ask(router="least_tokens", seed=3), 0)["least_tokens"]
    at = dict(zip(drawn["y"], drawn["x"], strict=True))
    for run, same in ((a_run(), True), (a_run(seed=4), False)):
        expected = [percentile([ttft_s(t) for t in run.timelines], q).value for q in (50, 90)]
        assert ([at[0.5], at[0.9]] == pytest.approx(expected)) is same


def test_attainment_and_goodput_are_counted_over_all_requests():
    """Counted here without the metrics: first token within 1 s, and (last - first) / (n - 1) within 30 ms."""
    met = 0
    log = a_run()
    for t in log.timelines:
        pace_s = (t.finished_s - t.first_token_s) / (t.output_tokens - 1) if t.output_tokens > 1 else 0.0
        met += t.first_token_s - t.arrival_s <= 1.0 and pace_s <= 0.030
    words = told(ask(router="least_tokens", seed=3, slo_ttft_s=1.0, slo_tpot_ms=30.0))
    assert 20 < met < 380
    assert words["SLO attainment"] == f"{met / 400:.1%}"
    # 400 requests at 16 a second come in 25 s
    assert words["goodput"] == f"{met / 25:.2f} requests/s of 16.00 offered"


def test_load_over_time_has_a_line_for_each_worker_and_the_ends_where_they_are_many():
    assert list(series(ask(), 2)) == ["0 mixed", "1 mixed", "2 mixed", "3 mixed"]
    assert list(series(ask(prefill_workers=1), 2)) == ["0 prefill", "1 decode", "2 decode", "3 decode"]
    many = series(ask(workers=32, rate_per_s=100.0), 2)
    assert list(many) == ["round_robin: busiest", "round_robin: mean", "round_robin: least busy"]
    high, mean, low = (one["y"] for one in many.values())
    assert all(a >= b >= c for a, b, c in zip(high, mean, low, strict=True)) and high != low


def test_two_routers_are_drawn_side_by_side_on_the_same_draw():
    found, alone = ask(compare="prefix_exact"), ask(router="prefix_exact")
    assert list(series(found, 0)) == list(series(found, 1)) == ["round_robin", "prefix_exact"]
    assert series(found, 0)["prefix_exact"]["x"] == series(alone, 0)["prefix_exact"]["x"]
    beside = {one["label"]: one["text"] for one in found["readouts"] if one["of"] == "prefix_exact"}
    assert beside == told(alone) != told(ask())
    assert {one["of"] for one in found["readouts"]} == {"round_robin", "prefix_exact"}
    assert not any("of" in one for one in alone["readouts"])
    assert "prefix_exact: busiest" in series(found, 2)


def test_a_router_compared_with_itself_stands_alone():
    assert ask(compare="round_robin")["figures"] == ask()["figures"]


def test_service_falls_with_the_load_and_rises_with_workers():
    shares = [attainment(rate_per_s=rate) for rate in (4.0, 18.0, 30.0, 100.0)]
    assert shares == sorted(shares, reverse=True) and shares[0] > 95 and shares[-1] < 20
    shares = [attainment(rate_per_s=30.0, workers=workers) for workers in (2, 8, 16)]
    assert shares == sorted(shares) and shares[0] < shares[-1]


def test_a_looser_slo_is_met_by_more():
    assert attainment(slo_ttft_s=0.1) < attainment(slo_ttft_s=0.5) < attainment(slo_ttft_s=20.0)
    assert attainment(slo_tpot_ms=10.0) < attainment(slo_tpot_ms=200.0)


def test_bursts_and_stale_views_do_harm():
    assert attainment(burstiness=0.1, slo_ttft_s=0.5) < attainment(burstiness=10.0, slo_ttft_s=0.5) - 5
    fresh, stale = (attainment(router="least_requests", staleness_s=s, slo_ttft_s=0.5) for s in (0.0, 5.0))
    assert stale < fresh - 10


def test_prefix_routing_finds_more_cached_and_nothing_where_nothing_is_shared():
    def cached(**values):
        return int(told(ask(**values))["prompt tokens found cached"].rstrip("%"))

    assert cached(router="prefix_exact") > cached(router="round_robin") + 10
    assert cached(workload="apart", router="prefix_exact") == 0


def test_admission_turns_requests_away_and_the_note_says_how_many_have_no_ttft():
    found = ask(rate_per_s=60.0, admission="predicted_slo")
    rejected = int(re.match(r"[\d,]+", told(found)["rejected"])[0])
    assert rejected > 40
    assert f"Without a TTFT: {rejected} of round_robin." in found["figures"][0]["note"]
    assert told(ask(rate_per_s=60.0))["rejected"] == "0 of 400"


def test_where_no_request_is_served_no_latency_is_drawn():
    log = a_run()
    for t in log.timelines:
        t.status, t.first_token_s, t.finished_s = "rejected", None, None
    side = serving._side("x", log, serving.SLO(1.0, 0.1))
    assert serving._latency([side], "ttft_s", 1.0, "N = 400.") is None
    assert serving._measures(side)["TTFT"] == "no request has one"
    assert serving._measures(side)["SLO attainment"] == "0.0%"


def test_p99_is_named_from_3000_requests_up():
    few, many = ask(requests=2900), ask(requests=3000)
    for found, there in ((few, False), (many, True)):
        labels = [one["text"] for one in found["figures"][0]["spec"]["layout"]["annotations"]]
        assert {"p50", "p90", "SLO 2.00 s"} <= set(labels)
        assert ("p99" in labels) is ("p99" in told(found)["TTFT"]) is there


@pytest.mark.parametrize(
    ("values", "record", "words"),
    [
        ({}, None, "step times predicted from the data sheet of H100 SXM;"),
        (
            {"hardware": "b200"},
            None,
            "step times predicted from the data sheet of B200 (HGX, 1000 W), a model prediction;",
        ),
        ({"hardware": "measured_h100_80gb_hbm3"}, None, "step times calibrated on H100 80GB HBM3, under load;"),
        ({"hardware": "mine"}, RECORD, "step times calibrated on cpu_epyc_2c, KV memory and network of H100 SXM;"),
        ({"hardware": "mine"}, RECORD | {"hardware_key": "h200"}, "step times calibrated on h200;"),
    ],
)
def test_it_says_where_step_times_come_from(values, record, words):
    found = ask(record, **values)
    assert all(one["note"].startswith("Simulated.") and words in one["note"] for one in found["figures"])
    assert found["summary"].startswith(f"Simulated, {words.rstrip(';')}")


def test_a_calibration_of_ones_own_makes_another_run():
    slow = RECORD | {"coefficients": dict.fromkeys(COEFFICIENTS, 2e-6)}
    runs = [ask(record, hardware="mine", rate_per_s=4.0)["figures"][0]["key"] for record in (RECORD, slow)]
    assert runs[0] != runs[1]


def forget():
    simulated.workload_of.cache_clear()
    simulated._simulated.cache_clear()


def test_the_same_values_give_the_same_answer_whatever_was_asked_before():
    asked = json.dumps({"explorer": "serving", "values": FEW | {"router": "power_of_two", "seed": 7}})
    first = reply(asked)
    forget()
    assert reply(asked) == first
    assert reply(asked.replace('"seed": 7', '"seed": 8')) != first


def test_another_slo_is_another_run_only_where_a_policy_looks_at_it():
    def runs(**values):
        forget()
        for bound_s in (0.3, 0.6):
            ask(slo_ttft_s=bound_s, rate_per_s=40.0, **values)
        return simulated._simulated.cache_info().misses

    assert runs() == 1
    assert runs(admission="predicted_slo") == 2


def test_every_policy_on_offer_is_in_the_catalogue():
    assert set(simulated.ROUTERS) <= set(KINDS["router"])
    assert set(simulated.ADMISSIONS) <= set(KINDS["admission"])
    assert all(label.startswith(name) for name, label in (simulated.ROUTERS | simulated.ADMISSIONS).items())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"prefill_workers": 4}, "4 of 4 workers prefill only, so none decodes"),
        ({"hardware": "rtx4090", "prefill_workers": 1}, "RTX 4090 has no network figure"),
        ({"hardware": "mine"}, "unknown hardware 'mine'"),
    ],
)
def test_what_does_not_go_together_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(**values)
