"""What is left of a simulator's error when each request goes where it went live."""

import pytest

from helpers.errors import InputError
from helpers.lessons.decisions import with_live_decisions
from helpers.lessons.records import record


def recorded(folder, arm):
    points = record(folder, "engine_llama-8b_routing")["parts"]["routers"]["points"]
    return next(one["errors"]["served"] for one in points if one["name"] == f"{arm}: TTFT mean")


@pytest.mark.parametrize("arm", ["least_requests at 1", "predicted_ttft at 0.7"])
def test_most_of_a_large_error_is_decisions(arm):
    error, cached = with_live_decisions("2x_h200", arm)
    assert 0 < error < recorded("2x_h200", arm) / 4 and abs(cached) < 0.01


def test_where_decisions_know_nothing_of_times_nothing_is_changed():
    """Who takes turns decides the same whatever the simulator says, so that the recorded error has to come out."""
    error, cached = with_live_decisions("2x_h200", "round_robin at 0.7")
    assert error == pytest.approx(recorded("2x_h200", "round_robin at 0.7"), rel=1e-9) and abs(cached) < 0.01


def test_an_arm_that_was_not_served_is_refused():
    with pytest.raises(InputError, match=r"2x_h200 has no live run of dynamo at 1; name a router at a load"):
        with_live_decisions("2x_h200", "dynamo at 1")
