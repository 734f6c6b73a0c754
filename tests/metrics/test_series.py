"""Time series made from timelines: the count in the system against a brute-force count."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import InputError
from helpers.metrics.series import (
    InSystem,
    Window,
    departure_s,
    edges,
    in_system,
    until_last_arrival,
    windowed_ttft,
)
from helpers.metrics.timeline import EventLog, Timeline

STAYS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()), max_size=12)


def timelines_of(stays):
    return [
        Timeline(i, a / 4, 1, 1, "finished" if left else "unfinished", finished_s=(a + d) / 4 if left else None)
        for i, (a, d, left) in enumerate(stays)
    ]


@given(STAYS, st.integers(0, 60), st.integers(1, 40))
def test_counts_and_areas_equal_brute_force(stays, start, length):
    """On quarter seconds everything is exact; a request is in from its arrival up to its departure."""
    timelines = timelines_of(stays)
    found = InSystem(timelines)

    def here(quarter):
        return sum(
            t.arrival_s <= quarter / 4 and (t.finished_s is None or quarter / 4 < t.finished_s) for t in timelines
        )

    assert found.at(start / 4) == here(start)
    expected = sum(here(q) / 4 for q in range(start, start + length))
    window = Window(start / 4, (start + length) / 4)
    assert found.average(window) * window.duration_s == pytest.approx(expected)


def test_rejected_requests_are_never_in_the_system():
    turned_away = Timeline(0, 1.0, 1, 1, "rejected")
    assert departure_s(turned_away) == 1.0
    assert InSystem([turned_away]).at(1.0) == 0
    assert InSystem([Timeline(0, 1.0, 1, 1, "unfinished")]).at(1.0) == 1


def test_the_sampled_series_keeps_the_average(queue_log):
    log = queue_log(Random(2), 0.7, 500)
    series = in_system(log, log.end_s / 50)
    assert len(series) == 50
    whole = InSystem(log.timelines).average(Window(0.0, log.end_s))
    assert sum(series.values) / 50 == pytest.approx(whole)
    assert series.times_s[-1] == pytest.approx(log.end_s)


def test_windows_without_a_first_token_are_left_out():
    """Of 1, 9 and 3 s the middle one is 3 s; nobody arrives from 2 to 4 s, and from 6 s on no window is whole."""
    ttfts = {0.5: 1.0, 1.0: 9.0, 1.5: 3.0, 4.0: 2.0, 6.5: 7.0}
    timelines = [Timeline(i, a, 1, 1, "unfinished", first_token_s=a + d) for i, (a, d) in enumerate(ttfts.items())]
    timelines.append(Timeline(9, 0.0, 1, 1, "rejected"))
    found = windowed_ttft(timelines, 50, 2.0, 7.0)
    assert (found.times_s, found.values) == ((2.0, 6.0), (3.0, 2.0))


def test_windowed_percentiles_of_ttft_by_arrival():
    """Nearest rank: of 10 values p95 is the tenth, p90 the ninth; the request at 2.0 s is of the next window."""
    timelines = [Timeline(i, i / 10, 1, 1, "unfinished", first_token_s=i / 10 + 10 - i) for i in range(10)]
    timelines += [Timeline(10, 2.0, 1, 1, "unfinished", first_token_s=2.5), Timeline(11, 0.0, 1, 1, "rejected")]
    assert windowed_ttft(timelines, 95, 2.0, 4.0).values == (pytest.approx(10.0), pytest.approx(0.5))
    assert windowed_ttft(timelines, 90, 2.0, 4.0).values == (pytest.approx(9.0), pytest.approx(0.5))
    assert windowed_ttft(timelines, 95, 2.0, 4.0).times_s == (2.0, 4.0)


def test_edges_do_not_lose_a_window_to_rounding():
    assert len(edges(0.0, 0.3, 0.1)) == 4
    with pytest.raises(InputError, match="no window of 5 s fits"):
        edges(0.0, 4.0, 5.0)
    with pytest.raises(InputError, match="above 0"):
        in_system(EventLog(()), 0.0)


def test_the_window_to_the_last_arrival_holds_it_and_nothing_later():
    timelines = [Timeline(i, a, 1, 1, "finished", finished_s=9.0) for i, a in enumerate((0.0, 4.0, 2.0))]
    window = until_last_arrival(timelines)
    assert 0.0 in window and 4.0 in window and 4.000001 not in window
    assert window.duration_s == pytest.approx(4.0)
    with pytest.raises(InputError, match="no request arrived"):
        until_last_arrival([])
