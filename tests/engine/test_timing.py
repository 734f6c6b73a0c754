"""What is timed, and the bytes and FLOPs by hand; no test looks at the seconds."""

import torch

from helpers.engine.config import PRESETS, preset
from helpers.engine.kernels import timing


def test_every_kernel_is_timed_with_its_bytes_and_flops():
    found = {p["name"]: p for p in timing.run(preset("tiny"), "cpu")}
    for kernel in ("decode", "prefill", "store", "norm", "SwiGLU", "matmul head", "choose", "group by", "grouped"):
        assert any(kernel in name for name in found)
    assert all(p["seconds"] > 0 for p in found.values())
    # 8 rows * 1,024 tokens * keys and values * 2 heads * 64 * 4 bytes; the weights of 320 * 256, one token in and out.
    assert found["decode attention, batch 8, 1024 context"]["bytes"] == 8 * 1024 * 2 * 2 * 64 * 4
    assert found["matmul head, 1 tokens"]["bytes"] == (320 * 256 + 320 + 256) * 4
    # -1024 ln(1 - 1/16), ... of eight rows: 66, 213, 384, 589, 847, 1191, 1714 and 2839 tokens; none is cut.
    uneven = found["decode attention, batch 8, about 1024 context, uneven"]
    assert uneven["bytes"] == (66 + 213 + 384 + 589 + 847 + 1191 + 1714 + 2839) * 2 * 2 * 64 * 4
    # 256 * 257 / 2 pairs, 4 heads of 64, 2 FLOP for the score and 2 for the sum.
    assert found["prefill attention, 256 tokens"]["flops"] == 4 * 4 * 64 * 256 * 257 / 2


def test_inputs_outgrow_a_gpus_cache():
    timer = timing.Timer(PRESETS["tiny"], "cpu")
    timer.on_gpu = True
    assert timer.copies(2**22) * 2**22 >= timing.CACHE_BYTES
    assert timer.copies(2**30) == 2 and timer.copies(1) == 64


def test_seconds_are_those_of_one_launch():
    calls = []
    assert timing.seconds_of([lambda: calls.append(torch.ones(1))] * 5, "cpu") > 0
    assert len(calls) == 16  # one to warm up, three runs of all five
