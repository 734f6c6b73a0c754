"""Transfers: the alpha-beta line against published measurements, and what layer-wise overlap leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.cost.transfer import MODES, Link
from helpers.errors import InputError

# (GB, ms) from Mooncake's performance pages: vLLM with MooncakeConnector, Qwen3-8B, TP8 to TP8, 8 RoCE NICs; and
# SGLang, Qwen3-235B-A22B, 4 x 400G a node. Both units of a page are the same, so that they cancel.
VLLM = [(0.020, 0.54), (0.146, 1.50), (1.13, 8.84), (4.50, 31.7)]
SGLANG = [(0.049, 2.07), (0.789, 6.43), (3.15, 20.3), (12.62, 76.8)]


def errors(link, measured):
    return [abs(link.transfer_s(gb * 1e9) / (ms / 1e3) - 1) for gb, ms in measured]


def test_a_latency_and_a_rate_describe_the_published_transfers():
    # The largest transfer gives the rate; the page's own analysis gives 0.4 ms of latency.
    assert max(errors(Link(0.4e-3, 4.50e9 / 31.7e-3), VLLM)) < 0.06
    rate = 12.62e9 / 76.8e-3
    for gb, ms in SGLANG[:3]:  # 1.1 to 1.8 ms of latency, by size
        assert Link(1.1e-3, rate).transfer_s(gb * 1e9) <= 1.01 * ms / 1e3
        assert Link(1.8e-3, rate).transfer_s(gb * 1e9) >= 0.99 * ms / 1e3
    assert max(errors(Link(1.5e-3, rate), SGLANG)) < 0.15


def test_without_latency_or_at_line_rate_the_published_transfers_do_not_fit():
    assert max(errors(Link(0.0, 4.50e9 / 31.7e-3), VLLM)) > 0.5
    assert max(errors(Link(0.4e-3, 200e9), VLLM)) > 0.25
    assert max(errors(Link(0.0, 12.62e9 / 76.8e-3), SGLANG)) > 0.5


def layer_by_layer(link, size, prefill_s, layers):
    """Seconds after the prefill when each layer is sent as soon as it is computed and the link is free."""
    end = 0.0
    for layer in range(1, layers + 1):
        end = max(end, layer * prefill_s / layers) + size / link.bytes_per_s / layers
    return end - prefill_s


SIZES = st.floats(1, 1e10)
TIMES = st.floats(0, 10)
LAYERS = st.integers(1, 130)


@given(SIZES, TIMES, LAYERS)
def test_layerwise_is_what_sending_layer_by_layer_leaves(size, prefill_s, layers):
    link = Link(1e-3, 5e10)
    assert link.wire_s(size, prefill_s, layers) == pytest.approx(
        layer_by_layer(link, size, prefill_s, layers), rel=1e-6, abs=1e-9
    )


def test_an_overlap_that_hides_the_last_layer_too_is_caught():
    link = Link(1e-3, 5e10)
    whole = 1e9 / 5e10
    assert max(0.0, whole - 0.1) != pytest.approx(layer_by_layer(link, 1e9, 0.1, 32), rel=1e-6, abs=1e-9)


@given(SIZES, TIMES, LAYERS)
def test_layerwise_exposes_at_least_a_layer_and_at_most_everything(size, prefill_s, layers):
    whole = size / 5e10
    exposed = {mode: Link(1e-3, 5e10, mode).wire_s(size, prefill_s, layers) for mode in MODES}
    assert exposed["blocking"] == exposed["batched"] == whole
    assert whole / layers <= exposed["layerwise"] <= whole
    assert Link(1e-3, 5e10).wire_s(size, 0.0, layers) == whole
    assert Link(1e-3, 5e10).wire_s(size, prefill_s + 1, layers) <= exposed["layerwise"]
    assert Link(1e-3, 5e10).wire_s(size, prefill_s, 1) == whole  # a single layer hides behind nothing


def test_a_2k_prompt_hides_on_nvlink_and_on_a_slow_link():
    """KV of 2,048 tokens of an 8B model, 268 MB, and 37 ms of prefill: all but a layer is hidden."""
    size, prefill_s = 2048 * 131_072, 37.2e-3
    for rate, whole_ms in ((450e9, 0.6), (50e9, 5.4)):
        link = Link(0.0, rate)
        assert link.transfer_s(size) == pytest.approx(whole_ms / 1e3, rel=0.02)
        assert link.wire_s(size, prefill_s, 32) == pytest.approx(link.transfer_s(size) / 32)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-1e-3, 1e9), "latency -0.001 s"),
        ((float("nan"), 1e9), "latency nan s"),
        ((0, 0), "0 bytes/s"),
        ((0, -5), "-5 bytes/s"),
        ((0, float("nan")), "nan bytes/s"),
        ((0, 1e9, "eager"), "transfer mode 'eager'; use one of blocking, layerwise, batched"),
    ],
)
def test_a_link_that_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Link(*arguments)
    assert "\n" not in str(error.value)
