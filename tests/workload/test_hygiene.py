import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.workload.generate import generate
from helpers.workload.hygiene import (
    correlation,
    describe,
    dispersion,
    find_ticks,
    gap_cv,
    peak_to_mean,
    quantise,
    spread_ticks,
    summary,
    window_counts,
)
from helpers.workload.request import Request, Workload
from helpers.workload.reuse import describe_reuse, lru_hit, round_robin_hit

# Three users share a system prompt (block 0); 1 and 4 continue 0 and 1; 3 repeats 2. Blocks of 10 tokens.
PROMPTS = (
    (0.0, 25, (0, 1, 2)),
    (1.0, 35, (0, 1, 3, 4)),
    (2.0, 15, (0, 5)),
    (5.0, 15, (0, 5)),
    (9.0, 40, (0, 1, 3, 6)),
)


def workload(prompts=PROMPTS, block_tokens=10, output=5):
    requests = (Request(i, t, n, output + i, blocks) for i, (t, n, blocks) in enumerate(prompts))
    return Workload("made", tuple(requests), block_tokens)


def at(times, **fields):
    return Workload("made", tuple(Request(i, t, 10, 5, **fields) for i, t in enumerate(times)))


def test_summary_uses_the_nearest_rank():
    s = summary(list(range(1, 201)))
    assert (s.p50, s.p90, s.p99, s.max, s.mean) == (100, 180, 198, 200, 100.5)


def test_correlation_of_lines_and_of_nothing():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [6, 4, 2]) == pytest.approx(-1.0)
    assert correlation([1, 2, 3, 4], [1, -1, -1, 1]) == pytest.approx(0.0)
    assert correlation([1, 2], [5, 5]) is None


def test_gap_cv_by_hand():
    # Gaps 1 and 3: mean 2, deviation 1.
    assert gap_cv([0, 1, 4]) == pytest.approx(0.5)
    assert gap_cv([0, 2, 4, 6]) == 0
    assert gap_cv([3]) is None and gap_cv([3, 3]) is None


def test_windows_count_from_the_first_arrival_and_leave_the_unfinished_one_out():
    times = [100, 101, 109.9, 110, 125, 131, 139]
    assert window_counts(times, 10) == [3, 1, 1]  # 100-110, 110-120, 120-130; 130-140 is unfinished
    assert dispersion(times, 10) == pytest.approx((8 / 9) / (5 / 3))
    assert peak_to_mean(times, 10) == pytest.approx(3 / (5 / 3))
    assert dispersion([0, 5], 10) is None and peak_to_mean([0, 5], 10) is None


def test_reuse_by_hand():
    reuse = describe_reuse(workload(), workers=(1, 2), pool_tokens=(10_000,))
    # Leading blocks seen before: 0, (0,1), (0), (0,5), (0,1,3) of 3, 4, 2, 2, 4 blocks.
    assert reuse.hit_blocks == pytest.approx((0 + 2 + 1 + 2 + 3) / 15)
    # In tokens: 0, 20, 10, min(20, 15), 30 of 25 + 35 + 15 + 15 + 40.
    assert reuse.hit_tokens == pytest.approx((20 + 10 + 15 + 30) / 130)
    # Block 0 is common to all, block 1 to three of five; neither is the router's doing.
    assert reuse.common_blocks == 2
    assert reuse.controllable_blocks == pytest.approx(((2 - 2) + (1 - 1) + (2 - 1) + (3 - 2)) / 15)
    assert (reuse.root_share, reuse.distinct_roots) == (1.0, 1)
    assert (reuse.unique_blocks, reuse.block_references, reuse.distinct_kv_tokens) == (7, 15, 70)
    assert reuse.partial_last_share == pytest.approx(4 / 5)
    assert reuse.reusing_share == pytest.approx(1 / 5)  # only the last goes beyond the two common blocks
    # Seconds since the last use: 1, 1 | 1 | 3, 3 | 4, 8, 8.
    assert (reuse.reuse_interval_p50_s, reuse.reuse_interval_p90_s) == (3.0, 8.0)
    assert (reuse.uncached_tokens_p50, reuse.uncached_tokens_mean) == (10, (25 + 15 + 5 + 0 + 10) / 5)
    assert reuse.unchained_blocks == 0
    # One worker is the infinite cache; with two, 0, 2, 4 and 1, 3 meet.
    assert dict(reuse.round_robin) == {1: reuse.hit_blocks, 2: pytest.approx((0 + 0 + 1 + 1 + 2) / 15)}
    assert dict(reuse.lru) == {10_000: reuse.hit_blocks}


