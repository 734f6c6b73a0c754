"""KV that moves: what each mode of a link costs, by hand, and copies from another worker's cache."""

from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.policies.view import Decision
from helpers.scheduling.limits import Limits
from helpers.simulator.disturbances import LoseWorker
from helpers.simulator.links import Links
from helpers.workload.request import Request

SPLIT = ("prefill", "decode")
KV_BYTES, LAYERS = 131_072.0, 32  # as in conftest
SLOW_PREFILL = AffineCost(1e-3, 1e-4, 0.0, 0.0, 0.0)  # 1 ms a step and 0.1 ms a token
WHOLE_PROMPTS = Limits(600, 16, 4096, 32)
RATE, LATENCY_S = 1e9, 2e-3
PROMPT = 1000
WIRE_S = PROMPT * KV_BYTES / RATE
PREFILL_S = 1e-3 + PROMPT * 1e-4


def pair(request, views):
    return Decision(0, 1)


def moved(serve, mode, requests, limits=WHOLE_PROMPTS, **options):
    link = Link(LATENCY_S, RATE, mode)
    log = serve(requests, SPLIT, pair, limits=limits, cost=SLOW_PREFILL, link=link, **options)
    assert audit(log) == []
    return log.timelines


def exposed(t):
    """Seconds between the end of a prefill and the end of its transfer."""
    return t.transfer_end_s - t.first_token_s


ONE = [Request(0, 0.0, PROMPT, 20)]
TWO = [Request(0, 0.0, PROMPT, 20), Request(1, 0.001, PROMPT, 20)]


@pytest.mark.parametrize("mode", ["blocking", "batched"])
def test_the_whole_cache_follows_the_prefill(mode, serve):
    (t,) = moved(serve, mode, ONE)
    assert t.first_token_s == pytest.approx(PREFILL_S)
    assert exposed(t) == pytest.approx(LATENCY_S + WIRE_S)
    assert (t.prefill_worker, t.decode_worker) == (0, 1) and {s.worker for s in t.spans} == {1}


def test_layerwise_exposes_what_the_prefill_could_not_hide(serve):
    (t,) = moved(serve, "layerwise", ONE)
    hidden = PREFILL_S * (LAYERS - 1) / LAYERS
    assert exposed(t) == pytest.approx(LATENCY_S + max(WIRE_S / LAYERS, WIRE_S - hidden))
    assert exposed(t) < 0.4 * exposed(moved(serve, "batched", ONE)[0])


def test_a_blocking_transfer_stops_the_prefill_worker(serve):
    first, second = moved(serve, "blocking", TWO)
    assert second.prefill_start_s == pytest.approx(first.transfer_end_s)
    for mode in ("layerwise", "batched"):  # the others let it go on
        first, second = moved(serve, mode, TWO)
        assert second.prefill_start_s == first.first_token_s < first.transfer_end_s


def test_a_link_carries_one_transfer_at_a_time(serve):
    first, second = moved(serve, "batched", TWO)
    assert second.first_token_s < first.transfer_end_s
    assert second.transfer_start_s == pytest.approx(first.transfer_end_s)
    assert exposed(second) > LATENCY_S + WIRE_S  # it waited


def test_layers_that_hide_behind_a_prefill_cross_the_link_all_the_same(serve):
    """A prompt every 0.101 s, 0.13 s of the link each: by the tenth the link is behind, however well layers hide."""
    crowd = [Request(i, 0.0, PROMPT, 20) for i in range(10)]
    one_by_one = Limits(600, 16, PROMPT, 32)
    timelines = moved(serve, "layerwise", crowd, limits=one_by_one)
    first_s, last_s = timelines[0].prefill_start_s, timelines[-1].transfer_end_s
    assert last_s - first_s >= len(crowd) * WIRE_S
    hidden = PREFILL_S * (LAYERS - 1) / LAYERS
    assert exposed(timelines[-1]) > 3 * exposed(timelines[0])
    assert 10 * (WIRE_S - hidden) < 9 * PREFILL_S < 9 * WIRE_S  # if they cost the link nothing, it would keep up
    quick = moved(serve, "layerwise", [replace(r, arrival_s=i * 2 * WIRE_S) for i, r in enumerate(crowd)])
    assert exposed(quick[-1]) == pytest.approx(exposed(quick[0]))  # control: nobody waits for the link


def test_hand_offs_of_one_step_share_one_latency(serve):
    together = [Request(0, 0.0, PROMPT, 20), Request(1, 0.0, PROMPT, 20)]
    first, second = moved(serve, "batched", together)
    assert first.first_token_s == second.first_token_s
    assert second.transfer_end_s - first.transfer_end_s == pytest.approx(WIRE_S)
    apart = moved(serve, "batched", TWO)
    assert apart[1].transfer_end_s - apart[0].transfer_end_s == pytest.approx(WIRE_S + LATENCY_S)  # control


@pytest.mark.parametrize("mode", ["blocking", "layerwise", "batched"])
def test_every_mode_brings_everybody_through(mode, serve, traffic):
    link = Link(1e-3, 2e9, mode)
    log = serve(traffic(), ("prefill", "prefill", "decode", "decode"), link=link)
    assert all(t.status == "finished" for t in log.timelines)
    assert all(t.transfer_end_s >= t.transfer_start_s >= t.first_token_s for t in log.timelines if t.output_tokens > 1)
    assert all(t.transfer_start_s is None for t in log.timelines if t.output_tokens == 1)


