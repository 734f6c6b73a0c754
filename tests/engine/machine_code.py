"""Compile every Triton kernel for sm_90a without a GPU and print, as JSON, what the machine code is like.

Run as a script with TRITON_INTERPRET=0, in a process of its own: a kernel is either interpreted or compiled
for as long as a process lives. The shapes are those of the `llama-8b` preset and of its experts' lab layer.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

from helpers.engine.kernels import decode, few_rows, grouped, join, norm, prefill, rope, routing, swiglu

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    "bf16": "x qkv kv keys values q_norm k_norm norm out branch residual weight gate_up rows weights logits bias",
    "fp32": "cos sin part_out part_lse gates",
    "i32": "page_table lengths query_starts tiles counters ends",
    "i64": "positions slots places chosen tokens",
}
STRIDES = ("row_stride", "out_stride", "slot_stride", "head_stride", "table_stride")
ATTENTION = {"HEAD_DIM": 128, "NORM": False, "BLOCK": 64}
SIZES = ("N", "K")
EXPERTS = {"EXPERTS": 64, "EXPERTS_PADDED": 64, "N": 2048, "K": 2048}


def type_of(argument: str) -> str:
    for kind, names in POINTERS.items():
        if argument in names.split():
            return f"*{kind}"
    return "i32" if argument in (*STRIDES, *SIZES, "count", "keys_a_part") else "fp32"


def machine_code(kernel, constants: dict, aligned: bool = True, fp8: bool = False, **options) -> dict:
    """Registers, bytes of stack and shared memory, and counts of instructions that matter."""
    names = kernel.arg_names
    types = {n: "constexpr" if n in constants else type_of(n) for n in names}
    if fp8:
        types |= {"keys": "*fp8e4nv", "values": "*fp8e4nv"}
    multiples = [
        n for n in names if aligned and (types[n].startswith("*") or n in STRIDES or (types[n] == "i32" and n in SIZES))
    ]
    source = ASTSource(
        kernel,
        types,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in multiples},
    )
    compiled = compile_kernel(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        code = subprocess.run([TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True).stdout
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr).groups()
    return {
        "registers": int(registers),
        "stack_bytes": int(stack),
        "shared_bytes": compiled.metadata.shared,
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "wgmma": len(re.findall(r"\bHGMMA", code)),
        "mma": len(re.findall(r"\bHMMA", code)),
        "wide_loads": len(re.findall(r"\b(?:LDG|LDGSTS)[.\w]*\.128", code)),
    }


def every_kernel() -> dict[str, dict]:
    group, early = {"GROUP": 4, "PAGE": 64} | ATTENTION, {"EARLY": True}
    found = {}
    for parts in (1, 16):
        constants = group | {"KV_HEADS": 8, "GROUP_PADDED": 16, "PARTS": parts, "LEAST": 1}
        found[f"decode, {parts} parts"] = machine_code(
            decode._decode_attention, constants | early, num_warps=4, num_stages=3
        )
    constants = group | {"KV_HEADS": 8, "GROUP_PADDED": 16, "PARTS": 1, "LEAST": 1, "PAGE": 16, "NORM": True}
    found["decode, page 16, normed"] = machine_code(
        decode._decode_attention, constants | early, num_warps=4, num_stages=3
    )
    constants = group | {"KV_HEADS": 8, "GROUP_PADDED": 16, "PARTS": 1, "LEAST": 1}
    found["decode, fp8 pages"] = machine_code(
        decode._decode_attention, constants | early, fp8=True, num_warps=4, num_stages=3
    )
    constants = group | {"GROUP_PADDED": 4, "QUERIES": 16}
    found["prefill, fp8 pages"] = machine_code(
        prefill._prefill_attention, constants, fp8=True, num_warps=4, num_stages=2
    )
    for rows, block, warps in (prefill.SMALL_TILE, prefill.LARGE_TILE):
        constants = group | {"GROUP_PADDED": 4, "QUERIES": rows // 4, "BLOCK": block}
        found[f"prefill, {rows} rows"] = machine_code(
            prefill._prefill_attention, constants, num_warps=warps, num_stages=2
        )
    found["planted, prefill with half the warps"] = machine_code(
        prefill._prefill_attention, constants, num_warps=4, num_stages=2
    )
    found["store_kv"] = machine_code(
        rope._store_kv, {"KV_HEADS": 8, "HEAD_DIM": 128, "NORM": False, "BLOCK": 8}, num_warps=2
    )
    found["add_rms_norm"] = machine_code(
        norm._add_norm, {"HIDDEN": 4096, "ADD": True, "BLOCK": 4096} | early, num_warps=8
    )
    found["swiglu"] = machine_code(swiglu._swiglu, {"WIDTH": 14_336, "BLOCK": 1024} | early, num_warps=4)
    for rows, splits in ((16, 1), (32, 2)):
        constants = {
            "SPLITS": splits,
            "BLOCK_M": rows,
            "BLOCK_N": few_rows.BLOCK_N,
            "BLOCK_K": few_rows.BLOCK_K,
        } | early
        found[f"few_rows, {rows}"] = machine_code(
            few_rows._linear_few_rows, constants, num_warps=4, num_stages=few_rows.STAGES
        )
    found["gated_sum"] = machine_code(join._gated_sum, {"HIDDEN": 2048, "TOP_K": 8, "BLOCK": 1024}, num_warps=4)
    found["planted, swiglu without alignment"] = machine_code(
        swiglu._swiglu, {"WIDTH": 14_335, "BLOCK": 1024} | early, aligned=False, num_warps=4
    )
    router = {"EXPERTS": 64, "EXPERTS_PADDED": 64, "TOP_K": 8, "TOP_K_PADDED": 8, "SIGMOID": False, "BIAS": False}
    found["choose_experts"] = machine_code(routing._choose, router | {"NORM": True}, num_warps=1)
    found["group_by_expert"] = machine_code(routing._group, {"TOP_K": 8, "BLOCK": 2048}, num_warps=8)
    tile = dict(zip(("BLOCK_M", "BLOCK_N", "BLOCK_K"), grouped.TILE, strict=True))
    found["grouped"] = machine_code(grouped._grouped_matmul, EXPERTS | tile, num_warps=8, num_stages=3)
    return found


if __name__ == "__main__":
    print(json.dumps(every_kernel()))
