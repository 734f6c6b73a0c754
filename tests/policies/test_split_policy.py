"""`split_policy`, worked by hand: the score, short prompts, prefixes that are too short to count, hot spots."""

from random import Random

import pytest

from helpers.errors import InputError
from helpers.policies.snapshot import Snapshot, view
from helpers.policies.split_policy import SplitPolicy
from helpers.policies.view import Decision, Dispatched, HandedOver, KVEvicted, KVStored, WorkerLost
from helpers.workload.request import Request

# 1,000 tokens in ten blocks of 100. At most 999 of them can come from a cache.
PROMPT = Request(0, 0.0, 1000, 50, tuple(range(10)))
RNG = Random(0)


def router(**parameters) -> SplitPolicy:
    return SplitPolicy(block_tokens=100, **parameters)


def having(one: SplitPolicy, **blocks: int) -> SplitPolicy:
    """The router, told that worker `w3` (say) has the first `n` blocks."""
    for worker, count in blocks.items():
        one.observe(KVStored(int(worker[1:]), tuple(range(count))), 0.0)
    return one


def route(one: SplitPolicy, *views, request: Request = PROMPT) -> tuple[int, int]:
    decision = one.route(request, Snapshot(views), 0.0, RNG)
    return decision.prefill, decision.decode


def points(one: SplitPolicy, *views, request: Request = PROMPT) -> dict[int, float]:
    decision = one.route(request, Snapshot(views), 0.0, RNG)
    return {worker: value for worker, term, value in decision.scores if term == "points"}


def mixed(*loads: tuple[int, int]):
    """Mixed workers with so many requests (waiting, running)."""
    return [view(i, waiting=waiting, running=running) for i, (waiting, running) in enumerate(loads)]


def split(*decode_running: int, prefill_waiting: tuple[int, ...] = (0, 0)):
    """Prefill workers 0, 1, …, then decode workers with so many running requests."""
    first = [view(i, "prefill", waiting=n) for i, n in enumerate(prefill_waiting)]
    return [*first, *(view(len(first) + i, "decode", running=n) for i, n in enumerate(decode_running))]


# -- what is on its way


def test_prompts_on_their_way_count_as_running_where_they_will_decode():
    """2 and 3 running requests on the decode workers 2 and 3, and no report changes: 2, then 3 and 3, so 2 again, 3 ...

    The points without the prefix are -0.5 x running: -1.0 and -1.5; then -1.5 each, the lower id; then -2.0 and -1.5.
    """
    one, views = router(prompt_length_threshold=0), split(2, 3)
    chosen = []
    for number in range(4):
        asked = Request(number, 0.0, 1000, 50)
        chosen.append(route(one, *views, request=asked)[1])
        one.pairing.observe(Dispatched(asked, Decision(0, chosen[-1])), 0.0)
    assert chosen == [2, 2, 3, 2]
    assert [route(router(prompt_length_threshold=0), *views)[1] for _ in range(4)] == [2] * 4  # by reports alone
    one.pairing.observe(HandedOver(Request(0, 0.0, 1000, 50), 2, 0.0), 0.0)  # reports show it from now on
    assert one.pairing.on_the_way.to(views[2], 0.0) == (2, 2000)


# -- the score


def test_the_points_by_hand():
    """10 x 0.8 - 1.5 x 3 - 0.5 x 4 = 1.5 with the prefix, 0 - 1.5 x 0 - 0.5 x 1 = -0.5 without."""
    one = having(router(explain=True), w0=8)
    assert points(one, *mixed((3, 4), (0, 1))) == pytest.approx({0: 1.5, 1: -0.5})
    assert route(one, *mixed((3, 4), (0, 1))) == (0, 0)


