"""The kernels against float64: the plain twins here, Triton in its interpreter in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from helpers.engine import checks, kernel_checks
from helpers.engine.error_bounds import Check, relative_error
from helpers.engine.kernels import few_rows
from helpers.engine.kernels.decode import parts_for
from helpers.engine.kernels.rope import rope_tables

ROOT = Path(__file__).resolve().parents[2]
# A kernel is interpreted as long as a process lives. It is slow: one layer, one KV head, four experts are enough.
INTERPRETED = """
import json
from dataclasses import asdict, replace
from helpers.engine import checks, kernel_checks
from helpers.engine.kernels.backend import runs_triton
import torch

assert runs_triton(torch.empty(0))
model = next(c for c in checks.CONFIGS if c.name == "qwen3-moe-like")
model = replace(model, layers=1, heads=2, kv_heads=1, moe=replace(model.moe, experts=4))
print(json.dumps([asdict(check) for check in kernel_checks.run() + checks.model_checks(model)]))
"""


@pytest.fixture(scope="module")
def interpreted() -> list[Check]:
    pytest.importorskip("triton", reason="no triton here: the Triton kernels are NOT checked")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Check(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def test_triton_kernels_in_the_interpreter(interpreted):
    assert [check for check in interpreted if not check.ok] == []
    names = " ".join(check.name for check in interpreted)
    for kernel in (
        "norm",
        "few rows, 1 of 512",
        "SwiGLU",
        "own kernel",
        "gated sum",
        "decode in 16 parts",
        "parts by length",
        "prefill",
        "control",
        "mixed",
    ):
        assert kernel in names


def test_plain_twins():
    found = kernel_checks.run()
    assert [check for check in found if not check.ok] == []
    assert sum(check.control for check in found) == 3


def test_plain_twins_in_bfloat16():
    found = kernel_checks.run(dtype=torch.bfloat16)
    assert [check for check in found if not check.ok] == []
    rounded = [check for check in found if "gates" not in check.name and "order" not in check.name]
    assert all(check.error > 1e-4 for check in rounded), "float32 by mistake"


def test_a_check_fails_when_it_should():
    good = Check("a", error=1e-6, bound=1e-5)
    assert good.ok
    assert not replace(good, error=2e-5).ok
    assert not replace(good, wrong=1).ok
    assert replace(good, close=1).ok  # counted, not hidden
    assert not replace(good, control=True).ok
    assert replace(good, error=2e-5, control=True).ok
    assert relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
    assert "FAILED" in checks.table([replace(good, error=1.0)]) and "FAILED" not in checks.table([good])
    assert asdict(good)["name"] == "a"


def test_a_step_with_no_rows_of_one_kind():
    """No decode row, no prefill row: neither kernel may be launched on nothing, and results stay right."""
    config = checks.CONFIGS[0]
    found = checks.model_checks(replace(config, layers=1))
    kinds = {check.name.split(": ")[1] for check in found}
    assert {"prefill", "decode", "mixed"} <= kinds  # prefill only, decode only, both
    assert all(check.ok for check in found)


def test_a_matrix_with_few_blocks_is_split():
    # 96 blocks of 64 rows are 6,144: wqkv of Llama-3.1-8B has them, wo and w2 have 4,096 rows, 64 blocks.
    assert [few_rows.splits_for(rows) for rows in (64, 4096, 6143, 6144, 28_672, 128_256)] == [2, 2, 2, 1, 1, 1]


def test_two_programs_share_a_multiprocessor_where_their_tiles_fit():
    # (64 + 32) * 128 * 2 bytes a tile: 96 KiB in 4 stages, 144 KiB in 6; a multiprocessor has 227.
    assert few_rows.stages_for(448) == few_rows.stages_for(2004) == 4  # w13 and the head of Llama-3.1-8B
    assert few_rows.stages_for(96) == few_rows.stages_for(128) == 6  # wqkv; wo and w2, split
    tile = (few_rows.BLOCK_N + few_rows.MOST_ROWS) * few_rows.BLOCK_K * 2
    assert 2 * few_rows.STAGES_OF_TWO * tile <= 227 * 1024 < 2 * few_rows.STAGES * tile
    assert few_rows.STAGES * tile <= 227 * 1024


def test_few_rows_go_to_the_library_where_nothing_else_was_measured(monkeypatch):
    """On a CPU always, and float32, many rows and matrices of odd sizes everywhere; the rest is taken."""
    monkeypatch.setattr(few_rows, "hopper", lambda: True)
    monkeypatch.setattr(few_rows, "linear_triton", lambda x, weight, counters: "own")
    monkeypatch.setattr(few_rows, "library_linear", lambda x, weight: "library")

    def taken(rows, shape, dtype=torch.bfloat16, on_gpu=True):
        class Rows:
            is_cuda, __len__ = on_gpu, lambda self: rows

        Rows.dtype = dtype
        return few_rows.linear(Rows(), torch.empty(shape, device="meta"), None)

    assert taken(1, (4096, 4096)) == taken(32, (28_672, 4096)) == "own"
    others = [taken(33, (4096, 4096)), taken(1, (4096, 4096), torch.float32), taken(1, (4096, 4096), on_gpu=False)]
    others += [taken(1, (4000, 4096)), taken(1, (4096, 128)), taken(1, (6144, 100))]  # split in two, 128 is too few
    assert others == ["library"] * 6
    assert taken(1, (6144, 128)) == "own"
    monkeypatch.setattr(few_rows, "hopper", lambda: False)
    assert taken(1, (4096, 4096)) == "library"


@pytest.mark.parametrize(
    ("rows", "kv_heads", "least", "most"),
    [(1, 8, 16, 16), (1, 2, 16, 16), (8, 8, 4, 4), (16, 8, 2, 4), (32, 8, 2, 4), (56, 8, 1, 8), (128, 8, 1, 4)],
)
def test_parts_fill_the_gpu_and_programs_depend_on_rows_alone(rows, kv_heads, least, most):
    # 256 programs wanted: 8 rows * 8 heads * 4 = 256. 4,096 at most: 128 * 8 * 4 = 4,096, and 1,024 * 8 have no more.
    assert parts_for(rows, kv_heads)[:2] == (least, most)
    assert parts_for(1024, 8)[:2] == (1, 1)


def test_rope_of_one_pair_by_hand():
    # head_dim 4, theta 100: frequencies 100^0 = 1 and 100^-0.5 = 0.1; position 3 turns by 3 and 0.3 radians.
    cos, sin = rope_tables(4, 100.0, 4)
    assert cos[3].tolist() == pytest.approx([-0.9899925, 0.9553365], abs=1e-6)
    assert sin[3].tolist() == pytest.approx([0.1411200, 0.2955202], abs=1e-6)
