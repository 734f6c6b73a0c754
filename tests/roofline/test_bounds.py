"""Operations under the roofline: counts worked by hand, agreement with the cost model, and what must rise or fall."""

from dataclasses import replace

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.roofline import GRAPH_BATCHES, Efficiency, RooflineCost
from helpers.errors import InputError
from helpers.hardware import gpu, gpus
from helpers.models import model, models
from helpers.roofline import bounds
from helpers.roofline.bounds import FORMATS, Operation, Shape, bound, held_bytes, operations, step_bound

H100, LLAMA = gpu("h100"), model("llama-3.1-8b")
DECODE, PREFILL = Shape("decode", 32, 1024), Shape("prefill", 2, 2048)


def check_decode(found):
    """Llama-3.1-8B: 32 layers of width 4096, 32 heads and 8 KV heads of 128, MLP of 14336, vocabulary 128256. 32
    sequences of 1024 tokens on an H100 (989.4 TFLOP/s, 3.35 TB/s; ridge 295.3 FLOP/byte)."""
    projections, attention, mlp, head = found.bounds
    # q and o: 4096 x 4096, k and v: 4096 x 1024 -> 41,943,040 a layer, 1,342,177,280 in all
    assert projections.operation.flops == 2 * 32 * 1_342_177_280
    assert projections.operation.weight_bytes == 2 * 1_342_177_280
    # in and out a layer and token: 4096 -> 6144 (q, k, v) and 4096 -> 4096: 18,432 values of 2 bytes
    assert projections.operation.activation_bytes == 32 * 32 * 18_432 * 2
    # 85,899,345,920 / (2,684,354,560 + 37,748,736) = 31.56
    assert projections.operation.intensity == pytest.approx(31.556, abs=1e-3)
    # 32 x 1024 keys, each 4 x 32 x 128 FLOPs a layer; 131,072 bytes of KV a token
    assert attention.operation.flops == 32 * 1024 * 32 * 4 * 32 * 128
    assert attention.operation.kv_bytes == 32 * 1024 * 131_072
    assert attention.operation.activation_bytes == 32 * 32 * 2 * 4096 * 2
    # 4,311,744,512 bytes / 3.35e12 bytes/s = 1.28709 ms against 17,179,869,184 / 989.4e12 = 0.01736 ms
    assert attention.memory_s == pytest.approx(1.28709e-3, rel=1e-5)
    assert attention.compute_s == pytest.approx(1.7364e-5, rel=1e-4)
    assert attention.seconds == attention.memory_s and attention.by == "memory"
    # 3 x 4096 x 14336 = 176,160,768 a layer, 5,637,144,576 in all; 65 norm vectors of 4096 = 266,240 beside them
    assert mlp.operation.flops == 2 * 32 * 5_637_144_576
    assert mlp.operation.weight_bytes == 2 * (5_637_144_576 + 266_240)
    assert mlp.operation.activation_bytes == 32 * 32 * (2 * 4096 + 3 * 14336) * 2
    # 4096 x 128256 = 525,336,576
    assert head.operation.flops == 2 * 32 * 525_336_576
    assert head.operation.weight_bytes == 2 * 525_336_576
    assert head.operation.activation_bytes == 32 * (4096 + 128_256) * 2
    # bytes: 2,722,103,296 + 4,311,744,512 + 11,379,679,232 + 1,059,143,680 = 19,472,670,720 -> 5.81274 ms
    assert found.bytes == 19_472_670_720
    assert found.seconds == pytest.approx(5.81274e-3, rel=1e-5)
    assert found.tokens_per_s == pytest.approx(32 / 5.81274e-3, rel=1e-5)
    assert found.by == "memory"


def test_a_decode_step_by_hand():
    check_decode(step_bound(H100, LLAMA, DECODE))


def swapped(operation, part):
    """The fault: bytes over the peak, FLOPs over the bandwidth."""
    return bounds.Bound(
        operation, operation.bytes / part.peak_flops(operation.format), operation.flops / part.hbm_bytes_per_s
    )


def half_counted(operation, part):
    """The fault: one FLOP for a multiply-add."""
    return bound(replace(operation, flops=operation.flops / 2), part)


@pytest.mark.parametrize("fault", [swapped, half_counted])
def test_the_hand_count_notices_a_planted_fault(monkeypatch, fault):
    monkeypatch.setattr(bounds, "bound", fault)
    with pytest.raises(AssertionError):
        check_decode(step_bound(H100, LLAMA, DECODE))


