"""Splits worked by hand: what moves, what of it shows, where handing over pays, and what pools carry."""

from itertools import pairwise

import pytest

from helpers.cost import split as splitting
from helpers.cost.iteration import AffineCost
from helpers.cost.split import (
    Apart,
    Beside,
    Work,
    apart,
    break_even_bytes_per_s,
    break_even_tokens,
    decoding,
    hand_off,
    link_of,
    moved_bytes,
    stall_s,
    together,
)
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.models import model
from helpers.serving import fleet

LLAMA = model("llama-3.1-8b")
# A step takes 10 ms, 0.1 ms more for each prompt token, and 0.1 microseconds for each token of KV that decodes read.
PLAIN = AffineCost(0.010, 1e-4, 0.0, 0.0, 1e-7)
NO_KV = AffineCost(0.010, 1e-4, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama-3.1-8b", 2 * 32 * 8 * 128 * 2),  # keys and values, 32 layers, 8 KV heads of 128, bf16: 131,072
        ("llama-3.1-70b", 2 * 80 * 8 * 128 * 2),  # 327,680
        ("deepseek-v3", 61 * (512 + 64) * 2),  # MLA, one latent and one rope key a layer: 70,272
        ("qwen3-235b-a22b", 2 * 94 * 4 * 128 * 2),  # a MoE has experts in its MLP, not in its KV: 192,512
    ],
)
def test_what_moves_is_the_kv_of_the_prompt(name, bytes_per_token):
    assert moved_bytes(model(name), 1000) == 1000 * bytes_per_token
    assert moved_bytes(model(name), 1000, 1.0) == 500 * bytes_per_token


def test_a_window_moves_no_more_than_it_keeps():
    windowed = model("gpt-oss-120b")
    full = windowed.full_attention_layers / windowed.layers
    assert moved_bytes(windowed, 32_768) < 1.05 * full * 32_768 * windowed.kv_bytes_per_token()


def test_a_wire_is_its_line_rate_times_what_transfers_reach():
    h100 = gpu("h100")
    assert link_of(h100, "network") == Link(1e-3, 0.75 * 50e9)
    assert link_of(h100, "nvlink", "blocking").bytes_per_s == pytest.approx(0.88 * 450e9)
    assert link_of(h100, "pcie").bytes_per_s == pytest.approx(0.88 * 63e9, rel=0.01)
    with pytest.raises(InputError, match=r"^unknown wire 'telegraph'"):
        link_of(h100, "telegraph")
    with pytest.raises(InputError, match=r"has no nvlink in data/hardware.toml; choose another link or GPU"):
        link_of(gpu("rtx5090"), "nvlink")


def test_the_network_here_is_that_of_a_fleet():
    assert splitting.HAND_OFF_LATENCY_S == fleet.LINK_LATENCY_S
    assert splitting.WIRES["network"][1] == fleet.LINK_EFFICIENCY
    assert fleet.Fleet(split="1P1D", workers=2).cluster(64).link == link_of(gpu("h100"), "network")


def test_what_layers_hide_of_a_transfer():
    # 1 GB over 10 GB/s: 100 ms, and 1 ms of latency. Ten layers, 50 ms of prefill: 45 ms pass before the last layer is
    # done, so 55 ms of wire are left; a prefill of 200 ms leaves a tenth, the last layer.
    link = Link(1e-3, 1e10)
    slow, fast = (hand_off(link, 1e9, seconds, 10) for seconds in (0.2, 0.05))
    assert (slow.whole_s, slow.exposed_s, slow.hidden_s) == pytest.approx((0.101, 0.011, 0.090))
    assert (fast.whole_s, fast.exposed_s, fast.hidden_s) == pytest.approx((0.101, 0.056, 0.045))
    blocking = hand_off(Link(1e-3, 1e10, "blocking"), 1e9, 0.2, 10)
    assert blocking.hidden_s == pytest.approx(0) and blocking.exposed_s == pytest.approx(0.101)


