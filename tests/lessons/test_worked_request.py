"""The worked request: what each system says is worked by hand, from its formula and the moment alone."""

from dataclasses import replace

import pytest

from helpers.lessons.worked_request import BLOCK_TOKENS, MOMENTS, PROMPT, RULES, choices, request


@pytest.fixture(scope="module")
def said():
    return {one.router: one for one in choices()}


def test_every_system_speaks_of_every_worker(said):
    assert list(said) == list(RULES)
    assert all(sorted(one.scores) == [0, 1, 2, 3] for one in said.values())


def test_each_takes_the_worker_that_its_own_scores_say(said):
    ends = {"least": min, "most": max}
    for name, one in said.items():
        best = ends[one.rule.partition(":")[0]](one.scores.values())
        if name != "aibrix":  # which leaves out the busiest first
            assert one.scores[one.chosen] == best


def test_vllm_counts_four_waiting_and_running(said):
    """4 x 2 + 5 = 13; 3; 2; 4 x 1 + 0 = 4."""
    assert said["vllm_dp"].scores == {0: 13, 1: 3, 2: 2, 3: 4} and said["vllm_dp"].chosen == 2


def test_sglang_follows_the_match(said):
    """14 / 16 and 8 / 16 of the prompt, block 0 alone: 1 / 16; 7 - 1 requests is far from 65."""
    assert said["sglang_cache_aware"].scores == {0: 0.875, 1: 0.5, 2: 0.0625, 3: 0.0625}
    assert said["sglang_cache_aware"].chosen == 0


def test_llm_d_sums_prefix_free_memory_and_the_shortest_queue(said):
    """Worker 1: 2 x 8/16 + (1 - 18/907) + 1; worker 0 has the longest queue of two, worker 3 half of it."""
    scores = said["llm_d"].scores
    assert scores[1] == pytest.approx(1 + (1 - 18 / 907) + 1)
    assert scores[0] == pytest.approx(1.75 + (1 - 28 / 907) + 0)
    assert scores[3] == pytest.approx(0.125 + 1 + 0.5) and said["llm_d"].chosen == 1


def test_aibrix_leaves_out_who_is_busier_than_the_mean_and_one_sigma(said):
    """Requests 7, 3, 2, 1: mean 3.25, sample deviation sqrt(20.75 / 3) = 2.63; 7 > 5.88, so 0 is out."""
    assert said["aibrix"].scores == {0: 87, 1: 50, 2: 6, 3: 6} and said["aibrix"].chosen == 1


def test_production_stack_takes_the_fewest_requests_for_the_emptiest(said):
    """Worker 3: 1/16 - (1 - 3.25) / 3.25 = 0.0625 + 0.6923; worker 0: 0.875 - 3.75 / 3.25."""
    scores = said["production_stack"].scores
    assert scores[3] == pytest.approx(0.0625 + 2.25 / 3.25) and scores[0] == pytest.approx(0.875 - 3.75 / 3.25)
    assert said["production_stack"].chosen == 3


def test_dynamo_adds_blocks_to_compute_and_blocks_to_hold(said):
    """Worker 2, in blocks: 16 - 1 to compute; two prompts of 4 that share block 0 hold 7, the new one 15 more: 37.

    Worker 1: 16 - 8 = 8, prompts of 4, 8 and 6 hold 1 + 3 + 7 + 5 = 16 distinct, 15 new ones: 39.
    """
    assert said["dynamo"].scores[2] == 15 + 7 + 15 and said["dynamo"].scores[1] == 8 + 16 + 15
    assert said["dynamo"].chosen == 2
    assert said["dynamo_lmetric"].scores[2] == 15 * (7 + 15 + 1) and said["dynamo_lmetric"].scores[1] == 8 * (
        16 + 15 + 1
    )


def test_mooncake_copies_from_the_worker_with_the_longest_prefix(said):
    assert said["mooncake"].kv_source == 0 and said["mooncake"].chosen == 1
    assert [one.kv_source for name, one in said.items() if name != "mooncake"] == [None] * (len(said) - 1)


def test_the_control_without_its_line_the_holder_wins_more_votes():
    """Worker 0 idle: AIBrix, llm-d, Dynamo and predicted TTFT now go where the prefix is."""
    idle = (replace(MOMENTS[0], running=(), waiting=()), *MOMENTS[1:])
    now = {one.router: one.chosen for one in choices(moments=idle)}
    assert {now[name] for name in ("aibrix", "llm_d", "dynamo", "predicted_ttft", "sglang_cache_aware")} == {0}


def test_the_request_is_as_long_as_its_blocks():
    assert request().prompt_tokens == 8192 == len(PROMPT) * BLOCK_TOKENS