def test_lru_evicts_the_least_recently_used_block_and_tails_before_heads():
    requests = workload(((0, 20, (0, 1)), (1, 20, (2, 3)), (2, 20, (0, 1)), (3, 20, (2, 3)))).requests
    assert lru_hit(requests, 4) == pytest.approx(4 / 8)
    assert lru_hit(requests, 2) == 0
    # Room for three: after (2, 3) the tail 1 is gone and the head 0 is left, so the third request hits one block.
    assert lru_hit(requests[:3], 3) == pytest.approx(1 / 6)


@st.composite
def families(draw):
    """Workloads whose prompts extend or repeat prefixes of earlier ones."""
    made, fresh = [], iter(range(10_000))
    for _ in range(draw(st.integers(1, 30))):
        base = draw(st.sampled_from(made)) if made else ()
        kept = base[: draw(st.integers(0, len(base)))]
        made.append((*kept, *(next(fresh) for _ in range(draw(st.integers(0 if kept else 1, 4))))))
    return [Request(i, float(i), 10 * len(b), 1, b) for i, b in enumerate(made)]


@given(families(), st.integers(1, 5), st.integers(1, 40))
def test_reuse_agrees_with_a_count_over_whole_prefixes(requests, workers, capacity):
    """The oracle knows no block ids: a block is hit when the very prefix up to it was sent before."""
    total = sum(len(r.prefix_blocks) for r in requests)

    def prefixes(r):
        return [r.prefix_blocks[: k + 1] for k in range(len(r.prefix_blocks))]

    hits = seen_hits = lru_hits = 0
    seen, caches, ages = set(), [set() for _ in range(workers)], []
    for i, r in enumerate(requests):
        seen_hits += sum(p in seen for p in prefixes(r))
        hits += sum(p in caches[i % workers] for p in prefixes(r))
        lru_hits += sum(p in ages for p in prefixes(r))
        seen.update(prefixes(r))
        caches[i % workers].update(prefixes(r))
        for p in reversed(prefixes(r)):
            ages = [*(a for a in ages if a != p), p]
        ages = ages[-capacity:]
    assert round_robin_hit(requests, workers) == pytest.approx(hits / total)
    assert lru_hit(requests, capacity) == pytest.approx(lru_hits / total)
    assert describe_reuse(Workload("x", tuple(requests), 10)).hit_blocks == pytest.approx(seen_hits / total)


def test_shuffled_blocks_break_the_hit_bound_and_are_reported():
    sound = generate("conversation", requests=2000, seed=3)
    rng = Random(0)
    shuffled = [replace(r, prefix_blocks=tuple(rng.sample(r.prefix_blocks, len(r.prefix_blocks)))) for r in sound]
    before, after = describe_reuse(sound), describe_reuse(replace(sound, requests=tuple(shuffled)))
    assert after.hit_blocks != pytest.approx(before.hit_blocks, rel=0.2)
    assert before.unchained_blocks == 0 < after.unchained_blocks
    assert any("not chained" in f for f in describe(replace(sound, requests=tuple(shuffled))).findings)
    assert not any("not chained" in f for f in describe(sound).findings)


def test_without_block_zero_nothing_is_common():
    sound = generate("conversation", requests=1000, seed=3)
    headless = replace(
        sound,
        requests=tuple(
            replace(r, prefix_blocks=r.prefix_blocks[1:], prompt_tokens=r.prompt_tokens - 512) for r in sound
        ),
    )
    before, after = describe_reuse(sound), describe_reuse(headless)
    assert (before.common_blocks, before.root_share) == (1, 1.0)
    assert after.common_blocks == 0 and after.root_share < 0.1
    assert after.hit_blocks == pytest.approx(after.controllable_blocks)


def test_blocks_on_some_requests_only_are_refused():
    mixed = workload()
    mixed = replace(mixed, requests=(*mixed.requests, Request(9, 10.0, 10, 1)))
    with pytest.raises(InputError, match="1 of 6 requests carry no"):
        describe(mixed)
    assert describe(at([0, 1, 2])).reuse is None