def test_a_whole_cached_prompt_is_worth_six_and_two_thirds_waiting_requests():
    """9 of 10 blocks: 10 x 0.9 = 9 points, six waiting requests; the seventh is one too many."""
    one = having(router(enable_hotspot_prevention=False), w0=9)
    assert route(one, *mixed((5, 0), (0, 0))) == (0, 0)  # 9 - 7.5 = 1.5
    assert route(one, *mixed((7, 0), (0, 0))) == (1, 1)  # 9 - 10.5 = -1.5


def test_the_last_token_of_a_prompt_is_never_cached():
    one = having(router(explain=True), w0=10)
    assert points(one, *mixed((0, 0), (0, 0)))[0] == pytest.approx(10 * 999 / 1000)


def test_each_weight_decides():
    one = mixed((2, 0), (0, 5))  # 1.5 x 2 = 3 points off, 0.5 x 5 = 2.5 points off
    assert route(router(), *one) == (1, 1)
    assert route(router(queue_length_weight=1.0), *one) == (0, 0)  # 2 < 2.5
    assert route(router(decode_load_weight=0.7), *one) == (0, 0)  # 3 < 3.5
    cached = having(router(prefix_cache_weight=0.0), w0=9)
    assert route(cached, *one) == (1, 1)
    assert route(having(router(), w0=9), *one) == (0, 0)


def test_the_lowest_id_among_equals():
    assert route(router(), *mixed((1, 0), (1, 0), (0, 3))) == (0, 0)  # 1.5 points off each


# -- a prefix that is too short to decide


def test_below_the_ratio_a_cached_prefix_earns_nothing():
    """Seven of ten blocks are 0.7 < 0.75 of the prompt; eight are enough."""
    assert route(having(router(), w1=7), *mixed((0, 0), (0, 1))) == (0, 0)
    assert route(having(router(), w1=8), *mixed((0, 0), (0, 1))) == (1, 1)
    assert route(having(router(min_cache_hit_ratio=0.7), w1=7), *mixed((0, 0), (0, 1))) == (1, 1)


def test_without_reuse_no_prefix_counts():
    assert route(having(router(reuse_prefix=False), w1=9), *mixed((0, 0), (0, 1))) == (0, 0)
    assert route(having(router(), w1=9), *mixed((0, 0), (0, 1))) == (1, 1)


def test_what_is_evicted_or_lost_counts_no_more():
    fleet = mixed((0, 0), (0, 1))
    one = having(router(), w1=9)
    one.observe(KVEvicted(1, (3,)), 0.0)  # leaves three of ten blocks at the front
    assert route(one, *fleet) == (0, 0)
    two = having(router(), w1=9)
    two.observe(WorkerLost(1), 0.0)
    assert route(two, *fleet) == (0, 0)


# -- two pools


def test_a_long_prompt_goes_through_the_prefill_pool():
    """The prefill worker by its queue, the decode worker by its running requests."""
    assert route(router(), *split(4, 2, 3, prefill_waiting=(1, 0))) == (1, 3)


def test_a_decode_worker_is_chosen_without_the_prefix_term():
    """Worker 3 has seven blocks, but all the KV is handed over to it anyway: 700 of 1,000 tokens help nobody."""
    one = having(router(min_cache_hit_ratio=0.5), w3=7)
    assert route(one, *split(1, 2)) == (0, 2)


def test_a_short_prompt_is_prefilled_where_it_is_decoded():
    short = Request(1, 0.0, 256, 50)
    assert route(router(), *split(4, 2), request=short) == (3, 3)
    assert route(router(), *split(4, 2), request=Request(1, 0.0, 257, 50)) == (0, 3)
    assert route(router(prompt_length_threshold=255), *split(4, 2), request=short) == (0, 3)


def test_it_is_the_uncached_part_that_must_be_short():
    """Worker 2 has eight blocks: 200 of 1,000 tokens are left to compute. Worker 3 has none."""
    one = having(router(), w2=8)
    assert route(one, *split(4, 0)) == (2, 2)
    assert route(having(router(prompt_length_threshold=199), w2=8), *split(4, 0)) == (0, 3)