def test_a_prefill_by_hand():
    """Two prompts of 2048 tokens: 4096 tokens, 2 x 2048 x 2049 / 2 = 4,196,352 causal pairs; the head runs twice."""
    projections, attention, mlp, head = operations(LLAMA, PREFILL)
    assert projections.flops == 2 * 4096 * 1_342_177_280
    assert attention.flops == 4_196_352 * 32 * 4 * 32 * 128
    assert attention.kv_bytes == 4096 * 131_072
    assert mlp.flops == 2 * 4096 * 5_637_144_576
    assert head.flops == 2 * 2 * 525_336_576
    found = step_bound(H100, LLAMA, PREFILL)
    assert [one.by for one in found.bounds] == ["compute", "compute", "compute", "memory"]
    # (10,995,116,277,760 + 2,200,097,062,912 + 46,179,488,366,592) / 989.4e12 = 60.0107 ms, and the head
    # (1,050,673,152 + 2 x (4096 + 128256) x 2 bytes) / 3.35e12 = 0.31379 ms
    assert found.seconds == pytest.approx(60.0107e-3 + 0.31379e-3, rel=1e-5)
    assert found.tokens_per_s == pytest.approx(4096 / 60.3245e-3, rel=1e-5)


def test_experts_read_what_their_tokens_hit():
    """Mixtral: 8 experts of 3 x 4096 x 14336 = 176,160,768, two a token. One token reads two of them in each of 32
    layers, and the router of 4096 x 8; 1000 tokens read all eight."""
    mixtral = model("mixtral-8x7b")
    one, many = (operations(mixtral, Shape("decode", batch, 64))[2] for batch in (1, 1000))
    assert one.name == many.name == "experts"
    assert one.flops == 2 * 32 * (2 * 176_160_768 + 4096 * 8)
    vectors = 65 * 4096
    assert one.weight_bytes == pytest.approx(2 * (32 * (2 * 176_160_768 + 4096 * 8) + vectors))
    assert many.weight_bytes == pytest.approx(2 * (32 * (8 * 176_160_768 + 4096 * 8) + vectors))


def test_attention_on_the_latent_by_hand():
    """DeepSeek-V3: 61 layers, 128 heads, a latent of 512 and 64 rotary values: a decode step attends on 576 values a
    token, 2 x 128 x (2 x 512 + 64) FLOPs a key, and reads 576 x 2 bytes."""
    attention = operations(model("deepseek-v3"), Shape("decode", 4, 1000))[1]
    assert attention.flops == 4000 * 61 * 2 * 128 * (2 * 512 + 64)
    assert attention.kv_bytes == 4000 * 61 * 576 * 2
    assert attention.activation_bytes == 4 * 61 * 128 * (2 * 512 + 64) * 2


@pytest.mark.parametrize("key", models())
@pytest.mark.parametrize("shape", [DECODE, PREFILL], ids=lambda s: s.phase)
def test_operations_add_up_to_the_counts_of_the_model(key, shape):
    found = operations(model(key), shape)
    if shape.phase == "decode":
        flops = model(key).decode_flops(32, 32 * 1024).total
    else:
        flops = 2 * model(key).prefill_flops(2048).total
    assert sum(one.flops for one in found) == pytest.approx(flops, rel=1e-12)
    assert sum(one.weight_bytes for one in found) == pytest.approx(
        model(key).decode_weight_bytes(shape.tokens), rel=1e-12
    )
    assert all(one.flops > 0 and one.bytes > 0 for one in found)
    assert sum(one.flops for one in found[1:]) < flops * 0.999  # no operation is there for show


IDEAL = Efficiency(1.0, 1.0, 1.0, 1.0, host_s=0.0, collective_s=0.0)
FULL_ATTENTION = [key for key in models() if not model(key).windowed_layers]


def as_the_cost_model(found):
    """Matrix products pooled, their weights alone read; attention with its KV alone: what `RooflineCost` counts."""
    linear, attention = [one for one in found if one.name != "attention"], found[1]
    compute_s = sum(one.flops for one in linear) / H100.peak_flops("bf16")
    read_s = sum(one.weight_bytes for one in linear) / H100.hbm_bytes_per_s
    own_s = attention.flops / H100.peak_flops("bf16"), attention.kv_bytes / H100.hbm_bytes_per_s
    return max(compute_s, read_s) + max(own_s)


