"""Hot spots are moved away from, and nothing else is."""

import pytest

from helpers.errors import InputError
from helpers.policies.hotspot import avoid_hot_spot


def choose(chosen, loads, factor, slack=0.0, allowed=None):
    return avoid_hot_spot(chosen, allowed or range(len(loads)), loads.__getitem__, factor, slack)


def test_by_hand():
    """Loads 60, 20, 10, 10: the mean is 100 / 4 = 25, and 60 is 2.4 times that."""
    loads = [60, 20, 10, 10]
    assert choose(0, loads, 2.4) == 0  # at the limit is not above it
    assert choose(0, loads, 2.3) == 2  # 57.5 < 60: the least loaded, the lower id of workers 2 and 3
    assert choose(1, loads, 1.0) == 1  # 20 <= 25: the chosen worker stays, though others have less


def test_only_allowed_workers_count_and_get_it():
    """Of workers 0 and 1 alone the mean is 40, so that 60 is 1.5 times that; worker 2 is no way out."""
    loads = [60, 20, 10]
    assert choose(0, loads, 1.5, allowed=(0, 1)) == 0
    assert choose(0, loads, 1.4, allowed=(0, 1)) == 1
    assert choose(0, loads, 1.5) == 2  # a control: with worker 2 the mean is 30, and 60 is above 45


def test_slack_keeps_a_nearly_idle_fleet_together():
    assert choose(3, [0, 0, 0, 1], 2.0) == 0  # 1 > 2 x 0.25
    assert choose(3, [0, 0, 0, 1], 2.0, slack=0.5) == 3  # 1 <= 0.5 + 0.5
    assert choose(3, [0, 0, 0, 2], 2.0, slack=0.5) == 0  # 2 > 1 + 0.5


def test_an_idle_fleet_has_no_hot_spot():
    assert choose(2, [0, 0, 0], 1.0) == 2
    assert choose(0, [7], 1.0) == 0


def test_each_load_is_asked_for_once():
    asked = []
    avoid_hot_spot(0, (0, 1, 2), lambda worker: asked.append(worker) or 1, 2.0)
    assert asked == [0, 1, 2]


def test_it_bounds_the_load_that_affinity_alone_piles_up():
    """300 requests that all want worker 0: each goes there only while it has at most 1.5 times the mean of four."""
    loads = [0] * 4
    for _ in range(300):
        loads[choose(0, loads, 1.5, slack=1.0)] += 1
    assert sum(loads) == 300
    assert max(loads) <= 1.5 * 75 + 2  # the limit at the end, plus slack, plus the last one placed
    assert loads[0] == max(loads) > 75  # affinity is kept as far as the bound allows
    piled = [0] * 4
    for _ in range(300):
        piled[choose(0, piled, 4.0, slack=1.0)] += 1
    assert piled == [300, 0, 0, 0]  # a control: a worker that has everything has 4 times the mean of four


@pytest.mark.parametrize("factor", [0.9, float("nan"), float("inf"), -1.0])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(InputError, match="hotspot_factor is"):
        choose(0, [1, 1], factor)


def test_a_negative_slack_is_refused():
    with pytest.raises(InputError, match="the slack of a hot spot is -1"):
        choose(0, [1, 1], 2.0, slack=-1)
