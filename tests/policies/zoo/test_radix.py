"""The radix tree against a list of all prompts: what it matches, what it splits, what it forgets."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.policies.zoo.radix import RadixTree, common

BLOCK = 10


def prompts(seed, count=25):
    """Prompts over few blocks, so that they share beginnings; blocks are chained, a block tells its whole prefix."""
    rng = Random(seed)
    for _ in range(count):
        path = [rng.randrange(3) for _ in range(1 + rng.randrange(6))]
        blocks = tuple(int("1" + "".join(map(str, path[: k + 1]))) for k in range(len(path)))
        yield blocks, BLOCK * len(blocks)


def shared(one, other):
    """How many leading blocks two prompts share."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def nodes(node):
    yield node
    for child in node.children.values():
        yield from nodes(child)


def faults(tree, put_in, asked):
    """Where the tree and the list differ: the match of each prompt asked, and the shape of the tree."""
    found = []
    for blocks, _ in asked:
        longest = max((shared(blocks, other) for other, _ in put_in), default=0)
        if tree.match(blocks)[1] != longest:
            found.append(("match", blocks))
    for node in nodes(tree.root):
        for first, child in node.children.items():
            if child.parent is not node or child.blocks[0] != first or child.tokens != BLOCK * len(child.blocks):
                found.append(("shape", child.blocks))
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_match_is_the_longest_beginning_of_any_prompt(seed):
    tree, put_in = RadixTree(BLOCK), []
    for blocks, tokens in prompts(seed):
        leaf, _ = tree.insert(blocks, tokens, 0.0)
        put_in.append((blocks, tokens))
        assert leaf.context == tokens and tree.match(blocks) == (leaf, len(blocks))
    assert faults(tree, put_in, prompts(seed + 1)) == []
    assert len(tree) == sum(1 for _ in nodes(tree.root)) - 1


def test_the_list_finds_a_tree_that_lacks_a_prompt():
    tree, put_in = RadixTree(BLOCK), list(prompts(3))
    for blocks, tokens in put_in[:-1]:
        tree.insert(blocks, tokens, 0.0)
    tree.root.children.popitem()
    assert faults(tree, put_in, put_in)


def test_a_split_takes_tokens_from_the_lower_part_and_keeps_the_workers():
    tree = RadixTree(100)
    first, split = tree.insert((1, 2, 3), 250, 0.0)  # the last block is half full
    assert split is None and (first.tokens, first.context) == (250, 250)
    first.workers = 0b10
    second, split = tree.insert((1, 2, 9), 300, 1.0)
    assert split is first and (first.tokens, first.context, first.blocks) == (50, 250, (3,))
    upper = second.parent
    assert upper is first.parent and (upper.tokens, upper.context, upper.workers) == (200, 200, 0b10)
    assert (second.tokens, second.context, second.workers) == (100, 300, 0)
    assert [node.context for node in second.path()] == [300, 200, 0]
    # A prompt that ends where two part ends in the upper node.
    third, split = tree.insert((1, 2), 200, 2.0)
    assert third is upper and split is None


def test_a_match_that_ends_within_a_node_names_it():
    tree = RadixTree(100)
    leaf, _ = tree.insert((1, 2, 3), 300, 0.0)
    assert (
        tree.match((1, 2, 8)) == (leaf, 2) and tree.match((7,)) == (tree.root, 0) and tree.match(()) == (tree.root, 0)
    )


def test_nodes_are_forgotten_from_their_ends_by_their_last_use():
    tree = RadixTree(100)
    tree.insert((1, 2, 3), 300, 0.0)
    tree.insert((1, 2, 9), 300, 10.0)
    tree.expire(before=0.0)
    assert len(tree) == 3
    tree.expire(before=5.0)  # the end (3) was used at time 0 alone, (1, 2) at time 10 too
    assert tree.match((1, 2, 3))[1] == 2 and len(tree) == 2
    tree.expire(before=10.1)
    assert len(tree) == 0 and tree.root.children == {}


def test_a_node_that_is_used_again_stays():
    tree = RadixTree(100)
    for blocks, now in (((1,), 0.0), ((2,), 5.0), ((1,), 10.0)):
        tree.insert(blocks, 100, now)
    tree.expire(before=7.0)
    assert (tree.match((1,))[1], tree.match((2,))[1]) == (1, 0)


def test_a_worker_is_dropped_from_all_nodes():
    tree = RadixTree(100)
    for blocks in ((1, 2), (1, 3)):
        for node in tree.insert(blocks, 200, 0.0)[0].path():
            node.workers |= 0b11
    tree.drop(0)
    assert {node.workers for node in nodes(tree.root)} == {0b10}


@pytest.mark.parametrize(("run", "at", "same"), [((1, 2), 0, 2), ((2, 3), 1, 1), ((2,), 2, 0), ((2, 9, 9), 1, 1)])
def test_common_blocks(run, at, same):
    assert common(run, (1, 2), at) == same