def test_what_a_decode_worker_carries():
    # 1,000 + 200 / 2 = 1,100 tokens of context a request: 0.11 ms of KV. In 21 ms fit (21 - 10) / 0.11 = 100 requests;
    # they take 200 steps of 21 ms each, so 100 / 4.2 s = 23.8 end a second.
    found = decoding(PLAIN, Work(1000, 200), 0.021 + 1e-9)
    assert (found.batch, found.step_s, found.per_s) == (100, pytest.approx(0.021), pytest.approx(100 / 4.2))
    # 55,000 tokens of KV hold 50 of them: steps of 15.5 ms, 50 / 3.1 s. A batch of at most 10: 10 / (200 * 11.1 ms).
    assert decoding(PLAIN, Work(1000, 200), 0.021, kv_tokens=55_000).per_s == pytest.approx(50 / 3.1)
    assert decoding(PLAIN, Work(1000, 200), 0.021, max_batch=10).per_s == pytest.approx(10 / 2.22)
    assert decoding(PLAIN, Work(1000, 200), 0.0100) is None


def test_two_pools_carry_what_the_fuller_one_does():
    pools = Apart(prefill_per_s=4.0, decode_per_s=10.0)
    assert pools.ratio == 2.5
    assert [pools.per_s(p, 8 - p) for p in (4, 5, 6, 7)] == [16, 20, 20, 10]
    assert pools.best(8) == (5, 3)
    assert pools.best(2) == (1, 1)  # 4 of the 10 that the decode worker could do: no better ratio is left
    with pytest.raises(InputError, match="1 workers cannot be split"):
        pools.best(1)


def test_a_split_pays_for_its_link():
    # A prompt of 1,000 tokens takes 110 ms. Its KV, 131 MB, takes 1 ms + 13.1 ms at 10 GB/s; a blocking sender waits.
    work, size_s = Work(1000, 201), 1000 * 131_072 / 1e10
    free = apart(NO_KV, Link(1e-3, 1e10), LLAMA, work, 0.011)
    assert free.prefill_per_s == pytest.approx(1 / 0.110)
    waiting = apart(NO_KV, Link(1e-3, 1e10, "blocking"), LLAMA, work, 0.011)
    assert waiting.prefill_per_s == pytest.approx(1 / (0.110 + 1e-3 + size_s))
    # At 1 GB/s the wire (132 ms) is slower than the prefill, and no decode worker gets more than one each 132 ms.
    slow = apart(NO_KV, Link(1e-3, 1e9), LLAMA, work, 0.011)
    assert slow.prefill_per_s == slow.decode_per_s == pytest.approx(1 / (1e-3 + 10 * size_s))
    # A TPOT bound with less slack than the exposed transfer spread over the answer: nothing decodes.
    late = apart(NO_KV, Link(1e-3, 1e9, "blocking"), LLAMA, work, 0.0105)
    assert late.decode_per_s == 0  # 132 ms / 200 = 0.66 ms a token, and only 0.5 ms are left


def test_what_one_worker_carries_together():
    # Steps of 10 ms, chunks of 101 less about one decode: a 100-token prompt is one chunk, 10 ms longer. An answer of 2
    # tokens. Every step with a chunk takes 20 ms: 50 prompts a second keep up. At a bound of 15 ms the mean step is
    # D / (1 - r * 10 ms) <= 15 ms, r <= 33.3.
    work = Work(100, 2)
    assert together(NO_KV, work, 0.020, 104).per_s == pytest.approx(50, rel=0.01)
    assert together(NO_KV, work, 0.015, 104).per_s == pytest.approx(100 / 3, rel=0.01)
    assert together(NO_KV, work, 0.0099, 104).per_s == 0
    # Chunks of about half the prompt: two steps of 15 ms a prompt when prompts come all the time, 33.3 a second.
    assert together(NO_KV, work, 0.020, 52).per_s == pytest.approx(100 / 3, rel=0.02)
    # Cached tokens are not computed: a quarter to prefill, steps of 12.5 ms, 80 a second.
    assert together(NO_KV, Work(100, 2, 75), 0.020, 104).per_s == pytest.approx(80, rel=0.01)


def test_a_mean_step_that_hangs_on_itself_is_found():
    # D(B) = 1 ms + 0.1 ms a decode, a chunk 9 ms, answers of 500: T = 1 ms + r (500 * 0.1 ms + 9 ms) T, and r T <= 1,
    # so r = 1 / (1 + 50 + 9) ms = 16.7. Each round changes 59/60 of the one before, so small changes are far from it.
    cost, work = AffineCost(1e-3, 9e-5, 0.0, 1e-4, 0.0), Work(100, 500)
    found = together(cost, work, 1.0, 2048, max_batch=2000)
    assert found.per_s == together(cost, work, 1.0, 2048, max_batch=2000).per_s == pytest.approx(1 / 0.060, rel=0.005)
    assert found.step_s == pytest.approx(0.060, rel=0.05)
    assert found.batch == pytest.approx(found.per_s * 500 * found.step_s)
    assert (
        together(cost, work, 0.030, 2048, max_batch=2000).step_s <= 0.030 < found.step_s
    )  # the control: not the bound


