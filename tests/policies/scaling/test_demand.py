"""What a scaler learns of the demand, by hand."""

import pytest

from helpers.policies.scaling.demand import RecentDemand, WindowedDemand
from helpers.policies.view import Arrived, Finished, FirstToken
from helpers.workload.request import Request


def test_recent_demand_by_hand(tell):
    """Arrivals at 0, 2, ... 18 s: 10 in 20 s at 20 s; in 40 s at 40 s, as nothing has come since."""
    recent = RecentDemand()
    tell(recent, 10, 2.0, prompt=300, output=40, cached=100)
    demand = recent.at(20.0)
    assert (demand.rate_per_s, demand.prompt_tokens, demand.cached_tokens, demand.output_tokens) == (0.5, 300, 100, 40)
    assert demand.context_tokens == 320
    assert recent.at(40.0).rate_per_s == 0.25


def test_only_the_last_64_count(tell):
    recent = RecentDemand()
    tell(recent, 100, 1.0, prompt=1000)
    tell(recent, 64, 0.5, prompt=200, start_s=200.0)
    demand = recent.at(232.0)
    assert (demand.rate_per_s, demand.prompt_tokens) == (2.0, 200)


def test_too_few_say_nothing(tell):
    recent = RecentDemand()
    tell(recent, 4)
    assert recent.at(10.0) is None
    tell(recent, 1, start_s=5.0)
    assert recent.at(10.0).rate_per_s == 0.5


def test_arrivals_alone_do_not_say_how_long_outputs_are():
    recent = RecentDemand()
    for i in range(20):
        recent.observe(Arrived(Request(i, i, 100, 5)), float(i))
    assert recent.at(20.0) is None


def test_windows_are_averaged(tell):
    """10 requests in the first 100 s and 30 in the second: 0.3/s by the last window alone, 0.2/s by both."""
    found = {}
    for windows in (1, 2):
        demand = WindowedDemand(windows)
        tell(demand, 10, 1.0, prompt=100)
        demand.close(100.0)
        tell(demand, 30, 1.0, prompt=500, start_s=100.0)
        found[windows] = demand.close(200.0)
    assert (found[1].rate_per_s, found[1].prompt_tokens) == (0.3, 500)
    assert (found[2].rate_per_s, found[2].prompt_tokens) == (0.2, 400)  # (10 x 100 + 30 x 500) / 40


def test_an_empty_window_asks_for_nothing(tell):
    demand = WindowedDemand(1)
    tell(demand, 10)
    assert demand.close(100.0).rate_per_s == 0.1
    assert demand.close(200.0) is None  # a control: the window before is not predicted again


def test_cached_tokens_are_those_of_first_tokens():
    demand = WindowedDemand(1)
    for i in range(5):
        request = Request(i, 0.0, 100, 10)
        demand.observe(Arrived(request), 0.0)
        demand.observe(FirstToken(request, 0, 40 if i else 0), 0.0)
        demand.observe(Finished(request, 0), 0.0)
    assert demand.close(10.0).cached_tokens == pytest.approx(4 * 40 / 5)
