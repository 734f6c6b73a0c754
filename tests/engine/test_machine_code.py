"""The Triton kernels compiled for sm_90a without a GPU: no spills, the matrix unit, wide loads, shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED_BYTES = 227 * 1024  # of one multiprocessor of an H100 (CUDA C++ programming guide, compute capability 9.0)


@pytest.fixture(scope="module")
def kernels() -> dict[str, dict]:
    """What `machine_code.py` prints, from a process in which the kernels are not interpreted."""
    triton = pytest.importorskip("triton", reason="no triton here: the kernels' machine code is NOT checked")
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    missing = [name for name in ("ptxas", "nvdisasm", "cuobjdump") if not (tools / name).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {tools}: the kernels' machine code is NOT checked")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "engine" / "machine_code.py"],
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kernel_is_compiled(kernels):
    assert {name.split(",")[0] for name in kernels} == {
        "decode", "prefill", "store_kv", "add_rms_norm", "swiglu", "choose_experts", "group_by_expert", "gated_sum",
        "grouped", "few_rows", "planted",
    }  # fmt: skip


def test_no_kernel_spills_but_the_planted_one(kernels):
    spilling = {name for name, code in kernels.items() if code["spills"] or code["stack_bytes"]}
    assert spilling == {"planted, prefill with half the warps"}


def test_matmuls_run_on_the_matrix_unit(kernels):
    for name, code in kernels.items():
        if name.startswith(("prefill", "grouped", "few_rows")):
            assert code["wgmma"] > 0 and code["mma"] == 0, name
        elif name.startswith("decode"):  # 16 rows are too few for a warpgroup
            assert code["mma"] > 0, name
        elif not name.startswith("planted"):
            assert code["wgmma"] == code["mma"] == 0, name


def test_memory_is_read_16_bytes_at_a_time(kernels):
    narrow = {name for name, code in kernels.items() if not code["wide_loads"]}
    narrow -= {"choose_experts", "group_by_expert"}  # a few numbers a token, of any count
    assert narrow == {"planted, swiglu without alignment"}


def test_shared_memory_suffices(kernels):
    assert all(code["shared_bytes"] <= SHARED_BYTES for name, code in kernels.items())
    assert max(code["shared_bytes"] for code in kernels.values()) > SHARED_BYTES / 2, "nothing big was compiled"
