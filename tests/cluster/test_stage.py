"""Spans of the stage: inside it, apart from each other, and used again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.cluster.stage import ALIGNMENT, Stage


@given(st.lists(st.tuples(st.integers(1, 2000), st.booleans()), max_size=60))
def test_spans_never_overlap(steps):
    stage, out = Stage(torch.zeros(8 * ALIGNMENT, dtype=torch.uint8)), {}
    for size, give_back in steps:
        if give_back and out:
            start = next(iter(out))
            del out[start]
            stage.free(start)
        start = stage.take(size)
        if start is not None:
            assert start + size <= stage.size
            assert all(start >= s + n or s >= start + size for s, n in out.items())
            out[start] = size


def test_what_is_full_is_full_until_something_is_given_back():
    stage = Stage(torch.zeros(3 * ALIGNMENT, dtype=torch.uint8))
    assert [stage.take(ALIGNMENT) for _ in range(4)] == [0, ALIGNMENT, 2 * ALIGNMENT, None]
    stage.free(ALIGNMENT)
    assert stage.take(2 * ALIGNMENT) is None  # two free bytes, but not side by side
    assert stage.take(1) == ALIGNMENT
    stage.clear()
    assert stage.take(3 * ALIGNMENT) == 0