@pytest.mark.parametrize("key", FULL_ATTENTION)
@pytest.mark.parametrize("batch", [1, 8, 128])
def test_the_cost_model_says_the_same_of_what_both_count(key, batch):
    assert batch in GRAPH_BATCHES
    cost = RooflineCost(model(key), H100, efficiency=IDEAL)
    decode = operations(model(key), Shape("decode", batch, 700))
    assert as_the_cost_model(decode) == pytest.approx(cost.step([], batch, batch * 700), rel=1e-9)
    prefill = operations(model(key), Shape("prefill", 2, 512 * batch // 8 + 64))
    chunk = (512 * batch // 8 + 64, 0)
    assert as_the_cost_model(prefill) == pytest.approx(cost.step([chunk, chunk], 0, 0), rel=1e-9)


def test_the_agreement_notices_a_cost_model_of_another_kind():
    other = AffineCost(1e-3, 1e-5, 0.0, 1e-5, 1e-8)
    decode = operations(LLAMA, Shape("decode", 8, 700))
    assert as_the_cost_model(decode) != pytest.approx(other.step([], 8, 8 * 700), rel=0.05)


@pytest.mark.parametrize("key", gpus())
def test_the_roof_bends_at_the_ridge(key):
    part = gpu(key)
    ridge = part.ridge("bf16")
    below, at, above = (bound(Operation("x", ridge * by, 1.0, 0.0, 0.0, "bf16"), part) for by in (0.99, 1.0, 1.01))
    assert (below.by, above.by) == ("memory", "compute")
    assert at.compute_s == pytest.approx(at.memory_s)
    assert below.flops_per_s == pytest.approx(0.99 * part.peak_flops("bf16"))
    assert above.flops_per_s == pytest.approx(part.peak_flops("bf16"))


def test_more_of_anything_takes_longer_and_a_larger_batch_pays():
    times = [step_bound(H100, LLAMA, Shape("decode", batch, 1024)) for batch in (1, 2, 8, 64, 512)]
    assert [one.seconds for one in times] == sorted(one.seconds for one in times)
    assert [one.tokens_per_s for one in times] == sorted(one.tokens_per_s for one in times)
    longer = [step_bound(H100, LLAMA, Shape("decode", 8, context)).seconds for context in (1, 100, 10_000, 100_000)]
    assert longer == sorted(longer) and longer[0] < longer[-1]


def test_a_large_enough_batch_turns_the_matrix_products_to_compute_and_never_the_attention():
    by = {batch: [one.by for one in step_bound(H100, LLAMA, Shape("decode", batch, 64)).bounds] for batch in (1, 1024)}
    assert by[1] == ["memory"] * 4
    assert by[1024] == ["compute", "memory", "compute", "compute"]


def test_narrower_weights_are_read_faster():
    """At batch 1 nearly all bytes are weights: 2, 1 and 9/16 bytes each."""
    b200 = gpu("b200")
    seconds = {dtype: step_bound(b200, LLAMA, Shape("decode", 1, 16), dtype).seconds for dtype in FORMATS}
    assert seconds["bf16"] / seconds["fp8"] == pytest.approx(2.0, rel=0.01)
    assert seconds["bf16"] / seconds["fp4"] == pytest.approx(32 / 9, rel=0.01)


def test_what_must_be_held():
    """8,030,261,248 parameters of 2 bytes, and 32 x 1024 tokens of 131,072 bytes."""
    assert held_bytes(LLAMA, DECODE) == 2 * 8_030_261_248 + 32 * 1024 * 131_072
    assert held_bytes(LLAMA, DECODE, "fp8") == held_bytes(LLAMA, DECODE) / 2


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: Shape("train", 1, 1), "unknown phase 'train'; known: prefill, decode"),
        (lambda: Shape("decode", 0, 1), "the batch of a step is 0; give 1 or more"),
        (lambda: Shape("decode", 1, 0), "the context of a step is 0; give 1 or more"),
        (lambda: operations(LLAMA, DECODE, "int4"), "unknown dtype 'int4'"),
        (lambda: operations(LLAMA, Shape("decode", 1, 131_073)), "has a context of 131,072 tokens"),
        (lambda: step_bound(gpu("a100"), LLAMA, DECODE, "fp8"), "has no published fp8 peak"),
    ],
)
def test_what_makes_no_sense_is_refused(ask, sentence):
    with pytest.raises(InputError, match=sentence):
        ask()
