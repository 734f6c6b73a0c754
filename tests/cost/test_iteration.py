"""The time of a step: affine where the simulator needs it, monotone, and equal to sums done by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cost.iteration import AffineCost
from helpers.cost.roofline import GRAPH_BATCHES, Efficiency, RooflineCost, graph_batch
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.models import model

AFFINE = AffineCost(4e-3, 3e-5, 3e-10, 2e-5, 4e-8)
COSTS = {
    "affine": AFFINE,
    "dense": RooflineCost(model("llama-3.1-8b"), gpu("h100")),
    "dense tp=4": RooflineCost(model("llama-3.1-70b"), gpu("h100"), 4),
    "experts": RooflineCost(model("qwen3-235b-a22b"), gpu("h200"), 8),
    "latent": RooflineCost(model("deepseek-v3"), gpu("h200"), 8),
}
PERFECT = Efficiency(matmul=1.0, attention=1.0, memory=1.0, fabric=1.0, host_s=0.0, collective_s=0.0)
H100 = RooflineCost(model("llama-3.1-8b"), gpu("h100"), efficiency=PERFECT)
CHUNKS = st.lists(st.tuples(st.integers(1, 8192), st.integers(0, 100_000)), max_size=4)


def check_affine(cost, decodes, kv_tokens):
    """A decode-only step is `decode()` put together, and each KV token costs the same."""
    base, slope = cost.decode(decodes)
    assert cost.step([], decodes, kv_tokens) == base + slope * kv_tokens
    assert slope >= 0 and base > 0


@pytest.mark.parametrize("name", COSTS)
@given(decodes=st.integers(1, 600), kv_tokens=st.integers(1, 10**7))
@settings(max_examples=40)
def test_a_decode_only_step_is_affine_in_kv_tokens(name, decodes, kv_tokens):
    check_affine(COSTS[name], decodes, kv_tokens)


class Curved(AffineCost):
    """Costs more for each further KV token, so that fast-forward would be wrong."""

    def step(self, chunks, decodes, kv_tokens):
        return super().step(chunks, decodes, kv_tokens) + 1e-15 * kv_tokens**2


def test_a_step_that_is_not_affine_is_caught():
    with pytest.raises(AssertionError):
        check_affine(Curved(4e-3, 3e-5, 3e-10, 2e-5, 4e-8), 8, 10**6)


def check_monotone(cost, chunks, decodes, kv_tokens):
    """More of anything never takes less time."""
    now = cost.step(chunks, decodes, kv_tokens)
    assert cost.step(chunks, decodes, kv_tokens + 1000) >= now
    assert cost.step(chunks, decodes + 1, kv_tokens) >= now
    for i, (n, context) in enumerate(chunks):
        longer, later = list(chunks), list(chunks)
        longer[i], later[i] = (n + 1, context), (n, context + 1)
        assert cost.step(longer, decodes, kv_tokens) > now
        assert cost.step(later, decodes, kv_tokens) > now
    if chunks:
        assert cost.step([*chunks, (16, 0)], decodes, kv_tokens) > now


@pytest.mark.parametrize("name", COSTS)
@given(chunks=CHUNKS, decodes=st.integers(1, 300), kv_tokens=st.integers(0, 10**7))
@settings(max_examples=40)
def test_more_work_never_takes_less_time(name, chunks, decodes, kv_tokens):
    check_monotone(COSTS[name], chunks, decodes, kv_tokens)


CONTEXTS = st.lists(st.integers(0, 200_000), max_size=5)


def check_steps(cost, tokens, contexts, decodes, kv_tokens):
    """Many steps at once are the same, to the last bit, as one after the other."""
    apart = [cost.step([(tokens, context)], decodes, kv_tokens) for context in contexts]
    assert cost.steps(tokens, contexts, decodes, kv_tokens) == apart


@pytest.mark.parametrize("name", COSTS)
@given(tokens=st.integers(1, 8192), contexts=CONTEXTS, decodes=st.integers(0, 300), kv_tokens=st.integers(0, 10**7))
@settings(max_examples=40)
def test_steps_at_once_are_those_one_by_one(name, tokens, contexts, decodes, kv_tokens):
    check_steps(COSTS[name], tokens, contexts, decodes, kv_tokens)


def test_steps_at_once_that_forget_who_decodes_are_caught():
    class Alone(RooflineCost):
        def steps(self, tokens, contexts, decodes, kv_tokens):
            return super().steps(tokens, contexts, 0, kv_tokens)

    with pytest.raises(AssertionError):
        check_steps(Alone(model("llama-3.1-8b"), gpu("h100")), 2048, [0, 2048], 32, 40_000)


def test_a_step_that_forgets_the_context_is_caught():
    class Forgetful(AffineCost):
        def step(self, chunks, decodes, kv_tokens):
            return super().step([(n, 0) for n, _ in chunks], decodes, kv_tokens)

    with pytest.raises(AssertionError):
        check_monotone(Forgetful(4e-3, 3e-5, 3e-10, 2e-5, 4e-8), [(16, 100)], 1, 10)


def test_the_affine_sum_by_hand():
    cost = AffineCost(1.0, 0.5, 0.25, 0.125, 0.0625)
    # overhead, 3 decodes, 16 KV tokens; 2 tokens after 4: 2 x 6 pairs; 3 tokens after none: 3 x 3 pairs
    assert cost.step([(2, 4), (3, 0)], 3, 16) == 1 + 0.375 + 1 + (1 + 3) + (1.5 + 2.25)
    assert cost.step([], 3, 16) == 2.375


@pytest.mark.parametrize("name", [f for f in AffineCost.__slots__ if f != "kind"])
def test_a_coefficient_that_cannot_be_is_refused(name):
    with pytest.raises(InputError, match=f"{name} is -1; it cannot be negative"):
        replace(AFFINE, **{name: -1})
    with pytest.raises(InputError, match=name):
        replace(AFFINE, **{name: float("nan")})
    if name == "overhead_s":
        with pytest.raises(InputError, match="a step takes time"):
            replace(AFFINE, overhead_s=0)


# -- the roofline against a sum done elsewhere: a compact engine's floors for the Llama-3-8B shape on an H100


@pytest.mark.parametrize(("batch", "gigabytes"), [(1, 15.1), (8, 16.1), (32, 19.3), (128, 32.2), (256, 49.4)])
def test_decode_at_1k_streams_weights_and_kv(batch, gigabytes):
    seconds = H100.step([], batch, batch * 1024)
    if batch < 256:
        assert seconds == pytest.approx(gigabytes * 1e9 / 3.35e12, rel=0.01)
    assert seconds >= 0.99 * gigabytes * 1e9 / 3.35e12  # a floor, to the digits that it is given with
    assert H100.step([], batch, 0) < 0.998 * gigabytes * 1e9 / 3.35e12  # control: without the KV


@pytest.mark.parametrize(
    ("tokens", "teraflop", "attention"), [(512, 7.2, 0.010), (2048, 29.7, 0.037), (8192, 131.9, 0.133)]
)
def test_prefill_computes_weights_and_causal_pairs(tokens, teraflop, attention):
    seconds = H100.step([(tokens, 0)], 0, 0)
    assert seconds == pytest.approx(teraflop * 1e12 / 989.4e12, rel=0.02)
    pairs = tokens * (tokens + 1) / 2 * 4 * 32 * 32 * 128
    assert pairs / (teraflop * 1e12) == pytest.approx(attention, abs=0.001)
    assert seconds - pairs / 989.4e12 < 0.992 * seconds  # control: without attention


def test_a_prompt_in_chunks_computes_the_same_pairs():
    whole = H100.step([(8192, 0)], 0, 0)
    parts = sum(H100.step([(2048, k * 2048)], 0, 0) for k in range(4))
    heads = 3 * model("llama-3.1-8b").head_flops_per_token / gpu("h100").peak_flops("bf16")  # once a chunk
    assert parts == pytest.approx(whole + heads, rel=1e-12)
    assert sum(H100.step([(2048, 0)], 0, 0) for _ in range(4)) < 0.95 * parts  # control: without the context


@pytest.mark.parametrize("share", ["matmul", "attention", "memory"])
def test_a_lower_efficiency_takes_longer(share):
    slower = replace(H100, efficiency=replace(PERFECT, **{share: 0.5}))
    work = ([(8192, 0)], 0, 0) if share != "memory" else ([], 8, 8192)
    assert slower.step(*work) > 1.05 * H100.step(*work)
    default = RooflineCost(model("llama-3.1-8b"), gpu("h100"))
    assert default.step(*work) > H100.step(*work)
    assert (default.kind, AFFINE.kind) == ("predicted", "fitted")


def test_tensor_parallelism_divides_the_work_and_adds_two_all_reduces_a_layer():
    tokens, tp = 1000, 4
    efficiency = replace(PERFECT, collective_s=10e-6, fabric=0.8)
    one, four = H100.step([(tokens, 0)], 0, 0), replace(H100, tp=tp, efficiency=efficiency).step([(tokens, 0)], 0, 0)
    wire = 2 * (tp - 1) / tp * tokens * 4096 * 2 / (450e9 * 0.8)
    assert four == pytest.approx(one / tp + 2 * 32 * (10e-6 + wire), rel=1e-9)
    assert four > one / tp  # what a model without communication would say
    assert replace(H100, tp=8).decode(1)[0] < H100.decode(1)[0]


def test_heads_beyond_the_kv_heads_are_read_twice():
    base = {tp: replace(H100, tp=tp).decode(1)[1] for tp in (1, 8, 16)}
    assert base[8] == pytest.approx(base[1] / 8)
    assert base[16] == base[8]  # 8 KV heads on 16 GPUs: each still reads one


def test_experts_are_read_as_far_as_the_batch_hits_them():
    moe = replace(COSTS["experts"], efficiency=PERFECT, tp=8)
    m, rate = moe.model, 8 * 4.8e12
    for batch in (1, 8, 64):
        tokens = moe.decode(batch)[0] - 2 * m.layers * 2 * 7 / 8 * batch * m.hidden * 2 / 450e9
        assert tokens == pytest.approx(m.decode_weight_bytes(batch) / rate, rel=1e-9)
    assert moe.decode(64)[0] > 3 * moe.decode(1)[0]
    assert H100.decode(64)[0] < 1.01 * H100.decode(1)[0]  # control: a dense model reads all of it anyway


def test_a_step_with_chunks_takes_as_long_as_its_launch():
    cost = AffineCost(1.0, 0.5, 0.25, 0.125, 0.0625, launch_s=4.0)
    # the device alone: 1 + 2 * 0.5 + 2 * 2 * 0.25 = 3 of 4 s; after 8 of context 1 + 1 + 2 * 10 * 0.25 = 7 s
    assert cost.steps(2, [0, 8], 0, 0) == [4.0, 7.0]
    assert cost.step([], 2, 4) == 1.0 + 0.25 + 0.25  # decodes alone are captured
    with pytest.raises(InputError, match="launch_s"):
        AffineCost(1.0, 0.5, 0.25, 0.125, 0.0625, launch_s=-1.0)


def test_a_batch_runs_as_the_next_captured_one():
    assert [graph_batch(n) for n in (1, 2, 3, 5, 8, 9, 256, 257)] == [1, 2, 4, 8, 8, 16, 256, 257]
    for n in range(1, 257):
        assert graph_batch(n) == min(b for b in GRAPH_BATCHES if b >= n)
    assert all(a <= b for a, b in pairwise(graph_batch(n) for n in range(1, 600)))
    big = replace(H100, efficiency=replace(PERFECT, matmul=0.01))
    assert big.decode(9) == big.decode(16) != big.decode(17)


@pytest.mark.parametrize("name", ["matmul", "attention", "memory", "fabric"])
@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_an_efficiency_is_a_share(name, share):
    with pytest.raises(InputError, match=f"efficiency {name} is .*; give a share above 0, at most 1"):
        Efficiency(**{name: share})


def test_times_and_tp_out_of_range_are_refused():
    with pytest.raises(InputError, match="cannot be negative"):
        Efficiency(host_s=-1e-3)
    with pytest.raises(InputError, match="cannot be negative"):
        Efficiency(collective_s=-1e-6)
    with pytest.raises(InputError, match="tp is 0; give 1 or more"):
        RooflineCost(model("llama-3.1-8b"), gpu("h100"), 0)
    with pytest.raises(InputError, match="nvlink"):
        RooflineCost(model("llama-3.1-8b"), gpu("rtx4090"), 2)