def test_modes_are_ordered_by_what_they_expose(serve, traffic):
    mean = {}
    for mode in ("blocking", "layerwise", "batched"):
        log = serve(traffic(rate_per_s=5.0), SPLIT, pair, link=Link(1e-3, 2e9, mode))
        moves = [exposed(t) for t in log.timelines if t.transfer_end_s]
        mean[mode] = sum(moves) / len(moves)
    assert mean["layerwise"] < 0.8 * mean["batched"]
    assert mean["batched"] <= 1.05 * mean["blocking"]


def test_who_waited_for_room_could_send_no_layer_before(serve):
    """The decode worker holds one prompt: the second one's transfer starts when the first has finished, unhidden."""
    small = Limits(70, 16, 4096, 32, watermark=0.0)
    long = [replace(r, output_tokens=110) for r in TWO]
    first, second = moved(serve, "layerwise", long, limits=small)
    assert second.transfer_start_s >= first.finished_s > second.first_token_s
    assert second.transfer_end_s - second.transfer_start_s == pytest.approx(LATENCY_S + WIRE_S)
    assert first.transfer_end_s - first.transfer_start_s < 0.5 * WIRE_S  # control: it had room


def test_a_second_prefill_hides_no_more_than_itself(serve):
    """After a loss the prompt is computed again elsewhere; the time since the first attempt hides nothing."""
    link = Link(LATENCY_S, RATE / 10)
    log = serve(
        [Request(0, 0.0, PROMPT, 20)], ("prefill", "prefill", "decode"),
        lambda request, views: Decision(views.prefill[0], 2), limits=Limits(600, 16, 16, 16), cost=SLOW_PREFILL,
        link=link, disturbances=[LoseWorker(0, 0.1)],
    )  # fmt: skip
    (t,) = log.timelines
    assert t.requeues == 1 and t.prefill_worker == 1
    again_s = t.first_token_s - t.dispatched_s
    assert t.transfer_end_s - t.first_token_s == pytest.approx(
        LATENCY_S + link.wire_s(PROMPT * KV_BYTES, again_s, LAYERS)
    )
    assert again_s < t.first_token_s - t.prefill_start_s - 0.05  # control: the two differ


def test_directions_are_booked_apart():
    links = Links(Link(0.0, 1.0), 3)
    assert links.send(0, 1, 2.0, 10.0) == (10.0, 12.0)
    assert [links.idle_s(0, 1, now) for now in (11.0, 12.0, 15.0)] == [0.0, 0.0, 3.0]
    assert links.send(1, 0, 2.0, 10.0) == (10.0, 12.0)  # full duplex
    assert links.send(0, 2, 1.0, 10.0) == (12.0, 13.0)  # the way out of 0 is busy
    assert links.send(2, 1, 1.0, 11.0) == (12.0, 13.0)  # the way into 1 is busy
    assert links.send(2, 0, 1.0, 20.0) == (20.0, 21.0)


# -- copies of a prefix

NAMES = tuple(range(20))
FILL = Request(0, 0.0, 320, 5, NAMES)


def copied(serve, decision, prompt=320, names=NAMES, **options):
    """A prompt is computed on worker 0; later the same one comes with `decision`."""
    decide = lambda request, views: Decision(0, 0) if request.id == 0 else decision  # noqa: E731
    requests = [FILL, Request(1, 1.0, prompt, 5, names)]
    log = serve(requests, ("mixed",) * 3, decide, link=Link(LATENCY_S, RATE), **options)
    assert audit(log) == []
    return log.timelines[1]


def test_a_copied_prefix_is_not_computed_again(serve):
    t, own = copied(serve, Decision(1, 1, 0, 160)), copied(serve, Decision(1, 1))
    assert (t.fetched_tokens, t.cached_tokens, t.prefilled_tokens) == (160, 0, 160)
    assert t.prefill_start_s == pytest.approx(1.0 + LATENCY_S + 160 * KV_BYTES / RATE)
    assert (own.fetched_tokens, own.prefilled_tokens) == (0, 320)


@pytest.mark.parametrize(
    ("tokens", "prompt", "names", "fetched"),
    [
        (10_000, 320, NAMES, 304),  # never the whole prompt
        (100, 320, NAMES, 96),  # whole blocks
        (320, 640, (*NAMES, *range(50, 70)), 320),
        (320, 320, tuple(range(100, 120)), 0),  # nothing of it is there
        (0, 320, NAMES, 0),
    ],
)
def test_only_what_is_there_is_copied(tokens, prompt, names, fetched, serve):
    t = copied(serve, Decision(1, 1, 0, tokens), prompt, names)
    assert t.fetched_tokens == fetched
    assert t.prefilled_tokens == prompt - fetched


def test_what_is_at_hand_is_not_copied_from_oneself_or_the_dead(serve):
    t = copied(serve, Decision(0, 0, 0, 160))
    assert (t.cached_tokens, t.fetched_tokens, t.prefill_start_s) == (304, 0, 1.0)
    t = copied(serve, Decision(1, 1, 0, 160), disturbances=[LoseWorker(0, 0.5)])
    assert (t.cached_tokens, t.fetched_tokens, t.prefill_start_s) == (0, 0, 1.0)


@pytest.mark.parametrize(("source", "tokens"), [(3, 16), (-1, 16), (99, 16), (0, -16)])
def test_a_copy_that_cannot_be_is_one_sentence(source, tokens, serve):
    with pytest.raises(
        InputError, match=f"chose to copy {tokens} tokens of KV from worker {source}; the fleet has 0 to 2"
    ):
        copied(serve, Decision(1, 1, source, tokens))
