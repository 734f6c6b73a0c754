"""Predicted latencies: by hand, and against the simulator where the formula claims to be exact."""

from dataclasses import dataclass
from inspect import signature
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.predictor import CostPredictor
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.policies.view import Predictor
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.request import Request, Workload

COST = AffineCost(0.01, 1e-3, 1e-6, 2e-3, 1e-6)
ONE = CostPredictor(COST, 100, Link(0.5, 1e6), 1e3)


@dataclass(frozen=True)
class Load:
    role: str = "prefill"
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    kv_tokens: int = 0


def asked(tokens):
    return Request(0, 0.0, tokens, 10)


def test_a_prefill_by_hand():
    # 100 tokens after 50: 0.01 + 0.1 + 1e-6 x 100 x 150; then 100 after 150: 0.01 + 0.1 + 1e-6 x 100 x 250.
    assert ONE.prefill_s(250, 50) == pytest.approx(0.125 + 0.135)
    # Nothing cached: 100 after 0, 100 after 100, 50 after 200.
    assert ONE.prefill_s(250) == pytest.approx(0.12 + 0.13 + 0.0725)


def test_the_chunk_counts():
    assert CostPredictor(COST, 1000).prefill_s(300) == pytest.approx(0.01 + 0.3 + 1e-6 * 300 * 300)
    assert ONE.prefill_s(300) == pytest.approx(0.12 + 0.13 + 0.14)  # two more steps, less attention


def test_a_prompt_cached_to_its_end_costs_its_last_token():
    last = 0.01 + 1e-3 + 1e-6 * 250
    assert ONE.prefill_s(250, 250) == ONE.prefill_s(250, 9999) == ONE.prefill_s(250, 249) == pytest.approx(last)
    assert ONE.prefill_s(250, -5) == ONE.prefill_s(250)


def test_decodes_on_a_mixed_worker_take_budget_and_time():
    mixed = Load("mixed", running=20, kv_tokens=3000)
    # 80 prompt tokens a step beside 20 decodes that read 3,000 tokens: 0.01 + 20 x 0.002 + 0.003 a step.
    by_hand = (0.053 + 0.08 + 1e-6 * 80 * 80) + (0.053 + 0.02 + 1e-6 * 20 * 100)
    assert ONE.ttft_s(asked(100), mixed) == pytest.approx(by_hand)
    alone = Load("prefill", running=20, kv_tokens=3000)
    assert ONE.ttft_s(asked(100), alone) == pytest.approx(0.12)


def test_more_decodes_than_budget_still_end():
    assert ONE.ttft_s(asked(3), Load("mixed", running=500)) == pytest.approx(
        sum(0.01 + 500 * 2e-3 + 1e-3 + 1e-6 * n for n in (1, 2, 3))
    )


def test_the_queue_is_waiting_prompts_of_equal_length():
    queued = Load(waiting=2, waiting_tokens=300)
    each = 0.12 + 0.01 + 0.05 + 1e-6 * 50 * 150  # 150 tokens: 100, then 50 after 100
    assert ONE.queue_s(queued) == pytest.approx(2 * each)
    assert ONE.ttft_s(asked(100), queued) == pytest.approx(2 * each + 0.12)
    assert ONE.queue_s(Load()) == ONE.queue_s(Load(waiting=1)) == 0.0
    half_done = Load(waiting=0, waiting_tokens=100)  # what is left of a prompt that is being computed
    assert ONE.queue_s(half_done) == pytest.approx(0.12)


def test_tpot_is_a_step_with_the_request_added():
    busy = Load("mixed", running=3, kv_tokens=700)
    assert ONE.tpot_s(asked(300), busy) == pytest.approx(0.01 + 4 * 2e-3 + 1e-6 * 1000)
    assert ONE.tpot_s(asked(300), Load()) == pytest.approx(0.01 + 2e-3 + 1e-6 * 300)


def test_a_transfer_is_latency_and_bytes():
    assert ONE.transfer_s(asked(300), 0, 1) == pytest.approx(0.5 + 300 * 1e3 / 1e6)
    assert ONE.transfer_s(asked(300), 0, 1, 100) == pytest.approx(0.6)
    assert ONE.transfer_s(asked(300), 2, 2) == 0.0
    assert CostPredictor(COST, 100).transfer_s(asked(300), 0, 1) == inf


def test_it_has_the_methods_of_the_interface():
    for name in ("ttft_s", "tpot_s", "transfer_s"):
        wanted, has = (list(signature(getattr(one, name)).parameters) for one in (Predictor, CostPredictor))
        assert has[: len(wanted)] == wanted


def simulated_ttfts(prompts, chunk_tokens):
    """TTFT of prompts that arrive at once on one worker with the costs of `COST`."""
    requests = tuple(Request(i, 0.0, tokens, 1) for i, tokens in enumerate(prompts))
    fleet = Fleet(workers=1, chunk_tokens=chunk_tokens, max_batch=chunk_tokens, cost=COST)
    run = Experiment(Workload("burst", requests), fleet).run()
    return [t.first_token_s for t in run.timelines], fleet.predictor()


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 2000), chunk=st.integers(1, 300))
def test_an_idle_worker_computes_a_prompt_as_predicted(tokens, chunk):
    (ttft,), predictor = simulated_ttfts([tokens], chunk)
    assert ttft == pytest.approx(predictor.ttft_s(asked(tokens), Load("mixed")))


def test_equal_prompts_of_whole_chunks_queue_as_predicted_and_ragged_ones_only_roughly():
    ttfts, predictor = simulated_ttfts([200] * 4, 100)
    predicted = [predictor.ttft_s(asked(200), Load("mixed", waiting=n, waiting_tokens=200 * n)) for n in range(4)]
    assert ttfts == pytest.approx(predicted)
    ragged, predictor = simulated_ttfts([150] * 4, 100)
    last = predictor.ttft_s(asked(150), Load("mixed", waiting=3, waiting_tokens=450))
    assert ragged[3] != pytest.approx(last, rel=1e-3) and ragged[3] == pytest.approx(last, rel=0.1)


def test_a_cached_prefix_is_computed_as_predicted():
    requests = (Request(0, 0.0, 1024, 1, (1, 2)), Request(1, 100.0, 1500, 1, (1, 2, 3)))
    fleet = Fleet(workers=1, chunk_tokens=512, cost=COST)
    run = Experiment(Workload("again", requests), fleet).run()
    predictor = fleet.predictor()
    assert run.timelines[1].first_token_s - 100.0 == pytest.approx(predictor.prefill_s(1500, 1024))
    assert predictor.prefill_s(1500, 1024) < 0.5 * predictor.prefill_s(1500)


@pytest.mark.parametrize(("values", "says"), [((0, 0.0), "chunk_tokens 0"), ((1, -1.0), "kv_bytes_per_token is -1")])
def test_bad_input_is_one_sentence(values, says):
    chunk, kv_bytes = values
    with pytest.raises(InputError, match=says):
        CostPredictor(COST, chunk, None, kv_bytes)
