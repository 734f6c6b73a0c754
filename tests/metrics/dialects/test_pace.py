"""One request by hand, in the words of four tools."""

import pytest

from helpers.metrics.dialects.pace import (
    GUIDELLM,
    MOONCAKE,
    PER_REQUEST,
    POOLED,
    guidellm_tpot_s,
    mooncake_tbt_s,
    paces,
)
from helpers.metrics.timeline import Span, StepLog, Timeline


def steps(*durations_s: float, start_s: float) -> StepLog:
    log = StepLog()
    for duration_s in durations_s:
        log.append(start_s, 1, duration_s, 0.0, 1, 0)
        start_s += duration_s
    return log


# First token 2 s after the arrival, then gaps of 0.1 s and one of 0.7 s: 21 tokens, 20 gaps.
GAPS = [0.1] * 10 + [0.7] + [0.1] * 9
REQUEST = Timeline(
    0, 10.0, 100, 21, "finished", "", 0, 0, 10.0, 11.0, 12.0, 12.0 + sum(GAPS), 21, spans=(Span(0, 0, 19),)
)
LOG = [steps(*GAPS, start_s=12.0)]


def test_by_hand():
    pace = paces([REQUEST], LOG)
    assert pace[PER_REQUEST] == pytest.approx([2.6 / 20])
    assert pace[POOLED] == pytest.approx(GAPS)
    assert pace[GUIDELLM] == pytest.approx([(2.0 + 2.6) / 21])  # contains TTFT
    assert pace[MOONCAKE] == pytest.approx([(0.7 + 0.1) / 2])  # the longest two of twenty


def test_the_definitions_differ_on_this_request():
    firsts = {name: max(values) for name, values in paces([REQUEST], LOG).items()}
    assert len({round(v, 6) for v in firsts.values()}) == 4


def test_requests_without_a_gap_are_left_out():
    one_token = Timeline(1, 0.0, 10, 1, "finished", "", 0, 0, 0.0, 0.1, 0.2, 0.2, 1)
    refused = Timeline(2, 0.0, 10, 5, "rejected")
    assert paces([one_token, refused], LOG) == {PER_REQUEST: [], POOLED: [], GUIDELLM: [], MOONCAKE: []}


def test_edges():
    assert mooncake_tbt_s([]) is None
    assert mooncake_tbt_s([0.2]) == pytest.approx(0.2)
    assert mooncake_tbt_s([0.1] * 29 + [1.0, 1.0, 1.0]) == pytest.approx(1.0)
    assert guidellm_tpot_s(Timeline(2, 0.0, 10, 5, "rejected")) is None
