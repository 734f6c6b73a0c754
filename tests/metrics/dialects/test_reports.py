"""The same four requests as five tools report them, by hand, exactly where they differ."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.metrics.dialects import DIALECTS, aiperf, guidellm, loadgen, mooncake, vllm
from helpers.metrics.dialects.client import Clock
from helpers.metrics.timeline import EventLog
from helpers.workload.slo import SLO

SLOW = SLO(ttft_s=0.6, tpot_s=0.25)


def test_every_tool_reports_what_it_says_it_does_in_its_order(four):
    for tool in DIALECTS.values():
        assert list(tool.report(four, SLOW)) == list(tool.METRICS)
        assert list(tool.report(EventLog((), (), (), 0.0), SLOW)) == list(tool.METRICS)


def test_the_pace_without_the_first_token(four):
    """One value a request: 0.8 s / 4 = 0.2 s and 0.8 s / 2 = 0.4 s; the third has one token."""
    assert vllm.report(four)["mean_tpot_ms"] == pytest.approx(300.0)  # (200 + 400) / 2
    assert aiperf.report(four)["inter_token_latency.avg"] == pytest.approx(300.0)
    found = loadgen.report(four)
    assert found["Mean Time per Output Token (ns)"] == 200_000_000  # (200 + 400 + 0) / 3: one token counts as 0 here
    assert found["errors"] == 2  # and is an error, as is the refused one


def test_guidellm_weighs_its_paces_by_tokens(four):
    found = guidellm.report(four)
    assert found["inter_token_latency_ms.mean"] == pytest.approx((4 * 200 + 2 * 400) / 6)
    assert found["inter_token_latency_ms.median"] == pytest.approx(200.0)  # four of the six gaps belong to it
    # With the time to the first token: (1.8 s, 5 tokens), (1.3 s, 3 tokens), (0.25 s, 1 token).
    assert found["time_per_output_token_ms.mean"] == pytest.approx(1000 * (1.8 + 1.3 + 0.25) / 9)
    assert found["time_per_output_token_ms.median"] == pytest.approx(1000 * 1.8 / 5)  # holds 5 of the 9 tokens


def test_pooled_gaps(four):
    """0.1, 0.1, 0.1, 0.4, 0.4, 0.5 s: half-way between the third and the fourth lies 0.25 s."""
    assert vllm.report(four)["mean_itl_ms"] == pytest.approx(1600 / 6)
    assert vllm.report(four)["median_itl_ms"] == pytest.approx(250.0)
    assert aiperf.report(four)["inter_chunk_latency.p50"] == pytest.approx(250.0)
    assert aiperf.report(four)["time_to_second_token.avg"] == pytest.approx((100 + 400) / 2)


def test_the_longest_tenth_of_the_gaps(four):
    """Of four gaps and of two, the longest tenth is one gap: 0.5 s and 0.4 s."""
    assert mooncake.report(four)["Avg TBT (ms)"] == pytest.approx(450.0)


def test_six_numbers_are_called_time_per_token(four):
    found = {
        vllm.report(four)["median_tpot_ms"],
        vllm.report(four)["median_itl_ms"],
        guidellm.report(four)["inter_token_latency_ms.median"],
        guidellm.report(four)["time_per_output_token_ms.median"],
        mooncake.report(four)["Avg TBT (ms)"],
        loadgen.report(four)["90.00 percentile time to output token (ns)"] / 1e6,
    }
    assert len({round(v, 6) for v in found}) == 6


def test_one_token_in_the_goodput(four):
    """Request 0 misses TTFT, request 1 the pace; request 2 has one token, and the tools disagree."""
    assert vllm.report(four, SLOW)["request_goodput"] == pytest.approx(1 / 13)
    assert aiperf.report(four, SLOW)["good_request_count"] == 0
    assert mooncake.report(four, SLOW)["effective requests"] == 1
    assert mooncake.report(four, SLOW)["effective request capacity"] == pytest.approx(1 / 4)  # the refused one counts
    only_ttft = SLO(ttft_s=0.6)  # the control: without a bound on the pace they agree on requests 1 and 2
    assert vllm.report(four, only_ttft)["request_goodput"] == pytest.approx(2 / 13)
    assert aiperf.report(four, only_ttft)["good_request_count"] == 2
    assert mooncake.report(four, only_ttft)["effective requests"] == 2


def test_a_latency_equal_to_its_bound(four):
    """Request 1: TTFT 0.5 s. vLLM and AIPerf let it pass; Mooncake wants it below."""
    exact = SLO(ttft_s=0.5)
    assert vllm.report(four, exact)["request_goodput"] == pytest.approx(2 / 13)
    assert aiperf.report(four, exact)["good_request_count"] == 2
    assert mooncake.report(four, exact)["effective requests"] == 1


def test_the_bound_on_the_whole_answer(four):
    """1.8, 1.3 and 0.25 s from the send to the last token."""
    assert vllm.report(four, SLO(e2e_s=1.5))["request_goodput"] == pytest.approx(2 / 13)
    assert aiperf.report(four, SLO(e2e_s=1.0))["good_request_count"] == 1


def test_four_durations(four):
    assert vllm.report(four)["request_throughput"] == pytest.approx(3 / 13.0)  # from the start of the run
    assert aiperf.report(four)["request_throughput"] == pytest.approx(3 / (12.3 - 10.0))  # valid requests alone
    assert guidellm.report(four)["requests_per_second.mean"] == pytest.approx(3 / (13.0 - 10.0))  # refused ones too
    found = loadgen.report(four)
    assert found["Completed samples per second"] == pytest.approx((3 - 1) / 12.25)  # the last one sent was done then
    assert found["Scheduled samples per second"] == pytest.approx((3 - 1) / 13.0)
    assert found["Completed tokens per second"] == pytest.approx((5 + 3) / 12.25)  # one token counts as an error: none
    assert vllm.report(four)["output_throughput"] == pytest.approx((5 + 3 + 1) / 13.0)
    assert vllm.report(four)["total_token_throughput"] == pytest.approx((180 + 9) / 13.0)


def test_median_of_two_and_of_three(four):
    """TTFT 1.0, 0.5, 0.25 s, E2E 1.8, 1.3, 0.25 s; the estimators part ways at p90."""
    assert vllm.report(four)["median_ttft_ms"] == pytest.approx(500.0)
    assert aiperf.report(four)["time_to_first_token.p90"] == pytest.approx(900.0)  # place 1.8: 500 + 0.8 x 500
    assert guidellm.report(four)["time_to_first_token_ms.p95"] == pytest.approx(1000.0)  # a value that occurred
    assert loadgen.report(four)["50.00 percentile first token latency (ns)"] == 500_000_000


def test_refused_and_unfinished_requests_have_their_places(four):
    cut = replace(four, timelines=(*four.timelines[:3], replace(four.timelines[3], status="unfinished")))
    assert (vllm.report(cut)["completed"], vllm.report(cut)["failed"]) == (3, 1)
    assert aiperf.report(cut)["error_request_count"] == 1
    assert guidellm.report(cut)["request_totals.incomplete"] == 1
    assert guidellm.report(four)["request_totals.errored"] == 1
    assert loadgen.report(cut, SLO())["Result is"] == "INVALID"


def test_scheduled_or_sent(four):
    """Request 1 was due at 10.2 s; its client was busy until 11.0 s. Only two tools see those 0.8 s."""
    late = Clock(due_s={1: 10.2})
    first = "time_to_first_token"
    assert vllm.report(four, clock=late) == vllm.report(four)
    assert aiperf.report(four, clock=late)[f"{first}.avg"] == aiperf.report(four)[f"{first}.avg"]
    assert guidellm.report(four, clock=late) == guidellm.report(four)
    mean_ms = (1000 + 1300 + 250) / 3
    assert mooncake.report(four, clock=late)["Avg TTFT (ms)"] == pytest.approx(mean_ms)
    assert loadgen.report(four, clock=late)["Mean First Token latency (ns)"] == 850_000_000
    assert mooncake.report(four)["Avg TTFT (ms)"] == pytest.approx((1000 + 500 + 250) / 3)  # the control: on time


def test_a_client_that_timed_its_own_sends(four):
    """The same 0.8 s, told the other way round: due at 11.0 s as in the log, sent at 11.3 s."""
    late = Clock(sent_s={1: 11.3})
    assert vllm.report(four, clock=late)["mean_ttft_ms"] == pytest.approx((1000 + 200 + 250) / 3)
    assert mooncake.report(four, clock=late) == mooncake.report(four)


def test_a_clock_that_cannot_be_right_is_refused(four):
    with pytest.raises(InputError, match="request 1: its first token is out before"):
        vllm.report(four, clock=Clock(sent_s={1: 11.6}))


def test_without_token_times_there_are_no_gaps(four):
    bare = replace(four, step_logs=(), timelines=tuple(replace(t, spans=()) for t in four.timelines))
    assert vllm.report(bare)["mean_itl_ms"] is None
    assert vllm.report(bare)["mean_tpot_ms"] == pytest.approx(300.0)
    assert aiperf.report(bare)["inter_chunk_latency.avg"] is None
    assert aiperf.report(bare)["time_to_second_token.avg"] is None
    assert mooncake.report(bare, SLOW)["effective requests"] is None
    assert mooncake.report(bare)["Avg TBT (ms)"] is None


def test_of_nothing_vllm_and_guidellm_say_0_and_the_others_nothing(four):
    refused = replace(four, timelines=four.timelines[3:])
    assert vllm.report(refused, SLOW)["p99_ttft_ms"] == 0.0
    assert guidellm.report(refused)["time_to_first_token_ms.p99"] == 0.0
    assert aiperf.report(refused)["time_to_first_token.p99"] is None
    assert loadgen.report(refused)["99.00 percentile first token latency (ns)"] is None
    assert mooncake.report(refused)["Avg TTFT (ms)"] is None


def test_each_request_is_judged_by_its_class(four):
    strict = replace(four, timelines=(*four.timelines[:2], replace(four.timelines[2], slo_class="strict")))
    slos = {"standard": SLO(ttft_s=0.6), "strict": SLO(ttft_s=0.2)}
    assert vllm.report(strict, slos)["request_goodput"] == pytest.approx(1 / 13)
    assert aiperf.report(strict, slos)["good_request_count"] == 1
    assert mooncake.report(strict, slos)["effective requests"] == 1
    with pytest.raises(InputError, match="no SLO"):
        vllm.report(strict, {"standard": SLO(ttft_s=0.6)})