def test_among_decode_workers_that_may_the_prefix_term_counts():
    """With a threshold of 400: eight blocks on worker 2, six on worker 3 (0.6, too few for the ratio).

    10 x 0.8 - 0.5 x 20 = -2 against 0 - 0.5 x 3 = -1.5; with 18 running 10 x 0.8 - 9 = -1.
    """
    parameters = {"prompt_length_threshold": 400, "enable_hotspot_prevention": False}
    assert route(having(router(**parameters), w2=8, w3=6), *split(20, 3)) == (3, 3)
    assert route(having(router(**parameters), w2=8, w3=6), *split(18, 3)) == (2, 2)


def test_a_threshold_of_0_is_off():
    one = having(router(prompt_length_threshold=0), w2=10)
    assert route(one, *split(0, 0)) == (0, 2)


def test_a_mixed_worker_decodes_what_it_prefills_and_no_short_rule_applies_to_it():
    fleet = [view(0, "mixed", running=3), view(1, "prefill"), view(2, "decode", running=1)]
    assert route(router(), *fleet) == (1, 2)
    assert route(router(), *fleet[:1], view(1, "prefill", waiting=2), fleet[2]) == (0, 0)


def test_no_worker_for_a_part_is_said():
    with pytest.raises(InputError, match="no live worker takes prefills"):
        route(router(), view(0, "decode"))
    with pytest.raises(InputError, match="no live worker takes decodes"):
        route(router(), view(0, "prefill"))


# -- hot spots


def test_a_hot_spot_gives_way_to_the_least_loaded():
    """Loads 7, 0, 1, 0 have a mean of 2; above 2 x 2 + 2 = 6 is a hot spot, though 14 - 10.5 = 3.5 points are most."""
    fleet = mixed((7, 0), (0, 0), (1, 0), (0, 0))
    parameters = {"prefix_cache_weight": 14 / 0.9}
    assert route(having(router(**parameters), w0=9), *fleet) == (1, 1)
    assert route(having(router(**parameters, enable_hotspot_prevention=False), w0=9), *fleet) == (0, 0)
    assert route(having(router(**parameters, hotspot_factor=2.5), w0=9), *fleet) == (0, 0)  # 2.5 x 2 + 2 = 7
    assert route(having(router(**parameters, hotspot_slack=3.0), w0=9), *fleet) == (0, 0)


def test_a_decode_worker_can_be_a_hot_spot_too():
    """Without a weight on running requests the lowest id would always decode: 9 > 2 x 3 + 2."""
    fleet = split(9, 0, 0)
    assert route(router(decode_load_weight=0.0), *fleet) == (0, 3)
    assert route(router(decode_load_weight=0.0, enable_hotspot_prevention=False), *fleet) == (0, 2)


# -- the rest


def test_scores_name_the_terms_and_only_when_asked():
    one = having(router(explain=True), w0=8)
    decision = one.route(PROMPT, Snapshot(mixed((3, 4), (0, 1))), 0.0, RNG)
    assert decision.scores[:4] == (
        (0, "points", pytest.approx(1.5)),
        (0, "hit", 0.8),
        (0, "waiting", 3),
        (0, "running", 4),
    )
    assert router().route(PROMPT, Snapshot(mixed((0, 0))), 0.0, RNG) == Decision(0, 0)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"prompt_length_threshold": -1}, "prompt_length_threshold is -1"),
        ({"prefix_cache_weight": float("nan")}, "prefix_cache_weight is nan"),
        ({"queue_length_weight": -1.0}, "queue_length_weight is -1.0"),
        ({"decode_load_weight": float("inf")}, "decode_load_weight is inf"),
        ({"min_cache_hit_ratio": 1.5}, "min_cache_hit_ratio is 1.5"),
        ({"hotspot_factor": 0.5}, "hotspot_factor is 0.5"),
    ],
)
def test_bad_parameters_are_refused(parameters, sentence):
    with pytest.raises(InputError, match=sentence):
        router(**parameters)
