"""The memory that is left for KV, worked by hand for one model and one GPU."""

import pytest

from helpers.cost.budget import kv_blocks, kv_bytes_per_gpu
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.models import model

LLAMA, H100 = model("llama-3.1-8b"), gpu("h100")
WEIGHTS = 8_030_261_248 * 2  # the published parameter count in bf16
DEVICE = 81_559 * 2**20  # what an 80 GB H100 reports


def test_an_h100_keeps_most_of_its_memory_for_the_kv_of_an_8b_model():
    left = kv_bytes_per_gpu(LLAMA, H100)
    assert left == pytest.approx(0.9 * DEVICE - WEIGHTS, rel=1e-9)
    assert left / 1e9 == pytest.approx(60.9, abs=0.1)
    assert kv_blocks(LLAMA, left, 512) == int(left / 131_072 / 512) == 907
    assert kv_blocks(LLAMA, left, 16) == int(left / 131_072 / 16)
    assert left < DEVICE - WEIGHTS  # control: without the share that is left free


def test_more_gpus_share_weights_and_kv():
    left = kv_bytes_per_gpu(LLAMA, H100, tp=2)
    assert left == pytest.approx(0.9 * DEVICE - WEIGHTS / 2, rel=1e-9)
    blocks = kv_blocks(LLAMA, left, 512, tp=2)
    assert blocks == int(left / 65_536 / 512)
    assert blocks > 2 * 907
    assert kv_blocks(LLAMA, left, 512, tp=16) == kv_blocks(LLAMA, left, 512, tp=8)  # 8 KV heads, replicated


def test_weights_that_do_not_fit_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="raise tp or take a larger GPU") as error:
        kv_bytes_per_gpu(model("llama-3.1-70b"), H100)
    assert "141.1 GB of weights per GPU at tp=1" in str(error.value) and "77.0 GB" in str(error.value)
    assert "\n" not in str(error.value)
    assert kv_bytes_per_gpu(model("llama-3.1-70b"), H100, tp=4) > 0


@pytest.mark.parametrize("utilisation", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_the_memory_is_a_share(utilisation):
    with pytest.raises(InputError):
        kv_bytes_per_gpu(LLAMA, H100, utilisation=utilisation)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan")])
def test_a_memory_without_a_block_is_refused(wrong):
    with pytest.raises(InputError, match="KV memory"):
        kv_blocks(LLAMA, wrong, 512)


def test_the_smallest_memory_that_holds_a_block():
    assert kv_blocks(LLAMA, 512 * 131_072, 512) == 1
    with pytest.raises(InputError, match=r"0.06 GiB of KV memory hold no block of 512 tokens of Llama-3.1-8B"):
        kv_blocks(LLAMA, 512 * 131_072 - 1, 512)
