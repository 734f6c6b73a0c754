from collections import defaultdict
from itertools import count, islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.workload import arrivals
from helpers.workload.lengths import Constant, Lognormal, Tokens
from helpers.workload.prefixes import BlockIds, Level, PrefixTree, Sessions, SessionShape

BLOCK = 16


def check_blocks(prompts, block):
    """Equal ids exactly where the texts are equal up to the end of the block: the contract of `prefix_blocks`.

    `prompts` holds (text, block ids), a text being a sequence of token values.
    """
    named: dict[int, tuple] = {}
    spelled: dict[tuple, int] = {}
    for text, ids in prompts:
        assert len(ids) == -(-len(text) // block)
        for k, block_id in enumerate(ids):
            prefix = tuple(text[: (k + 1) * block])
            assert named.setdefault(block_id, prefix) == prefix, "one id for two prefixes"
            assert spelled.setdefault(prefix, block_id) == block_id, "two ids for one prefix"


@st.composite
def families(draw):
    """Prompts that continue random earlier ones from a random place with at least one token of their own."""
    ids, fresh, made = BlockIds(BLOCK), count(), []
    for _ in range(draw(st.integers(1, 25))):
        text, blocks = draw(st.sampled_from(made)) if made else ([], ())
        shared = draw(st.integers(0, len(text)))
        text = [*text[:shared], *islice(fresh, draw(st.integers(1, 60)))]
        made.append((text, ids.extend(blocks, shared, len(text))))
    return made


@given(families())
def test_block_ids_are_equal_exactly_where_prefixes_are(prompts):
    check_blocks(prompts, BLOCK)


@pytest.mark.parametrize("harm", ["shuffled", "off by one", "dropped"])
def test_the_check_of_block_ids_can_fail(harm):
    ids = BlockIds(4)
    first = (list(range(10)), ids.extend((), 0, 10))
    second_text = [*range(8), 90, 91, 92]
    blocks = ids.extend(first[1], 8, 11)
    check_blocks([first, (second_text, blocks)], 4)
    harmed = {"shuffled": blocks[::-1], "off by one": (*blocks[:2], first[1][2]), "dropped": blocks[:2]}[harm]
    with pytest.raises(AssertionError):
        check_blocks([first, (second_text, harmed)], 4)


def test_a_partial_block_is_not_shared_with_the_prompt_that_fills_it():
    ids = BlockIds(4)
    first = ids.extend((), 0, 6)
    second = ids.extend(first, 6, 9)
    assert first[0] == second[0]
    assert first[1] not in second


def test_tree_leaves_share_exactly_the_full_blocks_of_their_common_path():
    ids = BlockIds(10)
    tree = PrefixTree(ids, (Level(Constant(25)), Level(Constant(40), fanout=3)))
    rng = Random(0)
    leaves = {tree.draw(rng) for _ in range(100)}
    assert len(leaves) == 3
    assert {tokens for tokens, _ in leaves} == {65}
    blocks = [b for _, b in leaves]
    assert all(len(b) == 6 for b in blocks)  # 65 tokens: six full blocks
    # 25 common tokens: two full blocks shared, the third is where the texts part.
    assert len({b[:2] for b in blocks}) == 1
    assert len({b[2] for b in blocks}) == 3


def test_tree_skew_prefers_low_ranks():
    tree = PrefixTree(BlockIds(10), (Level(Constant(30), fanout=4, skew=2.0),))
    rng = Random(1)
    drawn = [tree.draw(rng)[1] for _ in range(4000)]
    shares = sorted((drawn.count(b) / 4000 for b in set(drawn)), reverse=True)
    total = 1 + 1 / 4 + 1 / 9 + 1 / 16
    assert shares == pytest.approx([1 / total, 1 / 4 / total, 1 / 9 / total, 1 / 16 / total], abs=0.03)


def shape(**changes):
    usual = {
        "first_tokens": Lognormal(100, 0.5),
        "new_tokens": (Lognormal(30, 0.5),),
        "output_tokens": Tokens(Lognormal(50, 0.5)),
        "interval_s": Lognormal(20, 0.5),
        "continue_shares": (0.8,),
    }
    return SessionShape(**(usual | changes))


def sessions(n=3000, seed=0, rate=2.0, from_s=0.0, kinds=None, **changes):
    starts = arrivals.poisson(Random(f"starts{seed}"), rate)
    kinds = kinds or ((1.0, shape(**changes)),)
    levels = (Level(Constant(40)),)
    return list(islice(Sessions(Random(seed), starts, kinds, levels, BlockIds(BLOCK), from_s), n))


def by_session(requests):
    turns = defaultdict(list)
    for r in requests:
        turns[r.session].append(r)
    return turns


def shared_blocks(a, b):
    k = 0
    for x, y in zip(a.prefix_blocks, b.prefix_blocks, strict=False):
        if x != y:
            break
        k += 1
    return k


def test_conversations_grow_by_answer_and_new_text_and_share_the_whole_previous_prompt():
    requests = sessions()
    follow_ups = 0
    for turns in by_session(requests).values():
        for before, after in pairwise(turns):
            follow_ups += 1
            assert after.arrival_s > before.arrival_s
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
            assert shared_blocks(before, after) == before.prompt_tokens // BLOCK
    assert follow_ups > 1500


def test_sessions_share_the_system_prompt_and_nothing_else():
    requests = sessions(500)
    first = {turns[0].session: turns[0] for turns in by_session(requests).values()}
    one, *others = first.values()
    assert len(others) > 50
    assert {shared_blocks(one, other) for other in others} == {40 // BLOCK}


def test_requests_come_in_order_with_consecutive_ids_and_full_blocks():
    requests = sessions()
    assert [r.id for r in requests] == list(range(3000))
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(requests))
    assert all(len(r.prefix_blocks) == -(-r.prompt_tokens // BLOCK) for r in requests)


def test_open_sessions_carry_no_parent_and_causal_ones_do():
    assert all(r.parent is None and r.think_time_s == 0 for r in sessions(500))
    requests = sessions(500, causal=True)
    linked = [r for r in requests if r.parent is not None]
    assert len(linked) > 200
    for r in linked:
        parent = requests[r.parent]
        assert parent.session == r.session and parent.id < r.id
        # Recorded earliest arrival: the parent's, then thinking, answers taking no time.
        assert r.arrival_s == pytest.approx(parent.arrival_s + r.think_time_s)
        assert r.think_time_s >= 0


def test_think_time_and_interval_are_turned_into_each_other_by_the_answer():
    told = {"interval_s": Constant(10), "output_tokens": Tokens(Constant(100)), "answer_s_per_token": 0.02}
    (interval,) = {round(r.think_time_s, 9) for r in sessions(300, causal=True, **told) if r.parent is not None}
    assert interval == pytest.approx(8.0)
    told |= {"interval_includes_answer": False}
    (think,) = {round(r.think_time_s, 9) for r in sessions(300, causal=True, **told) if r.parent is not None}
    assert think == pytest.approx(10.0)
    gaps = {
        round(b.arrival_s - a.arrival_s, 6)
        for turns in by_session(sessions(300, **told)).values()
        for a, b in pairwise(turns)
    }
    assert gaps == {12.0}


def test_edits_keep_only_part_of_the_prefix_and_resends_keep_all_of_it():
    edited = resent = 0
    for turns in by_session(sessions(edit_share=0.5)).values():
        for before, after in pairwise(turns):
            if after.prompt_tokens == before.prompt_tokens:
                edited += 1
                assert shared_blocks(before, after) < len(before.prefix_blocks)
                assert shared_blocks(before, after) >= 40 // BLOCK
    for turns in by_session(sessions(resend_share=0.5)).values():
        for before, after in pairwise(turns):
            resent += after.prefix_blocks == before.prefix_blocks
    assert edited > 800
    assert resent > 800


def test_a_full_context_starts_over_from_the_shared_text():
    requests = sessions(max_prompt_tokens=600)
    assert max(r.prompt_tokens for r in requests) <= 600
    turns = [pair for session in by_session(requests).values() for pair in pairwise(session)]
    restarts = [(a, b) for a, b in turns if b.prompt_tokens < a.prompt_tokens]
    assert len(restarts) > 20
    assert all(shared_blocks(a, b) == 40 // BLOCK for a, b in restarts)
    assert max(r.prompt_tokens for r in sessions()) > 600


def test_mean_turns_is_what_sessions_have():
    shares = (0.5, 0.25, 0.6)
    expected = 1 + 0.5 + 0.5 * 0.25 + 0.5 * 0.25 * 0.6 / (1 - 0.6)
    assert shape(continue_shares=shares).mean_turns == pytest.approx(expected)
    starts = iter([0.1 * i for i in range(8000)])
    made = Sessions(Random(3), starts, ((1.0, shape(continue_shares=shares)),), (), BlockIds(BLOCK))
    assert sum(1 for _ in made) / 8000 == pytest.approx(expected, rel=0.04)


def test_fading_ends_long_sessions_sooner():
    long = {"first_tokens": Constant(500), "max_prompt_tokens": 1000}
    starts = [10.0 * i for i in range(1000)]

    def turns(fade):
        made = Sessions(Random(3), iter(starts), ((1.0, shape(fade=fade, **long)),), (), BlockIds(BLOCK))
        return sum(1 for _ in made)

    assert turns(2.0) < 0.6 * turns(0.0)


def test_kinds_are_drawn_by_weight():
    kinds = ((3.0, shape(first_tokens=Constant(100))), (1.0, shape(first_tokens=Constant(999))))
    firsts = [turns[0] for turns in by_session(sessions(kinds=kinds)).values()]
    share = sum(1 for r in firsts if r.prompt_tokens == 40 + 999) / len(firsts)
    assert share == pytest.approx(0.25, abs=0.06)


def test_warming_up_starts_the_clock_in_the_middle_of_conversations():
    cold, warm = sessions(2000, seed=5), sessions(2000, seed=5, from_s=300.0)
    assert warm[0].id == 0 and warm[0].arrival_s < 5.0

    def early_mean(requests):
        lengths = [r.prompt_tokens for r in requests[:150]]
        return sum(lengths) / len(lengths)

    assert early_mean(warm) > 1.3 * early_mean(cold)  # long prompts of sessions that began before
    assert all(r.parent is None or r.parent >= 0 for r in sessions(500, from_s=300.0, causal=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: BlockIds(0),
        lambda: Level(Constant(1), fanout=0),
        lambda: shape(continue_shares=()),
        lambda: shape(continue_shares=(1.0,)),
        lambda: shape(edit_share=0.7, resend_share=0.7),
        lambda: shape(fade=-1),
        lambda: sessions(10, max_prompt_tokens=30),
    ],
)
def test_impossible_shapes_are_refused(make):
    with pytest.raises(InputError):
        make()
