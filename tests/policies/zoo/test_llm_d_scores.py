"""llm-d's scorers, each by hand."""

import pytest

from helpers.policies.zoo import llm_d_scores as scorers
from helpers.policies.zoo.llm_d_scores import Headroom


def test_the_prefix_is_the_cached_share_or_scaled_between_the_workers():
    assert scorers.shares([0, 1, 8], 10) == [0.0, 0.1, 0.8]
    assert scorers.shares([0, 0], 0) == [0.0, 0.0]  # a prompt shorter than a block
    # 1, 3 and 9 of however many: (1-1)/8, (3-1)/8, (9-1)/8; without a match 0.
    assert scorers.relative([1, 3, 0, 9]) == [0.0, 0.25, 0.0, 1.0]
    # The one block that every prompt opens with, on two of three workers: as good as the whole prompt.
    assert scorers.relative([0, 1, 1]) == [0.0, 1.0, 1.0]
    assert scorers.relative([0, 0]) == [0.0, 0.0]


def test_the_queue_is_scaled_between_the_workers():
    assert scorers.queue([2, 6, 3]) == [1.0, 0.0, 0.75]
    assert scorers.queue([4, 4]) == [1.0, 1.0]


def test_loads_are_scaled_by_their_thresholds():
    assert scorers.load_aware([0, 32, 128, 500], 128) == [0.5, 0.375, 0.0, 0.0]
    assert scorers.load_aware([1], 4) == [0.375]
    assert scorers.token_load([0, 1_048_576, 4_194_304, 10**9], 4_194_304) == [1.0, 0.75, 0.0, 0.0]


def test_the_longest_without_a_cold_prompt_first():
    """Five workers, of which 7 and then 3 had cold prompts: 1, 4 and 9 never had one and keep their order."""
    assert scorers.least_recently_cold([1, 3, 4, 7, 9], [7, 3]) == [1.0, 0.0, 0.75, 0.25, 0.5]
    assert scorers.least_recently_cold([2, 3], [8, 3, 2]) == [0.0, 1.0]  # 8 is gone
    assert scorers.least_recently_cold([5], []) == [1.0]


def left(*pairs, requests=1):
    return [Headroom(ttft_s, tpot_s, requests) for ttft_s, tpot_s in pairs]


def test_the_least_headroom_that_meets_the_slo_wins():
    """TTFT 0.2, 1.2, 0.7 scale to 0, 1, 0.5; TPOT 0.03, 0.01, 0.02 to 1, 0, 0.5. Blended 0.8 : 0.2: 0.2, 0.8, 0.5."""
    pairs = left((0.2, 0.03), (1.2, 0.01), (0.7, 0.02))
    assert scorers.latency(pairs) == pytest.approx([0.8, 0.2, 0.5])
    assert scorers.latency(pairs, most=True) == pytest.approx([0.2, 0.8, 0.5])
    # By TPOT alone the order is the other way round; weights need not add up to 1: 3 : 1.
    assert scorers.latency(pairs, 0.0, 1.0) == pytest.approx([0.0, 1.0, 0.5])
    assert scorers.latency(pairs, 3.0, 1.0) == pytest.approx([0.75, 0.25, 0.5])


def test_a_headroom_that_is_the_same_everywhere_has_no_weight():
    assert scorers.latency(left((0.2, 0.03), (0.2, 0.01))) == [0.0, 1.0]
    assert scorers.latency(left((0.2, 0.03), (0.6, 0.03))) == [1.0, 0.0]
    assert scorers.latency(left((0.2, 0.03), (0.2, 0.03))) == [0.5, 0.5]


def test_workers_that_miss_are_not_considered_while_some_meet():
    assert scorers.latency(left((-0.1, 0.5), (0.1, 0.0), (0.5, 0.0))) == [0.0, 1.0, 0.0]
    assert Headroom(0.0, 0.0, 1).met and not Headroom(0.1, -1e-6, 1).met


@pytest.mark.parametrize("most", [False, True])
def test_when_all_miss_the_least_bad_wins_whatever_the_strategy(most):
    """Missing TPOT alone is best, then TTFT alone, then both; within them the smallest miss."""
    everything = left((0.1, -0.02), (0.9, -0.01), (-1.0, 0.5), (-3.0, -0.3))
    assert scorers.latency(everything, most=most) == [0.0, 1.0, 0.0, 0.0]
    assert scorers.latency(everything[2:], most=most) == [0.5, 0.0]
    # Both: TTFT -3, -1, -2 scale to 0, 1, 0.5; TPOT -0.3, -0.4, -0.3 to 1, 0, 1: 0.2, 0.8, 0.6.
    both = left((-3.0, -0.3), (-1.0, -0.4), (-2.0, -0.3))
    assert scorers.latency(both, most=most) == pytest.approx([0.2, 0.8, 0.6])


def test_what_is_met_does_not_soften_what_is_missed():
    """All miss TPOT alone: the TTFT headroom, large or small, is 0 to them."""
    assert scorers.latency(left((9.0, -0.02), (0.1, -0.01))) == [0.0, 1.0]


def test_when_all_miss_idle_workers_come_first():
    headrooms = [Headroom(-1.0, 0.5, 3), Headroom(-9.0, -0.5, 0), Headroom(-5.0, -0.5, 0)]
    assert scorers.latency(headrooms) == [0.0, 0.0, 1.0]
    met = [Headroom(1.0, 0.5, 3), Headroom(0.5, 0.5, 0)]
    assert scorers.latency(met, most=True) == [1.0, 0.0]  # nobody is idle enough to matter while the SLO is met