def test_a_tick_is_found_with_jitter_and_gaps_and_not_in_smooth_arrivals():
    rng = Random(1)
    ticked = sorted(3.0 * rng.randrange(300) for _ in range(2000))
    jittered = [t + (-0.001 if rng.random() < 0.3 else 0.0) for t in ticked]
    assert find_ticks(ticked).tick_s == 3.0
    # A millisecond of jitter splits some ticks in two; keep those that stay whole.
    whole = sorted(round(t) + (-0.001 if round(t) % 2 else 0.0) for t in jittered)
    assert find_ticks(whole).tick_s == pytest.approx(3.0, abs=0.01)
    smooth = sorted(rng.uniform(0, 900) for _ in range(2000))
    assert find_ticks(smooth).tick_s is None
    assert find_ticks([0.5 * k for k in range(2000)]).tick_s is None  # evenly spaced, one at a time
    doubled = sorted([*smooth, *smooth])
    assert find_ticks(doubled).shared_share == 1.0
    assert find_ticks(doubled).tick_s is None  # requests in pairs, but on no grid


def test_spreading_undoes_quantising_and_says_so():
    smooth = generate("poisson", requests=6000, rate_per_s=3.4, seed=1)
    ticked = quantise(smooth, 3.0)
    assert find_ticks([r.arrival_s for r in ticked]).tick_s == 3.0
    assert describe(ticked).gap_cv > 2.5
    spread = spread_ticks(ticked, seed=4)
    assert describe(spread).gap_cv == pytest.approx(1.0, abs=0.05)
    assert describe(spread).ticks.tick_s is None
    assert spread.repairs == ("arrivals cut to ticks of 3 s", "ticks of 3 s spread uniformly (seed 4)")
    assert {r.id for r in spread} == {r.id for r in smooth}
    assert [r.arrival_s for r in spread] == sorted(r.arrival_s for r in spread)
    original = {r.id: math.floor(r.arrival_s / 3.0) for r in smooth}
    assert all(original[r.id] == math.floor(r.arrival_s / 3.0) for r in spread)  # each stays in its tick


def test_spreading_is_seeded():
    ticked = quantise(generate("poisson", requests=2000, seed=1), 3.0)
    assert spread_ticks(ticked, 1).sha256 == spread_ticks(ticked, 1).sha256
    assert spread_ticks(ticked, 1).sha256 != spread_ticks(ticked, 2).sha256


def test_spreading_is_refused_where_there_is_no_tick():
    with pytest.raises(InputError, match="show no tick"):
        spread_ticks(generate("poisson", requests=2000, seed=1), 0)
    with pytest.raises(InputError, match="above 0"):
        spread_ticks(at([0, 1]), 0, tick_s=0)


def test_findings_are_sentences_about_what_is_there():
    ticked = describe(quantise(generate("poisson", requests=6000, rate_per_s=3.4, seed=1), 3.0))
    assert any(f.startswith("timestamps fall on 3 s ticks: ") for f in ticked.findings)
    bursty = describe(generate("code", requests=4000, seed=1))
    assert any(f.startswith("arrivals are bursty") for f in bursty.findings)
    calm = describe(generate("poisson", requests=4000, rate_per_s=3.4, seed=1))
    assert calm.findings == ()
    few = describe(generate("poisson", requests=2999, rate_per_s=3.4, seed=1))
    assert [f for f in few.findings if "too few for a p99" in f]
    late = describe(at([1000 + t for t in range(100)]))
    assert any("nothing arrives before 1000 s" in f for f in late.findings)
    in_ms = describe(at([125 * t for t in range(100)]))  # 99 gaps of 125 s over 100 requests: 123.75 s each
    assert any(f.startswith("requests come 124 s apart, all at whole seconds") for f in in_ms.findings)
    for slow in ([125.5 * t for t in range(100)], [20 * t for t in range(100)]):  # controls: fractions, short gaps
        assert not any("apart" in f for f in describe(at(slow)).findings)


def test_an_empty_workload_is_refused():
    with pytest.raises(InputError, match="no request"):
        describe(Workload("none", ()))
    with pytest.raises(InputError, match="no request"):
        spread_ticks(Workload("none", ()), 0)


def test_one_request_can_be_described():
    report = describe(at([5.0]))
    assert (report.n, report.span_s, report.rate_per_s, report.gap_cv) == (1, 0.0, None, None)
