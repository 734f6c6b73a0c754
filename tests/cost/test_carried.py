"""A cost carried over to another machine by the ratios of their ceilings."""

from dataclasses import fields

import pytest

from helpers.cost.carried import BY_ARITHMETIC, BY_MEMORY, carried_over
from helpers.cost.iteration import AffineCost
from helpers.errors import InputError

HERE = AffineCost(6e-3, 2e-5, 4e-9, 8e-6, 4e-8, launch_s=1e-3)


def test_a_decode_goes_with_memory_and_a_chunk_with_arithmetic():
    there = carried_over(HERE, memory=2.0, arithmetic=4.0)
    # 6 ms, 10 requests at 8 us and 1,000 tokens at 40 ns, all of it read: 6.12 ms, in half the time.
    assert HERE.step((), 10, 1000) == pytest.approx(6.12e-3)
    assert there.step((), 10, 1000) == pytest.approx(3.06e-3)
    # A chunk of 100 tokens after 900: 2 ms and 100,000 pairs, 0.4 ms, in a quarter of the time.
    added = there.step([(100, 900)], 10, 1000) - there.step((), 10, 1000)
    assert added == pytest.approx(2.4e-3 / 4)
    assert (there.kind, HERE.kind) == ("predicted", "fitted") and there.launch_s == 1e-3


def test_the_same_machine_changes_nothing_and_swapped_ratios_do():
    same = carried_over(HERE, 1.0, 1.0)
    assert [getattr(same, name) for name in (*BY_MEMORY, *BY_ARITHMETIC)] == [6e-3, 8e-6, 4e-8, 2e-5, 4e-9]
    assert carried_over(HERE, 2.0, 4.0) != carried_over(HERE, 4.0, 2.0)


def test_every_coefficient_of_the_device_is_carried():
    assert {*BY_MEMORY, *BY_ARITHMETIC} == {one.name for one in fields(AffineCost)} - {"launch_s", "kind"}


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("inf"), float("nan")])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(InputError, match=r"^the ratio of memory is"):
        carried_over(HERE, ratio, 1.0)
    with pytest.raises(InputError, match=r"^the ratio of arithmetic is"):
        carried_over(HERE, 1.0, ratio)
