"""What a worker takes under an SLA, and what is predicted of it, by hand."""

from math import inf

import pytest

from helpers.policies.scaling.capacity import (
    batch_capacity_per_s,
    latency,
    own_prefill_s,
    prefill_capacity_per_s,
    scaled,
)
from helpers.policies.scaling.demand import Demand
from helpers.policies.snapshot import view

DEMAND = Demand(rate_per_s=2.0, prompt_tokens=950, cached_tokens=0, output_tokens=100)  # context 1,000


def test_prefills_a_second_under_a_ttft():
    """Own 0.1 s, TTFT 0.5 s: u = 0.8 / 0.9, and 0.1 + u 0.1 / (2 (1 - u)) = 0.5, so 8.89 prefills a second."""
    rate = prefill_capacity_per_s(0.1, 0.5)
    assert rate == pytest.approx(80 / 9)
    busy = rate * 0.1
    assert 0.1 + busy * 0.1 / (2 * (1 - busy)) == pytest.approx(0.5)
    assert prefill_capacity_per_s(0.1, 0.11) == pytest.approx(1 / 6 / 0.1)  # r = 0.01: u = 0.02 / 0.12


def test_a_prompt_that_is_slower_than_the_ttft_takes_the_whole_worker():
    assert prefill_capacity_per_s(0.6, 0.5) == pytest.approx(1 / 0.6)


def test_decodes_a_second_under_an_itl(predictor):
    """d(b) = 0.01 + 0.001 b: 0.03 s at b = 20, so 20 / (100 x 0.03) a second; with 10,000 tokens of memory b = 10."""
    assert batch_capacity_per_s(predictor, DEMAND, 0.0301, 10**6, 256) == pytest.approx(20 / (100 * 0.03))
    assert batch_capacity_per_s(predictor, DEMAND, 0.0301, 10_000, 256) == pytest.approx(10 / (100 * 0.02))
    assert batch_capacity_per_s(predictor, DEMAND, 0.0301, 10**6, 5) == pytest.approx(5 / (100 * 0.015))
    assert batch_capacity_per_s(predictor, DEMAND, 0.001, 10**6, 256) == pytest.approx(1 / (100 * 0.011))


def test_a_mixed_worker_shares_its_time(predictor):
    """Own 0.05 s: rate(b) = 1 / (0.15 + 1/b), and 0.01 + 0.001 b <= 0.03 (1 - 0.05 rate) up to b = 13.

    b = 13: rate 4.407, 0.0230 <= 0.0234. b = 14: rate 4.516, 0.0240 > 0.0232.
    """
    rate = batch_capacity_per_s(predictor, DEMAND, 0.03, 10**6, 256, own_s=0.05)
    assert rate == pytest.approx(1 / (0.15 + 1 / 13))
    assert rate < batch_capacity_per_s(predictor, DEMAND, 0.0301, 10**6, 256)  # a control: prefills cost something


def test_the_own_prefill_is_of_what_the_caches_leave(predictor):
    """950 tokens: 0.01 + 0.095 s; 500 of them cached: 0.01 + 0.045 s; all cached: the last token is computed."""
    assert own_prefill_s(predictor, DEMAND) == pytest.approx(0.105)
    assert own_prefill_s(predictor, Demand(2.0, 950, 500, 100)) == pytest.approx(0.055)
    assert own_prefill_s(predictor, Demand(2.0, 950, 950, 100)) == pytest.approx(0.0101)


def test_latencies_by_role(predictor):
    """Two prompts of 600 tokens wait: 2 x 0.07 s. KV 13,000: a step of 0.023 s.

    On a mixed worker a step that prefills takes 0.023 s and 0.1 ms a token; of two, each computes one prompt of
    0.105 s a second, and the ITL is 0.023 / (1 - 0.105).
    """
    prefill = latency(predictor, view(0, "prefill", waiting=2, waiting_tokens=1200), DEMAND, 2)
    assert (prefill.queue_s, prefill.own_s, prefill.itl_s) == (pytest.approx(0.14), pytest.approx(0.105), 0.0)
    assert prefill.ttft_s == pytest.approx(0.245)
    decode = latency(predictor, view(0, "decode", running=10, kv_tokens=13_000), DEMAND, 2)
    assert (decode.queue_s, decode.itl_s) == (0.0, pytest.approx(0.023))
    mixed = view(0, running=10, kv_tokens=13_000, waiting=2, waiting_tokens=1200)
    found = latency(predictor, mixed, DEMAND, 2)
    assert found.queue_s == pytest.approx(2 * (0.023 + 0.06))
    assert found.own_s == pytest.approx(0.023 + 0.095)
    assert found.itl_s == pytest.approx(0.023 / (1 - 0.105))
    assert latency(predictor, mixed, Demand(20.0, 950, 0, 100), 2).itl_s == inf  # 2.1 s of prefill, on two workers


def test_nobody_running_has_no_itl(predictor):
    assert latency(predictor, view(0), DEMAND, 1).itl_s == 0.0


def test_a_larger_share_of_the_load_is_rounded_up():
    one = scaled(view(3, "mixed", running=3, waiting=1, waiting_tokens=101, kv_tokens=7, kv_used_blocks=11), 1.5)
    assert (one.running, one.waiting, one.waiting_tokens, one.kv_tokens, one.kv_used_blocks) == (5, 2, 152, 11, 17)
    assert (one.worker, one.role, one.kv_total_blocks) == (3, "mixed", 1000)
