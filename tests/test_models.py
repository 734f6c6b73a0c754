"""Closed-form counts against the table, brute force and published figures."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.hardware import gpu
from helpers.models import Model, model, models

KEYS = tuple(models())

TINY = Model("tiny", "Tiny", layers=2, hidden=8, heads=4, vocab=16, max_context=64, kv_heads=2, head_dim=2, ffn=16)
TINY_SLIDING = replace(TINY, layers=3, dense_layers=3, full_attention_layers=1, window_kind="sliding", window=5)
TINY_CHUNKED = replace(TINY_SLIDING, window_kind="chunked")
TINY_MLA = replace(TINY, attention="mla", q_lora=6, kv_lora=5, nope_dim=3, rope_dim=2, v_dim=4)
TINY_MOE = replace(TINY, dense_layers=0, ffn=0, experts=4, experts_per_token=2, expert_ffn=4)


def errors(m: Model) -> dict[str, float]:
    """Billions of parameters by which each count misses the `computed` figure of the table (three decimals there)."""
    counts = {
        "computed.total": m.total_parameters,
        "computed.active": m.active_parameters(),
        "computed.active_without_input_embedding": m.active_parameters(input_embedding=False),
    }
    return {name: abs(count - m.figures[name].value) / 1e9 for name, count in counts.items()}


def test_all_rows_of_the_reference_are_there():
    assert len(KEYS) == 15
    assert model("DeepSeek-R1") is model("deepseek-v3")


@pytest.mark.parametrize("key", KEYS)
def test_parameters_agree_with_the_table(key):
    m = model(key)
    assert all(error <= 0.00051 for error in errors(m).values())  # to the last printed digit ...
    assert all(error / (m.figures[name].value / 1e9) <= 1e-3 for name, error in errors(m).items())  # ... so 0.1 %


@pytest.mark.parametrize("key", KEYS)
def test_parameters_notice_a_wrong_shape(key):
    m = model(key)
    wrong = [replace(m, vocab=m.vocab + 1024), replace(m, tied_embeddings=not m.tied_embeddings)]
    wrong += [replace(m, expert_ffn=m.expert_ffn + 64) if m.experts else replace(m, ffn=m.ffn + 64)]
    wrong += [replace(m, q_lora=m.q_lora + 64) if m.kv_lora else replace(m, kv_heads=m.kv_heads + 1)]
    wrong += [replace(m, expert_bias=False)] if m.expert_bias else []
    wrong += [replace(m, shared_experts=m.shared_experts + 1)] if m.experts else []
    wrong += [replace(m, dense_layers=m.dense_layers - 1)] if m.experts and m.dense_layers else []
    for bad in wrong:
        assert max(errors(bad).values()) > 0.00051


@pytest.mark.parametrize(
    ("key", "total", "without_embedding"),  # billions, from the reference, not from the file under test
    [
        ("llama-3.1-8b", 8.030, 7.505),
        ("deepseek-v3", 671.026, 36.626),
        ("gpt-oss-120b", 116.829, 5.133),
        ("gemma-3-27b", 27.009, 27.009),
        ("llama-4-maverick", 400.712, 16.150),
    ],
)
def test_parameters_agree_with_the_reference(key, total, without_embedding):
    m = model(key)
    assert m.total_parameters / 1e9 == pytest.approx(total, rel=1e-3)
    assert m.active_parameters(input_embedding=False) / 1e9 == pytest.approx(without_embedding, rel=1e-3)


def test_parameters_of_a_shape_counted_by_hand():
    # Each layer: q 8x8, k and v 8x4, o 8x8, three 8x16, two norms; then final norm, embedding and head.
    layer = 64 + 32 + 32 + 64 + 3 * 128 + 16
    assert TINY.total_parameters == 2 * layer + 8 + 2 * 16 * 8
    assert replace(TINY, qk_norm=True).total_parameters - TINY.total_parameters == 2 * 2 * 2
    assert replace(TINY, qkv_bias=True).total_parameters - TINY.total_parameters == 2 * (8 + 4 + 4)
    assert replace(TINY, sinks=True, output_bias=True).total_parameters - TINY.total_parameters == 2 * (4 + 8)
    # MLA: down and up for q, latent with rope, up for k and v, o, three 8x16, four norms.
    mla = 8 * 6 + 6 * 4 * 5 + 8 * 7 + 5 * 4 * 7 + 4 * 4 * 8 + 3 * 128 + 16 + 6 + 5
    assert TINY_MLA.total_parameters == 2 * mla + 8 + 2 * 16 * 8
    # MoE: four experts of three 8x4 and a router 8x4; a token touches two of them.
    moe = 64 + 32 + 32 + 64 + 4 * 96 + 32 + 16
    assert TINY_MOE.total_parameters == 2 * moe + 8 + 2 * 16 * 8
    assert TINY_MOE.total_parameters - TINY_MOE.active_parameters() == 2 * 2 * 96


def test_both_conventions_of_active():
    m = model("gpt-oss-20b")
    assert m.active_parameters() / m.active_parameters(input_embedding=False) == pytest.approx(1.16, abs=0.005)
    tied = model("gemma-3-27b")
    assert tied.active_parameters() == tied.active_parameters(input_embedding=False) == tied.total_parameters


# ---------------------------------------------------------------------------- KV cache


@pytest.mark.parametrize("key", KEYS)
def test_kv_bytes_agree_with_the_table(key):
    m = model(key)
    assert m.kv_bytes_per_token() == m.figures["computed.kv_bytes_per_token"].value
    growing = m.figures.get("computed.kv_growing_bytes_per_token", m.figures["computed.kv_bytes_per_token"])
    assert m.kv_growing_bytes_per_token() == growing.value
    if m.heads != m.kv_heads and not m.kv_lora:  # control: as if every query head had its own KV head
        assert replace(m, kv_heads=m.heads).kv_bytes_per_token() != m.figures["computed.kv_bytes_per_token"].value


def test_kv_bytes_of_published_transfers():
    tokens = 32_768
    # Mooncake's vLLM page: 4.50 "GB", which is GiB, for Qwen3-8B.
    assert model("qwen3-8b").kv_bytes(tokens) / 2**30 == 4.5
    # Mooncake's SGLang page: 12.62 GB for Qwen3-235B at TP8, whose 4 KV heads are held twice.
    big = model("qwen3-235b-a22b")
    assert 8 * big.kv_bytes(tokens, tp=8) / 1e9 == pytest.approx(12.62, abs=0.005)
    assert big.kv_bytes(tokens) / 1e9 == pytest.approx(6.31, abs=0.005)  # control: without the replication
    # FAST'25 section 5.4.1: 40 "GB" for 128k tokens of LLaMA3-70B.
    assert model("llama-3.1-70b").kv_bytes(128 * 1024) / 2**30 == 40.0
    assert replace(model("llama-3.1-70b"), kv_heads=64).kv_bytes(128 * 1024) / 2**30 == 320.0  # control: MHA


@pytest.mark.parametrize(("tp", "heads_per_gpu"), [(1, 8), (2, 4), (3, 3), (8, 1), (16, 1)])
def test_kv_heads_under_tensor_parallelism(tp, heads_per_gpu):
    m = model("llama-3.1-8b")
    assert m.kv_bytes_per_token_per_gpu(tp) == 2 * 32 * heads_per_gpu * 128 * 2
    assert (tp * m.kv_bytes_per_token_per_gpu(tp) == m.kv_bytes_per_token()) == (8 % tp == 0)


def test_mla_replicates_its_latent():
    m = model("deepseek-v3")
    assert m.kv_bytes_per_token_per_gpu(8) == m.kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert m.kv_bytes_per_token(dtype_bytes=1) == 61 * (512 + 64)


def test_windows_cap_the_kv_cache():
    gemma, oss = model("gemma-3-27b"), model("gpt-oss-120b")
    assert gemma.kv_growing_bytes_per_token() == 81_920
    assert gemma.kv_window_cap_bytes() / 1e6 == pytest.approx(436, abs=0.5)
    assert oss.kv_window_cap_bytes() / 1e6 == pytest.approx(4.7, abs=0.05)
    for m in (gemma, oss, model("llama-4-maverick")):
        assert m.kv_bytes(m.window) == m.window * m.kv_bytes_per_token()  # up to the window nothing is dropped
        beyond = 3 * m.window
        assert m.kv_bytes(beyond) == beyond * m.kv_growing_bytes_per_token() + m.kv_window_cap_bytes()
        assert m.kv_bytes(beyond) < beyond * m.kv_bytes_per_token()
    plain = model("llama-3.1-8b")
    assert plain.kv_window_cap_bytes() == 0
    assert plain.kv_bytes(10_000) == 10_000 * plain.kv_bytes_per_token()


# ------------------------------------------------------------------------------- FLOPs


def brute_pairs(m: Model, new_tokens: int, context: int) -> int:
    """(query, key) pairs of all layers, counted one by one."""

    def sees(query: int, key: int, full: bool) -> bool:
        if full or m.window_kind == "none":
            return key <= query
        near = query - key < m.window if m.window_kind == "sliding" else query // m.window == key // m.window
        return key <= query and near

    kinds = [layer < m.full_attention_layers for layer in range(m.layers)]
    queries = range(context, context + new_tokens)
    return sum(sees(q, k, full) for full in kinds for q in queries for k in range(context + new_tokens))


@given(st.integers(1, 20), st.integers(0, 20), st.sampled_from([TINY, TINY_SLIDING, TINY_CHUNKED]))
def test_prefill_counts_causal_pairs(new_tokens, context, m):
    pair = 4 * m.heads * m.head_dim
    assert m.prefill_flops(new_tokens, context).attention == brute_pairs(m, new_tokens, context) * pair


def test_the_count_of_pairs_notices_a_square_and_a_missing_window():
    pair = 4 * TINY.heads * TINY.head_dim
    assert TINY.prefill_flops(9).attention != 9 * 9 * TINY.layers * pair
    unwindowed = replace(TINY_SLIDING, full_attention_layers=3, window_kind="none")
    assert TINY_SLIDING.prefill_flops(9).attention < unwindowed.prefill_flops(9).attention
    assert TINY_CHUNKED.prefill_flops(9).attention < TINY_SLIDING.prefill_flops(9).attention


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["llama-3.1-8b", "gpt-oss-20b", "kimi-k2"]))
def test_chunks_of_a_prefill_add_up(first, second, key):
    m = model(key)
    a, b = m.prefill_flops(first, logit_positions=0), m.prefill_flops(second, first)
    whole = m.prefill_flops(first + second)
    assert a.attention + b.attention == whole.attention
    expansion = first * 2 * m.layers * m.kv_lora * m.heads * (m.nope_dim + m.v_dim)  # MLA expands cached latents again
    assert a.linear + b.linear == whole.linear + expansion
    assert (expansion > 0) == (key == "kimi-k2")


DECODED = [TINY, TINY_SLIDING, TINY_CHUNKED, model("gpt-oss-20b"), model("llama-4-maverick")]


@given(st.integers(0, 400), st.sampled_from(DECODED))
def test_a_decode_step_is_a_prefill_of_one_token(context, m):
    assert m.decode_flops(1, context + 1) == m.prefill_flops(1, context)
    assert m.decode_flops(1, context + 2).attention != m.prefill_flops(1, context).attention  # control: off by one


def test_decode_flops_of_a_batch():
    m = model("gpt-oss-20b")
    one = m.decode_flops(1, 1000)
    eight = m.decode_flops(8, 8000)
    assert (eight.linear, eight.attention) == (8 * one.linear, 8 * one.attention)
    assert one.total == one.linear + one.attention
    assert one.attention == (12 * 1000 + 12 * 128) * 4 * 64 * 64


def test_linear_flops_are_two_per_active_matrix_parameter():
    for m in models().values():
        share = m.linear_flops_per_token / (2 * m.active_parameters(input_embedding=False))
        assert 0.999 < share < 1  # less norms and biases
    # A published use of the same convention: Llama-8B at 55 % of an H100 computes a token in 27.6 us.
    seconds = model("llama-3.1-8b").linear_flops_per_token / (0.55 * gpu("h100").peak_flops("bf16"))
    assert seconds == pytest.approx(27.6e-6, rel=2e-3)
    with_embedding = 2 * model("llama-3.1-8b").total_parameters / (0.55 * gpu("h100").peak_flops("bf16"))
    assert with_embedding != pytest.approx(27.6e-6, rel=2e-3)  # control: the other convention


def test_a_prefill_runs_the_head_once():
    m = model("llama-3.1-8b")
    all_logits = m.prefill_flops(100, logit_positions=100)
    assert all_logits.linear == 100 * m.linear_flops_per_token
    assert all_logits.linear - m.prefill_flops(100).linear == 99 * m.head_flops_per_token
    assert m.head_flops_per_token == 2 * 128_256 * 4096


def test_attention_flops_per_pair():
    assert model("llama-3.1-8b").attention_flops_per_token_context == 4 * 32 * 32 * 128
    assert model("deepseek-v3").attention_flops_per_token_context == 61 * 128 * 2 * (192 + 128)
    assert model("deepseek-v3").decode_attention_flops_per_token_context == 61 * 128 * 2 * (576 + 512)
    assert model("deepseek-v3").decode_flops(1, 10).attention == 10 * 61 * 128 * 2 * (576 + 512)
    gqa = model("qwen3-8b")
    assert gqa.decode_attention_flops_per_token_context == gqa.attention_flops_per_token_context


# ----------------------------------------------------------------------------- weights


def test_weights_read_by_a_dense_decode_step():
    m = model("llama-3.1-8b")
    assert m.decode_weight_bytes(1) / 1e9 == pytest.approx(15.0, abs=0.05)  # the reference's decode floor
    assert m.weight_bytes() / 1e9 == pytest.approx(16.06, abs=0.01)  # control: with the input embedding
    assert m.decode_weight_bytes(256) == m.decode_weight_bytes(1)
    assert m.decode_weight_bytes(1, dtype_bytes=1) == m.decode_weight_bytes(1) / 2
    tied = model("gemma-3-27b")
    assert tied.decode_weight_bytes(1) == tied.weight_bytes()


@pytest.mark.parametrize("key", [key for key in KEYS if model(key).experts])
def test_weights_read_by_a_moe_decode_step(key):
    m = model(key)
    # One token touches its active parameters; norms, biases and all routers are read in any case.
    assert m.decode_weight_bytes(1) == pytest.approx(2 * m.active_parameters(input_embedding=False), rel=1e-9)
    reads = [m.decode_weight_bytes(batch) for batch in (1, 2, 8, 64, 4096)]
    assert reads == sorted(reads)
    assert reads[-1] == pytest.approx(m.weight_bytes() - 2 * m.embedding_parameters, rel=1e-9)
    assert reads[0] < reads[1] < 2 * reads[0]


def test_distinct_experts():
    m = model("gpt-oss-120b")
    assert m.distinct_experts(1) == pytest.approx(4)
    assert m.distinct_experts(64) / 128 == pytest.approx(0.87, abs=0.005)  # the reference's 87 %
    assert model("llama-3.1-8b").distinct_experts(64) == 0
    rng = random.Random(0)
    draws = [len({e for _ in range(16) for e in rng.sample(range(128), 4)}) for _ in range(2000)]
    mean = sum(draws) / len(draws)
    assert mean == pytest.approx(m.distinct_experts(16), rel=0.005)
    assert mean != pytest.approx(m.distinct_experts(17), rel=0.005)  # control: off by one token
    assert mean != pytest.approx(min(128, 16 * 4), rel=0.005)  # control: no two tokens share an expert


def test_experts_may_have_a_format_of_their_own():
    m = model("gpt-oss-120b")
    mxfp4 = 17 / 32  # 4 bits and a scale of 8 bits for 32 elements
    # By hand: head, then 36 layers of q, k, v, o and router in bf16, and four experts of three square matrices.
    bf16 = 201_088 * 2880 + 36 * (2880 * 64 * (64 + 8 + 8 + 64) + 2880 * 128)
    experts = 36 * 4 * 3 * 2880 * 2880
    by_hand = 2 * bf16 + mxfp4 * experts
    assert m.decode_weight_bytes(1, expert_dtype_bytes=mxfp4) == pytest.approx(by_hand, rel=1e-3)  # biases aside
    assert m.decode_weight_bytes(1, expert_dtype_bytes=mxfp4) < m.decode_weight_bytes(1)
    assert m.weight_bytes(expert_dtype_bytes=2) == m.weight_bytes()