def test_memory_and_batch_bound_a_worker_too():
    # Answers of 1,000 tokens at about 10 ms: a request stays 10 s. Room for 20 of 600 tokens each: 2 a second.
    work = Work(100, 1000)
    assert together(NO_KV, work, 0.050, 2048, kv_tokens=12_000).per_s == pytest.approx(2, rel=0.03)
    assert together(NO_KV, work, 0.050, 2048, max_batch=10).per_s == pytest.approx(1, rel=0.03)


def test_a_tighter_bound_carries_less_and_a_longer_answer_too():
    rates = [together(PLAIN, Work(2000, 100), bound, 512).per_s for bound in (0.05, 0.02, 0.015, 0.012)]
    assert all(a >= b for a, b in pairwise(rates)) and rates[0] > rates[-1] > 0


def test_what_running_requests_lose():
    # 1,000 tokens in chunks of 400: three steps, 100 ms of prompt, which is what decodes wait longer.
    assert stall_s(NO_KV, 1000, 400, decodes=8, kv_tokens=8000) == pytest.approx(0.1)
    assert stall_s(NO_KV, 1000, 400, cached_tokens=600, decodes=8) == pytest.approx(0.04)
    # The control: counting the whole steps would say 130 ms.
    assert stall_s(NO_KV, 1000, 400, decodes=8) != pytest.approx(0.13)


def test_from_how_many_tokens_on_handing_over_pays():
    # Beside 100 decodes a chunk of 200 has room for 100 tokens: 20 ms each 100 tokens, 0.2 ms a token where the
    # prompt ends with a chunk, 10 ms + 0.1 ms a token alone (2,048 fit one step). Free transfers, 95 ms of waiting:
    # 95 + 10 + 0.1 u <= 10 ceil(u / 100) + 0.1 u, so ceil(u / 100) >= 10.5: from 1,001 tokens on.
    free, beside = Link(0.0, 1e30), Beside(200, 100, 0)
    assert break_even_tokens(NO_KV, free, LLAMA, beside, wait_s=0.095) == 1001
    assert break_even_tokens(NO_KV, free, LLAMA, beside) == 1
    # With a wire, cached tokens move too and need no computing: 10,000 of them at 131 GB/s take 10 ms after a short
    # prefill; at 13.1 GB/s 100 ms, so that the point moves up by about 90 ms / 10 ms * 100 tokens.
    fast, slow = (Link(0.0, rate * 131_072, "blocking") for rate in (1e6, 1e5))
    first, second = (break_even_tokens(NO_KV, one, LLAMA, beside, 10_000) for one in (fast, slow))
    assert first < 300 and second - first == pytest.approx(900, abs=200)
    assert break_even_tokens(NO_KV, Link(1e4, 1e9), LLAMA, beside) is None


@pytest.mark.parametrize("mode", ["blocking", "layerwise"])
def test_at_the_break_even_rate_both_ways_take_as_long(mode):
    link, beside, tokens = Link(1e-3, 1.0, mode), Beside(200, 100, 0), 1000
    rate = break_even_bytes_per_s(NO_KV, link, LLAMA, beside, tokens)
    alone_s, beside_s = 0.010 + 0.100, 10 * 0.020

    def there_s(bytes_per_s):
        at = Link(1e-3, bytes_per_s, mode)
        return alone_s + hand_off(at, moved_bytes(LLAMA, tokens), alone_s, LLAMA.layers).exposed_s

    assert there_s(rate) == pytest.approx(beside_s)
    assert there_s(rate / 1.1) > beside_s > there_s(rate * 1.1)
    if mode == "blocking":  # 90 ms less the latency for 131 MB
        assert rate == pytest.approx(131_072_000 / 0.089)
    assert break_even_bytes_per_s(NO_KV, link, LLAMA, beside, tokens, wait_s=0.09) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((100, 1), "an answer of 1 tokens has no TPOT"),
        ((100, 10, 100), "100 of 100 prompt tokens are cached"),
        ((100, 10, -1), "-1 of 100 prompt tokens are cached"),
    ],
)
def test_work_that_is_none_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Work(*arguments)
